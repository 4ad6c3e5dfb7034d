"""The online algorithms that a recipe can name, and those of one's own that it names by path."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from assent.algorithms.cispo import CISPO
from assent.algorithms.grpo import GRPO
from assent.algorithms.online_dpo import OnlineDPO
from assent.algorithms.ppo import PPO
from assent.algorithms.ppo_lagrangian import PPOLagrangian
from assent.algorithms.reinforce import Reinforce
from assent.algorithms.reinforce_pp import ReinforcePP
from assent.algorithms.reinforce_pp_baseline import ReinforcePPBaseline
from assent.algorithms.remax import ReMax
from assent.algorithms.rloo import RLOO
from assent.config import suggestion
from assent.stages.own_algorithm import or_own
from assent.train.greedy import Greedy, GreedyScoring
from assent.train.scoring import CriticScoring, LogprobsOf, RolloutScoring

ALGORITHMS = (PPO, PPOLagrangian, RLOO, GRPO, Reinforce, ReinforcePP, ReinforcePPBaseline, ReMax, CISPO, OnlineDPO)
NAMES = tuple(algorithm().name for algorithm in ALGORITHMS)

ASKED = {
    "name": "what it is called",
    "epochs": "passes over each experience",
    "minibatches": "optimiser steps of a pass",
    "uses_critic": "whether experience() reads a critic's values",
    "uses_greedy": "whether it reads the score of a greedy response",
    "smallest_group": "responses to one prompt that it needs, 1 or more",
    "experience": "experience(scored), rollouts and scores to a batch",
    "loss": "loss(batch, forward), a batch to a loss per item",
    "stops": "stops(metrics), whether an update has gone far enough",
    "at": "at(step), the algorithm as it is at a step: mostly itself",
}


def _named(value: Any) -> Any:
    """Settings without a name are PPO's; a name that nothing has is refused here, with the nearest that there is."""
    if not isinstance(value, dict):
        return value
    name = value.get("name", PPO().name)
    if name not in NAMES:
        raise ValueError(f"there is no algorithm {name!r}; {suggestion(str(name), NAMES)}")
    return {**value, "name": name}


AnyAlgorithm = Annotated[
    PPO | PPOLagrangian | RLOO | GRPO | Reinforce | ReinforcePP | ReinforcePPBaseline | ReMax | CISPO | OnlineDPO,
    Field(discriminator="name"),
    BeforeValidator(_named),
    *or_own(ASKED),
]


def scoring_for(
    algorithm: AnyAlgorithm, scoring: RolloutScoring, *, values: LogprobsOf, greedy: Greedy
) -> RolloutScoring | CriticScoring | GreedyScoring:
    """The scoring, with what else the algorithm reads: a critic's values, or the score of a greedy response."""
    if algorithm.uses_critic:
        return CriticScoring(scoring, values)
    return GreedyScoring(scoring, greedy) if algorithm.uses_greedy else scoring
