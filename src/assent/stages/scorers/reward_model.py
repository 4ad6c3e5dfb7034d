"""Reward models as scorers: a stage, a folder or a hub name."""

from pathlib import Path

import torch

from assent.models.folders import CausalModel, ScalarFolder, load_scalar
from assent.models.forward import in_blocks
from assent.models.placement import placement_of
from assent.models.raw_scores import RawScale
from assent.models.tokenizer import stop_ids, tokenizer_hash
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards.model import Encode, RewardModelScorer, same_tokens
from assent.stages.parts import MODEL, ModelRef, frozen, model_folder, require_room, texts_to_tokens
from assent.stages.scorers.base import Weighted
from assent.types import Sequences

GUESSING = 0.5
"""Accuracy of a coin on ordered pairs."""


class RewardModelRef(Weighted):
    """A reward model: `{reward_model: NAME, weight: 1}`, NAME a stage, a folder or a hub name."""

    reward_model: ModelRef

    @property
    def label(self) -> str:
        """The stage, or the last part of the folder."""
        path = Path(self.reward_model)
        return path.parent.name if path.name == MODEL and path.parent.name else path.name

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        _say_doubt(self.reward_model, context)
        return folder_scorer(self.label, self.folders(context)[0], policy)

    def folders(self, context: StageContext) -> list[str]:
        return [model_folder(context, self.reward_model)]


def folder_scorer(name: str, folder: str, policy: CausalModel, *, raw: bool = False) -> RewardModelScorer:
    """The reward model of a folder, for the rollouts of this policy, beside which it is placed.

    Args:
        raw: score by the logits of its training, before they were normalised (`models.raw_scores`).
    """
    loaded = load_scalar(folder, placement=placement_of(policy.model))
    return scalar_scorer(name, loaded, policy, loaded.scalar.raw_scale if raw else RawScale())


def scalar_scorer(name: str, loaded: ScalarFolder, policy: CausalModel, scale: RawScale) -> RewardModelScorer:
    """A reward model that was loaded, its scores on a scale."""
    scalar = frozen(loaded.scalar)
    shared = not loaded.bidirectional and tokenizer_hash(loaded.tokenizer) == tokenizer_hash(policy.tokenizer)

    def scores(sequences: Sequences) -> torch.Tensor:
        require_room(scalar.model, int(sequences.lengths_B.max()))
        return scale.raw(in_blocks(lambda s: (scalar.last_scores(s),), sequences)[0])

    own = _own_tokens(loaded)
    return RewardModelScorer(name, _policys_tokens(policy, own) if shared else own, scores)


def _say_doubt(stage: str, context: StageContext) -> None:
    """Say of a reward model that is about to train or judge if people's held-out choices do not bear it out."""
    metrics = context.inputs[stage].metrics if stage in context.inputs else {}
    if not metrics.get("accuracy_low", 1.0) > GUESSING:
        low, high = metrics["accuracy_low"], metrics["accuracy_high"]
        context.say(
            f"  ! {stage}: held-out accuracy {metrics['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}, cannot "
            "be told from guessing; what it rewards or prefers says nothing of what people would"
        )


def _policys_tokens(policy: CausalModel, own: Encode) -> Encode:
    """For a reward model with the policy's tokenizer: its token ids, but where a stop string stands at their end, which
    the reward model should not see: there the text before it, closed as this model learned to read it."""
    ends = set(stop_ids(policy.tokenizer))
    return lambda rollout: own(rollout) if rollout.ended and rollout.token_ids[-1] not in ends else same_tokens(rollout)


def _own_tokens(folder: ScalarFolder) -> Encode:
    """For a reward model with another tokenizer: the text, under its own template, or as an encoder reads it; to a
    dialogue without a template it cannot listen, and the first batch says so."""
    tokens = texts_to_tokens(folder)
    return lambda rollout: tokens(rollout.prompt.source, rollout.text, rollout.ended)


class CostModelRef(Weighted):
    """A cost model: `{cost_model: NAME}`, a stage that was trained with safety labels (`algorithm: {name: safety}`).

    Such a model scores harmlessness, so that higher is better as everywhere; its cost is minus the raw score, 0 being
    the boundary: above it, unsafe is more likely than safe (Safe RLHF, arXiv 2310.12773).
    """

    cost_model: ModelRef

    @property
    def label(self) -> str:
        return RewardModelRef(reward_model=self.cost_model).label

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        loaded = load_scalar(self.folders(context)[0], placement=placement_of(policy.model))
        scale = loaded.scalar.raw_scale
        return scalar_scorer(self.label, loaded, policy, RawScale(-scale.mean, -scale.std))

    def folders(self, context: StageContext) -> list[str]:
        return [model_folder(context, self.cost_model)]
