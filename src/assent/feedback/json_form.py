"""Values of several kinds as one line of JSON each, and back; every fault of what cannot be read is named."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from assent.errors import DataError

T = TypeVar("T")


class JsonForm(Generic[T]):
    """The JSON of a union of frozen values that `kind` tells apart.

    Args:
        union: the values.
        what: they are, in an error.
    """

    def __init__(self, union: Any, what: str) -> None:
        self._what = what
        self._adapter: TypeAdapter[T] = TypeAdapter(Annotated[union, Field(discriminator="kind")])

    def write(self, value: T) -> str:
        return self._adapter.dump_json(value).decode()

    def read(self, value: str | bytes | Mapping[str, Any]) -> T:
        """From JSON text, or from plain values.

        Raises:
            DataError: it is none of these; every fault is named.
        """
        try:
            as_text = isinstance(value, (str, bytes))
            return self._adapter.validate_json(value) if as_text else self._adapter.validate_python(value)  # type: ignore[arg-type]
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {_plain(e['msg'])}" for e in error.errors()]
            raise DataError(
                f"this is not {self._what}",
                got="; ".join(faults),
                why="what is stored must be what was clicked, whole",
                fix="mend what is named",
            ) from error


def _plain(message: str) -> str:
    return re.sub(r"^Value error, ", "", message)
