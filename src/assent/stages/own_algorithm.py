"""An algorithm of one's own in a recipe: `{path: package.module:Name, ...its settings}`.

The class is looked up when the recipe is read, and asked for what its stage will ask of it. The file that it stands in
is part of what the stage is made from: its digest goes into the resolved recipe as `source`, so that a stage is done
again when the file has changed, and a resolved recipe is refused with another file than its own.
"""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import SerializerFunctionWrapHandler, ValidatorFunctionWrapHandler, WrapSerializer, WrapValidator

from assent.config import Tree, fields_of, plain, resolve, suggestion, validate
from assent.errors import ConfigError

PATH, SOURCE = "path", "source"


def or_own(needed: Mapping[str, str]) -> tuple[WrapValidator, WrapSerializer]:
    """Annotations by which a union of algorithms also takes one by its path: `Annotated[A | B, ..., *or_own(...)]`.

    Args:
        needed: attributes that the stage reads and methods that it calls, each with what it is, for the error.
    """

    def read(value: Any, known: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, dict) and PATH in value:
            return _made(value, needed)
        return value if _is_own(value) else known(value)

    def write(value: Any, known: SerializerFunctionWrapHandler) -> Any:
        if not _is_own(value):
            return known(value)
        kind: Any = type(value)
        return {PATH: f"{kind.__module__}:{kind.__qualname__}", SOURCE: _digest(kind), **plain(value)}

    return WrapValidator(read), WrapSerializer(write)


def _made(value: Mapping[str, Any], needed: Mapping[str, str]) -> Any:
    """Raises ValueError: there is no such class, it lacks something, or a setting is wrong."""
    path = value[PATH]
    kind = _class_at(path, needed)
    if value.get(SOURCE, _digest(kind)) != _digest(kind):
        raise ValueError(
            f"the file of {path!r} has changed since this recipe was resolved; delete `{SOURCE}` to go on as it is now"
        )
    settings = {key: item for key, item in value.items() if key not in (PATH, SOURCE)}
    known = fields_of(kind)
    for key in settings:
        if key not in known:
            raise ValueError(f"{path!r} has no setting {key!r}; {suggestion(key, known)}")
    made, problems = validate(kind, settings, Tree(path, settings))
    if problems:
        raise ValueError("; ".join(map(str, problems)))
    return made


def _class_at(path: Any, needed: Mapping[str, str]) -> type:
    try:
        kind = resolve(str(path))
    except ConfigError as error:
        raise ValueError(f"{error.what}: {error.got}; {error.fix}") from error
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind) or not _frozen(kind):
        raise ValueError(f"{path!r} is no frozen dataclass; write @dataclass(frozen=True) above a class of that name")
    missing = [f"{name} ({what})" for name, what in needed.items() if not _has(kind, name)]
    if missing:
        raise ValueError(f"{path!r} cannot be trained with here: it lacks {', '.join(missing)}; add it to the class")
    return kind


def _frozen(kind: Callable[..., Any]) -> bool:
    return bool(getattr(kind, "__dataclass_params__").frozen)  # noqa: B009 (mypy does not know it)


def _has(kind: type, name: str) -> bool:
    return hasattr(kind, name) or name in fields_of(kind)


def _is_own(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not type(value).__module__.startswith("assent.")


@cache
def _digest(kind: Any) -> str:
    """Of the file that holds the class, as it was when first asked; empty where it has none, as in an interactive
    session."""
    try:
        return hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()[:16]
    except (OSError, TypeError):
        return ""
