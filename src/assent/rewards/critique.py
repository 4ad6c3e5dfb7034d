"""Critique and revision by a language model that reads a principle (Constitutional AI: Bai et al. 2022, 2212.08073)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from assent.records import PromptText
from assent.rewards.asked import Failure
from assent.rewards.chat import ChatModel
from assent.rewards.judge import readable
from assent.rewards.templates import Question


@dataclass(frozen=True, slots=True)
class Draft:
    """A response to be criticised by one principle.

    Args:
        key: names the draft to a critic that draws at random: what it says depends on nothing else.
        prompt, response: what it answers, and how.
        about: what the principle is about, in one word; empty where its author did not say.
        critique: the principle's request for a critique.
        revision: its request for a revision.
    """

    key: str
    prompt: PromptText
    response: str
    about: str
    critique: str
    revision: str


@dataclass(frozen=True, slots=True)
class Revised:
    """What a critic made of a draft."""

    critique: str
    response: str


class Critic(Protocol):
    """Whoever criticises and revises."""

    def revise(self, drafts: Sequence[Draft]) -> Sequence[Revised | Failure]:
        """One revision or failure per draft, in order."""
        ...


class Writer(Protocol):
    """A model that answers in words: an endpoint, or a policy of one's own."""

    def write(self, questions: Sequence[str]) -> Sequence[str | Failure]:
        """One text or failure per question, in order."""
        ...


@dataclass(frozen=True)
class EndpointWriter:
    """A model behind an endpoint."""

    model: ChatModel

    def write(self, questions: Sequence[str]) -> list[str | Failure]:
        return [a if isinstance(a, Failure) else a.text.strip() for a in self.model(questions)]


@dataclass(frozen=True)
class WrittenCritique:
    """A critic that writes: first the critique, then, shown it, the revision.

    Args:
        writer: who writes both.
        critique: with the blanks `prompt`, `response`, `request`.
        revision: with the same and `critique`.
    """

    writer: Writer
    critique: Question
    revision: Question

    def revise(self, drafts: Sequence[Draft]) -> list[Revised | Failure]:
        critiques = self.writer.write([self.critique.ask(**_shown(d), request=d.critique) for d in drafts])
        going = [(i, c) for i, c in enumerate(critiques) if not isinstance(c, Failure)]
        asked = [self.revision.ask(**_shown(drafts[i]), critique=c, request=drafts[i].revision) for i, c in going]
        made = dict(zip((i for i, _ in going), self.writer.write(asked), strict=True))
        return [_revised(c, made.get(i, Failure("unreadable"))) for i, c in enumerate(critiques)]


def _shown(draft: Draft) -> dict[str, str]:
    return {"prompt": readable(draft.prompt), "response": draft.response}


def _revised(critique: str | Failure, response: str | Failure) -> Revised | Failure:
    if isinstance(critique, Failure):
        return critique
    return response if isinstance(response, Failure) else Revised(critique, response)
