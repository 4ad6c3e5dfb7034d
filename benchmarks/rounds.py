"""Three rounds against one with the same labels and episodes, on the embedded domain, over several seeds.

    python benchmarks/rounds.py --seeds 10 11 12
    python benchmarks/rounds.py --seeds 0 1 --start 0 --prompts 384 --out few

`recipes/iterated.yaml` with 2,400 prompts to compare and 15 steps of PPO in each of three rounds, and with 7,200 and 45
in one round: the quickstart's labels and steps, its settings, tuned for neither. With `--start` all seeds take text and
SFT model of one; prompts, labels, reward models and PPO are of each seed. A run adds its seeds to those that the
results have, if they were asked as many prompts.
Writes `benchmarks/results/rounds.{md,json}`: win rates against SFT by the hidden gold judgement on held-out prompts,
the two against each other, KL, and how well each round's reward model orders the samples of each round's policy.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assent.data import domain
from assent.evals.intervals import mean_interval
from assent.evals.win_rate import compare
from assent.models.folders import CausalModel, load_causal, load_scalar
from assent.models.forward import in_blocks
from assent.pipeline.recipe import load_recipe
from assent.stages import TABLE
from assent.stages.generation import sample_responses
from assent.stages.parts import MODEL, Generation
from assent.stages.scorers import gold_of
from assent.types import Rollout, Sequences

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "rounds"
RECIPE = ROOT / "recipes" / "iterated.yaml"
SHARED = ("base", "sft")
ROUNDS = 3
EPISODES_A_STEP = 256
PROMPTS, SAMPLES = 200, 4
"""Held-out prompts and responses to each on which reward models are judged."""

GENERATION = Generation(max_new_tokens=32)

Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """How labels and episodes are spread."""

    name: str
    rounds: int
    prompts: int
    steps: int

    @property
    def overrides(self) -> list[str]:
        return [f"rounds={self.rounds}", f"prompts={self.prompts}", f"steps={self.steps}"]


def shapes(prompts: int, steps: int) -> tuple[Shape, Shape]:
    """Three rounds of so many prompts and steps, and one round of as many in all."""
    return Shape("three", ROUNDS, prompts, steps), Shape("one", 1, ROUNDS * prompts, ROUNDS * steps)


def run_recipe(folder: Path, seed: int, shape: Shape, start: int | None) -> Path:
    """One run in a process of its own; where it says which artefact is which stage's."""
    command = [sys.executable, "-m", "assent", "run", str(RECIPE), f"seed={seed}", "stages.verdict.best_of=0"]
    if start is not None:
        first = load_recipe(RECIPE, TABLE, [f"seed={start}"])
        command += [f"stages.{stage}.seed={first.seed_of(stage)}" for stage in SHARED]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"log_{shape.name}_{seed}.txt").open("a") as log:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        command += ["--folder", str(folder), *shape.overrides]
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=ROOT)
    return Path(shutil.copy(folder / "run.json", folder / f"run_{shape.name}_{seed}.json"))


@dataclass(frozen=True)
class Run:
    """A finished run's artefacts by stage."""

    folder: Path
    stages: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> "Run":
        return cls(path.parent, json.loads(path.read_text())["stages"])

    def json(self, stage: str, name: str) -> Any:
        return json.loads((self.folder / self.stages[stage] / name).read_text())

    def policy(self, stage: str) -> CausalModel:
        return load_causal(self.folder / self.stages[stage] / MODEL)

    def scores(self, stage: str, rollouts: Sequence[Rollout]) -> list[float]:
        scalar = load_scalar(self.folder / self.stages[stage] / MODEL).scalar
        (scores,) = in_blocks(lambda s: (scalar.last_scores(s),), Sequences.of_rollouts(rollouts))
        return scores.tolist()


def accuracy(scores: Sequence[float], gold: Sequence[float]) -> float:
    """Share of pairs of responses to one prompt that the scores order as gold does; pairs that gold ties left out."""
    right = []
    for start in range(0, len(gold), SAMPLES):
        for i, j in itertools.combinations(range(start, start + SAMPLES), 2):
            if gold[i] != gold[j]:
                ahead = (scores[i] - scores[j]) * (gold[i] - gold[j])
                right.append(0.5 if ahead == 0 else float(ahead > 0))
    return sum(right) / len(right)


def measure(seed: int, start: int | None, folder: Path, both: tuple[Shape, Shape]) -> Row:
    """Everything the tables need of one seed, after its two runs."""
    three, one = (Run.read(run_recipe(folder, seed, shape, start)) for shape in both)
    tasks = domain.tasks(PROMPTS, seed=20_000 + seed, split="held_out")
    policies = {"SFT": three.policy("sft")}
    policies |= {f"round {i}": three.policy(f"round_{i}.ppo") for i in (1, 2, 3)}
    policies |= {"one round": one.policy("round_1.ppo")}
    judges = {f"round {i}": (three, f"round_{i}.reward") for i in (1, 2, 3)} | {"one round": (one, "round_1.reward")}
    matrix: dict[str, dict[str, float]] = {name: {} for name in judges}
    for name, policy in policies.items():
        rollouts = sample_responses(policy, tasks, GENERATION, seed=seed, samples=SAMPLES)
        gold = [gold_of(r) for r in rollouts]
        for judge, (run, stage) in judges.items():
            matrix[judge][name] = accuracy(run.scores(stage, rollouts), gold)
    return {
        "seed": seed,
        "start": seed if start is None else start,
        "prompts": both[0].prompts,
        "steps": both[0].steps,
        "arms": {shape.name: arm(run, shape) for run, shape in zip((three, one), both, strict=True)},
        "duel": {how: duel(three, one, seed, greedy=how == "greedy") for how in ("sampled", "greedy")},
        "accuracy": matrix,
    }


def arm(run: Run, shape: Shape) -> Row:
    """The verdict on a run's last accepted policy, and every round's own."""
    results = run.json("verdict", "results.json")
    rounds = []
    for i in range(1, shape.rounds + 1):
        figures = run.json(f"round_{i}.verdict", "manifest.json")["metrics"]
        rounds.append(
            {
                "accepted": run.json(f"round_{i}.policy", "decision.json")["accepted"],
                "against": run.json(f"round_{i}.policy", "decision.json")["against"],
                **{k: figures[k] for k in ("win_sampled", "win_sampled_low", "win_sampled_high", "win_greedy")},
                "gold": figures["policy_sampled_judge"],
                "labels": run.json(f"round_{i}.comparisons", "manifest.json")["metrics"]["comparisons"],
                "votes": run.json(f"round_{i}.reward", "manifest.json")["metrics"]["accuracy"],
            }
        )
    return {
        **{f"win rate, {how}": rate_of(results["win_rates"][how]) for how in ("sampled", "greedy")},
        **{f"gold, {how}": results["models"][f"policy {how}"]["judge"] for how in ("sampled", "greedy")},
        "correctness, greedy": results["correctness"]["policy greedy"]["all"]["mean"],
        "KL, nats": results["kl"],
        "length, tokens": results["models"]["policy sampled"]["length"],
        "rounds": rounds,
    }


def duel(three: Run, one: Run, seed: int, *, greedy: bool) -> float:
    """How often the policy of three rounds beats that of one on the same prompts."""
    tasks = domain.tasks(400, seed=30_000 + seed, split="held_out")
    gold = [
        [gold_of(r) for r in sample_responses(run.policy(stage), tasks, GENERATION, seed=seed + part, greedy=greedy)]
        for part, (run, stage) in enumerate(((three, "round_3.policy"), (one, "round_1.policy")))
    ]
    return compare(*gold, [t.id for t in tasks]).rate


def rate_of(w: Mapping[str, Any]) -> float:
    return (w["win"] + 0.5 * w["tie"]) / (w["win"] + w["tie"] + w["loss"])


def shown(values: Sequence[float]) -> str:
    """Mean and 95 % t interval over seeds."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    e = mean_interval(values)
    assert e.value is not None
    return f"{e.value:.3f}" + (f" [{e.interval.low:.3f}, {e.interval.high:.3f}]" if e.interval else "")


def table(rows: Sequence[Row]) -> str:
    """The committed page."""
    seeds = ", ".join(f"{r['seed']} (text and SFT model of seed {r['start']})" for r in rows)
    three, one = shapes(rows[0]["prompts"], rows[0]["steps"])
    lines = [
        "# Three rounds against one, with the same labels and episodes",
        "",
        f"`python benchmarks/rounds.py`, seeds {seeds}, {datetime.date.today()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}. {ROUNDS} rounds of "
        f"{three.prompts:,} prompts to compare (4 responses each) and {three.steps} steps of PPO, against one of "
        f"{one.prompts:,} and {one.steps}; {one.steps * EPISODES_A_STEP:,} episodes either way. "
        "Mean and 95 % t interval over seeds, not cut at 1.",
        "",
        "| last accepted policy | three rounds | one round | three − one, by seed | per seed, three / one |",
        "|---|---|---|---|---|",
    ]
    for name in (n for n in rows[0]["arms"]["three"] if n != "rounds"):
        left, right = ([r["arms"][a][name] for r in rows] for a in ("three", "one"))
        gaps = [a - b for a, b in zip(left, right, strict=True)]
        each = ", ".join(f"{a:.3f} / {b:.3f}" for a, b in zip(left, right, strict=True))
        lines.append(f"| {name} | {shown(left)} | {shown(right)} | {shown(gaps)} | {each} |")
    for how in ("sampled", "greedy"):
        wins = [r["duel"][how] for r in rows]
        each = ", ".join(f"{w:.3f}" for w in wins)
        lines.append(f"| three beats one, {how} | {shown(wins)} | | | {each} |")
    return "\n".join([*lines, "", *_rounds(rows), "", *_accuracy(rows)]) + "\n"


def _rounds(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| seed | round | against | win rate, sampled [95 %] | greedy | gold | accepted | labels | votes predicted |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for shape in shapes(row["prompts"], row["steps"]):
            for i, r in enumerate(row["arms"][shape.name]["rounds"], start=1):
                accepted = "yes" if r["accepted"] else "**no**"
                win = f"{r['win_sampled']:.3f} [{r['win_sampled_low']:.3f}, {r['win_sampled_high']:.3f}]"
                lines.append(
                    f"| {row['seed']} | {i} of {shape.rounds} | {r['against']} | {win} | {r['win_greedy']:.3f} | "
                    f"{r['gold']:.2f} | {accepted} | {r['labels']:,.0f} | {r['votes']:.3f} |"
                )
    return lines


def _accuracy(rows: Sequence[Row]) -> list[str]:
    policies = list(rows[0]["accuracy"]["one round"])
    lines = [
        f"How often a reward model orders two samples of a policy as gold does ({PROMPTS} held-out prompts, {SAMPLES} "
        "samples each, pairs that gold ties left out):",
        "",
        f"| reward model of | {' | '.join(f'samples of {p}' for p in policies)} |",
        "|---" * (len(policies) + 1) + "|",
    ]
    for judge in rows[0]["accuracy"]:
        cells = [shown([r["accuracy"][judge][p] for r in rows]) for p in policies]
        lines.append(f"| {judge} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--prompts", type=int, default=2400, help="to compare in each of three rounds")
    parser.add_argument("--steps", type=int, default=15, help="of PPO in each of three rounds")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "rounds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--start", type=int, help="seed whose text and SFT model all take; each its own by default")
    options = parser.parse_args()
    known = options.out.with_suffix(".json")
    rows = {row["seed"]: row for row in (json.loads(known.read_text()) if known.exists() else [])}
    asked = {"prompts": options.prompts, "steps": options.steps}
    if other := [r["seed"] for r in rows.values() if {k: r.get(k) for k in asked} != asked]:
        parser.error(f"{known} has seeds {other} of other prompts or steps than {asked}; name another --out")
    both = shapes(options.prompts, options.steps)
    for seed in options.seeds:
        rows[seed] = measure(seed, options.start, options.folder, both)
        write(list(rows.values()), options.out)
    print(table(list(rows.values())))


def write(rows: Sequence[Row], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    out.with_suffix(".md").write_text(table(rows))


if __name__ == "__main__":
    main()
