"""The value model of an actor-critic algorithm: where it starts, and how it is kept."""

import copy
from collections.abc import Sequence
from typing import Literal

from assent.config import Frozen
from assent.models.folders import CausalModel, ScalarFolder, load_scalar, save_scalar, scalar_from_causal
from assent.models.forward import ScalarModel, ValueHead
from assent.models.placement import placement_of
from assent.models.tokenizer import encode_text, require_same_tokenizer
from assent.pipeline.stage import StageContext
from assent.stages.parts import AnyOptimizer
from assent.stages.scorers import OfModels, RewardSpec
from assent.types import Sequences


class CriticSpec(Frozen):
    """The value model.

    Args:
        start: `reward_model` copies the first reward model (Stiennon et al., InstructGPT), of a gate the helpfulness
            model and of an ensemble the first member; `policy` puts a fresh head
            on a copy of the policy's trunk; `trunk` puts a head on the policy itself, one forward for both.
        optimizer: of its own; None uses the policy's.
    """

    start: Literal["reward_model", "policy", "trunk"] = "reward_model"
    optimizer: AnyOptimizer | None = None


def build_critic(
    spec: CriticSpec | None, rewards: Sequence[RewardSpec], context: StageContext, policy: CausalModel
) -> ScalarModel | ValueHead:
    """The value model; whatever it starts from, it must read the policy's tokens."""
    start = (spec or CriticSpec()).start
    if start == "trunk":
        return ValueHead.on(policy.model)
    models = [folder for r in rewards if isinstance(r, OfModels) for folder in r.folders(context)]
    if start == "policy" or not models:
        if start == "reward_model":
            context.say("no reward model to start the critic from: it starts from the policy's trunk")
        return scalar_from_causal(policy, seed=context.seed).critic
    loaded = load_scalar(models[0], placement=placement_of(policy.model))
    critic = loaded.critic
    require_same_tokenizer(policy.tokenizer, loaded.tokenizer)
    return copy.deepcopy(critic)


def save_critic(
    critic: ScalarModel | ValueHead | None,
    policy: CausalModel,
    texts: Sequence[str],
    context: StageContext,
    *,
    name: str = "critic",
) -> None:
    """A critic of its own is a folder like any reward model; a head on the trunk is useless without its policy.

    Args:
        texts: a few responses, whose values are kept beside the model to check it by.
        name: of the folder.
    """
    if isinstance(critic, ScalarModel):
        ids = [encode_text(policy.tokenizer, t or " ") or [policy.tokenizer.eos_token_id] for t in texts]
        start = [[policy.tokenizer.eos_token_id]] * len(ids)
        save_scalar(context.out / name, ScalarFolder(critic, policy.tokenizer), golden=Sequences.of(start, ids))
