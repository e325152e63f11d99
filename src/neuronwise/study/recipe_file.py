"""Recipes of studies as YAML files: read and checked, with all problems reported at once."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel

from neuronwise.errors import StudyError, told
from neuronwise.files import read_bytes
from neuronwise.registry.arguments import checked
from neuronwise.study.kinds import KINDS, SHIPPED, shipped
from neuronwise.study.recipe_fields import PhotoRecipe, Recipe
from neuronwise.study.store import Row

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from yaml import MappingNode, SafeLoader


def read_recipe(source: str | os.PathLike[str]) -> Recipe:
    """A recipe from a YAML file, or a shipped one by its name; raises ``StudyError`` naming every problem by key."""
    name = os.fspath(source)
    path = SHIPPED / f"{name}.yaml" if name in shipped() else Path(name)
    try:
        text = read_bytes(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"The recipe '{name}' cannot be read ({getattr(error, 'strerror', None) or 'it is not text'}); name a YAML "
            f"file, or a shipped one: {', '.join(shipped())}."
        ) from error
    return parse_recipe(text, name)


def parse_recipe(text: str, name: str = "") -> Recipe:
    """A recipe from the text of a YAML file, with its ``name`` for errors; raises as ``read_recipe`` does."""
    try:
        import yaml
    except ImportError as error:
        raise StudyError("Recipes need PyYAML and pydantic: pip install 'neuronwise[study]'.") from error
    with told(StudyError, f"{_the_recipe(name)} cannot be read"):  # nested too deeply, a date that there is not
        try:
            content = yaml.load(text, Loader=_loader())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = "" if mark is None else f" in line {mark.line + 1}"
            problem = getattr(error, "problem", None) or "it cannot be read"
            raise StudyError(f"{_the_recipe(name)} is not YAML{where}: {problem}.") from error
    if not isinstance(content, dict):
        raise StudyError(f"{_the_recipe(name)} holds no keys; it begins with kind:, see docs/studies.md.")
    return make_recipe(content, name)


@checked
def make_recipe(content: Row, name: str = "") -> Recipe:
    """A recipe from plain values; raises as ``read_recipe`` does."""
    from pydantic import ValidationError

    kind = content.get("kind")
    problems: list[str] = []
    known = isinstance(kind, str) and kind in KINDS
    chosen: type[Recipe] = KINDS[str(kind)].recipe if known else PhotoRecipe
    try:
        found = chosen.model_validate(content)
    except ValidationError as error:
        problems += _sentences(error.errors(), chosen)
        found = None
    if not known:
        problems = [problem for problem in problems if "there is no such key" not in problem and problem[:5] != "kind:"]
        said = "it is missing" if kind is None else f"there is no kind {kind!r}"
        problems.insert(0, f"kind: {said}; the kinds are {', '.join(KINDS)}")
    if found is None or problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise StudyError(f"{_the_recipe(name)} has {count}: {'; '.join(problems)}.")
    return found


def _the_recipe(name: str) -> str:
    return f"The recipe '{name}'" if name else "The recipe"


def changed(recipe: Recipe, keys: Row) -> Recipe:
    """The recipe with other values for some keys, None (YAML's null) among them; raises as ``read_recipe`` does."""
    return make_recipe({**recipe.model_dump(), **keys}) if keys else recipe


def _sentences(rows: Sequence[ErrorDetails], recipe: type[Recipe]) -> list[str]:
    """One sentence for each key; what each of several forms of a value (number, word) would need is joined by "or"."""
    by_key: dict[str, list[str]] = {}
    for row in rows:
        key = ".".join(str(part) for part in row["loc"] if not _branch(part))
        said = by_key.setdefault(key, [])
        if (message := _message(row, recipe)) not in said:
            said.append(message)
    return [f"{key}: {' or '.join(messages)}" for key, messages in by_key.items()]


def _message(row: ErrorDetails, recipe: type[Recipe]) -> str:
    kind, message = row["type"], row["msg"]
    if kind == "extra_forbidden":
        return f"there is no such key (the keys are {', '.join(_keys_beside(row['loc'], recipe))})"
    if kind == "missing":
        return "it is missing"
    if kind == "value_error":
        text = str(row.get("ctx", {}).get("error", message)).rstrip(".")
        return text[:1].lower() + text[1:] if text[1:2].islower() else text  # "There is no …", but not "K is …"
    return f"{message[0].lower()}{message[1:]} (it is {_short(row['input'])})"


def _keys_beside(place: Sequence[int | str], recipe: type[BaseModel]) -> list[str]:
    """The keys that the part of a recipe at a place has, where none is of the place's last name."""
    models: list[type[BaseModel]] = [recipe]
    for part in place[:-1]:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields:
            models = [model for field in fields for model in _models(field.annotation)]
    return list(dict.fromkeys(key for model in models for key in model.model_fields))


def _models(hint: object) -> list[type[BaseModel]]:
    """The models within an annotation: of ``list[Method] | None`` the one."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [model for part in get_args(hint) for model in _models(part)]


def _branch(part: object) -> bool:
    """Whether a part of a key's path names a branch of a union, not a key or an index."""
    return isinstance(part, str) and (part.startswith(("literal[", "list[", "constrained-")) or part in _BRANCHES)


_BRANCHES = ("int", "str", "float")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _loader() -> type[SafeLoader]:
    """YAML's safe loader, which refuses a key that is given twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: SafeLoader, node: MappingNode) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(str(key.value))
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return Loader
