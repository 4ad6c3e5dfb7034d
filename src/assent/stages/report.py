"""One self-contained page that says what a run did and what it shows."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter

from assent.evals.charts import Series
from assent.evals.overoptimisation import BestOfN, CurvePoint, overoptimisation, stretches
from assent.evals.plain import from_json
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
from assent.evals.report_card import ReportCard
from assent.evals.win_rate import KindRow, Verdict, WinRate
from assent.pipeline.artefact import Artefact
from assent.pipeline.references import Reference
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.stages.generation import about_broken
from assent.stages.lines import lines_of
from assent.stages.parts import talks
from assent.stages.scorers import RewardSpec
from assent.track.catalogue import lookup

PAGE = "report.html"
HOW = ("sampled", "greedy")
"""How an evaluation draws responses."""

PANELS: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("loss/tokens",),
    "sft": ("loss/tokens", "validation/loss", "validation/score"),
    "reward_model": ("loss/pairs", "pairs/accuracy"),
    "align": (
        "loss/preference",
        "implicit_reward/accuracy",
        "implicit_reward/margin",
        "logprobs/chosen_shift",
        "logprobs/rejected_shift",
    ),
    "rl": (
        "objective/rlhf_reward",
        "objective/scores",
        "objective/kl",
        "response/length",
        "response/ended",
        "value/explained_variance",
        "policy/clipfrac_avg",
        "policy/entropy_avg",
        "score/gold",
    ),
}
"""What is drawn of each kind of stage; losses of PPO are left out, since they are not progress signals."""

KEY_FIGURES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "pretrain": (("validation_loss", "validation loss, nats per token"), ("tokens", "tokens")),
    "sft": (("chosen_epoch", "chosen epoch"), ("demonstrations", "demonstrations")),
    "compare": (("comparisons", "comparisons"), ("prompts", "prompts")),
    "reward_model": (("accuracy", "held-out accuracy"), ("training_prompts", "prompts")),
    "reward_ensemble": (
        ("accuracy", "held-out accuracy of the mean"),
        ("member_accuracy", "of a member, on average"),
        ("training_prompts", "prompts"),
    ),
    "reward_average": (("accuracy", "held-out accuracy"),),
    "align": (("accuracy", "held-out accuracy of the implicit reward"), ("training_pairs", "pairs")),
    "rl": (("objective/kl", "KL, nats per response"), ("objective/scores", "score")),
    "select": (("demonstrations", "demonstrations kept"), ("prompts_all_equal", "prompts with equal scores")),
    "accept": (("accepted", "accepted, 1 or 0"),),
    "evaluate": (
        ("win_sampled", "win rate, sampled"),
        ("win_greedy", "win rate, greedy"),
        ("policy_sampled_judge", "score, sampled"),
        ("baseline_sampled_judge", "of the baseline"),
        ("policy_sampled_unsafe", "share unsafe, sampled"),
        ("baseline_sampled_unsafe", "of the baseline"),
    ),
}


class ReportSpec(StageSpec):
    """Settings of the report.

    Args:
        of: the stages it tells of, in the order of the run; the last evaluation among them gives the verdict.
        title: of the page; the name of the stage's run by default.
        samples: how many pairs of responses are shown.
    """

    of: list[Annotated[str, Reference()]] = Field(min_length=1)
    title: str = "Run"
    samples: int = Field(20, gt=0)


def run(spec: ReportSpec, context: StageContext) -> Mapping[str, float]:
    told = [context.inputs[name] for name in spec.of]
    kinds = {a.kind: a for a in told}
    results = _json(kinds["evaluate"].folder / "results.json") if "evaluate" in kinds else {}
    samples = _samples(kinds.get("evaluate"), spec.samples, context.seed)
    report = Report(
        title=spec.title,
        verdict=_verdict(results),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        code_version=told[-1].code_version,
        facts=_facts(results),
        contests=_contests(results),
        kinds=_kinds(results),
        samples=samples,
        sample_notes=about_broken(text for sample in samples for text in (sample.before, sample.after)),
        before="before (baseline, sampled)",
        after="after (policy, sampled)",
        sample_judge=results.get("judge", "the judge"),
        overoptimisation=_curves_over_kl(told, results),
        card_of=kinds["reward_model"].name if "reward_model" in kinds else "",
        card=ReportCard.from_json(_json(a.folder / "card.json")) if (a := kinds.get("reward_model")) else None,
        curves=tuple(p for a in told for p in (*_panels(a), *_best_of_n_panels(a))),
        lineage=tuple(_row(a) for a in told),
        chat=tuple(f"assent chat {a.folder.parent} --stage {a.name}" for a in told if talks(a)),
        limits=_limits(results),
        settings="\n".join(json.dumps({a.name: a.config}, indent=1) for a in told),
    )
    page = context.out / PAGE
    page.write_text(render(report), encoding="utf-8")
    return {"bytes": float(page.stat().st_size)}


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_of(path)] if path.exists() else []


def _verdict(results: Mapping[str, Any]) -> Verdict:
    if not results:
        return Verdict("This run was not evaluated.", None)
    parts = [from_json(Verdict, results["verdicts"][name]) for name in HOW]
    agree = parts[0].improved if parts[0].improved == parts[1].improved else None
    text = f"Sampled: {parts[0].text} Greedy: {parts[1].text}"
    return Verdict(text, agree)


def _facts(results: Mapping[str, Any]) -> tuple[Fact, ...]:
    if not results:
        return ()
    facts = []
    for name in HOW:
        rate = from_json(WinRate, results["win_rates"][name])
        low, high = rate.interval.low, rate.interval.high
        facts.append(Fact(f"win rate, {name}", f"{100 * rate.rate:.1f} %", f"{100 * low:.1f}–{100 * high:.1f} %"))
    facts.append(Fact("KL spent", f"{results['kl']:.2f} nats", "per response, policy to baseline"))
    before, after = results["models"]["baseline sampled"], results["models"]["policy sampled"]
    facts.append(Fact("length", f"{after['length']:.1f} tokens", f"{before['length']:.1f} before"))
    facts.append(Fact("ended", f"{100 * after['ended']:.1f} %", f"{100 * before['ended']:.1f} % before"))
    said = {how: tuple(results["models"][f"{who} {how}"]["judge"] for who in ("policy", "baseline")) for how in HOW}
    facts += [Fact(f"{results['judge']}, {how}", f"{a:.2f}", f"{b:.2f} before") for how, (a, b) in said.items()]
    if "correctness" in results:
        rows = results["correctness"]
        after_c, before_c = rows["policy greedy"]["all"]["mean"], rows["baseline greedy"]["all"]["mean"]
        facts.append(Fact("correctness, greedy", f"{after_c:.2f}", f"{before_c:.2f} before; −1 wrong to 1 right"))
    return tuple(facts)


def _contests(results: Mapping[str, Any]) -> tuple[Contest, ...]:
    judge = results.get("judge", "the judge")
    scored = [Contest(name, judge, from_json(WinRate, row)) for name, row in results.get("win_rates", {}).items()]
    return (*scored, *_side_by_side(results.get("side_by_side")))


def _side_by_side(said: Mapping[str, Any] | None) -> Iterator[Contest]:
    if said is None:
        return
    for name in (how for how in HOW if how in said):
        yield Contest(f"{name}, side by side", said["judge"], from_json(WinRate, said[name]["rate"]))
        for about, rate in said[name]["about"].items():
            yield Contest(f"{name}, side by side, {about}", said["judge"], from_json(WinRate, rate))


def _kinds(results: Mapping[str, Any]) -> tuple[KindTable, ...]:
    return tuple(
        KindTable(f"By kind of prompt, {name}", "policy", "baseline", tuple(from_json(KindRow, r) for r in rows))
        for name, rows in results.get("by_kind", {}).items()
    )


def _samples(evaluation: Artefact | None, count: int, seed: int) -> tuple[Sample, ...]:
    if evaluation is None:
        return ()
    rows = _lines(evaluation.folder / "samples.jsonl")
    samples = [
        Sample(
            row["prompt"],
            row["baseline_sampled"]["text"],
            row["policy_sampled"]["text"],
            row["baseline_sampled"]["judge"],
            row["policy_sampled"]["judge"],
            kind=row["kind"],
        )
        for row in rows
    ]
    return choose_samples(samples, count=count, seed=seed)


def _curves_over_kl(told: Sequence[Artefact], results: Mapping[str, Any]) -> tuple[NamedCurve, ...]:
    """Proxy and gold over KL of every RL stage that watched a judge it was not trained on."""
    curves = []
    for artefact in (a for a in told if a.kind == "rl"):
        rows = [r for r in _lines(artefact.folder / "metrics.jsonl") if "score/gold" in r and "objective/kl" in r]
        proxy = "score/" + TypeAdapter(RewardSpec).validate_python(artefact.config["rewards"][0]).label
        points = [
            CurvePoint(r["step"], r["objective/kl"], r[proxy], r["score/gold"])
            for r in rows
            if r.get(proxy) is not None
        ]
        if len(points) >= 5:  # fewer cannot tell a fall from noise
            best = tuple(from_json(BestOfN, b) for b in results.get("best_of_n", []))
            curves.append(NamedCurve(artefact.name, overoptimisation(stretches(points), best_of_n=best)))
    return tuple(curves)


def _panels(artefact: Artefact) -> Iterable[CurvePanel]:
    rows = _lines(artefact.folder / "metrics.jsonl")
    for name in PANELS.get(artefact.kind, ()):
        points = [(float(r["step"]), r[name]) for r in rows if r.get(name) is not None]
        if len(points) < 2:
            continue
        metric = lookup(name)
        x, y = _thin(points)
        healthy = metric.healthy
        band = (healthy.low, healthy.high) if healthy and healthy.low is not None and healthy.high is not None else None
        yield CurvePanel(artefact.name, name, metric.unit, (Series(name, x, y),), meaning=metric.meaning, healthy=band)


def _best_of_n_panels(artefact: Artefact) -> Iterable[CurvePanel]:
    """What the best of n earns by each scorer, over n; the chooser's own scores rise by construction."""
    curves = _json(path) if (path := artefact.folder / "best_of_n.json").exists() else {}
    for place, (label, rows) in enumerate(curves.items()):
        points = [from_json(BestOfN, row) for row in rows]
        if len(points) < 2:
            continue
        earned = tuple(p.gold.value for p in points)
        labels = tuple(f"n = {p.n}, KL at most {p.kl:.2f} nats" for p in points)
        series = Series(label, tuple(math.log2(p.n) for p in points), earned, dots=True, labels=labels)
        meaning = "the score that chose" if place == 0 else "a score that did not choose"
        title = f"best of n by {next(iter(curves))}: {label}"
        yield CurvePanel(artefact.name, title, "score", (series,), x_label="log2 n", meaning=meaning)


def _thin(points: Sequence[tuple[float, float]], *, most: int = 120) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """At most `most` points: means of equal stretches, so that noise is averaged and not picked."""
    parts = np.array_split(np.array(points), min(most, len(points)))
    return tuple(float(p[:, 0].mean()) for p in parts), tuple(float(p[:, 1].mean()) for p in parts)


def _row(artefact: Artefact) -> StageRow:
    facts = tuple(
        Fact(
            label,
            f"{artefact.metrics[name]:,.3g}" if artefact.metrics[name] < 1000 else f"{artefact.metrics[name]:,.0f}",
        )
        for name, label in KEY_FIGURES.get(artefact.kind, ())
        if name in artefact.metrics
    )
    times = _lines(artefact.folder / "timing.jsonl")
    seconds = sum(t.get("seconds", 0.0) for t in times) if times else None
    return StageRow(
        artefact.name,
        artefact.id[:8],
        tuple(i[:8] for i in artefact.parents.values()),
        seconds,
        facts,
        artefact.code_version,
    )


def _limits(results: Mapping[str, Any]) -> tuple[str, ...]:
    limits = ["One run of one seed: the intervals cover the choice of prompts, not the luck of training."]
    if results.get("judge_trained_on"):
        limits.append("The judge is the score the policy was trained on: a win shows optimisation, not quality.")
    return tuple(limits)


def derive(spec: ReportSpec) -> Mapping[str, Number]:
    return {"stages": len(spec.of)}


STAGE = Stage("report", ReportSpec, run, derive)
