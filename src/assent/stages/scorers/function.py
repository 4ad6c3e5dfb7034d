"""A user's own function as a scorer."""

from pydantic import field_validator

from assent.config import Frozen, resolve
from assent.errors import ConfigError
from assent.models.folders import CausalModel
from assent.pipeline.run import StageContext
from assent.protocols import Scorer
from assent.rewards.function import FunctionScorer


class FunctionRef(Frozen):
    """A function of one's own, `package.module:name`: takes a `Rollout`, returns a number or None for "no score"."""

    function: str
    weight: float = 1.0

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
        return FunctionScorer(self.label, resolve(self.function))
