"""A language model as a judge, as recipes name it: where it is, what it is asked, and its ratings as a scorer."""

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from assent.config import External, Frozen
from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards.asked import AskedScorer
from assent.rewards.chat import ChatModel
from assent.rewards.disk import DiskNotes, kept_answers
from assent.rewards.judge import PointwiseJudge
from assent.rewards.memory import NoMemory
from assent.rewards.templates import HERE, Question
from assent.stages.scorers.base import Weighted
from assent.stages.scorers.remote import ServerSettings, address


def _is_there(name: str) -> str:
    question = Question(name)
    if not question.path.is_file():
        shipped = ", ".join(sorted(p.stem for p in HERE.glob("*.jinja")))
        raise ValueError(f"there is no template {name!r}; name one of {shipped}, or the path of a file")
    return name


Template = Annotated[str, External(), AfterValidator(_is_there)]
"""A template that ships, or the path of one's own; its contents are part of what is made."""


class ChatSettings(Frozen):
    """A model behind an OpenAI-compatible endpoint.

    Args:
        endpoint: its base, such as `https://api.openai.com/v1` or `http://localhost:8000/v1`.
        model: as the endpoint names it.
        most_tokens: of an answer; a judge that answers with one letter or number needs few.
        temperature: 0, since a judgement should not depend on luck.
        logprobs: alternatives of each token that are asked for with their log-probabilities, 20 being the most that
            OpenAI gives; null where the endpoint offers none.
        more: further fields of each request, such as `{max_completion_tokens: 8}`.
        server: how it is asked.
    """

    endpoint: str
    model: str
    most_tokens: int = Field(16, gt=0)
    temperature: float = Field(0.0, ge=0)
    logprobs: Annotated[int, Field(gt=1)] | None = 20
    more: dict[str, str | int | float | bool] = Field(default_factory=dict)
    server: ServerSettings = ServerSettings()

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return address(url)

    def chat(self) -> ChatModel:
        """The model, ready to be asked; its answers are kept on disk."""
        return ChatModel(
            self.server.server(self.endpoint.rstrip("/") + "/chat/completions"),
            self.model,
            self.most_tokens,
            self.temperature,
            self.logprobs,
            self.server.at_once,
            DiskNotes(kept_answers()),
            self.more,
        )


class JudgeRef(Weighted):
    """A language model that rates each response from 1 to 10: `{judge: {endpoint: ..., model: ...}}`.

    Args:
        template: what it is asked.
        name: of the score in metrics.
    """

    judge: ChatSettings
    template: Template = "pointwise"
    name: str = "judge"

    @property
    def label(self) -> str:
        return self.name

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        # The model's answers are remembered where they come from; remembering the scores as well would hide the count.
        ask = PointwiseJudge(self.judge.chat(), Question(self.template))
        return AskedScorer(self.label, ask, source="", memory=NoMemory(), say=context.say)
