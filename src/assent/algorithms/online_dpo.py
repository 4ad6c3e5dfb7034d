"""Online DPO: pairs of the policy's own responses, ordered by the scorers as they are sampled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from assent.algorithms._pairs import log_ratios, pair_loss, sums_of
from assent.functional import reward
from assent.protocols import Forward
from assent.types import Loss, Mean, PairExperience, Scored, in_twos
from assent.types.settings import at_least


@dataclass(frozen=True, slots=True)
class OnlineDPO:
    """Online DPO (Guo et al., arXiv 2402.04792): the best and the worst of a prompt's samples are a pair of DPO.

    h(y) = log pi(y | x) - log pi_ref(y | x);  L = mean over pairs of -log sigmoid(beta (h(best) - h(worst)))

    beta is the recipe's KL coefficient: 0.1 in DPO and TRL. The paper samples two. A prompt whose best and worst have
    one score gives no pair and is counted in `group/no_signal`. The order alone teaches, so the policy goes on to move
    as long as scores differ and there is no optimum to stop at: watch the KL.

    With `soft_labels` a pair is preferred with probability t = sigmoid(score(best) - score(worst)),
    L = -t log sigmoid(..) - (1 - t) log sigmoid(-..), ties stay in with t = 1/2, and ref * exp(score / beta) / Z is the
    optimum with two samples of a prompt; the best and the worst of many never show what lies between. Scores must then
    be logits, as those of a reward model are, and `shaping` changes what they mean.

    Args:
        epochs: passes over the pairs of each batch; 1 in the paper.
        minibatches: optimiser steps per pass.
        soft_labels: the margin of the scores counts, not their order alone.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    uses_critic: ClassVar[bool] = False
    uses_greedy: ClassVar[bool] = False
    smallest_group: ClassVar[int] = 2

    name: Literal["online_dpo"] = "online_dpo"
    epochs: int = 1
    minibatches: int = 1
    soft_labels: bool = False

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, minibatches=self.minibatches)

    def experience(self, scored: Scored) -> PairExperience:
        """One pair per prompt.

        Raises:
            ValueError: no prompt gives a pair, or the KL coefficient is 0.
        """
        if not scored.kl_coef > 0:
            raise ValueError(f"DPO's beta is the KL coefficient and must be above 0; got {scored.kl_coef}; set kl")
        scores_B = scored.score_events_BT.sum(1)
        best_G, worst_G, alone = _extremes(scores_B, scored.groups_B)
        gap_G = scores_B[best_G] - scores_B[worst_G]
        tied_G = gap_G == 0
        kept_G = torch.ones_like(tied_G) if self.soft_labels else ~tied_G
        if not bool(kept_G.any()):
            raise ValueError(
                f"no prompt of this batch gives a pair; got {len(tied_G)} ties and {alone} responses alone; "
                "set samples_per_prompt to at least 2 and prompts_per_step higher, or look at the scorers"
            )
        rows_P2 = torch.stack([best_G[kept_G], worst_G[kept_G]], 1).flatten()
        gap_P = gap_G[kept_G].to(scored.old_logprobs_BT.dtype)
        sequences = scored.sequences.select(rows_P2)
        t = sequences.mask_BT.shape[1]
        ref_BT = torch.where(sequences.mask_BT, scored.ref_logprobs_BT[rows_P2, :t], 0.0)
        return PairExperience(
            sequences,
            *in_twos(len(rows_P2)),
            ref_BT.sum(1),
            scored.old_logprobs_BT[rows_P2, :t],
            gap_P.sigmoid() if self.soft_labels else torch.ones_like(gap_P),
            scored.kl_coef,
            {
                "group/no_signal": Mean(float(tied_G.sum()) + alone, float(len(tied_G)) + alone),
                "pair/score_gap": Mean.of(gap_P),
            },
        )

    def loss(self, batch: PairExperience, forward: Forward) -> Loss:
        """Per pair."""
        sums_B = sums_of(batch, forward)
        rewards_B = batch.beta * log_ratios(batch, sums_B)
        per_pair = reward.soft_bradley_terry(*batch.sides(rewards_B), batch.target_P)
        return pair_loss(per_pair, batch, rewards_B, sums_B)

    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        return False

    def at(self, step: int) -> Self:
        return self


def _extremes(scores_B: Tensor, groups_B: Tensor) -> tuple[Tensor, Tensor, int]:
    """Row of the best and of the worst response of each prompt with two or more, and how many prompts have one only.

    Of equal scores the first is taken as best and the last as worst, so that the two rows differ.
    """
    best, worst, alone = [], [], 0
    for group in groups_B.unique().tolist():
        rows = (groups_B == group).nonzero()[:, 0]
        if len(rows) < 2:
            alone += 1
            continue
        order = rows[scores_B[rows].argsort(descending=True, stable=True)]
        best.append(order[0])
        worst.append(order[-1])
    none = torch.empty(0, dtype=torch.int64)
    return (torch.stack(best) if best else none), (torch.stack(worst) if worst else none), alone
