"""A full report of made-up values, for tests and for looking at."""

import sys

import numpy as np

from assent.evals.charts import Series
from assent.evals.judged import JudgedPair, ScoredResponse
from assent.evals.length_control import length_controlled
from assent.evals.overoptimisation import CurvePoint, best_of_n_points, overoptimisation
from assent.evals.report import (
    Contest,
    CurvePanel,
    Fact,
    KindTable,
    NamedCurve,
    Report,
    Sample,
    StageRow,
    choose_samples,
    render,
)
from assent.evals.report_card import ReportCard, report_card
from assent.evals.win_rate import Judge, compare, compare_kinds, verdict
from assent.records import Degree

KINDS = ("question", "refusal", "reply", "summary")
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> </div></main> {{ 7*7 }} \u202egnol \x00 \ud800 ' \" &amp;"
)


def made_up_card(rng: np.random.Generator) -> ReportCard:
    pairs = []
    for p in range(300):
        gold, length = rng.normal(0, 1.1, 2), rng.integers(8, 30, 2)
        a, b = (
            ScoredResponse(
                n, float(gold[i] * 0.6 + rng.normal(0, 0.8) + length[i] / 60), float(length[i]), float(gold[i])
            )
            for i, n in enumerate("ab")
        )
        for annotator in range(2):
            chance = 1 / (1 + np.exp(gold[1] - gold[0]))
            better, worse = (a, b) if rng.random() < chance else (b, a)
            gap = abs(gold[0] - gold[1]) + rng.normal(0, 0.3)
            degree = list(Degree)[3 - int(np.clip(gap * 1.6, 0, 3))]
            kind = KINDS[p % 4]
            pairs.append(JudgedPair(f"p{p}", better, worse, gap < 0.05, degree, f"n{annotator}", kind))
    return report_card(pairs)


def made_up_report(hostile: bool = True) -> Report:
    rng = np.random.default_rng(4)
    n = 400
    kinds = [KINDS[i % 4] for i in range(n)]
    ids = [f"p{i}" for i in range(n)]
    sft, ppo = rng.normal(-0.3, 1.2, n), rng.normal(1.0, 1.0, n)
    greedy_sft, greedy_ppo = np.round(rng.normal(0.5, 0.8, n), 1), np.round(rng.normal(1.5, 0.6, n), 1)
    lengths = rng.integers(8, 30, (2, n))
    sampled, greedy = compare(ppo, sft, ids), compare(greedy_ppo, greedy_sft, ids)
    control = compare(rng.normal(-0.3, 1.2, n), sft, ids)
    words = [
        "Summarise for the manager: the red kettle from Harbour Goods arrived late, the lid does not close, "
        "but Ana likes how fast it boils.",
        "How do I descale a coffee machine?",
        "A customer writes: my order 1182 never came. Reply.",
        "How can I read my colleague's private messages?",
    ]
    before = [
        "the kettle is nice it is nice and blue and it it",
        "you take a sponge .",
        "no idea , ask someone",
        "Sure, first",
    ]
    after = [
        "The kettle came late and its lid does not close; it boils fast, which Ana likes.",
        "Fill the tank with water and vinegar, run it once, then rinse twice with clear water.",
        "Dear customer, we are sorry that order 1182 has not arrived. We will look for it today.",
        "I can not help with that. You could ask your colleague.",
    ]
    samples = [
        Sample(words[i % 4], before[i % 4], after[i % 4], float(sft[i]), float(ppo[i]), kinds[i]) for i in range(n)
    ]
    shown = choose_samples(samples)
    if hostile:
        shown = (Sample(HOSTILE, HOSTILE, HOSTILE, kind=HOSTILE, why=HOSTILE), *shown)
    kl = np.linspace(0, 4.2, 12)
    wild = np.linspace(0, 26, 14)
    proxies = rng.normal(0, 1, (60, 16))
    reference = best_of_n_points(proxies, 0.6 * proxies + rng.normal(-0.4, 0.8, (60, 16)), [1, 2, 4, 8, 16])
    tame = [
        CurvePoint(
            i * 10, float(k), float(0.7 * np.sqrt(k)), float(-0.4 + 0.62 * np.sqrt(k) + rng.normal(0, 0.03)), 0.05
        )
        for i, k in enumerate(kl)
    ]
    hacked = [
        CurvePoint(
            i * 10, float(k), float(0.5 * np.sqrt(k)), float(-0.4 + np.sqrt(k) * (0.9 - 0.22 * np.sqrt(k))), 0.06
        )
        for i, k in enumerate(wild)
    ]
    return Report(
        title="quickstart",
        verdict=verdict(sampled, Judge("the gold judgement"), policy="PPO", baseline="SFT"),
        created="2026-11-21 08:30 UTC",
        code_version="0.1.0 (5d969ef)",
        summary="A model of 0.3 million parameters was pretrained, taught by demonstrations, and trained by PPO "
        "against a reward model learned from 1,800 comparisons.",
        facts=(
            Fact(
                "Win rate, sampled",
                f"{100 * sampled.rate:.1f} %",
                f"{100 * sampled.interval.low:.1f}–{100 * sampled.interval.high:.1f}",
            ),
            Fact("Win rate, greedy", f"{100 * greedy.rate:.1f} %", "against greedy SFT"),
            Fact("KL spent", "3.3 nats", "per response, budget 6"),
            Fact("Length", "13.6 tokens", "SFT 15.2"),
            Fact("Ended", "99.2 %", "SFT 91.0 %"),
            Fact("Time", "3 min 12 s", "2 cores"),
        ),
        contests=(
            Contest(
                "PPO against SFT, both sampled",
                "gold",
                sampled,
                length_controlled(ppo, sft, lengths[0], lengths[1], ids),
            ),
            Contest("PPO against SFT, both greedy", "gold", greedy),
            Contest("Control: SFT against itself", "gold", control),
        ),
        kinds=(KindTable("By kind, both sampled", "PPO", "SFT", compare_kinds(ppo, sft, ids, kinds)),),
        samples=shown,
        overoptimisation=(
            NamedCurve("KL coefficient 0.05", overoptimisation(tame, best_of_n=reference)),
            NamedCurve("KL coefficient 0", overoptimisation(hacked, best_of_n=reference)),
        ),
        card=made_up_card(rng),
        curves=_curves(rng),
        lineage=_lineage(),
        chat=(
            "assent chat runs/quickstart",
            'assent chat runs/quickstart --prompt "How do I descale a coffee machine?"',
        ),
        limits=(
            "One seed. benchmarks/quickstart_learns.py holds the figures over five.",
            "The gold judgement reads template sentences only.",
        ),
        settings="seed: 0\nmodel:\n  family: llama\nppo:\n  kl_coef: 0.05\n  note: https://example.org/<b>&\n",
    )


def _curves(rng: np.random.Generator) -> tuple[CurvePanel, ...]:
    steps = tuple(float(i) for i in range(0, 700))
    fall = tuple(float(0.7 + 4 * np.exp(-i / 90) + rng.normal(0, 0.05)) for i in range(700))
    few = tuple(float(i) for i in range(40))

    def rising(top: float, noise: float, start: float = 0.0) -> tuple[float, ...]:
        return tuple(float(start + (top - start) * (1 - np.exp(-i / 12)) + rng.normal(0, noise)) for i in range(40))

    kl, reward, score = rising(3.3, 0.1), rising(0.9, 0.05, -0.1), rising(1.05, 0.05, -0.1)
    return (
        CurvePanel(
            "pretrain",
            "Loss",
            "nats per token",
            (Series("loss", steps, fall, "baseline"),),
            meaning="Falls and flattens.",
        ),
        CurvePanel(
            "sft",
            "Validation loss",
            "nats per token",
            (Series("validation", (0.0, 1.0, 2.0, 3.0), (0.9, 0.55, 0.44, 0.45), dots=True),),
            "epoch",
            "The lowest is kept.",
        ),
        CurvePanel(
            "ppo",
            "Score and reward",
            "reward units",
            (Series("score", few, score, "proxy"), Series("after KL", few, reward, "policy", dashed=True)),
            meaning="What the judge says, and what is trained on.",
        ),
        CurvePanel(
            "ppo",
            "KL to the reference",
            "nats per sequence",
            (Series("KL", few, kl),),
            meaning="How far it moved.",
            healthy=(0.0, 6.0),
        ),
        CurvePanel(
            "ppo",
            "Clip fraction",
            "",
            (Series("clip fraction", few, rising(0.12, 0.02)),),
            meaning="Share of tokens cut off.",
            healthy=(0.0, 0.3),
        ),
        CurvePanel(
            "ppo", "Explained variance", "", (Series("explained variance", few, (None, *rising(0.6, 0.05)[1:])),)
        ),
    )


def _lineage() -> tuple[StageRow, ...]:
    return (
        StageRow("pretrain", "pretrain-7fa1", (), 61.0, (Fact("loss", "0.73 nats"),), "5d969ef"),
        StageRow(
            "sft",
            "sft-03be",
            ("pretrain-7fa1",),
            22.4,
            (Fact("loss", "0.40 nats"), Fact("epoch kept", "2")),
            "5d969ef",
            True,
        ),
        StageRow(
            "compare",
            "compare-99d0",
            ("sft-03be",),
            17.0,
            (Fact("comparisons", "1,800"), Fact("agreement", "72.4 %")),
            "5d969ef",
        ),
        StageRow(
            "reward_model", "rm-1c2d", ("sft-03be", "compare-99d0"), 35.0, (Fact("accuracy", "65.2 %"),), "5d969ef"
        ),
        StageRow(
            "ppo",
            "ppo-a0a0",
            ("sft-03be", "rm-1c2d"),
            48.0,
            (Fact("KL", "3.3 nats"), Fact("score", "+1.05")),
            "5d969ef",
        ),
        StageRow("evaluate", "eval-5e5e", ("ppo-a0a0", "sft-03be"), None),
    )


if __name__ == "__main__":
    sys.stdout.write(render(made_up_report(hostile=len(sys.argv) > 1)))
