"""Whom to believe how far: truths and annotators estimated together, and soft labels for the reward model.

* `dawid_skene`: what each annotator says when each label is true, a table per annotator; the truth of each unit.
* `crowd_bradley_terry`: a strength per response and one reliability per annotator.

Both are fitted by expectation-maximisation and report the objective after every step, which never falls.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from assent.errors import DataError
from assent.feedback.ratings import Judged, Ratings, pair_votes, signed
from assent.intervals import Floats, Ints
from assent.records import Comparison, Preference, PromptText

TOLERANCE = 1e-10
"""Rise of the objective per label at which fitting stops (our choice)."""

MOST_STEPS = 2000


# --------------------------------------------------------------------------------------------------------- Dawid-Skene


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """What was fitted.

    Args:
        posterior_UQ: probability of each label being the true one of each unit.
        confusion_AQQ: P(annotator says l | k is true), [A, k, l].
        prior_Q: how common each label is.
        objective: log posterior density of the parameters after each step, up to a constant.
    """

    ratings: Ratings
    posterior_UQ: Floats
    confusion_AQQ: Floats
    prior_Q: Floats
    objective: tuple[float, ...]

    def accuracy(self) -> dict[str, float]:
        """The chance that each annotator says what is true."""
        right = np.einsum("k,akk->a", self.prior_Q, self.confusion_AQQ)
        return dict(zip(self.ratings.annotators, right.tolist(), strict=True))


def dawid_skene(ratings: Ratings, *, right: float = 2.0, wrong: float = 1.0) -> DawidSkene:
    """Maximum a posteriori by expectation-maximisation, from the majority.

    Args:
        right, wrong: Dirichlet parameters of each row of a confusion table, on and off the diagonal, at least 1; 1 and
            1 is the maximum likelihood of the paper. The default, one answer imagined right of each kind, keeps
            annotators with a handful of answers from being believed wholly or turned around (our choice).

    Source: Dawid & Skene 1979, Maximum likelihood estimation of observer error-rates using the EM algorithm.
    """
    if min(right, wrong) < 1:
        raise ValueError(f"the parameters of the prior are 1 or more; got {right} and {wrong}; pass 1 for none")
    q = len(ratings.scale)
    extra = np.full((q, q), wrong - 1.0) + (right - wrong) * np.eye(q)
    posterior = ratings.counts()
    posterior /= posterior.sum(1, keepdims=True)
    objective: list[float] = []
    while True:
        prior, confusion = _tables(ratings, posterior, extra)
        posterior, value = _truths(ratings, prior, confusion)
        objective.append(value + float((extra * _log(confusion)).sum()))
        if _settled(objective, len(ratings.label_N)):
            return DawidSkene(ratings, posterior, confusion, prior, tuple(objective))


def _tables(ratings: Ratings, posterior_UQ: Floats, extra_QQ: Floats) -> tuple[Floats, Floats]:
    """The maximisation: prior and confusion tables from who is believed to be what."""
    q = len(ratings.scale)
    said = np.zeros((len(ratings.annotators), q, q))
    np.add.at(said.transpose(0, 2, 1), (ratings.annotator_N, ratings.label_N), posterior_UQ[ratings.unit_N])
    said += extra_QQ
    rows = said.sum(2, keepdims=True)
    confusion = np.where(rows > 0, said / np.where(rows > 0, rows, 1.0), 1 / q)
    return posterior_UQ.mean(0), confusion


def _truths(ratings: Ratings, prior_Q: Floats, confusion_AQQ: Floats) -> tuple[Floats, float]:
    """The expectation: posterior of each unit, and the log-likelihood of all labels."""
    joint = np.tile(_log(prior_Q), (len(ratings.units), 1))
    np.add.at(joint, ratings.unit_N, _log(confusion_AQQ)[ratings.annotator_N, :, ratings.label_N])
    top = joint.max(1, keepdims=True)
    mass = np.exp(joint - top)
    total = mass.sum(1, keepdims=True)
    return mass / total, float((top + np.log(total)).sum())


# ----------------------------------------------------------------------------------------------------------- Crowd-BT


@dataclass(frozen=True, slots=True)
class Votes:
    """N votes of A annotators on pairs of I items: winner, loser, and half a vote each way for a tie.

    Args:
        weight_N: 1, or 0.5 for each half of a tie.
    """

    items: tuple[Hashable, ...]
    annotators: tuple[str, ...]
    winner_N: Ints
    loser_N: Ints
    annotator_N: Ints
    weight_N: Floats

    @classmethod
    def of(cls, said: Iterable[tuple[str, Hashable, Hashable, bool]]) -> "Votes":
        """From (annotator, preferred item, other item, tie).

        Raises:
            DataError: nobody voted.
        """
        items: dict[Hashable, int] = {}
        annotators: dict[str, int] = {}
        rows: list[tuple[int, int, int, float]] = []
        for name, a, b, tie in said:
            i, j = items.setdefault(a, len(items)), items.setdefault(b, len(items))
            who = annotators.setdefault(name, len(annotators))
            rows += [(i, j, who, 0.5), (j, i, who, 0.5)] if tie else [(i, j, who, 1.0)]
        if not rows:
            raise DataError(
                "strengths need votes",
                got="none",
                why="no response was ever preferred to another",
                fix="pass comparisons with judged pairs",
            )
        table = np.array(rows, dtype=np.float64)
        winner, loser, who = table[:, :3].T.astype(np.int64)
        return cls(tuple(items), tuple(annotators), winner, loser, who, table[:, 3])


@dataclass(frozen=True, slots=True)
class CrowdBradleyTerry:
    """What was fitted.

    Args:
        strength_I: log-strengths; P(i beats j) = sigmoid(strength_i - strength_j). Compare within a prompt only: items
            that were never compared, even through others, share no scale but the pull to 0.
        reliability_A: the chance that an annotator reports the order that the strengths drew, rather than its reverse.
        objective: log posterior density of the parameters after each step, up to a constant.
    """

    votes: Votes
    strength_I: Floats
    reliability_A: Floats
    objective: tuple[float, ...]

    def reliability(self) -> dict[str, float]:
        return dict(zip(self.votes.annotators, self.reliability_A.tolist(), strict=True))


def crowd_bradley_terry(
    votes: Votes, *, pull: float = 0.5, truthful: float = 4.0, untruthful: float = 2.0
) -> CrowdBradleyTerry:
    """P(annotator a says i > j) = eta_a sigmoid(s_i - s_j) + (1 - eta_a) sigmoid(s_j - s_i), maximum a posteriori.

    Args:
        pull: imaginary wins and losses of every item against an item of strength 0, the paper's virtual node; above 0,
            so that an undefeated response stays finite (half a win each, our choice).
        truthful, untruthful: the Beta prior of a reliability, above 1; the default has its mode at 3 / 4 and says which
            of two mirrored solutions is meant (our choice).

    Source: Chen et al. 2013, Pairwise ranking aggregation in a crowdsourced setting (WSDM); the maximisation of the
        strengths: Hunter 2004, MM algorithms for generalized Bradley-Terry models.
    """
    if pull <= 0 or min(truthful, untruthful) <= 1:
        raise ValueError(
            f"the pull is above 0 and the Beta prior above 1 on both sides; got {pull}, {truthful} and {untruthful}; "
            f"without them an undefeated response, or a perfect annotator, has no finite estimate"
        )
    strength = np.zeros(len(votes.items))
    prior = np.array([truthful, untruthful]) - 1
    reliability = np.full(len(votes.annotators), prior[0] / prior.sum())
    objective: list[float] = []
    while True:
        told, value = _honest(votes, strength, reliability)
        value += float((prior[0] * np.log(reliability) + prior[1] * np.log1p(-reliability)).sum())
        value -= pull * float((np.logaddexp(0, strength) + np.logaddexp(0, -strength)).sum())
        objective.append(value)
        if _settled(objective, len(votes.weight_N)):
            return CrowdBradleyTerry(votes, strength, reliability, tuple(objective))
        honest = _sum(votes.annotator_N, told, len(reliability)) + prior[0]
        reliability = honest / (_sum(votes.annotator_N, votes.weight_N, len(reliability)) + prior.sum())
        strength = _stronger(votes, told, strength, pull)


def _honest(votes: Votes, strength_I: Floats, reliability_A: Floats) -> tuple[Floats, float]:
    """How much of each vote is believed to be the drawn order itself, [N], and the log-likelihood of all votes."""
    win = _sigmoid(strength_I[votes.winner_N] - strength_I[votes.loser_N])
    eta = reliability_A[votes.annotator_N]
    said = eta * win + (1 - eta) * (1 - win)
    return votes.weight_N * eta * win / said, float((votes.weight_N * np.log(said)).sum())


def _stronger(votes: Votes, told_N: Floats, strength_I: Floats, pull: float) -> Floats:
    """One step of Hunter's minorisation: wins over the sum of games / (strength + that of the other)."""
    count, gamma = len(strength_I), np.exp(strength_I)
    reversed_N = votes.weight_N - told_N
    wins = _sum(votes.winner_N, told_N, count) + _sum(votes.loser_N, reversed_N, count) + pull
    shared = votes.weight_N / (gamma[votes.winner_N] + gamma[votes.loser_N])
    games = _sum(votes.winner_N, shared, count) + _sum(votes.loser_N, shared, count) + 2 * pull / (gamma + 1)
    return np.log(wins / games)


# --------------------------------------------------------------------------------------------- soft labels for training


def soften_by_dawid_skene(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], DawidSkene]:
    """Comparisons pooled by prompt and responses, with P(better) from Dawid-Skene on {-1, tie, 1}; and the fit.

    Which response of a pair stands first means nothing, so every vote is counted a second time from the other side: a
    table then treats both alike. A tie that is held to be true counts half for each. The prior is taken twice to match.
    """
    said: list[tuple[Hashable, str, int]] = []
    for pair, turned, c, p in pair_votes(comparisons):
        sign = -signed(p) if turned else signed(p)
        said += [((pair, False), c.annotator, sign), ((pair, True), c.annotator, -sign)]
    fit = dawid_skene(Ratings.of(said, scale=(-1, 0, 1), unique=False), right=3.0)
    below, _, above = fit.posterior_UQ.T
    chance = {unit: 0.5 + 0.5 * (a - b) for unit, a, b in zip(fit.ratings.units, above, below, strict=True)}
    first = {unit[0]: float(p) for unit, p in chance.items() if isinstance(unit, tuple) and not unit[1]}
    return _softened(comparisons, first, "dawid-skene"), fit


def soften_by_bradley_terry(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], CrowdBradleyTerry]:
    """Comparisons pooled by prompt and responses, with P(better) = sigmoid(difference of strengths); and the fit."""
    votes = Votes.of(
        (c.annotator, *_items(pair, signed(p) * (-1 if turned else 1)), p.tie)
        for pair, turned, c, p in pair_votes(comparisons)
    )
    fit = crowd_bradley_terry(votes)
    strength = dict(zip(fit.votes.items, fit.strength_I.tolist(), strict=True))
    pairs = {pair for pair, *_ in pair_votes(comparisons)}
    first = {p: float(_sigmoid(np.array(strength[p.prompt, p.first] - strength[p.prompt, p.second]))) for p in pairs}
    return _softened(comparisons, first, "bradley-terry"), fit


def _items(pair: Judged, sign: int) -> tuple[tuple[PromptText, str], tuple[PromptText, str]]:
    """Preferred and other."""
    first, second = (pair.prompt, pair.first), (pair.prompt, pair.second)
    return (second, first) if sign < 0 else (first, second)


def _softened(comparisons: Sequence[Comparison], first: Mapping[Judged, float], by: str) -> list[Comparison]:
    """One comparison for each prompt and list of responses, with every pair that anybody judged once."""
    groups: dict[tuple[PromptText, tuple[str, ...], tuple[bool, ...]], list[Comparison]] = defaultdict(list)
    for c in comparisons:
        groups[c.prompt, c.responses, c.ended].append(c)
    made = []
    for group in groups.values():
        judged = dict.fromkeys((min(p.better, p.worse), max(p.better, p.worse)) for c in group for p in c.preferences)
        preferences = tuple(_soft(group[0], i, j, first) for i, j in judged)
        made.append(replace(group[0], preferences=preferences, annotator=by, shown=(), unsafe=()))
    return made


def _soft(c: Comparison, i: int, j: int, first: Mapping[Judged, float]) -> Preference:
    a, b = c.responses[i], c.responses[j]
    if a == b:
        return Preference.likely(i, j, 0.5)
    straight = Judged(c.prompt, a, b)
    p = first[straight] if straight in first else 1 - first[Judged(c.prompt, b, a)]
    return Preference.likely(i, j, p)


# ------------------------------------------------------------------------------------------------------------- numbers


def _settled(objective: Sequence[float], labels: int) -> bool:
    if len(objective) < 2:
        return False
    return len(objective) >= MOST_STEPS or objective[-1] - objective[-2] < TOLERANCE * labels


def _sum(where: Ints, what: Floats, count: int) -> Floats:
    return np.bincount(where, weights=what, minlength=count).astype(np.float64)


def _sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -x))


def _log(x: Floats) -> Floats:
    """Of probabilities, with 0 far below whatever else there is rather than infinite: 0 x log 0 is 0."""
    return np.log(np.maximum(x, 1e-300))
