"""An edit with the record of how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from neuronwise.answers.request import taught
from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit
from neuronwise.edit.ledger import Ledger, column_norms
from neuronwise.edit.side_memory import SideMemory
from neuronwise.edit.verdict import Aim, judged
from neuronwise.files import shareable, versions
from neuronwise.model.model import Model
from neuronwise.model.prompt import Preface

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def edited(
    method: str,
    model: Model,
    settings: DataclassInstance,
    request: Sequence[Fact] | Mapping[str, object],
    deltas: Sequence[Delta],
    aims: Iterable[Aim] | None = None,
    prefaces: Sequence[Preface] = (),
    memories: Sequence[SideMemory] = (),
    /,
    **outcome: object,
) -> Edit:
    """The edit by ``method`` that made ``deltas``, puts ``prefaces`` before every prompt or keeps ``memories``.

    Its record: method, settings, request (facts, or what else was asked), model, versions, and the ``outcome``, which
    is whatever the method reports, as plain JSON values; ``taught`` are the facts' targets as they follow their
    prompts, ``made_with`` the edits that the model carried; ``verdict`` is that on
    ``aims``, by default those of the facts: see ``judged``.
    """
    asked = request if isinstance(request, Mapping) else [asdict(fact) for fact in request]
    made_with = [str(edit.record.get("method", "?")) for edit in Ledger.of(model).edits]
    record = {
        "method": method,
        "settings": asdict(settings),
        "request": asked[0] if isinstance(asked, list) and len(asked) == 1 else asked,
        "model": model.name,
        "revision": getattr(model.config, "_commit_hash", None),
        "seed": getattr(settings, "seed", None),  # None: nothing is random
        **({} if isinstance(request, Mapping) else {"taught": [taught(model, fact) for fact in request]}),
        **({"made_with": made_with} if made_with else {}),
        **outcome,
        "versions": versions(),
    }
    norms = column_norms(model, deltas, memories)
    edit = Edit(tuple(deltas), shareable(record), norms, tuple(prefaces), tuple(memories))
    if aims is None:
        aims = () if isinstance(request, Mapping) else (Aim.of(model, fact) for fact in request)
    return judged(model, edit, aims)
