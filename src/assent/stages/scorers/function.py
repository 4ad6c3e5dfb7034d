"""A user's own function as a scorer, in processes of its own unless it is trusted."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from assent.config import Frozen, resolve
from assent.errors import ConfigError
from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards.asked import AskedScorer
from assent.rewards.function import FunctionScorer
from assent.rewards.memory import NoMemory, RecentMemory, digest
from assent.rewards.workers import Workers
from assent.stages.scorers.base import Weighted


class WorkerSettings(Frozen):
    """The processes that a function runs in.

    Args:
        count: how many.
        seconds: longest that one call may take; the process is then killed.
        retries: further calls after one that raised, hung or killed its process.
        remember: do not ask again about a response that had a score; not for a function that reads a rollout's
            version or log-probabilities, or rolls dice.
    """

    count: int = Field(2, gt=0)
    seconds: float = Field(10.0, gt=0)
    retries: int = Field(1, ge=0)
    remember: bool = True


class FunctionRef(Weighted):
    """A function of one's own, `package.module:name`: takes a `Rollout`, returns a number or None for "no score".

    Args:
        run_in: worker processes, which a call that hangs or crashes cannot leave; or `this_process`, for a fast
            function that is trusted: what it raises ends the run.
    """

    function: str
    run_in: WorkerSettings | Literal["this_process"] = WorkerSettings()

    @field_validator("function")
    @classmethod
    def _is_there(cls, name: str) -> str:
        """Looked up when the recipe is read: not after the stages before it have run."""
        try:
            found = resolve(name)
        except ConfigError as error:
            raise ValueError(f"{error.what}: {error.got}; {error.fix}") from error
        if not callable(found):
            raise ValueError(f"{name!r} is no function but {type(found).__name__}; name a function of a rollout")
        return name

    @property
    def label(self) -> str:
        return self.function.rpartition(":")[2]

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        function = resolve(self.function)
        if self.run_in == "this_process":
            return FunctionScorer(self.label, function)
        return isolated(self.label, function, self.run_in, context, source=source_of(self.function, function))


def isolated(
    label: str, function: Callable, settings: WorkerSettings, context: StageContext, *, source: str
) -> AskedScorer:
    """A function in worker processes, as a scorer."""
    workers = Workers(function, count=settings.count, seconds=settings.seconds, retries=settings.retries)
    memory = RecentMemory() if settings.remember else NoMemory()
    return AskedScorer(label, workers, source=source, memory=memory, say=context.say)


def source_of(name: str, function: Callable) -> str:
    """Digest of a function's name and of the module that it stands in, whose other functions it may call."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # an instance with __call__, or built in
        file = inspect.getsourcefile(type(function)) if type(function).__module__ != "builtins" else None
    return digest(name, Path(file).read_text(encoding="utf-8") if file else "")
