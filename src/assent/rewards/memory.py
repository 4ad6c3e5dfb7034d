"""What a scorer said before, so that nobody is asked the same twice."""

import hashlib
from collections import OrderedDict
from typing import Protocol

from assent.records import PromptText
from assent.types import Rollout

REMEMBERED = 100_000
"""Scores kept in memory; the oldest go first."""


class Memory(Protocol):
    """Answers by key; what was not worth keeping is not there."""

    def get(self, key: str) -> float | None: ...
    def put(self, key: str, value: float) -> None: ...


class RecentMemory:
    """In this process, the last `limit` answers."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self.limit = limit
        self._kept: OrderedDict[str, float] = OrderedDict()

    def get(self, key: str) -> float | None:
        return self._kept.get(key)

    def put(self, key: str, value: float) -> None:
        self._kept[key] = value
        if len(self._kept) > self.limit:
            self._kept.popitem(last=False)


class NoMemory:
    """Asks again every time."""

    def get(self, key: str) -> float | None:
        return None

    def put(self, key: str, value: float) -> None:
        pass


def key_of(asked: str, rollout: Rollout) -> str:
    """Names a question: who is asked (a digest of source, model or template) and what of a rollout can be read as text
    or tokens. Its version and log-probabilities are not part of it."""
    parts = (asked, as_text(rollout.prompt.source), rollout.prompt.kind, rollout.prompt.answer, rollout.text)
    return digest(*parts, str(rollout.token_ids), str(rollout.ended))


def digest(*parts: str) -> str:
    """A digest of texts, each with its length, so that no two lists of them run together."""
    return hashlib.sha256("".join(f"{len(p)}:{p}" for p in parts).encode("utf-8", "surrogatepass")).hexdigest()


def as_text(prompt: PromptText) -> str:
    """A prompt as one text, from which dialogue and plain text can be told apart."""
    return prompt if isinstance(prompt, str) else repr([(m.role, m.content) for m in prompt])
