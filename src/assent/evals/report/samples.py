"""Which samples a reader sees: mostly drawn at random, a few of the best and worst, each labelled as such."""

import random
from collections.abc import Sequence
from dataclasses import replace

from assent.evals.report.content import Sample

EXTREMES = 4
"""Largest gains shown, and as many largest losses."""

RANDOM, GAIN, LOSS = "drawn at random", "largest gain", "largest loss"


def choose_samples(samples: Sequence[Sample], *, count: int = 20, seed: int = 0) -> tuple[Sample, ...]:
    """Random ones first, then the largest gains, then the largest losses of the score; no sample twice.

    Without scores on both sides all are drawn at random. The random ones are drawn from all samples before the
    extremes are taken, so they stay a fair draw.

    Args:
        count: how many in all.
        seed: of the draw.
    """
    scored = [i for i, s in enumerate(samples) if s.before_score is not None and s.after_score is not None]
    extremes = min(EXTREMES, count // 4) if scored else 0
    drawn = random.Random(seed).sample(range(len(samples)), min(len(samples), count - 2 * extremes))
    left = sorted((i for i in scored if i not in set(drawn)), key=lambda i: -_gain(samples[i]))
    best = [i for i in left[:extremes] if _gain(samples[i]) > 0]
    worst = [i for i in left[::-1][:extremes] if _gain(samples[i]) < 0]
    chosen = [(i, RANDOM) for i in drawn] + [(i, GAIN) for i in best] + [(i, LOSS) for i in worst]
    return tuple(replace(samples[i], why=why) for i, why in chosen)


def _gain(sample: Sample) -> float:
    return (sample.after_score or 0.0) - (sample.before_score or 0.0)
