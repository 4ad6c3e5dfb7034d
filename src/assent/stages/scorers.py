"""From a recipe's words to scorers: reward models, the embedded domain's gold judgement, a user's own function."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from transformers import PreTrainedTokenizerBase

from assent.config import Frozen, resolve
from assent.data import domain
from assent.errors import ConfigError
from assent.models.classifier import load_classifier
from assent.models.folders import CausalModel, load_scalar
from assent.models.forward import in_blocks
from assent.models.tokenizer import encode_prompt, tokenizer_hash
from assent.pipeline.run import StageContext
from assent.protocols import Scorer
from assent.rewards.classifier import TEXTS, ClassifierScorer
from assent.rewards.function import FunctionScorer
from assent.rewards.model import Encode, RewardModelScorer, same_tokens
from assent.stages.parts import MODEL, ModelRef, frozen, model_folder, require_room, response_ids
from assent.types import Rollout, Sequences


class RewardModelRef(Frozen):
    """A reward model: `{reward_model: NAME, weight: 1}`, NAME a stage, a folder or a hub name."""

    reward_model: ModelRef
    weight: float = 1.0


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


class ClassifierRef(Frozen):
    """Any text classifier: `{classifier: NAME, label: POSITIVE}`, NAME a folder or a hub name.

    Args:
        label: whose logit is the score, by the name that the model's config gives it.
        reads: the whole text, prompt and response as one, or the response alone; of a dialogue only the response.
    """

    classifier: ModelRef
    label: str
    reads: Literal["whole", "response"] = "whole"
    weight: float = 1.0


class GoldRef(Frozen):
    """The hidden judgement of the embedded domain. For watching and evaluating; training on it proves nothing."""

    gold: Literal["domain"]
    weight: float = 1.0


GUESSING = 0.5
"""Accuracy of a coin on ordered pairs."""

RewardSpec = Annotated[RewardModelRef | FunctionRef | ClassifierRef | GoldRef, Field(union_mode="left_to_right")]


def build_scorer(spec: RewardSpec, context: StageContext, policy: CausalModel) -> Scorer:
    """The scorer a recipe asks for, ready for the rollouts of this policy."""
    if isinstance(spec, GoldRef):
        return FunctionScorer(scorer_name(spec), gold_of)
    if isinstance(spec, FunctionRef):
        return FunctionScorer(scorer_name(spec), resolve(spec.function))
    if isinstance(spec, ClassifierRef):
        classifier = load_classifier(model_folder(context, spec.classifier))
        return ClassifierScorer(scorer_name(spec), classifier.logits_of(spec.label), TEXTS[spec.reads])
    _say_doubt(spec.reward_model, context)
    loaded = load_scalar(model_folder(context, spec.reward_model))
    scalar = frozen(loaded.scalar)
    shared = tokenizer_hash(loaded.tokenizer) == tokenizer_hash(policy.tokenizer)

    def scores(sequences: Sequences) -> torch.Tensor:
        require_room(scalar.model, int(sequences.lengths_B.max()))
        return in_blocks(lambda s: (scalar.last_scores(s),), sequences)[0]

    return RewardModelScorer(scorer_name(spec), same_tokens if shared else _own_tokens(loaded.tokenizer), scores)


def scorer_name(spec: RewardSpec) -> str:
    """What its scores are called: the stage or folder of a reward model, the label of a classifier, the function."""
    if isinstance(spec, GoldRef):
        return "gold"
    if isinstance(spec, FunctionRef):
        return spec.function.rpartition(":")[2]
    if isinstance(spec, ClassifierRef):
        return spec.label
    path = Path(spec.reward_model)
    return path.parent.name if path.name == MODEL and path.parent.name else path.name


def named_apart(specs: Sequence[RewardSpec]) -> None:
    """Raises ConfigError where two scorers go by one name: one's scores would be logged over the other's."""
    names = [scorer_name(spec) for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "two scorers have one name",
            got=", ".join(twice),
            why="what one says would be logged over what the other says",
            fix="rename a stage, a folder or a function, or leave one out",
        )


def _say_doubt(stage: str, context: StageContext) -> None:
    """Say of a reward model that is about to train or judge if people's held-out choices do not bear it out."""
    metrics = context.inputs[stage].metrics if stage in context.inputs else {}
    if not metrics.get("accuracy_low", 1.0) > GUESSING:
        low, high = metrics["accuracy_low"], metrics["accuracy_high"]
        context.say(
            f"  ! {stage}: held-out accuracy {metrics['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}, cannot "
            "be told from guessing; what it rewards or prefers says nothing of what people would"
        )


def _own_tokens(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """For a reward model with another tokenizer: the text, under its own template; to a dialogue without one, it cannot
    listen, and the first batch says so."""

    def encode(rollout: Rollout) -> tuple[list[int], list[int]]:
        prompt = encode_prompt(tokenizer, rollout.prompt.source)
        return prompt, response_ids(tokenizer, rollout.prompt.source, rollout.text, end=rollout.ended)

    return encode


def gold_of(rollout: Rollout) -> float:
    """Gold of the embedded domain, at most 2."""
    return domain.judge(rollout.prompt.source, rollout.text, ended=rollout.ended).gold
