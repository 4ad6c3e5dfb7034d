"""Scoring beside the policy's most probable response to each prompt."""

from collections.abc import Callable, Sequence
from dataclasses import fields

import torch

from assent.protocols import State
from assent.train.scoring import LogprobsOf, RolloutScoring
from assent.types import BaselinedScored, Mean, Prompt, Rollout

Greedy = Callable[[Sequence[Prompt]], list[Rollout]]
"""The most probable response to each prompt, by the weights that the engine has now."""


class GreedyScoring:
    """`RolloutScoring`, and the score of one greedy response per prompt, shaped alike: ReMax's baseline.

    A prompt whose greedy response no scorer would score is left out of the batch and counted: without its baseline its
    responses would be judged on another scale than the others.

    Args:
        scoring: gives all the rest; its moments see the sampled responses alone.
        greedy: samples.
    """

    def __init__(self, scoring: RolloutScoring, greedy: Greedy) -> None:
        self.scoring, self.greedy = scoring, greedy

    @property
    def judging(self) -> RolloutScoring:
        return self.scoring

    @property
    def critics(self) -> dict[str, LogprobsOf]:
        """None."""
        return {}

    def __call__(self, rollouts: Sequence[Rollout]) -> BaselinedScored:
        prompts = {r.prompt.id: r.prompt for r in rollouts}
        judged = self.scoring.judged(self.greedy(list(prompts.values())))
        known = {r.prompt.id for r in judged.rollouts}
        comparable = [r for r in rollouts if r.prompt.id in known]
        scored = self.scoring(comparable)
        baselines_G = self.scoring.shaped(judged)
        place = {r.prompt.id: g for g, r in enumerate(judged.rollouts)}
        baseline_B = baselines_G[torch.tensor([place[r.prompt.id] for r in scored.rollouts])]
        metrics = {
            **scored.metrics,
            "greedy/score": Mean.of(baselines_G),
            "greedy/unscored": Mean(float(len(rollouts) - len(comparable)), 1.0),
        }
        known_fields = {f.name: getattr(scored, f.name) for f in fields(scored)} | {"metrics": metrics}
        return BaselinedScored(**known_fields, baseline_B=baseline_B.to(scored.old_logprobs_BT.dtype))

    def state_dict(self) -> State:
        return self.scoring.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.scoring.load_state_dict(state)
