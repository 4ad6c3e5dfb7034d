"""The reward model's card: how far its scores can be trusted, from held-out pairs."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assent.errors import DataError
from assent.evals.calibration import Calibration, calibration
from assent.evals.card_warnings import Findings, card_warnings
from assent.evals.ceiling import NoiseCeiling, ceiling_from_votes
from assent.evals.correlation import cosine, pearson, spearman
from assent.evals.intervals import Estimate, Floats, share_estimate
from assent.evals.judged import JudgedPair, ScoredResponse, correct, unique_responses
from assent.evals.plain import from_json, to_json
from assent.records import Degree

LENGTH_MATCHED = 0.10
"""Pairs whose lengths differ by less than this share of the longer one count as length-matched; ours."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Accuracy on one kind of pairs."""

    name: str
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Ties:
    """Pairs that annotators called a tie; they count in no accuracy.

    Args:
        pairs: how many.
        mean_gap: mean absolute score gap on them; None without ties.
        mean_gap_ordered: the same on pairs that were ordered; a good model's is larger. None without any.
        equal_scores: ordered pairs whose two responses got exactly the same score; each counts as half right.
    """

    pairs: int
    mean_gap: float | None
    mean_gap_ordered: float | None
    equal_scores: int


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How far scores follow length.

    Args:
        pearson, spearman: of score and length over distinct responses of all prompts.
        gap_correlation: of score gap and length gap over pairs, about 0, so that which response is named first does
        not matter. model_prefers_longer: share of ordered pairs of unequal length where the longer one scores higher.
        people_prefer_longer: share of the same pairs where annotators preferred the longer one. Also the accuracy of
            judging by length alone.
        pairs: ordered pairs of unequal length.
    """

    pearson: float | None
    spearman: float | None
    gap_correlation: float | None
    model_prefers_longer: Estimate
    people_prefer_longer: Estimate
    pairs: int


@dataclass(frozen=True, slots=True)
class GoldAgreement:
    """Against the gold judgement.

    Args:
        pearson, spearman: of score and gold over distinct responses.
        accuracy: on distinct pairs whose gold differs.
        votes: how often annotators' votes agree with gold on such pairs, each vote counted.
    """

    pearson: float | None
    spearman: float | None
    accuracy: Estimate
    votes: Estimate


@dataclass(frozen=True, slots=True)
class ReportCard:
    """What held-out pairs say of a reward model. Accuracies are on pairs that annotators ordered.

    Args:
        by_agreement: accuracy on votes on pairs that all annotators order alike, and on the others with several votes,
            a tie being a vote; empty where nobody was asked twice.
    """

    accuracy: Estimate
    ties: Ties
    by_degree: tuple[Slice, ...]
    by_kind: tuple[Slice, ...]
    length_matched: Estimate
    length: LengthBias
    calibration: Calibration | None
    ceiling: NoiseCeiling | None
    gold: GoldAgreement | None
    warnings: tuple[str, ...]
    length_unit: str = "tokens"
    by_agreement: tuple[Slice, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ReportCard":
        return from_json(cls, data)


def report_card(
    pairs: Sequence[JudgedPair],
    *,
    ceiling: NoiseCeiling | None = None,
    length_unit: str = "tokens",
) -> ReportCard:
    """Judge a reward model by held-out pairs.

    Args:
        pairs: one per vote; several annotators may have voted on the same pair.
        ceiling: what the noise of the votes allows, where it is known; else it is estimated from repeated votes.
        length_unit: what the lengths count.

    Raises:
        DataError: no pair was ordered.
    """
    ordered = tuple(p for p in pairs if not p.tie)
    if not ordered:
        raise DataError(
            "a report card needs held-out pairs that annotators ordered",
            got=f"{len(pairs)} pairs, all ties" if pairs else "no pairs",
            why="accuracy of nothing is undefined",
            fix="hold out more comparisons",
        )
    accuracy = _accuracy(ordered)
    matched = _accuracy([p for p in ordered if p.relative_length_gap < LENGTH_MATCHED])
    by_degree = _slices(ordered, lambda p: p.degree.value, [d.value for d in Degree])
    kinds = sorted({p.kind for p in ordered} - {""})
    length = _length_bias(ordered, unique_responses(tuple(pairs)))
    ties = _ties(tuple(p for p in pairs if p.tie), ordered)
    reliability = calibration([p.gap for p in ordered], [p.prompt_id for p in ordered])
    ceiling = ceiling or ceiling_from_votes(pairs)
    gold = _gold(pairs)
    findings = Findings(
        accuracy=accuracy,
        near_ties=next((s.accuracy for s in by_degree if s.name == Degree.NEGLIGIBLY.value), None),
        length_matched=matched,
        gap_length_correlation=length.gap_correlation,
        model_prefers_longer=length.model_prefers_longer,
        people_prefer_longer=length.people_prefer_longer,
        calibration=reliability,
        ceiling=ceiling,
        gold_accuracy=gold.accuracy if gold else None,
        equal_scores=ties.equal_scores / len(ordered),
    )
    return ReportCard(
        accuracy,
        ties,
        by_degree,
        _slices(ordered, lambda p: p.kind, kinds),
        matched,
        length,
        reliability,
        ceiling,
        gold,
        card_warnings(findings),
        length_unit,
        _by_agreement(pairs, ordered),
    )


def _accuracy(pairs: Sequence[JudgedPair]) -> Estimate:
    return share_estimate(correct(_gaps(pairs)), [p.prompt_id for p in pairs])


def _gaps(pairs: Sequence[JudgedPair]) -> Floats:
    return np.array([p.gap for p in pairs], dtype=np.float64)


def _slices(pairs: Sequence[JudgedPair], name: Callable[[JudgedPair], str], names: Sequence[str]) -> tuple[Slice, ...]:
    """Accuracy per name, in the order of `names`, without the empty ones."""
    rows = [(n, [p for p in pairs if name(p) == n]) for n in names]
    return tuple(Slice(n, _accuracy(kept)) for n, kept in rows if kept)


ALIKE, DIVIDED = "annotators agree", "annotators differ"


def _by_agreement(pairs: Sequence[JudgedPair], ordered: Sequence[JudgedPair]) -> tuple[Slice, ...]:
    votes: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        votes[pair.asked].append("" if pair.tie else pair.better.id)
    several = {asked: said for asked, said in votes.items() if len(said) > 1}
    alike = {asked for asked, said in several.items() if len(set(said)) == 1}
    kept = [p for p in ordered if p.asked in several]
    return _slices(kept, lambda p: ALIKE if p.asked in alike else DIVIDED, (ALIKE, DIVIDED))


def _ties(tied: Sequence[JudgedPair], ordered: Sequence[JudgedPair]) -> Ties:
    gaps = _gaps(ordered)
    mean_gap = float(np.abs(_gaps(tied)).mean()) if tied else None
    return Ties(len(tied), mean_gap, float(np.abs(gaps).mean()), int((gaps == 0).sum()))


def _length_bias(ordered: Sequence[JudgedPair], responses: Sequence[ScoredResponse]) -> LengthBias:
    scores, lengths = [r.score for r in responses], [r.length for r in responses]
    unequal = [p for p in ordered if p.length_gap != 0]
    ids = [p.prompt_id for p in unequal]
    length_gaps = np.array([p.length_gap for p in unequal], dtype=np.float64)
    return LengthBias(
        pearson(scores, lengths),
        spearman(scores, lengths),
        cosine(_gaps(ordered), np.array([p.length_gap for p in ordered])),
        share_estimate(correct(_gaps(unequal) * length_gaps), ids),
        share_estimate(correct(length_gaps), ids),
        len(unequal),
    )


def _gold(pairs: Sequence[JudgedPair]) -> GoldAgreement | None:
    """None unless every response has a gold judgement."""
    if any(r.gold is None for p in pairs for r in (p.better, p.worse)):
        return None
    responses = unique_responses(tuple(pairs))
    scores, golds = [r.score for r in responses], [r.gold or 0.0 for r in responses]
    differ = [p for p in pairs if _gold_gap(p) != 0]
    distinct = list({p.asked: p for p in differ}.values())
    right = correct(np.array([p.gap * _gold_gap(p) for p in distinct], dtype=np.float64))
    voted = [p for p in differ if not p.tie]
    agree = correct(np.array([_gold_gap(p) for p in voted], dtype=np.float64))
    return GoldAgreement(
        pearson(scores, golds),
        spearman(scores, golds),
        share_estimate(right, [p.prompt_id for p in distinct]),
        share_estimate(agree, [p.prompt_id for p in voted]),
    )


def _gold_gap(pair: JudgedPair) -> float:
    return (pair.better.gold or 0.0) - (pair.worse.gold or 0.0)
