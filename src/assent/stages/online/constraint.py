"""A constraint on cost: what is charged, the second critic, and the multiplier."""

import copy

from pydantic import Field, field_validator

from assent.config import Frozen
from assent.errors import ConfigError
from assent.models.folders import CausalModel, load_scalar, scalar_from_causal
from assent.models.forward import ModelForward, ScalarModel
from assent.models.placement import placement_of
from assent.models.tokenizer import require_same_tokenizer
from assent.pipeline.stage import StageContext
from assent.stages.scorers import CostModelRef, RewardSpec
from assent.train.greedy import GreedyScoring
from assent.train.lagrange import Charge, ConstrainedScoring, Lagrange, Multiplier
from assent.train.scoring import CriticScoring, RolloutScoring


class ConstraintSpec(Frozen):
    """`{costs: [{cost_model: NAME}], threshold and all of `Lagrange`}`.

    Args:
        costs: scorers whose weighted sum is the cost of a response; logged and kept like watched ones. A cost model's
            zero is the boundary, so a cost is never normalised.
        multiplier: its threshold, and how it follows the costs.
    """

    costs: tuple[RewardSpec, ...] = Field(min_length=1)
    multiplier: Lagrange = Lagrange()

    @field_validator("costs")
    @classmethod
    def _keep_their_zero(cls, costs: tuple[RewardSpec, ...]) -> tuple[RewardSpec, ...]:
        if any(cost.over is not None for cost in costs):
            raise ValueError("a cost is compared with its threshold, and normalising moves its zero: delete normalise")
        return costs


def build_cost_critic(spec: ConstraintSpec, context: StageContext, policy: CausalModel) -> ScalarModel:
    """A copy of the first cost model, whose values start as costs; else a fresh head on the policy's trunk."""
    models = [c for c in spec.costs if isinstance(c, CostModelRef)]
    if not models:
        return scalar_from_causal(policy, seed=context.seed + 1).critic
    loaded = load_scalar(models[0].folders(context)[0], placement=placement_of(policy.model))
    require_same_tokenizer(policy.tokenizer, loaded.tokenizer)
    critic = copy.deepcopy(loaded.critic)
    critic.become_cost()
    return critic


def constrained(
    spec: ConstraintSpec, scoring: RolloutScoring | CriticScoring | GreedyScoring, forward: ModelForward
) -> ConstrainedScoring:
    """The scoring with costs, which an algorithm with two critics needs.

    Raises:
        ConfigError: the scoring has no critic.
    """
    if not isinstance(scoring, CriticScoring):
        raise ConfigError(
            "a constraint needs an algorithm with a critic",
            got="a scoring without values",
            why="the cost critic stands beside the reward critic",
            fix="set algorithm: {name: ppo_lagrangian}",
        )
    charges = {cost.label: Charge(cost.weight, cost.clip) for cost in spec.costs}
    return ConstrainedScoring(scoring, forward.cost_values, charges, Multiplier(spec.multiplier))
