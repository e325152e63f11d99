"""An edit on the hub: its folder, or its adapter, with a model card made of its record."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from neuronwise._version import __version__
from neuronwise.edit.delta import Recorded
from neuronwise.errors import EditError

NAME = re.compile(r"[\w.-]+/[\w.-]+")


def push(
    edit: Recorded,
    repo_id: str,
    write: Callable[[Path], None],
    *,
    adapter: bool,
    private: bool,
    token: str | bool | None,
    message: str | None,
) -> str:
    """Upload what ``write`` puts into a folder, with a model card; see ``Edit.push``."""
    from huggingface_hub import HfApi

    if not NAME.fullmatch(repo_id):
        raise EditError(f"'{repo_id}' names no repository of the hub; write owner/name.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "edit"
        write(folder)
        (folder / "README.md").write_text(card(edit, repo_id, adapter=adapter), encoding="utf-8")
        api = HfApi(token=token)
        try:
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(
                folder_path=folder, repo_id=repo_id, commit_message=message or f"An edit by neuronwise {__version__}"
            )
        except Exception as error:  # whatever the library, the hub or the network raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise EditError(
                f"The edit could not be pushed to '{repo_id}': {reason}. It needs a connection to the hub and a token "
                "that may write there (hf auth login); edit.save keeps it on disk."
            ) from error
    return str(address)


def card(edit: Recorded, repo_id: str, *, adapter: bool) -> str:
    """The model card: what was asked, how it was made, how to load it."""
    from huggingface_hub import ModelCardData

    base = edit.record.get("model")
    head = ModelCardData(
        base_model=base if isinstance(base, str) and NAME.fullmatch(base) else None,
        library_name="peft" if adapter else "neuronwise",
        tags=["knowledge-editing", "neuronwise"],
    )
    lines = ["---", head.to_yaml(), "---", f"# {repo_id.split('/')[1]}", ""]
    for record in edit.record.get("parts") or [edit.record]:
        lines += [f"An edit of `{_plain(record.get('model', '?'))}` by `{_plain(record.get('method', '?'))}`.", ""]
        requests = record.get("request") or []
        for request in [requests] if isinstance(requests, Mapping) else requests:
            asked = str(request.get("prompt", "")).replace("{}", str(request.get("subject", "")))
            lines.append(f"- `{_plain(asked)}` → `{_plain(request.get('target_new', ''))}`")
    layers = sorted({delta.layer for delta in edit.deltas})
    numbers = sum(delta.numbers for delta in edit.deltas)
    lines += ["", f"{numbers} numbers changed, in the layers {', '.join(map(str, layers))}.", ""]
    code = (line.replace("REPO", repo_id).replace("BASE", str(base)) for line in (_ADAPTER if adapter else _EDIT))
    lines += ["```python", *code, "```", ""]
    lines += ["How it was made:", "", "```json"]
    lines += [json.dumps(dict(edit.record), indent=1, ensure_ascii=False), "```", ""]
    return "\n".join(lines)


def _plain(text: object) -> str:
    """Text between back-ticks: without any of its own."""
    return str(text).replace("`", "'").replace("\n", " ")


_EDIT = (
    "import neuronwise as nw",
    "from huggingface_hub import snapshot_download",
    "",
    'model = nw.load("BASE")',
    'edit = nw.load_edit(snapshot_download("REPO"))',
    "edit.apply(model)  # edit.revert(model) gives back every bit",
)
_ADAPTER = (
    "from peft import PeftModel",
    "from transformers import AutoModelForCausalLM",
    "",
    'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("BASE"), "REPO")',
)
