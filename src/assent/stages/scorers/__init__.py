"""From a recipe's words to scorers: one file, one kind."""

from typing import Annotated

from pydantic import Field

from assent.stages.scorers.base import ScorerSpec, named_apart
from assent.stages.scorers.classifier import ClassifierRef
from assent.stages.scorers.function import FunctionRef
from assent.stages.scorers.gold import GoldRef, gold_of
from assent.stages.scorers.judge import JudgeRef
from assent.stages.scorers.remote import RemoteRef
from assent.stages.scorers.reward_model import RewardModelRef
from assent.stages.scorers.rule import RuleRef

RewardSpec = Annotated[
    RewardModelRef | FunctionRef | ClassifierRef | RuleRef | RemoteRef | JudgeRef | GoldRef,
    Field(union_mode="left_to_right"),
]

__all__ = [
    "ClassifierRef",
    "FunctionRef",
    "GoldRef",
    "JudgeRef",
    "RemoteRef",
    "RewardModelRef",
    "RewardSpec",
    "RuleRef",
    "ScorerSpec",
    "gold_of",
    "named_apart",
]
