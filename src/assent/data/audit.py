"""What is odd in a data set before anything is trained on it: counted and said, never mended."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from assent.data.splits import prompt_key
from assent.records import Comparison, Demonstration, Preference


@dataclass(frozen=True, slots=True)
class ComparisonAudit:
    """Counts over comparisons. Texts are compared stripped of the space around them.

    Args:
        comparisons: in all.
        prompts: distinct ones, up to letter case and spacing.
        pairs: judged pairs with an order.
        ties: judged pairs without.
        duplicates: comparisons whose prompt, responses, judgements and annotator all occurred before.
        identical: ordered pairs of two equal texts: one was preferred to itself.
        empty: responses without text, each counted once per comparison.
        contradictory: (prompt, two texts) that were preferred both ways, by anybody.
        self_contradictory: the same within one annotator (the unknown annotator counts as one).
        longer_preferred: share of ordered pairs of different length whose preferred text is the longer, in characters;
            nan where there is none. Far from one half, a reward model can score by looking at length.
        mean_length_gap: preferred minus rejected, in characters, over ordered pairs; nan where there is none.
    """

    comparisons: int
    prompts: int
    pairs: int
    ties: int
    duplicates: int
    identical: int
    empty: int
    contradictory: int
    self_contradictory: int
    longer_preferred: float
    mean_length_gap: float

    def __str__(self) -> str:
        return (
            f"{self.comparisons:,} comparisons of {self.prompts:,} prompts: {self.pairs:,} ordered pairs, "
            f"{self.ties:,} ties; {self.duplicates:,} duplicates, {self.identical:,} pairs of identical texts, "
            f"{self.empty:,} empty responses, {self.contradictory:,} pairs preferred both ways "
            f"({self.self_contradictory:,} by the same annotator); the longer text preferred in "
            f"{self.longer_preferred:.0%}, by {self.mean_length_gap:+.0f} characters on average"
        )


def audit_comparisons(comparisons: Sequence[Comparison]) -> ComparisonAudit:
    """Look through comparisons once; changes nothing."""
    ordered = [(c, p) for c in comparisons for p in c.preferences if not p.tie]
    texts = [_texts(c, p) for c, p in ordered]
    gaps = [len(better) - len(worse) for better, worse in texts]
    unequal = [gap > 0 for gap in gaps if gap]
    anybody = [(prompt_key(c.prompt), *pair) for (c, _), pair in zip(ordered, texts, strict=True)]
    somebody = [(c.annotator, *key) for (c, _), key in zip(ordered, anybody, strict=True)]
    return ComparisonAudit(
        comparisons=len(comparisons),
        prompts=len({prompt_key(c.prompt) for c in comparisons}),
        pairs=len(ordered),
        ties=sum(p.tie for c in comparisons for p in c.preferences),
        duplicates=len(comparisons)
        - len({(prompt_key(c.prompt), c.responses, c.preferences, c.annotator) for c in comparisons}),
        identical=sum(better == worse for better, worse in texts),
        empty=sum(not r.strip() for c in comparisons for r in c.responses),
        contradictory=_both_ways(anybody),
        self_contradictory=_both_ways(somebody),
        longer_preferred=fmean(unequal) if unequal else float("nan"),
        mean_length_gap=fmean(gaps) if gaps else float("nan"),
    )


def _texts(comparison: Comparison, preference: Preference) -> tuple[str, str]:
    return comparison.responses[preference.better].strip(), comparison.responses[preference.worse].strip()


def _both_ways(keys: Sequence[tuple[str, ...]]) -> int:
    """How many pairs of different texts occur in both orders; the last two parts of a key are the texts."""
    orders: dict[tuple[tuple[str, ...], frozenset[str]], set[str]] = defaultdict(set)
    for *context, better, worse in keys:
        if better != worse:
            orders[tuple(context), frozenset((better, worse))].add(better)
    return sum(len(winners) == 2 for winners in orders.values())


@dataclass(frozen=True, slots=True)
class DemonstrationAudit:
    """Counts over demonstrations.

    Args:
        demonstrations: in all.
        prompts: distinct ones, up to letter case and spacing.
        duplicates: demonstrations whose prompt and response both occurred before.
        empty: responses without text.
    """

    demonstrations: int
    prompts: int
    duplicates: int
    empty: int

    def __str__(self) -> str:
        return (
            f"{self.demonstrations:,} demonstrations of {self.prompts:,} prompts: {self.duplicates:,} duplicates, "
            f"{self.empty:,} empty responses"
        )


def audit_demonstrations(demonstrations: Sequence[Demonstration]) -> DemonstrationAudit:
    """Look through demonstrations once; changes nothing."""
    keys = [prompt_key(d.prompt) for d in demonstrations]
    answered = {(key, d.response.strip()) for key, d in zip(keys, demonstrations, strict=True)}
    return DemonstrationAudit(
        demonstrations=len(demonstrations),
        prompts=len(set(keys)),
        duplicates=len(demonstrations) - len(answered),
        empty=sum(not d.response.strip() for d in demonstrations),
    )
