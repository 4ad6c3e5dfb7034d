"""Frozen dataclasses to JSON values and back, losing nothing."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


def to_json(value: Any) -> dict[str, Any]:
    """A dataclass tree as JSON values.

    Raises:
        ValueError: a number is nan or infinite, which JSON cannot say; undefined is None here.
    """
    plain: dict[str, Any] = json.loads(json.dumps(asdict(value), allow_nan=False))
    return plain


def from_json(kind: type[T], data: Mapping[str, Any]) -> T:
    """The dataclass tree that `to_json` came from.

    Raises:
        pydantic.ValidationError: a field is missing or of another type.
    """
    return TypeAdapter(kind).validate_python(data)
