"""Does the process reward beat the outcome reward at equal labelled solutions? Sums worked out step by step.

    python benchmarks/process_supervision.py --seeds 0 1 2

Runs `recipes/process_supervision.yaml` for every seed, with fewer and with more labelled solutions; PPO for one number
of them. Then samples held-out sums from each policy and marks them by program: the final answer, and every step. The
reward models judge the same samples of the SFT policy: area under the curve, first error, best of n, weighted votes.
Prints tables with 95 % t intervals over seeds and writes `benchmarks/results/process_supervision.{md,json}`.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from assent.data.domain import arithmetic
from assent.evals.intervals import mean_interval
from assent.evals.overoptimisation import best_of_n_points
from assent.models.folders import CausalModel, load_causal
from assent.pipeline.recipe import load_recipe
from assent.pipeline.run import run
from assent.records import Rating
from assent.stages import TABLE, console
from assent.stages.generation import sample_responses
from assent.stages.parts import MODEL, Generation
from assent.stages.scorers.arithmetic import marked
from assent.stages.scorers.process import ProcessRewardRef
from assent.types import Rollout

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
GENERATION = Generation(max_new_tokens=96)
BEST_OF = (1, 2, 4, 8, 16)
TRUTHS = {"answer": "right answer", "steps": "every step right"}
RANDOM = "a random score of each text"
READ_BY: dict[str, dict[str, Callable[[np.ndarray], float]]] = {
    "process": {
        "minimum": lambda p: float(p.min()),
        "product": lambda p: float(np.log(np.clip(p, 1e-12, 1)).sum()),
    },
    "outcome": {"last": lambda p: float(p[-1])},
}
"""How the probabilities of the steps become one score of a solution."""

STARTS = {"labels": ("policy", "sft"), "process": ("model", "base"), "outcome": ("model", "base")}
PPO = {"ppo_process": ("policy", "sft"), "ppo_outcome": ("policy", "sft")}
"""What a stage starts from: the setting, and the stage named there."""

Row = dict[str, Any]


def run_recipe(path: str, folder: Path, seed: int, only: Sequence[str], settings: Sequence[str]) -> dict[str, Path]:
    """Run these stages in this process, which has loaded everything before; where they ended up."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(path, TABLE, [f"seed={seed}", *settings])
    run(recipe, TABLE, folder, only=only, console=console())
    return stages_of(folder)


def stages_of(folder: Path) -> dict[str, Path]:
    return {name: folder / place for name, place in json.loads((folder / "run.json").read_text())["stages"].items()}


def run_seed(options: argparse.Namespace, seed: int) -> tuple[dict[str, Path], dict[int, dict[str, Path]]]:
    """The policy that is shared, and what follows from each number of labelled solutions."""
    folder = options.folder / f"seed{seed}"
    started = options.start or folder
    if options.start is None:
        run_recipe(options.recipe, folder, seed, ["base", "sft"], [])
    start = {name: place for name, place in stages_of(started).items() if name in ("base", "sft")}
    sizes = {}
    for count in sorted({*options.solutions, options.ppo_solutions}):
        with_ppo = count == options.ppo_solutions and not options.without_ppo
        starts = STARTS | (PPO if with_ppo else {})
        settings = [f"stages.{s}.{what}={(start[of] / MODEL).resolve()}" for s, (what, of) in starts.items()]
        settings += [f"stages.labels.tasks.count={count}"]
        settings += [f"stages.{s}.skip_checks=[D11]" for s in starts if s != "labels"]  # a second process each
        sizes[count] = run_recipe(options.recipe, folder / f"of{count}", seed, list(starts), settings)
    return start, sizes


# ---------------------------------------------------------------------------------------------- what is measured


class Judged:
    """Solutions with their true marks, in groups of `samples` of one sum."""

    def __init__(self, rollouts: Sequence[Rollout], samples: int) -> None:
        self.rollouts, self.samples = rollouts, samples
        self.marks = [marked(r) for r in rollouts]
        self.gold = {
            "answer": self.grouped([m.answer_right for m in self.marks]),
            "steps": self.grouped([m.all_right for m in self.marks]),
        }
        self.first_errors = [next((i for i, x in enumerate(m.ratings) if x is Rating.BAD), None) for m in self.marks]

    def grouped(self, values: Sequence[Any]) -> np.ndarray:
        return np.array(values, dtype=np.float64).reshape(-1, self.samples)

    def card(self, kind: str, probabilities: Sequence[np.ndarray]) -> Row:
        """How well a reward model knows these solutions."""
        card: Row = {}
        for form, score_of in READ_BY[kind].items():
            scores = self.grouped([score_of(p) for p in probabilities])
            card[form] = {
                "auc": {t: area(scores.ravel(), gold.ravel()) for t, gold in self.gold.items()},
                "within": {t: within(scores, gold) for t, gold in self.gold.items()},
                "best_of": {t: self.best_of(scores, t) for t in TRUTHS},
                "vote": self.vote(np.exp(scores) if form == "product" else scores),
            }
        wrong = [(p, f) for p, f in zip(probabilities, self.first_errors, strict=True) if f is not None]
        called = [next((i for i, x in enumerate(p) if x < 0.5), None) for p, _ in wrong]
        card["first_error"] = float(np.mean([c == f for c, (_, f) in zip(called, wrong, strict=True)]))
        if kind == "process":
            card["step_auc"] = self.step_area(probabilities)
        return card

    def step_area(self, probabilities: Sequence[np.ndarray]) -> float:
        """Area under the curve of "is this line right", lines up to the first error."""
        upto = [len(m.ratings) if f is None else f + 1 for m, f in zip(self.marks, self.first_errors, strict=True)]
        said = np.concatenate([p[:n] for p, n in zip(probabilities, upto, strict=True)])
        true = [x is not Rating.BAD for m, n in zip(self.marks, upto, strict=True) for x in m.ratings[:n]]
        return area(said, np.array(true, dtype=np.float64))

    def best_of(self, scores: np.ndarray, truth: str) -> dict[str, float]:
        points = best_of_n_points(scores, self.gold[truth], BEST_OF)
        return {str(p.n): float(p.gold.value) for p in points if p.gold.value is not None}

    def vote(self, weights: np.ndarray) -> float:
        """Share of the sums whose heaviest answer among all samples is right."""
        right = []
        for row, weight in enumerate(weights):
            votes: Counter[str] = Counter()
            group = self.rollouts[row * self.samples : (row + 1) * self.samples]
            for rollout, w in zip(group, weight, strict=True):
                for answer in re.findall(r"Answer: (\d+)", rollout.text)[:1]:
                    votes[answer] += float(w)
            true = str(arithmetic.read_prompt(group[0].prompt.source).answer)
            right.append(bool(votes) and votes.most_common(1)[0][0] == true)
        return float(np.mean(right))

    def by_chance(self, seed: int, draws: int = 8) -> Row:
        """Best of n by a random score of each text of a sum: right solutions are few texts, wrong ones many."""
        rng, made = np.random.default_rng(seed), []
        for _ in range(draws):
            scores: dict[tuple[int, str], float] = {}
            keys = [(i // self.samples, r.text) for i, r in enumerate(self.rollouts)]
            drawn = self.grouped([scores.setdefault(k, float(rng.random())) for k in keys])
            made.append({t: self.best_of(drawn, t) for t in TRUTHS})
        return {t: {n: float(np.mean([m[t][n] for m in made])) for n in made[0][t]} for t in TRUTHS}

    def distinct_texts(self) -> dict[str, float]:
        """Mean number of distinct texts of a sum."""
        groups = range(len(self.rollouts) // self.samples)
        kinds = {"right": 1.0, "wrong": 0.0}
        return {
            name: float(
                np.mean(
                    [
                        len({self.rollouts[g * self.samples + j].text for j in np.flatnonzero(gold[g] == value)})
                        for g in groups
                    ]
                )
            )
            for gold in [self.gold["answer"]]
            for name, value in kinds.items()
        }


def area(scores: np.ndarray, good: np.ndarray) -> float:
    """Chance that a good one has the higher score, ties half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    n = good.sum()
    return float((ranks[good > 0].sum() - n * (n + 1) / 2) / (n * (len(good) - n)))


def within(scores: np.ndarray, good: np.ndarray) -> float:
    """`area` among the samples of one sum, mean over the sums that have both kinds."""
    return float(np.mean([area(s, g) for s, g in zip(scores, good, strict=True) if 0 < g.sum() < len(g)]))


def probabilities(name: Path, policy: CausalModel, rollouts: Sequence[Rollout]) -> list[np.ndarray]:
    """What a reward model gives each step."""
    context: Any = SimpleNamespace(inputs={}, say=print, device="cpu", precision="float32", environment={})
    scorer = ProcessRewardRef(process_reward=str(name / MODEL), form="raw").scorer(context, policy)
    return [np.array([e.value for e in events]) for events in scorer.score(rollouts)]


def measure(options: argparse.Namespace, seed: int, start: dict[str, Path], sizes: dict[int, dict[str, Path]]) -> Row:
    """Everything the tables need of one seed that has been run."""
    tasks = arithmetic.tasks(options.prompts, seed=10_000 + seed, split="held_out")
    row: Row = {"seed": seed, "policies": {}, "models": {}}
    trained = {name: place for name, place in sizes[options.ppo_solutions].items() if name in PPO}
    for name, place in ({"sft": start["sft"]} | trained).items():
        judged = Judged(sample_responses(load_causal(place / MODEL), tasks, GENERATION, seed=seed), 1)
        row["policies"][name] = {t: float(gold.mean()) for t, gold in judged.gold.items()}
        row["policies"][name]["lines"] = float(np.mean([len(m.ratings) for m in judged.marks]))
    policy = load_causal(start["sft"] / MODEL)
    samples = max(BEST_OF)
    some = tasks[: options.chosen_among]
    judged = Judged(sample_responses(policy, some, GENERATION, seed=seed + 1, samples=samples), samples)
    row["chance"] = judged.by_chance(seed)
    row["texts"] = judged.distinct_texts()
    row["majority"] = judged.vote(np.ones((len(some), samples)))
    row["ppo_solutions"] = options.ppo_solutions
    for count, places in sizes.items():
        row["models"][str(count)] = {
            kind: judged.card(kind, probabilities(places[kind], policy, judged.rollouts)) for kind in READ_BY
        }
    return row


# --------------------------------------------------------------------------------------------------- tables


def shown(values: Sequence[float]) -> str:
    """Mean and 95 % t interval over seeds."""
    if len(values) < 2:
        return f"{values[0]:.3f} (one seed)"
    e = mean_interval(values)
    assert e.value is not None and e.interval is not None
    return f"{e.value:.3f} [{e.interval.low:.3f}, {e.interval.high:.3f}]"


def cells(name: str, columns: Sequence[Sequence[float]]) -> str:
    return f"| {name} | {' | '.join(shown(c) for c in columns)} |"


def heading(*names: object) -> list[str]:
    return ["", f"| {' | '.join(str(n) for n in names)} |", "|---" * len(names) + "|"]


def forms_of(rows: Sequence[Row], count: str) -> dict[str, list[Row]]:
    """Every way to read either model, over seeds."""
    return {
        f"{kind}, {form}": [r["models"][count][kind][form] for r in rows]
        for kind, forms in READ_BY.items()
        for form in forms
    }


def knowledge(rows: Sequence[Row]) -> list[str]:
    """What either model knows, by the number of labelled solutions."""
    lines = heading("labelled solutions", "process", "outcome", "process - outcome")
    for count in rows[0]["models"]:
        read = forms_of(rows, count)
        for title, of in (
            ("area, right answer", lambda x: x["auc"]["answer"]),
            ("the same among samples of one sum", lambda x: x["within"]["answer"]),
            ("best of 4, right answer", lambda x: x["best_of"]["answer"]["4"]),
            ("best of 16, right answer", lambda x: x["best_of"]["answer"]["16"]),
            ("weighted vote of 16", lambda x: x["vote"]),
        ):
            a, b = ([of(x) for x in read[name]] for name in ("process, minimum", "outcome, last"))
            lines.append(cells(f"{count}: {title}", [a, b, [x - y for x, y in zip(a, b, strict=True)]]))
        models = [r["models"][count] for r in rows]
        a, b = ([m[kind]["first_error"] for m in models] for kind in READ_BY)
        lines.append(cells(f"{count}: first error located", [a, b, [x - y for x, y in zip(a, b, strict=True)]]))
        lines.append(f"| {count}: area, right lines | {shown([m['process']['step_auc'] for m in models])} | | |")
    return lines


def choices(rows: Sequence[Row]) -> list[str]:
    """Best of n with the recipe's own models."""
    count = str(rows[0]["ppo_solutions"])
    lines = []
    for truth, title in TRUTHS.items():
        lines += heading(f"best of n, {title}, {count} labelled solutions", *BEST_OF)
        curves = {name: [x["best_of"][truth] for x in of] for name, of in forms_of(rows, count).items()}
        for name, of in (curves | {RANDOM: [r["chance"][truth] for r in rows]}).items():
            lines.append(cells(name, [[x[str(n)] for x in of] for n in BEST_OF]))
        pairs = list(zip(curves["process, minimum"], curves["outcome, last"], strict=True))
        gaps = [[a[str(n)] - b[str(n)] for a, b in pairs] for n in BEST_OF]
        lines.append(cells("**process, minimum - outcome, paired**", gaps))
    lines += ["", f"The commonest answer of 16: right in {shown([r['majority'] for r in rows])}."]
    return lines


def trained(rows: Sequence[Row]) -> list[str]:
    lines = heading("policy, sampled at temperature 1", *TRUTHS.values(), "lines", "per seed, answer")
    for name in rows[0]["policies"]:
        of = [r["policies"][name] for r in rows]
        each = ", ".join(format(x["answer"], ".3f") for x in of)
        lines.append(f"{cells(name, [[x[k] for x in of] for k in (*TRUTHS, 'lines')])} {each} |")
    if "ppo_process" in rows[0]["policies"]:
        arms = [(r["policies"]["ppo_process"], r["policies"]["ppo_outcome"]) for r in rows]
        gaps = [[a[k] - b[k] for a, b in arms] for k in (*TRUTHS, "lines")]
        lines.append(f"{cells('**process - outcome, paired**', gaps)} |")
    return lines


def table(rows: Sequence[Row]) -> str:
    head = [f"Seeds {', '.join(str(r['seed']) for r in rows)}; mean and 95 % t interval over seeds."]
    return "\n".join(head + knowledge(rows) + choices(rows) + trained(rows)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default=str(ROOT / "recipes/process_supervision.yaml"))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "process_supervision")
    parser.add_argument("--start", type=Path, help="a run whose base and SFT models every seed shares")
    parser.add_argument("--solutions", type=int, nargs="*", default=[64, 512], help="numbers of labelled solutions")
    parser.add_argument("--ppo-solutions", type=int, default=256, help="PPO is run on reward models of so many")
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--chosen-among", type=int, default=200, help="sums of best of n")
    parser.add_argument("--without-ppo", action="store_true", help="reward models and best of n alone")
    parser.add_argument("--rows", type=Path, nargs="+", default=[], help="results of seeds to join; nothing is run")
    parser.add_argument("--out", type=Path, default=RESULTS / "process_supervision")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for path in options.rows for row in json.loads(path.read_text())]
    for seed in [] if options.rows else options.seeds:
        rows.append(measure(options, seed, *run_seed(options, seed)))
        print(table(rows), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.out.with_suffix(".md").write_text("# Process supervision\n\n" + table(rows))


if __name__ == "__main__":
    main()
