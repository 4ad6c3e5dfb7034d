"""A branch of a tree as a model, or every problem that it has."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from assent.config.problems import Location, Problem, suggestion
from assent.config.tree import Tree

T = TypeVar("T")


def validate(model: type[T], data: Any, tree: Tree, where: Location = ()) -> tuple[T | None, list[Problem]]:
    """Read `data`, found at `where` in `tree`, as `model`: the value and no problem, or None and every problem."""
    try:
        return TypeAdapter(model).validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        found = [
            _Found(e["loc"], e["loc"], e["type"], e["msg"], e["input"], str(e.get("ctx", {}).get("expected", "")))
            for e in error.errors(include_url=False)
        ]
        problems = [_problem(f, model, tree, where) for f in _pick_arms(found, data)]
        misspelt = {(*p.where[:-1], p.fix) for p in problems}
        return None, [p for p in problems if (*p.where[:-1], f"did you mean {p.where[-1]!r}?") not in misspelt]


@dataclass(frozen=True)
class _Found:
    """An error of pydantic: `full` is its location with the names of union arms in it, `loc` without; `expected` are
    the values that a name may have."""

    full: Location
    loc: Location
    kind: str
    message: str
    value: Any
    expected: str = ""


_UNKNOWN = frozenset({"extra_forbidden", "unexpected_keyword_argument"})


def _problem(found: _Found, model: Any, tree: Tree, where: Location) -> Problem:
    at = (*where, *found.loc)
    line = tree.line(at)
    if found.kind in _UNKNOWN:
        return Problem(at, "unknown key", suggestion(str(found.loc[-1]), _keys(model, found.full[:-1])), line)
    if found.kind in ("missing", "missing_argument"):
        return Problem(at, "this key is missing", "add it", line)
    if found.kind == "value_error":
        return Problem(at, found.message.removeprefix("Value error, "), "change the value as it says", line)
    got = repr(found.value)
    return Problem(at, f"{found.message}, got {got[:80]}", "give a value of that kind", line)


def _arm(loc: Location, kind: str, data: Any) -> int | None:
    """Index of the first part of `loc` that names a union's arm rather than a key of the data."""
    for i, part in enumerate(loc):
        if isinstance(data, dict) and part in data:
            data = data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif kind.startswith("missing") and i == len(loc) - 1:
            return None
        else:
            return i
    return None


def _pick_arms(found: Sequence[_Found], data: Any) -> list[_Found]:
    """Of a union, keep the errors of the arm that was probably meant: the one that the data fits best."""
    kept: list[_Found] = []
    unions: dict[Location, dict[str | int, list[_Found]]] = {}
    for f in found:
        i = _arm(f.loc, f.kind, data)
        if i is None:
            kept.append(f)
        else:
            without = dataclasses.replace(f, loc=f.loc[:i] + f.loc[i + 1 :])
            unions.setdefault(f.loc[:i], {}).setdefault(f.loc[i], []).append(without)
    for at, arms in unions.items():
        entered = {name: errors for name, errors in arms.items() if any(len(e.loc) > len(at) for e in errors)}
        untagged = [e for errors in arms.values() for e in errors if e.kind == "union_tag_invalid"]
        if untagged:  # the key that tells the arms apart is there, with a value that none of them has
            kept.append(untagged[0])
        elif len(entered) > 1 and (named := _names_unknown(entered, len(at) + 1)):
            kept.append(named)
        elif entered:
            kept += _pick_arms(min(entered.values(), key=len), data)
        elif len(arms) == 1:  # the arm that the data names refuses it as a whole, and says why
            kept += next(iter(arms.values()))
        else:
            every = [e for errors in arms.values() for e in errors]
            message = " or ".join(dict.fromkeys(e.message for e in every))
            kept.append(dataclasses.replace(every[0], message=message, kind="union"))
    return kept


def _names_unknown(arms: Mapping[str | int, Sequence[_Found]], depth: int) -> _Found | None:
    """One error for a field of the arms, `depth` deep, that tells them apart and has a value that none of them has."""
    literal = [[e for e in errors if e.kind == "literal_error" and len(e.loc) == depth] for errors in arms.values()]
    places = {errors[0].loc for errors in literal if errors}
    if len(places) != 1 or not all(literal):
        return None
    expected = ", ".join(errors[0].expected for errors in literal)
    return dataclasses.replace(literal[0][0], message=f"it should be one of {expected}", kind="union")


def _keys(model: Any, loc: Location) -> list[str]:
    """The keys that the type of the value at `loc` knows."""
    here = list(_concrete(model))
    for part in loc:
        deeper = [t for kind in here for t in _step(kind, part)]
        here = deeper or [kind for kind in here if _is_arm(kind, part)] or here
    return sorted({name for kind in here for name in fields_of(kind)})


def _is_arm(kind: Any, name: str | int) -> bool:
    """Whether a union's arm goes by this name: its type's, or a value of the field that tells the arms apart."""
    return getattr(kind, "__name__", None) == name or any(name in typing.get_args(t) for t in fields_of(kind).values())


def _concrete(kind: Any) -> Iterator[Any]:
    """The types a value may have: annotations, aliases and unions opened."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        yield from _concrete(typing.get_args(kind)[0])
    elif origin in (typing.Union, types.UnionType):
        for arm in typing.get_args(kind):
            yield from _concrete(arm)
    else:
        yield kind


def fields_of(kind: Any) -> dict[str, Any]:
    """The fields of a model or dataclass with their types, `Annotated` kept; nothing for other types."""
    if not isinstance(kind, type) or not (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
        return {}
    hints = typing.get_type_hints(kind, include_extras=True)
    if issubclass(kind, BaseModel):
        return {name: hints[name] for name in kind.model_fields}
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}


def _step(kind: Any, part: str | int) -> list[Any]:
    """The types one key or index deeper."""
    fields = fields_of(kind)
    if part in fields:
        return list(_concrete(fields[str(part)]))
    arguments = [a for a in typing.get_args(kind) if a is not Ellipsis]
    if isinstance(part, int):
        return [t for a in arguments for t in _concrete(a)]
    return list(_concrete(arguments[1])) if len(arguments) == 2 and typing.get_origin(kind) is not tuple else []
