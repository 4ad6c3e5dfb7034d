"""Members of an ensemble as one judge, which is careful where they disagree."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from assent.types import Mean, Rollout


@dataclass(frozen=True)
class Ensemble:
    """A rule for `CombinedScorer` (Coste et al., arXiv 2310.02743): mean, worst case or uncertainty-weighted.

    The members must be on a common scale, or the widest decides a minimum alone.

    Args:
        name: of the ensemble, under which the members' disagreement is logged.
        combine: `[M, B]` to `[B]`, one of `functional.combine`.
    """

    name: str
    combine: Callable[[Tensor], Tensor]

    def __call__(self, scores_MB: Tensor, rollouts: Sequence[Rollout]) -> tuple[Tensor, Mapping[str, Mean]]:
        spread = Mean.of(scores_MB.var(0, correction=1)) if len(scores_MB) > 1 else Mean(0.0, 1.0)
        return self.combine(scores_MB), {f"disagreement/{self.name}": spread}
