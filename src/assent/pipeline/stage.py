"""What a stage is: a row of the table of what a recipe can do, its settings, and what it is given when it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assent.config import Frozen
from assent.pipeline.artefact import Artefact

if TYPE_CHECKING:
    from assent.protocols import StageTracker

Number = int | float


class StageSpec(Frozen):
    """Base of every stage's spec.

    Args:
        seed: what the stage's randomness starts from; derived from the recipe's seed and the stage's name when None.
    """

    seed: int | None = None


@dataclass(frozen=True)
class StageContext:
    """What a running stage is given.

    Args:
        name: the stage's name in the recipe.
        seed: what its randomness starts from.
        inputs: the artefact of each earlier stage it refers to, verified.
        out: the folder it fills; it holds what an interrupted attempt left there.
        state: a folder for what it resumes from; survives a kill, goes away on success.
        tracker: takes metrics and progress.
        say: shows a line or block of text.
        cache: a folder that the stages of all recipes run here share, for what is dear to compute and named by what it
            was computed from; deleting it costs time and nothing else.
        device: where models run, as the recipe says it.
        precision: of their matrix products, as the recipe says it.
        environment: takes what the stage found of the machine; kept in the manifest, no part of the id.
    """

    name: str
    seed: int
    inputs: Mapping[str, Artefact]
    out: Path
    state: Path
    tracker: "StageTracker"
    say: Callable[[str], None]
    cache: Path
    device: str = "cpu"
    precision: str = "float32"
    environment: dict[str, str] = field(default_factory=dict)

    def folder(self, reference: str) -> Path:
        """The artefact's folder for a stage's name; the path itself, or the hub name, for anything else."""
        return self.inputs[reference].folder if reference in self.inputs else Path(reference).expanduser()


@dataclass(frozen=True)
class Stage:
    """One row of the table of what a recipe can do.

    Args:
        kind: its name after `do:`.
        spec: the type of its settings.
        run: does it; writes into `context.out` and returns the closing figures.
        derive: numbers that follow from the settings alone, for `assent explain`: prompts, sequences, tokens, updates.
    """

    kind: str
    spec: type[StageSpec]
    run: Callable[[Any, StageContext], Mapping[str, float]]
    derive: Callable[[Any], Mapping[str, Number]]
