"""A record's fields, which remember what was asked for: what nobody read can be named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

# Fields that number or label a record, or repeat what others of its fields say: nothing is lost without them.
LABELS = frozenset(
    (
        "case_id", "known_id", "id", "pararel_idx", "relation", "relation_id", "recalled relation", "cond", "pred",
        "subject_id", "target_id", "target_ids", "example_type", "query_type", "phrase", "second_relation",
        "second_hop_target_ids", "orig", "source", "tag", "prompt_full", "fact_new", "knowledge_type",
    )
)  # fmt: skip


class Tracked(Mapping[str, object]):
    """The fields of an object of JSON; objects and lists in them are tracked too."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = {name: tracked(value) for name, value in fields.items()}
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> object:
        value = self._fields[name]
        self._read.add(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return repr(self._fields)

    def unread(self) -> Iterator[str]:
        """The fields that hold something and were not read, as "loc" or "portability.Reasoning.note"."""
        for name, value in self._fields.items():
            if value in (None, "", []) or str(name).lower() in LABELS:
                continue
            if name not in self._read:
                yield str(name)
                continue
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, Tracked):
                    yield from (f"{name}.{one}" for one in inner.unread())


def tracked(value: object) -> object:
    """A value of JSON with its objects as ``Tracked``."""
    if isinstance(value, Mapping):
        return Tracked(value)
    return [tracked(one) for one in value] if isinstance(value, list | tuple) else value
