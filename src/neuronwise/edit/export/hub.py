"""An edit on the hub: its folder, or its adapter, with a model card made of its record."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from neuronwise._version import __version__
from neuronwise.edit.delta import Delta, Recorded
from neuronwise.edit.export.peft import published_name
from neuronwise.edit.side_memory import SideMemory
from neuronwise.errors import EditError, one_line
from neuronwise.files import shareable
from neuronwise.model.model import Model
from neuronwise.model.source import auto_class
from neuronwise.model.sources import SOURCES

NAME = re.compile(r"[\w.-]+/[\w.-]+")


def push(
    edit: Recorded,
    repo_id: str,
    write: Callable[[Path], None],
    *,
    adapter_for: Model | None,
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
        (folder / "README.md").write_text(card(edit, repo_id, adapter_for), encoding="utf-8", errors="replace")
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


def card(edit: Recorded, repo_id: str, adapter_for: Model | None = None) -> str:
    """The model card: what was asked, how it was made, how to load it, as an adapter of a model or as an edit."""
    from huggingface_hub import ModelCardData

    record = shareable(dict(edit.record))
    parts = [one for one in record.get("parts") or [record] if isinstance(one, Mapping)]
    base = published_name(adapter_for) if adapter_for is not None else next((one.get("model") for one in parts), None)
    head = ModelCardData(
        base_model=base if isinstance(base, str) and NAME.fullmatch(base) else None,
        library_name="neuronwise" if adapter_for is None else "peft",
        tags=["knowledge-editing", "neuronwise"],
    )
    lines = ["---", head.to_yaml(), "---", f"# {repo_id.split('/')[1]}", ""]
    for one in parts:
        lines += [f"An edit of `{_plain(one.get('model', '?'))}` by `{_plain(one.get('method', '?'))}`.", ""]
        requests = one.get("request") or []
        lines += [f"- {_asked(request)}" for request in ([requests] if isinstance(requests, Mapping) else requests)]
    if edit.deltas:
        lines += ["", f"{edit.parameters_changed} numbers changed, in the layers {_layers(edit.deltas)}.", ""]
    if edit.memories:
        lines += ["", f"Memories beside W_down of the layers {_layers(edit.memories)}; no weight changes by them.", ""]
    lines += ["```python", *_code(repo_id, base, adapter_for), "```", ""]
    made = json.dumps(record, indent=1, ensure_ascii=False).replace("`", "\\u0060")  # which would end the block
    lines += ["How it was made:", "", "```json", made, "```", ""]
    return "\n".join(lines)


def _layers(parts: Sequence[Delta | SideMemory]) -> str:
    return ", ".join(map(str, sorted({part.layer for part in parts})))


def _asked(request: Mapping[str, object]) -> str:
    """What an edit was asked for, in words: of a fact, of a swap, of a suppression."""
    if "target_new" in request:
        asked = str(request.get("prompt", "")).replace("{}", str(request.get("subject", "")))
        return f"`{_plain(asked)}` → `{_plain(request['target_new'])}`"
    if "source" in request:
        return f"Captions say `{_plain(request.get('target', '?'))}` where they said `{_plain(request['source'])}`."
    return f"Captions no longer say `{_plain(request.get('word', '?'))}`."


def _code(repo_id: str, base: object, adapter_for: Model | None) -> list[str]:
    """How to load it; for a base that is not on the hub, how that is made."""
    named = json.dumps(base if isinstance(base, str) else "BASE").replace("`", "\\u0060")
    if adapter_for is None:
        return [line.replace("REPO", json.dumps(repo_id)).replace("BASE", named) for line in _EDIT]
    auto = auto_class(adapter_for.config).__name__
    lines = ["from peft import PeftModel", f"from transformers import {auto}", ""]
    if base in SOURCES:
        lines += ["from neuronwise.architectures.builtin import builtin_folder", "", f"base = builtin_folder({named})"]
    else:
        lines += [f"base = {named}" + ("" if NAME.fullmatch(str(base)) else "  # where you have it")]
    return [*lines, f"model = PeftModel.from_pretrained({auto}.from_pretrained(base), {json.dumps(repo_id)})"]


def _plain(text: object) -> str:
    """Text between back-ticks: in one line, without any of its own."""
    return one_line(str(text).replace("`", "'"))


_EDIT = (
    "import neuronwise as nw",
    "from huggingface_hub import snapshot_download",
    "",
    "model = nw.load(BASE)",
    "edit = nw.load_edit(snapshot_download(REPO))",
    "edit.apply(model)  # edit.revert(model) gives back every bit",
)
