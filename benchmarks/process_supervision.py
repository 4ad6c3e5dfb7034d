"""Does the process reward beat the outcome reward at equal labelled solutions? Sums worked out step by step.

    python benchmarks/process_supervision.py --seeds 0 1 2

Runs `recipes/process_supervision.yaml` for every seed, then samples held-out sums from each policy and marks them by
program: the final answer, and every step. Best of n: samples of the SFT policy, chosen by either reward model. Prints a
table with 95 % t intervals over seeds and writes `benchmarks/results/process_supervision.{md,json}`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from assent.data.domain import arithmetic
from assent.evals.intervals import mean_interval
from assent.evals.overoptimisation import best_of_n_points
from assent.models.folders import CausalModel, load_causal
from assent.stages.generation import sample_responses
from assent.stages.parts import MODEL, Generation
from assent.stages.scorers.arithmetic import answer_of, steps_of
from assent.stages.scorers.process import ProcessRewardRef
from assent.types import Rollout

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
GENERATION = Generation(max_new_tokens=80)
BEST_OF = (1, 2, 4, 8, 16)
FIGURES = ("auc", "accuracy")
RANDOM = "a random score of each text"
REWARD_STARTS = {"labels": "policy", "process": "model", "outcome": "model"}
PPO_STARTS = {"ppo_process": "policy", "ppo_outcome": "policy"}
"""Stages that start from the SFT policy, and the setting that names it."""

Row = dict[str, Any]


def run_recipe(recipe: str, folder: Path, seed: int, sft: Path | None, *, ppo: bool, epochs: int | None) -> None:
    """One run in a process of its own, one thread; with `sft`, only what comes after it."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "assent", "run", recipe, f"seed={seed}", "--folder", str(folder)]
    if sft is not None:
        starts = REWARD_STARTS | (PPO_STARTS if ppo else {})
        command += [f"stages.{stage}.{what}={sft.resolve()}" for stage, what in starts.items()]
        command += [x for stage in starts for x in ("--only", stage)]
    elif not ppo:
        command += ["--until", "outcome"]
    if epochs is not None:
        command += [f"stages.{stage}.epochs={epochs}" for stage in ("process", "outcome")]
    with (folder / "log.txt").open("a") as log:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=ROOT)


def marks(rollouts: Sequence[Rollout]) -> Row:
    return {
        "answer": float(np.mean([answer_of(r) for r in rollouts])),
        "steps": float(np.mean([steps_of(r) for r in rollouts])),
        "tokens": float(np.mean([len(r.token_ids) for r in rollouts])),
        "lines": float(np.mean([len([x for x in r.text.split(chr(10)) if x.strip()]) for r in rollouts])),
    }


def totals(name: Path, form: Any, policy: CausalModel, rollouts: Sequence[Rollout]) -> np.ndarray:
    context: Any = SimpleNamespace(inputs={}, say=print)
    scorer = ProcessRewardRef(process_reward=str(name / MODEL), form=form).scorer(context, policy)
    return np.array([sum(e.value for e in events) for events in scorer.score(rollouts)])


def measure(folder: Path, seed: int, sft: Path | None, prompts: int, chosen_among: int) -> Row:
    """Everything the table needs of one seed that has been run."""
    stages = json.loads((folder / "run.json").read_text())["stages"]
    where = {name: folder / place for name, place in stages.items()}
    start = sft or where["sft"] / MODEL
    tasks = arithmetic.tasks(prompts, seed=10_000 + seed, split="held_out")
    row: Row = {"seed": seed, "policies": {}, "cards": {}}
    policies = {"sft": start, **{n: p / MODEL for n, p in where.items() if n.startswith("ppo")}}
    for name, path in policies.items():
        rollouts = sample_responses(load_causal(path), tasks, GENERATION, seed=seed)
        row["policies"][name] = marks(rollouts)
    policy = load_causal(start)
    some = tasks[:chosen_among]
    rollouts = sample_responses(policy, some, GENERATION, seed=seed + 1, samples=max(BEST_OF))
    shape = (len(some), max(BEST_OF))
    judges = {f"process, {form}": ("process", form) for form in ("last", "minimum", "product")}
    judges["outcome, last"] = ("outcome", "last")
    truths = {"answer": answer_of, "steps": steps_of}
    for judge, (stage, form) in judges.items():
        proxy = totals(where[stage], form, policy, rollouts).reshape(shape)
        for truth, of in truths.items():
            gold = np.array([of(r) for r in rollouts]).reshape(shape)
            points = best_of_n_points(proxy, gold, BEST_OF)
            row.setdefault("best_of", {})[f"{judge}: {truth}"] = {str(p.n): p.gold.value for p in points}
    of = {truth: np.array([mark(r) for r in rollouts]).reshape(shape) for truth, mark in truths.items()}
    row["best_of"] |= knows_nothing([r.text for r in rollouts], of, seed)
    for stage in ("process", "outcome"):
        row["cards"][stage] = json.loads((where[stage] / "card.json").read_text())
    return row


def knows_nothing(texts: Sequence[str], truths: dict[str, np.ndarray], seed: int) -> Row:
    """Best of n by a random score of each text of a prompt: right solutions are mostly one text, wrong ones many."""
    rng, made = np.random.default_rng(seed), {}
    for truth, gold in truths.items():
        draws = []
        for _ in range(8):
            scores: dict[tuple[int, str], float] = {}
            keys = [(i // gold.shape[1], t) for i, t in enumerate(texts)]
            proxy = np.array([scores.setdefault(k, float(rng.random())) for k in keys]).reshape(gold.shape)
            draws.append([x.gold.value for x in best_of_n_points(proxy, gold, BEST_OF)])
        made[f"{RANDOM}: {truth}"] = {str(n): v for n, v in zip(BEST_OF, np.mean(draws, axis=0).tolist(), strict=True)}
    return made


def shown(values: Sequence[float]) -> str:
    """Mean and 95 % t interval over seeds."""
    if len(values) < 2:
        return f"{values[0]:.3f} (one seed)"
    e = mean_interval(values)
    assert e.value is not None and e.interval is not None
    return f"{e.value:.3f} [{e.interval.low:.3f}, {e.interval.high:.3f}]"


def table(rows: Sequence[Row]) -> str:
    lines = [f"Seeds {', '.join(str(r['seed']) for r in rows)}; mean and 95 % t interval over seeds.", ""]
    lines += [
        "| policy, sampled at temperature 1 | right answer | every step right | lines | per seed, answer |",
        "|---" * 5 + "|",
    ]
    for name in rows[0]["policies"]:
        of = [r["policies"][name] for r in rows]
        cells = [shown([x[k] for x in of]) for k in ("answer", "steps", "lines")]
        lines.append(f"| {name} | {' | '.join(cells)} | {', '.join(format(x['answer'], '.3f') for x in of)} |")
    if "ppo_process" in rows[0]["policies"]:
        arms = [(r["policies"]["ppo_process"], r["policies"]["ppo_outcome"]) for r in rows]
        gaps = {k: [a[k] - b[k] for a, b in arms] for k in ("answer", "steps")}
        lines.append(f"| **process - outcome, paired** | {shown(gaps['answer'])} | {shown(gaps['steps'])} | | |")
    lines += [
        "",
        "| best of n of the SFT policy | " + " | ".join(str(n) for n in BEST_OF) + " |",
        "|---" * (len(BEST_OF) + 1) + "|",
    ]
    for name in rows[0]["best_of"]:
        cells = [shown([r["best_of"][name][str(n)] for r in rows]) for n in BEST_OF]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += gap_rows(rows)
    lines += ["", "| reward model, held-out prompts | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for stage in ("process", "outcome"):
        cells = [shown([r["cards"][stage][k]["value"] for r in rows]) for k in FIGURES]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def gap_rows(rows: Sequence[Row]) -> list[str]:
    """Process minus outcome on the same samples, every form of the process model, paired by seed."""
    made = []
    for truth in ("answer", "steps"):
        other = f"outcome, last: {truth}"
        for name in [x for x in rows[0]["best_of"] if x.endswith(truth) and x != other]:
            pairs = [(r["best_of"][name], r["best_of"][other]) for r in rows]
            cells = [shown([a[str(n)] - b[str(n)] for a, b in pairs]) for n in BEST_OF]
            made.append(f"| **{name}, minus outcome** | {' | '.join(cells)} |")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default=str(ROOT / "recipes/process_supervision.yaml"))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "process_supervision")
    parser.add_argument("--sft", type=Path, help="model folder: one SFT policy for every seed")
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--chosen-among", type=int, default=150, help="prompts of best-of-n")
    parser.add_argument("--without-ppo", action="store_true", help="reward models and best of n alone")
    parser.add_argument("--epochs", type=int, help="of both reward models; the recipe's where it is left out")
    parser.add_argument("--rows", type=Path, nargs="+", default=[], help="results of seeds to join; nothing is run")
    parser.add_argument("--measure-only", action="store_true", help="the runs are there")
    parser.add_argument("--out", type=Path, default=RESULTS / "process_supervision")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for path in options.rows:
        rows += json.loads(path.read_text())
    for seed in [] if options.rows else options.seeds:
        folder = options.folder / f"f{seed}"
        if not options.measure_only:
            run_recipe(options.recipe, folder, seed, options.sft, ppo=not options.without_ppo, epochs=options.epochs)
        rows.append(measure(folder, seed, options.sft, options.prompts, options.chosen_among))
        print(table(rows), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.out.with_suffix(".md").write_text("# Process supervision\n\n" + table(rows))


if __name__ == "__main__":
    main()
