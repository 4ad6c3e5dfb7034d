"""Llama 2's way with a safety and a helpfulness model: safety first, helpfulness where it is safe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assent.functional import combine
from assent.types import Mean, Rollout


@dataclass(frozen=True)
class Llama2Gate:
    """R = R_safety where the prompt asks for safety or R_safety < threshold, else R_helpfulness; then its logit.

    A rule for `CombinedScorer` over two members, safety and helpfulness, in this order. Their scores must be *raw*:
    the logits as they were trained, P(safe) = sigmoid(score), before anything was normalised. The result is a logit
    too, to be whitened (`WeightedScorer.normalise`) before the KL penalty: that is the scoring's business, since it
    looks at the neighbours.

    Args:
        safety_kinds: the kinds of prompts that ask for safety.
        threshold: 0.15 in Llama 2 (arXiv 2307.09288, section 3.2.3).
    """

    safety_kinds: frozenset[str]
    threshold: float = 0.15

    def __call__(self, scores_MB: Tensor, rollouts: Sequence[Rollout]) -> tuple[Tensor, Mapping[str, Mean]]:
        safety_B, helpfulness_B = scores_MB.double().sigmoid()
        asked_B = torch.tensor([r.prompt.kind in self.safety_kinds for r in rollouts])
        combined_B = combine.llama2_gate(safety_B, helpfulness_B, asked_B, threshold=self.threshold)
        below_B = safety_B < self.threshold
        return combined_B, {
            "gate/safety_prompts": Mean.of(asked_B.float()),
            "gate/below_threshold": Mean.of(below_B.float()),
            "gate/gated": Mean.of((asked_B | below_B).float()),
        }
