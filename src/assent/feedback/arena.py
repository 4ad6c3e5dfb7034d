"""Two policies answer side by side, unnamed; people talk to them and say who was better. The votes are pair answers.

Every turn is a comparison of its own: both read the same dialogue, and it goes on from the response that was voted for,
as in Bai et al. 2022 (arXiv 2204.05862, section 2.2). So each vote is about two responses to one prompt, which a reward
model can be trained on as it stands.
"""

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from assent.errors import ConfigError, DataError
from assent.feedback.answers import Choice, PairAnswer
from assent.feedback.questions import OVERALL, Origin, PairQuestion, identity
from assent.feedback.store import Answered, Shown, Store
from assent.records import Message, PromptText

BATCH = "arena"
"""What the votes are found by in the store."""
VOTES = {"a": Choice(0), "b": Choice(1), "tie": Choice(None), "both_bad": Choice(None, both_bad=True)}
"""By what is sent; A stands first on the page."""
LONGEST_MESSAGE = 8_000
"""Characters of what a person says in one turn."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a policy said; `ended` is False where it was cut at its length limit."""

    text: str
    ended: bool = True


class Policy(Protocol):
    """Somebody to talk to.

    `id` is that of the artefact and is kept with every vote, and so is `name`, for who looks after the arena. A policy
    that does not `talk` reads one plain text and no dialogue.
    """

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def talks(self) -> bool: ...

    def reply(self, prompt: PromptText) -> Reply: ...


@dataclass(frozen=True, slots=True)
class Talk:
    """Where one person stands.

    Args:
        turns: the dialogue so far.
        open: two responses to it that wait for a vote; None where it is the person's turn to speak.
        after: the showing that `turns` ended with; empty at the start.
    """

    turns: tuple[Message, ...] = ()
    open: Shown | None = None
    after: str = ""


class Arena:
    """Draws two policies for every turn and keeps what was said of them. All that it remembers is in the store.

    Raises:
        ConfigError: fewer than two policies, or two of one id.
    """

    def __init__(self, store: Store, policies: Sequence[Policy]) -> None:
        if len({p.id for p in policies}) < max(2, len(policies)):
            raise ConfigError(
                "an arena needs two policies that differ",
                got=", ".join(f"{p.name} ({p.id[:12]})" for p in policies) or "none",
                why="a policy against itself tells nothing",
                fix="name two runs, or two stages of one: RUN:STAGE",
            )
        self.store, self.policies = store, tuple(policies)
        self.talks = all(p.talks for p in policies)
        self._busy = threading.Lock()
        """One turn at a time: two policies on one machine would only slow each other down."""

    def talk(self, annotator: str) -> Talk:
        """The person's dialogue as it stands; the same after a reload or a restart of the server."""
        token = self.store.last_shown(annotator, BATCH)
        return Talk() if token is None else self._talk(token, annotator)

    def _talk(self, token: str, annotator: str) -> Talk:
        shown, said = self.store.shown(token, annotator), self.store.said(token, annotator)
        turns = _dialogue(shown.question.prompt)
        if said is None:
            return Talk(turns, shown, token)
        if not self.talks:
            return Talk()
        return Talk((*turns, Message("assistant", _kept(said))), None, token)

    def ask(self, annotator: str, text: str, *, after: str = "") -> Shown:
        """Have two policies answer what the person says.

        Args:
            after: the showing that the dialogue continues; empty to begin another.

        Raises:
            DataError: the text is empty or too long, or the dialogue waits for a vote.
        """
        _said_something(text)
        with self._busy:
            now = self.talk(annotator)
            if now.open is not None:  # sent twice: the first one is being answered, or was
                return now.open
            before = self._talk(after, annotator).turns if after and self.talks else ()
            turns = (*before, Message("user", text))
            prompt: PromptText = turns if self.talks else text
            order = secrets.SystemRandom().sample(range(len(self.policies)), 2)
            pair = [self.policies[i] for i in sorted(order)]  # the store draws the sides
            replies = [policy.reply(prompt) for policy in pair]
        ids, names = tuple(p.id for p in pair), tuple(p.name for p in pair)
        origin = Origin(policies=ids, names=names, ended=tuple(r.ended for r in replies))
        id = identity(BATCH, secrets.token_hex(16))
        question = PairQuestion(id, prompt, tuple(r.text for r in replies), origin=origin)
        return self.store.present(question, annotator, batch=BATCH)

    def vote(self, annotator: str, token: str, vote: str) -> Answered:
        """Record a vote: `a`, `b`, `tie` or `both_bad`, places as shown. Sent again it is recorded once.

        Raises:
            DataError: it is none of these, or the responses were not shown to this person.
        """
        if vote not in VOTES:
            raise DataError(
                "this is not a vote", got=repr(vote), why="it would count for nobody", fix=f"vote {', '.join(VOTES)}"
            )
        shown = self.store.shown(token, annotator)
        answer = PairAnswer({OVERALL[0]: VOTES[vote]})
        return self.store.answer(token, answer, max(0.0, time.time() - shown.at), annotator=annotator)


def _dialogue(prompt: PromptText) -> tuple[Message, ...]:
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt


def _kept(said: Answered) -> str:
    """The response that the dialogue goes on from: the better one, or the first on the page, where chance put it."""
    assert isinstance(said.answer, PairAnswer)
    place = said.answer.choices[OVERALL[0]].preferred or 0
    return said.question.responses[said.order[place]]


def _said_something(text: str) -> None:
    if not text.strip() or len(text) > LONGEST_MESSAGE:
        raise DataError(
            f"a turn has 1 to {LONGEST_MESSAGE} characters",
            got=f"{len(text)}",
            why="the policies would have nothing to answer, or no room to",
            fix="write something shorter" if text.strip() else "write something",
        )
