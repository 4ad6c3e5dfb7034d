"""The carriers: `Prompt -> Rollout -> Scored -> Experience -> Loss`, frozen, checked when made.

Shape legend, used as suffixes everywhere:

* `_B` sequences, `_BL` every token of them (prompt and response, right-padded), `_BT` response tokens (right-padded),
  `_BTV` vocabulary, `_BTD` hidden size;
* `_K` completions of one prompt, `_P` judged pairs, `_M` members of an ensemble, `_S` steps of a solution.

A mask is bool and True means included. Lengths and masks are explicit: nothing is ever read off a token id, so the pad
token may equal the end-of-sequence token. Padding is the number 0 and means nothing.
"""

from assent.types.batches import Batch, ComparisonBatch, PackedSequences, Sequences, SharedPrompts, TokenBatch
from assent.types.comparisons import LabelledComparisonBatch, RankedComparisonBatch, SoftComparisonBatch
from assent.types.experience import (
    ActorCriticOutputs,
    BaselinedScored,
    CombinedScores,
    ConstrainedExperience,
    CostScored,
    CriticScored,
    Experience,
    LeashedOutputs,
    Loss,
    NamedScores,
    PolicyExperience,
    Scored,
    TokenOutputs,
    sampler_logprobs,
)
from assent.types.kept import Kept, KeptBlock, listed
from assent.types.metrics import Mean, Moments, add_metrics
from assent.types.moving import moved
from assent.types.pairs import (
    BaselinedBatch,
    MismatchedBatch,
    PairBatch,
    PairExperience,
    ReferencedPairBatch,
    UnpairedBatch,
    in_twos,
)
from assent.types.reduction import ConstantLength, Reduction, SequenceMean, TokenMean
from assent.types.rollouts import (
    JudgedRollout,
    NoScore,
    Prompt,
    Request,
    Rollout,
    Sample,
    Sampling,
    ScoreEvent,
    ScoreEvents,
    StopStrings,
)
from assent.types.steps import Delimited, StepBatch, ends_by_text, texts_of

__all__ = [
    "ActorCriticOutputs",
    "BaselinedBatch",
    "BaselinedScored",
    "Batch",
    "CombinedScores",
    "ComparisonBatch",
    "ConstantLength",
    "ConstrainedExperience",
    "CostScored",
    "CriticScored",
    "Delimited",
    "Experience",
    "JudgedRollout",
    "Kept",
    "KeptBlock",
    "LabelledComparisonBatch",
    "LeashedOutputs",
    "Loss",
    "Mean",
    "MismatchedBatch",
    "Moments",
    "NamedScores",
    "NoScore",
    "PackedSequences",
    "PairBatch",
    "PairExperience",
    "PolicyExperience",
    "Prompt",
    "RankedComparisonBatch",
    "Reduction",
    "ReferencedPairBatch",
    "Request",
    "Rollout",
    "Sample",
    "Sampling",
    "ScoreEvent",
    "ScoreEvents",
    "Scored",
    "SequenceMean",
    "Sequences",
    "SharedPrompts",
    "SoftComparisonBatch",
    "StepBatch",
    "StopStrings",
    "TokenBatch",
    "TokenMean",
    "TokenOutputs",
    "UnpairedBatch",
    "add_metrics",
    "ends_by_text",
    "in_twos",
    "listed",
    "moved",
    "sampler_logprobs",
    "texts_of",
]
