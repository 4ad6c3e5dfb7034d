"""From a recipe's words to scorers: one file, one kind."""

from typing import Annotated

from pydantic import AfterValidator, Field

from assent.stages.scorers.arithmetic import ArithmeticRef
from assent.stages.scorers.base import OfModels, ScorerSpec, Weighted, charged, named_apart, raw, watched, weighted
from assent.stages.scorers.classifier import ClassifierRef
from assent.stages.scorers.ensemble import EnsembleRef
from assent.stages.scorers.function import FunctionRef
from assent.stages.scorers.gate import GateRef
from assent.stages.scorers.gold import GoldRef, gold_of
from assent.stages.scorers.judge import JudgeRef
from assent.stages.scorers.process import ProcessRewardRef
from assent.stages.scorers.remote import RemoteRef
from assent.stages.scorers.reward_model import CostModelRef, RewardModelRef
from assent.stages.scorers.rule import RuleRef

RewardSpec = Annotated[
    RewardModelRef
    | CostModelRef
    | ProcessRewardRef
    | FunctionRef
    | ClassifierRef
    | GateRef
    | EnsembleRef
    | RuleRef
    | RemoteRef
    | JudgeRef
    | GoldRef
    | ArithmeticRef,
    Field(union_mode="left_to_right"),
]

RawScore = Annotated[RewardSpec, AfterValidator(raw)]
"""A scorer that no policy is trained on."""

__all__ = [
    "ArithmeticRef",
    "ClassifierRef",
    "CostModelRef",
    "EnsembleRef",
    "FunctionRef",
    "GateRef",
    "GoldRef",
    "JudgeRef",
    "OfModels",
    "ProcessRewardRef",
    "RawScore",
    "RemoteRef",
    "RewardModelRef",
    "RewardSpec",
    "RuleRef",
    "ScorerSpec",
    "Weighted",
    "charged",
    "gold_of",
    "named_apart",
    "watched",
    "weighted",
]
