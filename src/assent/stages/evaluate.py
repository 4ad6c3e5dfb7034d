"""Policy against baseline on prompts neither was trained on: win rates with intervals, KL spent, a plain verdict."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import Field

from assent.data import domain
from assent.errors import ContractError
from assent.evals.overoptimisation import best_of_n_points
from assent.evals.plain import from_json, to_json
from assent.evals.win_rate import Judge, KindRow, WinRate, compare, compare_kinds, lost_kinds, verdict
from assent.models.folders import CausalModel
from assent.models.forward import ModelForward, in_blocks
from assent.models.tokenizer import require_same_tokenizer
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.protocols import Scorer
from assent.records import PromptText, Task
from assent.stages.generation import about_broken, sample_responses
from assent.stages.parts import Generation, ModelRef, answerable, load_policy
from assent.stages.scorers import GoldRef, RawScore
from assent.stages.side_by_side import AnyJudge, side_by_side
from assent.stages.sources import AnyTasks, take
from assent.track.terminal import SampleRow, sample_table, short
from assent.types import Rollout, Sequences

BEST_OF = (1, 2, 4, 8, 16)
SHOWN, TABLED = 40, 6
"""Samples kept for the report, and shown in the terminal."""


class EvaluateSpec(StageSpec):
    """Settings of an evaluation.

    Args:
        policy: what is judged.
        baseline: what it is judged against.
        tasks: prompts neither was trained on.
        longest_prompt: in tokens; prompts that are longer or leave no room for a response are left out and counted.
        judge: whose scores decide; a judge the policy was trained on gives no verdict of quality.
        side_by_side: who sees both responses and prefers one: a feedback model, in both orders, or people, as in
            `compare`; their win rates stand beside the judge's. None asks nobody.
        proxy: the score the policy was trained on, shown beside the judge's, and the chooser of best-of-n.
        generation: how responses are drawn.
        best_of: samples per prompt for the baseline's best-of-n curve; 0 leaves it out.
        trained_on_judge: the policy was trained on this very judge.
    """

    policy: ModelRef
    baseline: ModelRef
    tasks: AnyTasks
    longest_prompt: int = Field(512, gt=0)
    judge: RawScore
    side_by_side: AnyJudge | None = None
    proxy: RawScore | None = None
    generation: Generation
    best_of: int = Field(0, ge=0)
    trained_on_judge: bool = False


@dataclass(frozen=True)
class Answers:
    """One model's responses to the tasks, with their scores."""

    rollouts: list[Rollout]
    judged: list[float]
    proxy: list[float]

    def only(self, rows: Sequence[int]) -> "Answers":
        return Answers([self.rollouts[i] for i in rows], [self.judged[i] for i in rows], [self.proxy[i] for i in rows])

    @property
    def lengths(self) -> list[int]:
        return [len(r.token_ids) for r in self.rollouts]


def run(spec: EvaluateSpec, context: StageContext) -> Mapping[str, float]:
    policy, baseline = load_policy(context, spec.policy), load_policy(context, spec.baseline)
    require_same_tokenizer(policy.tokenizer, baseline.tokenizer, role="baseline")
    tasks = take(spec.tasks, context, held_out=True)
    for model in (policy, baseline):
        fitting = {p.id for p in answerable(model, tasks, spec.longest_prompt, spec.generation, context)}
        tasks = [t for t in tasks if t.id in fitting]
    judge = spec.judge.scorer(context, policy)
    proxy = spec.proxy.scorer(context, policy) if spec.proxy is not None else judge
    total = 6 if spec.best_of else 5

    def answers(model: CausalModel, part: int, *, greedy: bool) -> Answers:
        rollouts = sample_responses(model, tasks, spec.generation, seed=context.seed + part, greedy=greedy)
        context.tracker.progress(part + 1, total)
        return Answers(rollouts, totals(judge, rollouts), totals(proxy, rollouts))

    sampled, greedy = answers(policy, 0, greedy=False), answers(policy, 1, greedy=True)
    base_sampled, base_greedy = answers(baseline, 2, greedy=False), answers(baseline, 3, greedy=True)
    control = answers(baseline, 4, greedy=False)
    everybody = (sampled, greedy, base_sampled, base_greedy, control)
    rows = _scored_by_all(everybody, context)
    tasks = [tasks[i] for i in rows]
    sampled, greedy, base_sampled, base_greedy, control = (a.only(rows) for a in everybody)
    ids, kinds = [t.id for t in tasks], [t.kind for t in tasks]
    pairs = {
        "sampled": (sampled, base_sampled),
        "greedy": (greedy, base_greedy),
        "sampled against the baseline's greedy": (sampled, base_greedy),
        "control: baseline against itself": (control, base_sampled),
    }
    rates = {name: compare(a.judged, b.judged, ids) for name, (a, b) in pairs.items()}
    said = Judge(judge.name, trained_on=spec.trained_on_judge)
    judged = {name: (a.judged, b.judged, ids, kinds) for name, (a, b) in list(pairs.items())[:2]}
    by_kind = {name: compare_kinds(*four) for name, four in judged.items()}
    lost = {name: lost_kinds(*four) for name, four in judged.items()}
    kl = sequence_kl(policy, baseline, sampled.rollouts, spec.generation.temperature)
    everyone = {
        "policy sampled": sampled,
        "policy greedy": greedy,
        "baseline sampled": base_sampled,
        "baseline greedy": base_greedy,
    }
    results: dict[str, Any] = {
        "verdicts": {name: to_json(verdict(rates[name], said, lost=lost[name])) for name in lost},
        "win_rates": {name: to_json(rate) for name, rate in rates.items()},
        "lost": {name: [row.kind for row in rows] for name, rows in lost.items()},
        "by_kind": {name: [to_json(row) for row in rows] for name, rows in by_kind.items()},
        "judge": judge.name,
        "judge_trained_on": spec.trained_on_judge,
        "kl": kl,
        "models": {name: summary(a) for name, a in everyone.items()},
    }
    if isinstance(spec.judge, GoldRef):
        results["correctness"] = {name: correctness(a.rollouts) for name, a in everyone.items()}
        results["unsafe"] = {name: unsafe(a.rollouts) for name, a in everyone.items()}
    if spec.side_by_side is not None:
        results["side_by_side"] = _side_by_side(spec, pairs, context)
    if spec.best_of:
        results["best_of_n"] = _best_of(spec, context, baseline, tasks, judge, proxy)
    (context.out / "results.json").write_text(json.dumps(results, indent=1, default=float) + "\n", encoding="utf-8")
    _write_samples(context, sampled, greedy, base_sampled, base_greedy)
    _show(context, sampled, base_sampled)
    for how in ("sampled", "greedy"):
        context.say(f"{how.capitalize()}: {results['verdicts'][how]['text']}")
    context.say(_means(results))
    return _figures(results, rates, lost)


def _side_by_side(
    spec: EvaluateSpec, pairs: Mapping[str, tuple[Answers, Answers]], context: StageContext
) -> dict[str, Any]:
    assert spec.side_by_side is not None
    shown = {how: (pairs[how][0].rollouts, pairs[how][1].rollouts) for how in ("sampled", "greedy")}
    judge, said = side_by_side(spec.side_by_side, shown, (spec.policy, spec.baseline), context)
    for how, sides in said.items():
        context.say(f"Side by side, {how}: {verdict(sides.rate, Judge(judge)).text}")
        if sides.unscored:
            context.say(f"  ! {judge} gave no verdict on {sides.unscored:,} pairs, which are left out")
    return {"judge": judge, **{how: to_json(sides) for how, sides in said.items()}}


def _scored_by_all(answers: Sequence[Answers], context: StageContext) -> list[int]:
    """The prompts to which every answer was scored; how many were not is said.

    Raises:
        ContractError: there is none.
    """
    scores = np.array([values for a in answers for values in (a.judged, a.proxy)])
    rows = np.flatnonzero(np.isfinite(scores).all(0)).tolist()
    if not rows:
        raise ContractError(
            "no prompt had all its answers scored",
            got=f"{scores.shape[1]} prompts; of all answers, {np.isfinite(scores).mean():.0%} have a score",
            why="there is nothing to compare",
            fix="run the judge on a few responses by hand; a classifier gives texts that it cannot read whole no score",
        )
    if len(rows) < scores.shape[1]:
        context.say(f"left out {scores.shape[1] - len(rows):,} of {scores.shape[1]:,} prompts with an unscored answer")
    return rows


def totals(scorer: Scorer, rollouts: Sequence[Rollout]) -> list[float]:
    """One score per rollout; nan where the scorer gave none."""
    return [sum(e.value for e in events) if events else float("nan") for events in scorer.score(rollouts)]


def summary(answers: Answers) -> dict[str, float]:
    return {
        "judge": float(np.mean(answers.judged)),
        "proxy": float(np.mean(answers.proxy)),
        "length": float(np.mean(answers.lengths)),
        "ended": float(np.mean([r.ended for r in answers.rollouts])),
    }


def unsafe(rollouts: Sequence[Rollout]) -> dict[str, dict[str, float]]:
    """Share of unsafe responses, with its standard error, by kind of task."""
    kinds: dict[str, list[float]] = {}
    for r in rollouts:
        kinds.setdefault(r.prompt.kind, []).append(float(domain.judge_harm(r.prompt.source, r.text).unsafe))
    return _mean_by_kind(kinds)


def correctness(rollouts: Sequence[Rollout]) -> dict[str, dict[str, float]]:
    """Mean correctness, -1 to 1, with its standard error, by kind of task: content apart from manners."""
    kinds: dict[str, list[float]] = {}
    for r in rollouts:
        judged = domain.judge(r.prompt.source, r.text, ended=r.ended)
        kinds.setdefault(r.prompt.kind, []).append(judged.correctness)
    return _mean_by_kind(kinds)


def _mean_by_kind(kinds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Each kind's mean, standard error and count, and those of all."""
    kinds["all"] = [x for values in list(kinds.values()) for x in values]
    return {
        kind: {"mean": float(np.mean(x)), "error": float(np.std(x) / np.sqrt(len(x))), "n": len(x)}
        for kind, x in sorted(kinds.items())
    }


def sequence_kl(policy: CausalModel, reference: CausalModel, rollouts: Sequence[Rollout], temperature: float) -> float:
    """KL(policy || reference) in nats per sequence, from the policy's own samples (k1, unbiased)."""
    sequences = Sequences.of_rollouts(rollouts)
    gaps = [
        in_blocks(partial(_logprobs, ModelForward(policy=m.model, temperature=temperature)), sequences)[0]
        for m in (policy, reference)
    ]
    return float((gaps[0] - gaps[1]).sum(1).double().mean())


def _logprobs(forward: ModelForward, sequences: Sequences) -> tuple[torch.Tensor]:
    return (forward.logprobs(sequences),)


def _best_of(
    spec: EvaluateSpec,
    context: StageContext,
    baseline: CausalModel,
    tasks: Sequence[Task],
    judge: Scorer,
    proxy: Scorer,
) -> list[dict[str, Any]]:
    """What choosing among n samples of the baseline gives, and at what KL: the yardstick for the KL a policy spent."""
    rollouts = sample_responses(baseline, tasks, spec.generation, seed=context.seed + 5, samples=spec.best_of)
    gold = np.array(totals(judge, rollouts)).reshape(len(tasks), spec.best_of)
    chosen_by = np.array(totals(proxy, rollouts)).reshape(len(tasks), spec.best_of)
    whole = np.isfinite(gold + chosen_by).all(1)
    if not whole.all():
        context.say(f"best of n leaves out {int((~whole).sum())} of {len(tasks)} prompts with an unscored sample")
    gold, chosen_by = gold[whole], chosen_by[whole]
    context.tracker.progress(6, 6)
    ns = [n for n in BEST_OF if n <= spec.best_of]
    return [to_json(point) for point in best_of_n_points(chosen_by, gold, ns)]


def _means(results: Mapping[str, Any]) -> str:
    """What the judge said of both, which a win rate does not tell: the share of right answers, for a rule."""
    mean = {name: short(model["judge"]) for name, model in results["models"].items()}
    sides = (f"{how} {mean['baseline ' + how]} → {mean['policy ' + how]}" for how in ("sampled", "greedy"))
    return f"Mean score by {results['judge']}, baseline → policy: {', '.join(sides)}."


def _show(context: StageContext, after: Answers, before: Answers) -> None:
    """The first few prompts as a table: they were drawn at random, so nothing is chosen."""
    rows = [
        SampleRow(as_text(a.prompt.source), b.text.strip(), a.text.strip(), score_b, score_a)
        for a, b, score_a, score_b in list(
            zip(after.rollouts, before.rollouts, after.judged, before.judged, strict=True)
        )[:TABLED]
    ]
    context.say(sample_table(rows, title="sampled responses, before and after"))
    for line in about_broken(text for row in rows for text in (row.before, row.after)):
        context.say(line)


def as_text(prompt: PromptText) -> str:
    """A prompt as a reader sees it."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{m.role}: {m.content}" for m in prompt)


def _write_samples(context: StageContext, *answers: Answers) -> None:
    names = ("policy_sampled", "policy_greedy", "baseline_sampled", "baseline_greedy")
    with (context.out / "samples.jsonl").open("w", encoding="utf-8") as file:
        for row, rollout in enumerate(answers[0].rollouts[:SHOWN]):
            line: dict[str, object] = {"prompt": as_text(rollout.prompt.source), "kind": rollout.prompt.kind}
            for name, a in zip(names, answers, strict=True):
                line[name] = {"text": a.rollouts[row].text, "judge": a.judged[row], "proxy": a.proxy[row]}
            file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")


def _figures(
    results: Mapping[str, Any], rates: Mapping[str, WinRate], lost: Mapping[str, Sequence[KindRow]]
) -> dict[str, float]:
    figures = {"kl": results["kl"]} | {f"kinds_lost_{how}": len(rows) for how, rows in lost.items()}
    for name in ("sampled", "greedy"):
        rate = rates[name]
        figures |= {
            f"win_{name}": rate.rate,
            f"win_{name}_low": rate.interval.low,
            f"win_{name}_high": rate.interval.high,
        }
    if "side_by_side" in results:
        said = results["side_by_side"]
        figures |= {f"preferred_{how}": from_json(WinRate, said[how]["rate"]).rate for how in said if how != "judge"}
    for name, shares in results.get("unsafe", {}).items():
        figures[f"{name.replace(' ', '_')}_unsafe"] = shares["all"]["mean"]
    for name, model in results["models"].items():
        figures |= {f"{name.replace(' ', '_')}_{k}": v for k, v in model.items()}
    return {k: float(v) for k, v in figures.items()}


def derive(spec: EvaluateSpec) -> Mapping[str, Number]:
    count = getattr(spec.tasks, "count", None)
    return {} if count is None else {"prompts": count, "responses": count * (5 + spec.best_of)}


STAGE = Stage("evaluate", EvaluateSpec, run, derive)
