"""The scores of a reward model as they were trained, after a normalisation has changed them for good.

Normalised scores are what a policy is trained on and what a reader compares. The *raw* score is the logit of the loss:
where the loss had labels of its own (safe or not), sigmoid(raw) is a probability and 0 a boundary, and both are lost
in a normalisation unless its moments are kept. They are kept in the model's config. Pure comparisons leave a constant
free, so the raw score of a model trained on nothing else has no zero to speak of.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedConfig

from assent.errors import ContractError

RAW_SCORE = "assent_raw_score"
"""Key of the config of a scalar model: mean and deviation of its raw scores, on the samples it was normalised on."""
SCORE_OFFSET = "assent_score_offset"
"""Key of the config of a scalar model: our score is the head's output plus this number."""


@dataclass(frozen=True, slots=True)
class RawScale:
    """raw = mean + std * score."""

    mean: float = 0.0
    std: float = 1.0

    def raw(self, scores_B: Tensor) -> Tensor:
        return self.mean + self.std * scores_B

    def after(self, mean: float, std: float) -> "RawScale":
        """The scale of scores that have been changed once more, to (score - mean) / std."""
        return RawScale(self.mean + self.std * mean, self.std * std)


def raw_scale(config: PreTrainedConfig) -> RawScale:
    """How the raw scores of a model with this config come from its scores; as they are, for one never normalised.

    Raises:
        ContractError: the scores were normalised and by how much is not known.
    """
    kept = getattr(config, RAW_SCORE, None)
    if kept is not None:
        return RawScale(*map(float, kept))
    if getattr(config, SCORE_OFFSET, 0.0) != 0.0:
        raise ContractError(
            "the raw scores of this reward model are not known",
            got=f"{SCORE_OFFSET}={getattr(config, SCORE_OFFSET)} without {RAW_SCORE} in its config",
            why="it was normalised by a version that did not keep the moments, so its zero is lost",
            fix="train it again; the stage keeps them now",
        )
    return RawScale()


def remember_raw(config: PreTrainedConfig, mean: float, std: float) -> None:
    """Note in the config that the scores are about to become (score - mean) / std."""
    scale = raw_scale(config).after(mean, std)
    setattr(config, RAW_SCORE, [scale.mean, scale.std])
