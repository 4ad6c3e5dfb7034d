"""The base of every spec, and what marks its fields."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of every spec: cannot be changed after it is made, and knows its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


@dataclass(frozen=True, slots=True)
class External:
    """Marks a text field that names a file, a folder or a hub data set: `path: Annotated[str, External()]`.

    A path must exist before a run begins, and its contents are part of the artefact's id.
    """
