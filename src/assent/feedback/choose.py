"""Which pairs to ask people about: by the disagreement of a reward ensemble, or at random, and always some at random.

Pure functions on the scores that M members of an ensemble give C candidate responses of one prompt, [M, C]. What is
asked carries why it was asked: accuracy measured on the pairs with `by == "random"` is accuracy on the pairs of all
candidates; measured on the others it is accuracy on what the ensemble disagrees about.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from assent.errors import DataError
from assent.intervals import Floats

Pair = tuple[int, int]
By = Literal["random", "information_gain", "preference_variance", "double_thompson"]

RANDOM_SHARE = 0.2
"""Share of the questions that are drawn at random (our choice: of 500, 100 measure accuracy to 10 points each way)."""

ALIKE = 0.8
"""Jaccard similarity of word pairs from which two texts are near-duplicates (our choice)."""

TRIES = 20
"""Members tried for a second response that differs from the first (our choice)."""


# ------------------------------------------------------------------------------------------------- what a pair is worth


def information_gain(scores_MC: ArrayLike) -> Floats:
    """H(mean_m p_m) - mean_m H(p_m) in nats for every pair, p_m = sigmoid(score_i - score_j), [C, C].

    How much one answer is expected to tell about which member is right (BALD); symmetric, 0 on the diagonal. Near-ties
    on which all members agree are worth nothing, though no answer is less certain.

    Source: Houlsby et al. 2011, Bayesian active learning for classification and preference learning (arXiv 1112.5745).
    """
    p_MCC = _preferred(scores_MC)
    gain = _entropy(p_MCC.mean(0)) - _entropy(p_MCC).mean(0)
    return np.maximum((gain + gain.T) / 2, 0.0)  # the exact value is symmetric and not negative; rounding is neither


def preference_variance(scores_MC: ArrayLike) -> Floats:
    """Variance over members of p_m, [C, C].

    Source: Christiano et al. 2017 (arXiv 1706.03741), section 2.2.4.
    """
    return _preferred(scores_MC).var(0)


def double_thompson(scores_MC: ArrayLike, rng: np.random.Generator, *, tries: int = TRIES) -> Pair | None:
    """The best response of one random member and that of another, drawn again until they differ.

    After `tries` draws the second response is any other one. None for fewer than two candidates.

    Source: Dwaracherla et al. 2024, Efficient exploration for LLMs (arXiv 2402.00396), algorithm 4.
    """
    scores = _checked(scores_MC)
    members, candidates = scores.shape
    if candidates < 2:
        return None
    first = int(scores[rng.integers(members)].argmax())
    for _ in range(tries):
        second = int(scores[rng.integers(members)].argmax())
        if second != first:
            return first, second
    other = int(rng.integers(candidates - 1))
    return first, other + (other >= first)


def _preferred(scores_MC: ArrayLike) -> Floats:
    """P_m(i is preferred to j), [M, C, C]."""
    scores = _checked(scores_MC)
    return np.exp(-np.logaddexp(0.0, scores[:, None, :] - scores[:, :, None]))


def _entropy(p: Floats) -> Floats:
    """Of a coin, nats."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(p > 0, p * np.log(p), 0.0) - np.where(p < 1, (1 - p) * np.log1p(-p), 0.0)


def _checked(scores_MC: ArrayLike) -> Floats:
    scores = np.asarray(scores_MC, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] < 1 or not np.isfinite(scores).all():
        raise DataError(
            "choosing needs a finite score of every member for every candidate",
            got=f"scores of shape {scores.shape}, {int((~np.isfinite(scores)).sum())} of them not finite",
            why="a candidate without a score can neither be best nor be disagreed about",
            fix="pass [members, candidates], and leave candidates without a score out",
        )
    return scores


# ------------------------------------------------------------------------------------------------------ near-duplicates


def distinct(texts: Sequence[str], *, alike: float = ALIKE) -> tuple[int, ...]:
    """Indices of the texts to keep: each that is no near-duplicate of one kept before it.

    Two texts are near-duplicates when their sets of neighbouring words, without case and punctuation, have a Jaccard
    similarity of `alike` or more. An index from words to texts keeps this from comparing every text with every other.

    Source: Broder 1997, On the resemblance and containment of documents.
    """
    kept: list[int] = []
    shingles: dict[int, frozenset[tuple[str, ...]]] = {}
    holding: dict[object, list[int]] = {}
    for i, text in enumerate(texts):
        mine = _shingles(text)
        met: dict[int, int] = {}
        for shingle in mine:
            for j in holding.get(shingle, ()):
                met[j] = met.get(j, 0) + 1
        if any(n / (len(mine) + len(shingles[j]) - n) >= alike for j, n in met.items()):
            continue
        kept.append(i)
        shingles[i] = mine
        for shingle in mine:
            holding.setdefault(shingle, []).append(i)
    return tuple(kept)


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Neighbouring words with the ends of the text as words; a character of a script without spaces is a word."""
    words = ["", *re.findall(r"[㐀-鿿぀-ヿ]|[^\W㐀-鿿぀-ヿ]+", text.casefold()), ""]
    return frozenset(pairwise(words))


# ------------------------------------------------------------------------------------------------------------- choosing


@dataclass(frozen=True, slots=True)
class Candidates:
    """What could be asked of one prompt.

    Args:
        prompt_id: unique in the pool.
        responses: C texts.
        scores_MC: of an ensemble, [M, C]; None where there is none yet, and all questions are random.
    """

    prompt_id: str
    responses: tuple[str, ...]
    scores_MC: Floats | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A pair to ask about; `first` and `second` are indices into the responses, and carry no order to show them in.

    Args:
        by: how it was chosen; keep it with the answer.
        worth: what the chooser saw in it; None at random.
    """

    prompt_id: str
    first: int
    second: int
    by: By
    worth: float | None = None


class Chooser(Protocol):
    """Proposes pairs of one prompt, the best first."""

    @property
    def name(self) -> By: ...

    def __call__(self, scores_MC: Floats, rng: np.random.Generator) -> Iterable[tuple[Pair, float]]: ...


@dataclass(frozen=True, slots=True)
class ByInformationGain:
    """Implements `Chooser`: the pairs about which an answer tells most."""

    name: By = "information_gain"

    def __call__(self, scores_MC: Floats, rng: np.random.Generator) -> list[tuple[Pair, float]]:
        return _ranked(information_gain(scores_MC))


@dataclass(frozen=True, slots=True)
class ByVariance:
    """Implements `Chooser`: the pairs whose predicted preference varies most."""

    name: By = "preference_variance"

    def __call__(self, scores_MC: Floats, rng: np.random.Generator) -> list[tuple[Pair, float]]:
        return _ranked(preference_variance(scores_MC))


@dataclass(frozen=True, slots=True)
class ByDoubleThompson:
    """Implements `Chooser`: `draws` double Thompson samples; prompts are taken in random order."""

    draws: int = 1
    name: By = "double_thompson"

    def __call__(self, scores_MC: Floats, rng: np.random.Generator) -> list[tuple[Pair, float]]:
        drawn = [double_thompson(scores_MC, rng) for _ in range(self.draws)]
        pairs = dict.fromkeys((min(p), max(p)) for p in drawn if p)
        return [(pair, float(rng.random())) for pair in pairs]


def _ranked(worth_CC: Floats) -> list[tuple[Pair, float]]:
    pairs = combinations(range(len(worth_CC)), 2)
    return sorted(((p, float(worth_CC[p])) for p in pairs), key=lambda found: -found[1])


def choose(
    pool: Sequence[Candidates],
    count: int,
    *,
    chooser: Chooser | None,
    rng: np.random.Generator,
    random_share: float = RANDOM_SHARE,
    per_prompt: int | None = None,
    asked: Iterable[tuple[str, int, int]] = (),
    alike: float = ALIKE,
) -> list[Question]:
    """Up to `count` questions, none twice, in random order; fewer where the pool runs out.

    A pair is reserved for random questions or open to the chooser, once and for all, by a hash of its prompt and texts:
    about `random_share` of all pairs are reserved. So the random questions of any number of rounds are a random sample
    of the pairs of all distinct candidates, whatever the chooser took. Never fewer than the share are random: where the
    reserve is short, the chooser gets less.

    Args:
        chooser: None for random questions only, from reserved and open pairs alike.
        random_share: above 0, at most 1; keep it the same from round to round.
        per_prompt: most questions of one prompt that the chooser may bring it to, the random ones counted.
        asked: (prompt_id, first, second) that are not asked again.

    Raises:
        DataError: the share is no share, a prompt comes twice, or the chooser has no scores.
    """
    _check_pool(pool, count, random_share, chooser)
    gone = {(prompt, min(i, j), max(i, j)) for prompt, i, j in asked}
    kept = {c.prompt_id: distinct(c.responses, alike=alike) for c in pool}
    left = [(c, pair) for c in pool for pair in combinations(kept[c.prompt_id], 2) if (c.prompt_id, *pair) not in gone]
    reserve = [(c, pair) for c, pair in left if chooser is None or reserved(c, pair, random_share)]
    wanted = count if chooser is None else math.ceil(random_share * count - 1e-9)
    drawn = [reserve[i] for i in rng.permutation(len(reserve))[:wanted]]
    made = [Question(c.prompt_id, i, j, by="random") for c, (i, j) in drawn]
    if chooser is not None:
        gone |= {(c.prompt_id, *pair) for c, pair in reserve}
        most = min(count - len(made), math.floor(len(made) * (1 - random_share) / random_share + 1e-9))
        made += _worthiest(pool, kept, gone, made, chooser, most, per_prompt, rng)
    return [made[i] for i in rng.permutation(len(made))]


def reserved(candidates: Candidates, pair: Pair, random_share: float) -> bool:
    """Whether a pair is for random questions only; the same whichever way round it stands and whatever is beside it."""
    texts = sorted(candidates.responses[i] for i in pair)
    digest = hashlib.sha256("\x1f".join((candidates.prompt_id, *texts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") < random_share * 2**64


def _worthiest(
    pool: Sequence[Candidates],
    kept: dict[str, tuple[int, ...]],
    gone: set[tuple[str, int, int]],
    random: Sequence[Question],
    chooser: Chooser,
    count: int,
    per_prompt: int | None,
    rng: np.random.Generator,
) -> list[Question]:
    proposals = []
    for c in pool:
        assert c.scores_MC is not None
        places = kept[c.prompt_id]
        if len(places) > 1:
            found = chooser(_checked(c.scores_MC)[:, list(places)], rng)
            proposals += [(worth, c.prompt_id, places[i], places[j]) for (i, j), worth in found]
    used: dict[str, int] = {}
    for q in random:
        used[q.prompt_id] = used.get(q.prompt_id, 0) + 1
    made: list[Question] = []
    for worth, prompt, i, j in sorted(proposals, key=lambda p: -p[0]):
        if len(made) == count:
            break
        if (prompt, i, j) in gone or (per_prompt is not None and used.get(prompt, 0) >= per_prompt):
            continue
        used[prompt] = used.get(prompt, 0) + 1
        made.append(Question(prompt, i, j, chooser.name, worth))
    return made


def _check_pool(pool: Sequence[Candidates], count: int, random_share: float, chooser: Chooser | None) -> None:
    names = [c.prompt_id for c in pool]
    unscored = [c.prompt_id for c in pool if c.scores_MC is None or len(c.responses) != np.shape(c.scores_MC)[-1]]
    for wrong, what, why, fix in (
        (
            f"a random share of {random_share}" if not 0 < random_share <= 1 else "",
            "some questions must be random",
            "on chosen questions alone, no accuracy can be measured that holds for the others",
            "pass a share above 0 and at most 1",
        ),
        (
            f"{len(names) - len(set(names))} prompts twice" if len(set(names)) < len(names) else "",
            "each prompt stands in the pool once",
            "a cap per prompt would be kept for each copy",
            "put the responses of one prompt together",
        ),
        (
            f"{len(unscored)} prompts without a score for each response" if chooser and unscored else "",
            "a chooser needs scores",
            "it ranks pairs by them",
            "score the candidates with an ensemble, or pass chooser=None for random questions",
        ),
        (
            f"{count} questions" if count < 1 else "",
            "at least one question",
            "there is nothing to choose",
            "ask for more",
        ),
    ):
        if wrong:
            raise DataError(what, got=wrong, why=why, fix=fix)
