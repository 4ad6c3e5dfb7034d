"""One card per annotator: right on gold questions, like the rest, drawn to a side or to length, in whose time.

What is worth a warning is decided at a level shared out among the annotators (Bonferroni): of a panel in which nobody
is biased, one check warns about anybody in one report of twenty. The intervals of the cards are those of that level.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from assent.feedback.ratings import Judged, pair_votes, signed
from assent.intervals import Estimate, Interval, share_estimate
from assent.records import Comparison, Message, PromptText

FALSE_WARNINGS = 0.05
"""The chance that one check warns about anybody in a panel without faults."""

OUTLYING = 3.5
"""Distance from the median, in robust standard deviations, beyond which a pace is an outlier (Iglewicz & Hoaglin 1993,
How to detect and handle outliers)."""

TO_NORMAL = 1.4826
"""Median absolute deviation to standard deviation, of a normal distribution."""

FEWEST_PACES = 8
"""Timed answers of a panel below which nobody is called fast or slow: a median needs some company (our choice)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an annotator said, and how long it took.

    Args:
        comparison: with its annotator, and the order in which the responses were shown where position is to be judged.
        seconds: from the question to the answer; None when nobody measured.
    """

    comparison: Comparison
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast somebody answers.

    Args:
        seconds: median time of an answer.
        characters: shown per second of an answer, median.
        distance: how far the log of that lies from the median of the others' answers, in robust standard deviations of
            these; positive is faster. None when there are too few of them, or all alike.
        hasty: answers that are faster than the others' by more than `OUTLYING` such deviations.
    """

    seconds: float
    characters: float
    distance: float | None
    hasty: int


@dataclass(frozen=True, slots=True)
class AnnotatorCard:
    """What is known of one annotator. An estimate without a value rests on nothing.

    Args:
        answers, pairs: comparisons answered and pairs judged in them.
        gold: share of the ordered gold pairs that were ordered right; a tie counts half.
        like_the_rest: share of the others' votes on the same pairs that are the same, ties included.
        rest_among_themselves: the same of the others, on what they share without this annotator.
        consistent: share of pairs, asked again, that got the answer they had before.
        earlier: share of the ordered votes for the response that was shown earlier; 0.5 without a position bias.
        longer: share of the ordered votes for the longer response (characters), where lengths differ.
        longer_of_rest: the same of everybody else's votes.
        ties: share of the votes that are ties.
        pace: None when not measured.
        warnings: plain words for whoever runs the panel.
    """

    name: str
    answers: int
    pairs: int
    gold: Estimate
    like_the_rest: Estimate
    rest_among_themselves: Estimate
    consistent: Estimate
    earlier: Estimate
    longer: Estimate
    longer_of_rest: Estimate
    ties: float
    pace: Pace | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vote:
    """One judged pair of one answer; `sign` is +1 for the pair's first response, 0 for a tie, -1 for the second."""

    pair: Judged
    annotator: str
    sign: int
    first_shown_earlier: bool | None


@dataclass(frozen=True, slots=True)
class AnnotatorReport:
    """All cards, by name, and the level of their intervals."""

    cards: tuple[AnnotatorCard, ...]
    level: float

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(w for card in self.cards for w in card.warnings)

    def table(self) -> str:
        """As Markdown: a row for each annotator, then what to look into."""
        heads = (
            "annotator", "answers", "gold", "like the rest", "the rest", "consistent", "shown earlier", "longer",
            "longer, the rest", "ties", "median s",
        )  # fmt: skip
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for c in self.cards:
            cells = (
                c.name, str(c.answers), _cell(c.gold), _cell(c.like_the_rest), _percent(c.rest_among_themselves.value),
                _cell(c.consistent), _cell(c.earlier), _cell(c.longer), _percent(c.longer_of_rest.value),
                _percent(c.ties), "" if c.pace is None else f"{c.pace.seconds:.1f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
        said = self.warnings or ("Nothing stands out.",)
        return "\n".join([*lines, "", f"Intervals at {100 * self.level:.1f} %.", "", *(f"* {w}" for w in said)]) + "\n"


def report_annotators(answers: Sequence[Answer], gold: Sequence[Comparison] = ()) -> AnnotatorReport:
    """A card for everybody who answered.

    Args:
        answers: of named annotators; the cards do not tell one nameless annotator from another.
        gold: pairs with their right answer, matched by prompt and texts whichever way round they stand; ties of gold
            ask nothing.
    """
    votes, truth = _votes([a.comparison for a in answers], gold)
    by_name: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_name[vote.annotator].append(vote)
    names = list(dict.fromkeys([a.comparison.annotator for a in answers]))
    level = 1 - FALSE_WARNINGS / max(len(names), 1)
    on_pair: dict[Judged, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for vote in votes:
        on_pair[vote.pair][vote.annotator].append(vote.sign)
    paces = _paces(answers)
    cards = []
    for name in names:
        mine = by_name[name]
        rest = [v for other, of in by_name.items() if other != name for v in of]
        card = AnnotatorCard(
            name=name,
            answers=sum(a.comparison.annotator == name for a in answers),
            pairs=len(mine),
            gold=_share([(0.5 + 0.5 * v.sign * truth[v.pair], v) for v in mine if truth.get(v.pair)], level),
            like_the_rest=_share([(s, v) for v in mine if (s := _alike(v, on_pair)) is not None], level),
            rest_among_themselves=_among(name, on_pair, level),
            consistent=_again(mine, level),
            earlier=_share(_earlier_preferred(mine), level),
            longer=_share(_longer(mine), level),
            longer_of_rest=_share(_longer(rest), level),
            ties=sum(v.sign == 0 for v in mine) / max(len(mine), 1),
            pace=_pace_of(name, answers, paces),
        )
        cards.append(_with_warnings(card))
    return AnnotatorReport(tuple(cards), level)


# --------------------------------------------------------------------------------------------------------------- votes


def _votes(said: Sequence[Comparison], gold: Sequence[Comparison]) -> tuple[list[Vote], dict[Judged, int]]:
    """Every vote, and the sign of the right answer to each gold pair; one naming of pairs for both."""
    votes: list[Vote] = []
    truth: dict[Judged, int] = {}
    known = sum(1 for _ in pair_votes(gold))
    for place, (pair, turned, c, p) in enumerate(pair_votes([*gold, *said])):
        sign = -signed(p) if turned else signed(p)
        if place < known:
            truth[pair] = sign
        else:
            low, high = sorted((p.better, p.worse))
            votes.append(Vote(pair, c.annotator, sign, _earlier(c, low, high, turned)))
    return votes, truth


def _earlier(c: Comparison, low: int, high: int, turned: bool) -> bool | None:
    """Whether the pair's first response was shown before its second; None when the order is unknown, or when the
    annotator wrote one of them."""
    if low not in c.shown or high not in c.shown:
        return None
    first, second = (high, low) if turned else (low, high)
    return c.shown.index(first) < c.shown.index(second)


def _share(outcomes: Sequence[tuple[float, Vote]], level: float) -> Estimate:
    return share_estimate([x for x, _ in outcomes], [repr(v.pair.prompt) for _, v in outcomes], level=level)


def _alike(vote: Vote, on_pair: Mapping[Judged, Mapping[str, Sequence[int]]]) -> float | None:
    """Share of the others' votes on the pair that are this one; None when there are none."""
    others = [sign for name, signs in on_pair[vote.pair].items() if name != vote.annotator for sign in signs]
    return sum(sign == vote.sign for sign in others) / len(others) if others else None


def _among(name: str, on_pair: Mapping[Judged, Mapping[str, Sequence[int]]], level: float) -> Estimate:
    """Of all twos of others on a pair, the share that say the same; mean over pairs."""
    shares, prompts = [], []
    for pair, said in on_pair.items():
        signs = [(other, sign) for other, of in said.items() if other != name for sign in of]
        twos = [a[1] == b[1] for i, a in enumerate(signs) for b in signs[:i] if a[0] != b[0]]
        if twos:
            shares.append(sum(twos) / len(twos))
            prompts.append(repr(pair.prompt))
    return share_estimate(shares, prompts, level=level)


def _again(mine: Sequence[Vote], level: float) -> Estimate:
    before: dict[Judged, int] = {}
    same = []
    for vote in mine:
        if vote.pair in before:
            same.append((float(before[vote.pair] == vote.sign), vote))
        before[vote.pair] = vote.sign
    return _share(same, level)


def _earlier_preferred(votes: Sequence[Vote]) -> list[tuple[float, Vote]]:
    """1 where the response that was shown earlier was preferred; ties and unknown orders are left out."""
    known = ((v.first_shown_earlier, v) for v in votes if v.sign)
    return [(float((v.sign > 0) == first), v) for first, v in known if first is not None]


def _longer(votes: Sequence[Vote]) -> list[tuple[float, Vote]]:
    """1 where the longer response was preferred; ties and equal lengths are left out."""
    gaps = ((len(v.pair.first) - len(v.pair.second), v) for v in votes)
    return [(float((gap > 0) == (v.sign > 0)), v) for gap, v in gaps if gap and v.sign]


# ---------------------------------------------------------------------------------------------------------------- pace


def _characters(prompt: PromptText) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(m.content) for m in prompt if isinstance(m, Message))


def _paces(answers: Sequence[Answer]) -> dict[str, list[float]]:
    """The log of characters shown per second of every timed answer, by annotator."""
    made: dict[str, list[float]] = defaultdict(list)
    for a in answers:
        if a.seconds is not None and a.seconds > 0:
            shown = _characters(a.comparison.prompt) + sum(map(len, a.comparison.responses))
            made[a.comparison.annotator].append(math.log(max(shown, 1) / a.seconds))
    return made


def _pace_of(name: str, answers: Sequence[Answer], paces: Mapping[str, Sequence[float]]) -> Pace | None:
    mine = paces.get(name)
    if not mine:
        return None
    seconds = median(a.seconds for a in answers if a.comparison.annotator == name and a.seconds)
    pace = Pace(seconds, math.exp(median(mine)), None, 0)
    rest = [x for other, of in paces.items() if other != name for x in of]
    if len(rest) < FEWEST_PACES:
        return pace
    middle = median(rest)
    spread = TO_NORMAL * median(abs(x - middle) for x in rest)
    if spread == 0:
        return pace
    hasty = sum((x - middle) / spread > OUTLYING for x in mine)
    return replace(pace, distance=(median(mine) - middle) / spread, hasty=hasty)


# ------------------------------------------------------------------------------------------------------------ warnings


def _with_warnings(card: AnnotatorCard) -> AnnotatorCard:
    return replace(card, warnings=tuple(_warnings(card)))


def _warnings(c: AnnotatorCard) -> Iterator[str]:
    yield from _gold_warning(c)
    if _differ(c.like_the_rest, c.rest_among_themselves) < 0:
        yield (
            f"{c.name} agrees with the others on {_cell(c.like_the_rest)} of the shared pairs, they among themselves "
            f"on {_percent(c.rest_among_themselves.value)}: talk over some pairs, the guidelines may be read "
            f"differently."
        )
    if c.earlier.interval and 0.5 not in c.earlier.interval:
        side = "earlier" if c.earlier.interval.low > 0.5 else "later"
        yield (
            f"{c.name} prefers what was shown {side} ({_cell(c.earlier)} for the earlier, where 50 % is no bias): the "
            f"shown order is random, so it cancels in the mean, but these answers hold less; ask to read both first."
        )
    if way := _differ(c.longer, c.longer_of_rest):
        more = "more" if way > 0 else "less"
        yield (
            f"{c.name} prefers the longer response {more} often than the others ({_cell(c.longer)} against "
            f"{_percent(c.longer_of_rest.value)}): look whether length stands in for quality in the guidelines."
        )
    if c.pace is not None:
        yield from _pace_warning(c.name, c.answers, c.pace)


def _pace_warning(name: str, answers: int, pace: Pace) -> Iterator[str]:
    if pace.distance is not None and abs(pace.distance) > OUTLYING:
        way = "faster" if pace.distance > 0 else "slower"
        yield f"{name} is much {way} than the others ({pace.characters:.0f} characters a second at the median)."
    elif pace.hasty:
        yield f"{name} gave {pace.hasty} of {answers} answers at a pace at which the others never read: look at these."


def _gold_warning(c: AnnotatorCard) -> Iterator[str]:
    if not c.gold.interval:
        return
    if c.gold.interval.high < 0.5:
        yield f"{c.name} orders gold questions the wrong way round ({_cell(c.gold)} right): are the buttons understood?"
    elif c.gold.interval.low <= 0.5 and c.gold.items >= 10:
        yield (
            f"{c.name} cannot be told from guessing on {c.gold.items} gold questions ({_cell(c.gold)} right): leave "
            f"these answers out until it is known why."
        )


def _differ(one: Estimate, other: Estimate) -> int:
    """1 or -1 where the first is above or below the second by more than both their uncertainties explain; else 0.

    The interval of the difference is made of those of the two (Newcombe 1998, Statistics in Medicine 17, 873, method
    10); where both are about the same prompts, that is somewhat too wide.
    """
    if one.value is None or other.value is None or one.interval is None or other.interval is None:
        return 0
    gap = one.value - other.value
    if gap > math.hypot(one.value - one.interval.low, other.interval.high - other.value):
        return 1
    return -1 if -gap > math.hypot(one.interval.high - one.value, other.value - other.interval.low) else 0


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _cell(e: Estimate) -> str:
    return "" if e.value is None or e.interval is None else f"{_percent(e.value)} [{_ends(e.interval)}]"


def _ends(interval: Interval) -> str:
    return f"{100 * interval.low:.0f}, {100 * interval.high:.0f}"
