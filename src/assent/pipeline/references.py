"""References: the fields of a spec that name another stage, a path or a hub name."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from assent.config import External, Location, Problem, fields_of


@dataclass(frozen=True, slots=True)
class Reference:
    """Marks a text field that may name an earlier stage: `model: Annotated[str, Reference()]`.

    Also inside lists, mappings, optional fields and nested models. A value equal to an earlier stage's name is a
    dependency; any other is external: a path, a hub name, or a word that the stage itself understands.
    """


def references(spec: BaseModel) -> list[tuple[Location, str]]:
    """Where `spec` refers to a stage or something external, and to what, in the order of its fields."""
    return _named(spec, Reference)


def externals(spec: BaseModel) -> list[str]:
    """What `spec` names by fields that are always external."""
    return [value for _, value in _named(spec, External)]


def _named(spec: BaseModel, marker: type) -> list[tuple[Location, str]]:
    found = _marked(spec, type(spec))
    return [(where, value) for where, value, m in found if isinstance(m, marker) and isinstance(value, str) and value]


def split_references(
    found: Sequence[tuple[Location, str]], earlier: Sequence[str], all_stages: Sequence[str], where: Location
) -> tuple[tuple[str, ...], tuple[str, ...], list[Problem]]:
    """Sort references into dependencies and externals.

    Returns:
        names of earlier stages, external names, and a problem for each name of a stage that is not earlier and for each
        near-miss of a stage's name that is not an existing path.
    """
    parents: dict[str, None] = {}
    externals: dict[str, None] = {}
    problems: list[Problem] = []
    for at, value in found:
        if value in earlier:
            parents[value] = None
        elif value in all_stages:
            what = f"it refers to the stage {value!r}, which does not come before this one"
            problems.append(Problem((*where, *at), what, f"move {value!r} up, or name one of {list(earlier)}"))
        elif near := _near_miss(value, all_stages):
            what = f"there is no stage {value!r} and no such path"
            fix = f"did you mean {near!r}? A hub name is written with its owner, as in openai-community/gpt2"
            problems.append(Problem((*where, *at), what, fix))
        else:
            externals[value] = None
    return tuple(parents), tuple(externals), problems


def looks_like_path(name: str) -> bool:
    """Whether `name` can only be a path: `./x`, `../x`, `/x`, `~/x`, or something with a data file's ending."""
    endings = {".json", ".jsonl", ".parquet", ".txt", ".yaml", ".gz", ".csv"}
    return name.startswith((".", "/", "~")) or Path(name).suffix.lower() in endings


def _near_miss(value: str, stages: Sequence[str]) -> str | None:
    """The stage name that `value` is probably a slip of; 0.8 lets one wrong letter in four through, `gpt2` not.

    A stage of a round without its round is one too, `ppo` for `round_2.ppo`, and so is one with a round that is not.
    """
    if "/" in value or Path(value).exists():
        return None
    of_a_round = value.rpartition(".")[2]
    for stage in reversed(stages):
        if stage.partition(".")[2] == of_a_round:
            return stage
    found = difflib.get_close_matches(value, stages, n=1, cutoff=0.8)
    return found[0] if found else None


def _marked(value: Any, annotation: Any, where: Location = ()) -> Iterator[tuple[Location, Any, Any]]:
    """Every (location, value, marker) of a valid value whose type is `Annotated[..., marker]`, at any depth."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from ((where, value, marker) for marker in arguments[1:])
        yield from _marked(value, arguments[0], where)
    elif origin in (typing.Union, types.UnionType):
        for arm in arguments:
            if _could_be(value, arm):
                yield from _marked(value, arm, where)
    else:
        for part, item, kind in _children(value, arguments):
            yield from _marked(item, kind, (*where, part))


def _children(value: Any, arguments: tuple[Any, ...]) -> list[tuple[str | int, Any, Any]]:
    """The key or index, the value and the type of everything directly inside; `arguments` as in `list[arguments]`."""
    if isinstance(value, dict):
        return [(key, item, arguments[-1] if arguments else Any) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [
            (i, item, kind)
            for i, (item, kind) in enumerate(zip(value, _item_types(arguments, len(value)), strict=True))
        ]
    if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        return [(name, getattr(value, name), kind) for name, kind in fields_of(type(value)).items()]
    return []


def _item_types(arguments: tuple[Any, ...], length: int) -> Sequence[Any]:
    """The type of each item of a list or tuple of that length."""
    if not arguments:
        return [Any] * length
    if len(arguments) == length and Ellipsis not in arguments:
        return arguments
    return [arguments[0]] * length


def _could_be(value: Any, arm: Any) -> bool:
    """Whether `value` may have come through this arm of a union: by its outermost type."""
    if typing.get_origin(arm) is typing.Annotated:
        arm = typing.get_args(arm)[0]
    origin = typing.get_origin(arm) or arm
    # `A | B` is a `types.UnionType`, itself a type, of which no value is an instance.
    return isinstance(value, origin) if isinstance(origin, type) and origin is not types.UnionType else True
