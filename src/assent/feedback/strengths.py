"""How strong each policy of an arena is: Bradley-Terry ratings from votes, with intervals over dialogues."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from assent.errors import DataError
from assent.feedback.answers import PairAnswer
from assent.feedback.questions import OVERALL
from assent.feedback.store import Answered
from assent.intervals import RESAMPLES, Floats, Interval, bootstrap_sums, cluster_numbers, percentile_interval
from assent.records import PromptText

CENTRE, POINTS = 1000.0, 400.0 / math.log(10.0)
"""The scale of Elo: the mean is 1000, and 400 points more are odds of ten to one."""
STEPS, SETTLED = 10_000, 1e-10


@dataclass(frozen=True, slots=True)
class Vote:
    """Of two policies.

    Args:
        first, second: their ids.
        names: what people call them, in this order; empty when unknown.
        share: 1 where the first was better, 0 where the second was, one half where neither.
        dialogue: votes of one dialogue share its luck.
    """

    first: str
    second: str
    share: float
    dialogue: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rated:
    """One policy; `interval` is None where all votes are of one dialogue.

    Args:
        policy: its id.
        name: what people call it, with the beginning of the id where two go by one name; the id where it has none.
    """

    policy: str
    name: str
    rating: float
    interval: Interval | None
    votes: int
    wins: int
    ties: int


def votes_of(answers: Iterable[Answered]) -> list[Vote]:
    """The votes among answers; other kinds, and pairs of one policy, are passed over."""
    made = []
    for a in answers:
        policies = a.question.origin.policies
        if not isinstance(a.answer, PairAnswer) or len(policies) != 2 or OVERALL[0] not in a.answer.choices:
            continue
        place = a.answer.choices[OVERALL[0]].preferred
        share = 0.5 if place is None else 1.0 - a.order[place]
        dialogue = f"{a.annotator}\x1f{_opening(a.question.prompt)}"
        made.append(Vote(policies[0], policies[1], share, dialogue, a.question.origin.names))
    return made


def _opening(prompt: PromptText) -> str:
    """A dialogue is known by who talks and how they began."""
    return prompt if isinstance(prompt, str) else next((m.content for m in prompt if m.role == "user"), "")


def _called(votes: Iterable[Vote]) -> dict[str, str]:
    """Each policy's id to what it is called; by its last name, where it had several."""
    called: dict[str, str] = {}
    for v in votes:
        called |= {id: id for id in (v.first, v.second) if id not in called}
        called |= dict(zip((v.first, v.second), v.names, strict=False))
    several = {name for name, count in Counter(called.values()).items() if count > 1}
    return {id: f"{name} ({id[:8]})" if name in several else name for id, name in called.items()}


def ratings(votes: Iterable[Vote], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Rated]:
    """Bradley-Terry ratings, the best first; a tie is half a win for each.

    One imagined tie between every two policies keeps the ratings finite where one has won every time (our choice).
    Intervals are percentiles over resampled dialogues.

    Raises:
        DataError: no vote.

    Sources: Bradley & Terry 1952; fitted by the iteration of Hunter 2004, MM algorithms for generalized Bradley-Terry
    models; ratings of chat policies from votes as in Chiang et al. 2024, Chatbot Arena (arXiv 2403.04132).
    """
    said = list(votes)
    if not said:
        raise DataError(
            "there are no votes yet",
            got="0 answers to pairs of two policies",
            why="a rating says who won against whom",
            fix="open the arena and vote: assent arena RUN_A RUN_B",
        )
    called = _called(said)
    ids = sorted(called)
    place, p = {n: i for i, n in enumerate(ids)}, len(ids)
    won = np.zeros((len(said), p, p))
    for row, v in zip(won, said, strict=True):
        row[place[v.first], place[v.second]] += v.share
        row[place[v.second], place[v.first]] += 1 - v.share
    points = fitted(won.sum(0)[None])[0]
    dialogues = cluster_numbers([v.dialogue for v in said])
    intervals: list[Interval | None] = [None] * p
    if dialogues.max() > 0:
        sums = bootstrap_sums(won.reshape(len(said), p * p), dialogues, resamples=resamples, seed=seed)
        draws = fitted(sums.reshape(-1, p, p))
        intervals = [percentile_interval(draws[:, i]) for i in range(p)]
    made = [
        Rated(
            id,
            called[id],
            float(points[i]),
            intervals[i],
            sum(id in (v.first, v.second) for v in said),
            sum((v.first == id and v.share == 1) or (v.second == id and v.share == 0) for v in said),
            sum(id in (v.first, v.second) and v.share == 0.5 for v in said),
        )
        for i, id in enumerate(ids)
    ]
    return sorted(made, key=lambda r: -r.rating)


def fitted(won_RPP: Floats) -> Floats:
    """Ratings from tables of wins, row against column, [R, P]."""
    p = won_RPP.shape[-1]
    won = won_RPP + 0.5 * (1 - np.eye(p))
    met, wins = won + won.swapaxes(1, 2), won.sum(2)
    strength = np.ones(won.shape[:2])
    for _ in range(STEPS):
        pull = (met / (strength[:, :, None] + strength[:, None, :])).sum(2)
        new = wins / pull
        new /= np.exp(np.log(new).mean(1, keepdims=True))
        moved = float(np.abs(np.log(new / strength)).max())
        strength = new
        if moved < SETTLED:
            break
    return np.asarray(CENTRE + POINTS * np.log(strength))
