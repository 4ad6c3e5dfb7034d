"""Does it pay to choose what to ask? Labels against the accuracy of a reward model, and against PPO's win rate.

    python benchmarks/active_selection.py --seeds 0 1 2 3 4

One SFT policy for each seed (`recipes/quickstart.yaml`), and a pool of prompts with candidates sampled from it, which
a simulated annotator judges in pairs. Where to ask is told by an ensemble of small heads on frozen features of the
policy, each pulled to its own start (as in Efficient exploration, arXiv 2402.00396), trained from nothing after every
round. The first round is random for every arm; after that the arms differ in the chooser and keep a random share.

Two accuracies, on held-out pairs whose gold differs: of the ensemble's mean, after every round; and of the recipe's own
reward model, fine-tuned from the SFT policy, at the numbers of labels given by `--policies`, for the arms `--trained`.
There PPO is run on it too, and wins are counted by gold against the SFT policy. Writes 95 % t intervals over seeds,
differences paired by seed, to `benchmarks/results/active_selection.{md,json}`, a picture for each measure beside it.
"""

import argparse
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assent.data import domain
from assent.evals.charts import Series, line_chart
from assent.evals.svg import standalone
from assent.feedback.annotators import SimulatedAnnotator
from assent.feedback.choose import ByDoubleThompson, ByInformationGain, Candidates, Chooser, choose
from assent.intervals import mean_interval
from assent.models.folders import CausalModel, load_causal, load_scalar
from assent.models.forward import in_blocks
from assent.pipeline.recipe import load_recipe
from assent.pipeline.run import run
from assent.stages import TABLE, console
from assent.stages.generation import sample_responses
from assent.stages.parts import MODEL, Generation
from assent.types import Rollout, Sequences

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MEMBERS, HIDDEN, STEPS, BATCH, LEARNING_RATE, PULL = 10, 32, 200, 512, 3e-3, 0.5
RANDOM_SHARE = 0.2
TESTED = 4
"""Held-out samples of one prompt."""
ANNOTATOR = SimulatedAnnotator("ben", noise=0.6)
GENERATION = Generation(max_new_tokens=32)
ARMS: dict[str, Chooser | None] = {
    "random": None,
    "information gain": ByInformationGain(),
    "double Thompson": ByDoubleThompson(draws=2),
}
CHOSEN = [name for name in ARMS if name != "random"]
MEASURES = {
    "heads": "accuracy, ensemble of heads",
    "reward": "accuracy, fine-tuned reward model",
    "sampled": "win rate of PPO, sampled",
    "greedy": "win rate of PPO, greedy",
}

Points = dict[str, float]
"""By number of labels."""
Row = dict[str, Any]


# ------------------------------------------------------------------------------------------------ the ensemble


@torch.no_grad()
def features(policy: CausalModel, rollouts: Sequence[Rollout]) -> Tensor:
    """State of the last token and mean state of the response, of the last two layers; [n, 4 D]."""
    rows = [torch.tensor([*r.prompt.token_ids, *r.token_ids]) for r in rollouts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    made: dict[int, Tensor] = {}
    for start in range(0, len(order), 64):
        some = order[start : start + 64]
        ids = torch.nn.utils.rnn.pad_sequence([rows[i] for i in some], batch_first=True)
        there = torch.nn.utils.rnn.pad_sequence([torch.ones(len(rows[i])) for i in some], batch_first=True)
        states = policy.model(input_ids=ids, attention_mask=there, output_hidden_states=True).hidden_states[-2:]
        for row, i in enumerate(some):
            end, begin = len(rows[i]), len(rollouts[i].prompt.token_ids)
            parts = [part for s in states for part in (s[row, end - 1], s[row, begin:end].mean(0))]
            made[i] = torch.cat(parts).float()
    return torch.stack([made[i] for i in range(len(rows))])


def heads(x: Tensor, left: Tensor, right: Tensor, target: Tensor, *, seed: int) -> list[Tensor]:
    """Weights of an ensemble, [MEMBERS, ...], on pairs of rows of x; target = P(left preferred)."""
    draw = torch.Generator().manual_seed(seed)
    start = [
        torch.randn(MEMBERS, x.shape[1], HIDDEN, generator=draw) / x.shape[1] ** 0.5,
        torch.zeros(MEMBERS, 1, HIDDEN),
        torch.randn(MEMBERS, HIDDEN, 1, generator=draw) / HIDDEN**0.5,
    ]
    weights = [w.clone().requires_grad_() for w in start]
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE)
    for _ in range(STEPS):
        some = torch.randperm(len(left), generator=draw)[:BATCH]
        scores = read(weights, x[torch.cat([left[some], right[some]])])
        gap = scores[:, : len(some)] - scores[:, len(some) :]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(gap, target[some].expand_as(gap)) * MEMBERS
        pull = sum(((w - w0) ** 2).sum() for w, w0 in zip(weights, start, strict=True))
        optimizer.zero_grad()
        (loss + PULL * pull / len(left)).backward()
        optimizer.step()
    return [w.detach() for w in weights]


def read(weights: list[Tensor], x: Tensor) -> Tensor:
    """Scores of every member, [MEMBERS, n]."""
    first, bias, last = weights
    return (torch.relu(x @ first + bias) @ last)[..., 0]


# ------------------------------------------------------------------------------------------------ one seed


def gold_of(rollouts: Sequence[Rollout]) -> np.ndarray:
    return np.array([domain.judge(r.prompt.source, r.text, ended=r.ended).gold for r in rollouts])


def accuracy(scores_n: np.ndarray, gold_n: np.ndarray) -> float:
    """Over pairs of one prompt whose gold differs; equal scores count half."""
    right = []
    for start in range(0, len(gold_n), TESTED):
        for i, j in itertools.combinations(range(start, start + TESTED), 2):
            if gold_n[i] != gold_n[j]:
                right.append(0.5 + 0.5 * np.sign(scores_n[i] - scores_n[j]) * np.sign(gold_n[i] - gold_n[j]))
    return float(np.mean(right))


@dataclass
class Pool:
    """What may be asked about, and what accuracy is measured on."""

    rollouts: list[Rollout]
    x: Tensor
    gold: np.ndarray
    test: list[Rollout]
    test_x: Tensor
    test_gold: np.ndarray
    places: list[list[int]]
    """For each prompt, its candidates: the samples that came to an end."""

    @classmethod
    def drawn(cls, policy: CausalModel, seed: int, options: argparse.Namespace) -> "Pool":
        tasks = domain.tasks(options.prompts, seed=20_000 + seed)
        held = domain.tasks(options.held_out, seed=30_000 + seed, split="held_out")
        k = options.candidates
        rollouts = sample_responses(policy, tasks, GENERATION, seed=seed, samples=k)
        test = sample_responses(policy, held, GENERATION, seed=seed + 1, samples=TESTED)
        x, test_x = features(policy, rollouts), features(policy, test)
        mean, std = x.mean(0), x.std(0) + 1e-6
        places = [[i for i in range(n * k, (n + 1) * k) if rollouts[i].ended] for n in range(len(tasks))]
        return cls(
            rollouts, (x - mean) / std, gold_of(rollouts), test, (test_x - mean) / std, gold_of(test), places
        )  # fmt: skip


@dataclass
class Asked:
    """What one arm has asked and heard."""

    pairs: list[tuple[str, int, int]] = field(default_factory=list)
    answers: list[tuple[int, int, float]] = field(default_factory=list)

    def hear(self, pool: Pool, prompt_id: str, first: int, second: int, seed: int) -> None:
        i, j = (pool.places[int(prompt_id)][place] for place in (first, second))
        # The annotator's luck belongs to the pair, so that arms that ask the same hear the same.
        luck = random.Random(f"{seed}/{i}/{j}")
        texts, gold = (pool.rollouts[i].text, pool.rollouts[j].text), (pool.gold[i], pool.gold[j])
        (said,) = ANNOTATOR.compare("q", "", texts, gold, rng=luck).preferences
        self.pairs.append((prompt_id, first, second))
        self.answers.append((i, j, 0.5 if said.tie else float(said.better == 0)))

    def write(self, path: Path, pool: Pool) -> None:
        """As a file of rankings, equal ranks being ties."""
        with path.open("w", encoding="utf-8") as file:
            for i, j, target in self.answers:
                texts = [pool.rollouts[n].text for n in (i, j)]
                ranks = [1 + (target < 0.5), 1 + (target > 0.5)]
                row = {"prompt": pool.rollouts[i].prompt.source, "responses": texts, "ranks": ranks}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def one_arm(name: str, pool: Pool, sft: Path, seed: int, options: argparse.Namespace) -> dict[str, Points]:
    rng, asked, scores = np.random.default_rng(seed), Asked(), None
    points: dict[str, Points] = {m: {} for m in MEASURES}
    for number, labels in enumerate(options.labels):
        candidates = [
            Candidates(
                str(n),
                tuple(pool.rollouts[i].text for i in places),
                None if scores is None else scores[:, places],
            )
            for n, places in enumerate(pool.places)
        ]
        cap = max(2, -(-2 * labels // options.prompts))  # of one prompt: twice its even share, and at least two
        made = choose(
            candidates, labels - len(asked.pairs), chooser=ARMS[name] if number else None, rng=rng,
            random_share=RANDOM_SHARE, per_prompt=cap, asked=asked.pairs,
        )  # fmt: skip
        for q in made:
            asked.hear(pool, q.prompt_id, q.first, q.second, seed)
        left, right, target = (torch.tensor(c) for c in zip(*asked.answers, strict=True))
        weights = heads(pool.x, left, right, target, seed=seed * 1000 + number)
        scores = read(weights, pool.x).numpy()
        points["heads"][str(labels)] = accuracy(read(weights, pool.test_x).mean(0).numpy(), pool.test_gold)
        if labels in options.policies and name in options.trained:
            folder = options.folder / f"seed{seed}" / f"{name.replace(' ', '_')}-{labels}"
            for measure, value in trained(asked, pool, sft, folder, seed, options).items():
                points[measure][str(labels)] = value
    shown_points = {m: " ".join(f"{v:.3f}" for v in p.values()) for m, p in points.items()}
    print(f"seed {seed}, {name}: {len(asked.pairs)} asked; {shown_points}", flush=True)
    return points


def trained(asked: Asked, pool: Pool, sft: Path, folder: Path, seed: int, options: argparse.Namespace) -> Points:
    """The recipe's reward model on these labels, and PPO on it."""
    folder.mkdir(parents=True, exist_ok=True)
    asked.write(folder / "labels.jsonl", pool)
    settings = [
        f"stages.reward.data=[{{format: rankings, path: {folder / 'labels.jsonl'}}}]",
        f"stages.reward.epochs={options.epochs}",
        "stages.reward.held_out=0.02",
        "stages.reward.gold=null",
        f"stages.reward.model={sft}",
        f"stages.ppo.policy={sft}",
        f"stages.ppo.steps={options.steps}",
        f"stages.ppo.prompts_per_step={options.prompts_per_step}",
        f"stages.verdict.baseline={sft}",
        f"stages.verdict.tasks.count={options.judged}",
        "stages.verdict.best_of=0",
        *(f"stages.{s}.skip_checks=[D11]" for s in ("reward", "ppo")),  # a second process each
    ]
    recipe = load_recipe(str(ROOT / "recipes/quickstart.yaml"), TABLE, [f"seed={seed}", *settings])
    only = ["reward"] if options.without_ppo else ["reward", "ppo", "verdict"]
    run(recipe, TABLE, folder, only=only, console=console())
    stages = {name: folder / place for name, place in json.loads((folder / "run.json").read_text())["stages"].items()}
    scalar = load_scalar(stages["reward"] / MODEL).scalar
    (scores,) = in_blocks(lambda s: (scalar.last_scores(s),), Sequences.of_rollouts(pool.test))
    found = {"reward": accuracy(scores.numpy(), pool.test_gold)}
    if not options.without_ppo:
        rates = json.loads((stages["verdict"] / "results.json").read_text())["win_rates"]
        for how in ("sampled", "greedy"):
            w = rates[how]
            found[how] = (w["win"] + 0.5 * w["tie"]) / (w["win"] + w["tie"] + w["loss"])
    return found


def starting_policy(seed: int, options: argparse.Namespace) -> Path:
    """The SFT policy of a seed: the one given, or trained here."""
    if options.sft:
        return Path(options.sft[options.seeds.index(seed)]).resolve()
    folder = options.folder / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(str(ROOT / "recipes/quickstart.yaml"), TABLE, [f"seed={seed}"])
    run(recipe, TABLE, folder, only=["base", "sft"], console=console())
    return (folder / json.loads((folder / "run.json").read_text())["stages"]["sft"] / MODEL).resolve()


def one_seed(seed: int, options: argparse.Namespace) -> Row:
    sft = starting_policy(seed, options)
    pool = Pool.drawn(load_causal(sft), seed, options)
    return {"seed": seed} | {name: one_arm(name, pool, sft, seed, options) for name in options.arms}


# ------------------------------------------------------------------------------------------------ tables


def needed(curve: Points, goal: float) -> float | None:
    """Labels at which a curve first reaches the goal, between its points by a straight line; None where it does not."""
    before: tuple[float, float] | None = None
    for labels, value in ((float(n), v) for n, v in curve.items()):
        if value >= goal:
            if before is None:
                return labels
            return before[0] + (labels - before[0]) * (goal - before[1]) / (value - before[1])
        before = (labels, value)
    return None


def shown(values: Sequence[float], form: str = ".3f") -> str:
    """Mean and 95 % t interval over seeds."""
    if len(values) < 2:
        return f"{values[0]:{form}} (one seed)"
    e = mean_interval(values)
    assert e.value is not None and e.interval is not None
    return f"{e.value:{form}} [{e.interval.low:{form}}, {e.interval.high:{form}}]"


def gaps(rows: Sequence[Row], measure: str, name: str) -> dict[str, list[float]]:
    """An arm less random, by number of labels, for every seed."""
    return {n: [row[name][measure][n] - row["random"][measure][n] for row in rows] for n in rows[0]["random"][measure]}


def measured(rows: Sequence[Row], measure: str) -> list[Row]:
    """The seeds that have it; policies may have been trained for some alone."""
    return [row for row in rows if row["random"][measure]]


def table(rows: Sequence[Row], measure: str) -> list[str]:
    """A measure by labels, differences to random, and the labels to what random reaches at its end."""
    arms = [n for n in ARMS if rows[0].get(n, {}).get(measure)]
    chosen = [n for n in CHOSEN if n in arms]
    lines = [f"| labels | {' | '.join([*arms, *(f'{n} − random' for n in chosen)])} |"]
    lines.append("|---" * (len(arms) + len(chosen) + 1) + "|")
    by_arm = {n: gaps(rows, measure, n) for n in chosen}
    for labels in rows[0]["random"][measure]:
        cells = [shown([row[n][measure][labels] for row in rows]) for n in arms]
        cells += [shown(by_arm[n][labels], "+.3f") for n in chosen]
        lines.append(f"| {labels} | {' | '.join(cells)} |")
    later = list(rows[0]["random"][measure])
    later = later[1:] if measure == "heads" else later  # the first round is the same for all
    mean = [shown([float(np.mean([by_arm[n][x][s] for x in later])) for s in range(len(rows))], "+.3f") for n in chosen]
    lines.append(f"| mean of {later[0]} to {later[-1]} | {' | '.join(['' for _ in arms] + mean)} |")
    if len(later) < 2:
        return lines
    lines += ["", "Labels to what random has at its end, by seed (none: not reached):", ""]
    for name in arms:
        found = [needed(row[name][measure], list(row["random"][measure].values())[-1]) for row in rows]
        lines.append(f"* {name}: " + ", ".join("none" if f is None else f"{f:.0f}" for f in found))
    return lines


def picture(rows: Sequence[Row], measure: str) -> str:
    """Means over seeds with their intervals."""
    tones = {"random": "baseline", "information gain": "policy", "double Thompson": "proxy"}
    series = []
    for name in (n for n in ARMS if rows[0].get(n, {}).get(measure)):
        labels = list(rows[0][name][measure])
        found = [mean_interval([row[name][measure][n] for row in rows]) for n in labels]
        lows = tuple(e.interval.low for e in found if e.interval) if name != "double Thompson" else ()
        highs = tuple(e.interval.high for e in found if e.interval) if name != "double Thompson" else ()
        values = tuple(e.value for e in found)
        series.append(Series(name, tuple(float(n) for n in labels), values, tones[name], low=lows, high=highs))
    what = MEASURES[measure]
    return standalone(line_chart(series, x_label="labels", y_label=what, description=f"{what}, by labels", width=640))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sft", nargs="+", help="one SFT policy for each seed; without it they are trained")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "active_selection")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=6)
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument("--labels", type=int, nargs="+", default=[125, 250, 500, 1000, 1500, 2000])
    parser.add_argument(
        "--policies", type=int, nargs="*", default=[250, 500, 1000, 2000], help="labels at which PPO is run"
    )
    parser.add_argument("--trained", nargs="*", choices=list(ARMS), default=["random", "information gain"])
    parser.add_argument("--epochs", type=int, default=2, help="of the fine-tuned reward model")
    parser.add_argument("--steps", type=int, default=30, help="of PPO")
    parser.add_argument("--prompts-per-step", type=int, default=128, help="of PPO")
    parser.add_argument("--judged", type=int, default=300, help="held-out prompts of a win rate")
    parser.add_argument("--without-ppo", action="store_true", help="reward models alone")
    parser.add_argument("--rows", type=Path, nargs="+", default=[], help="results of seeds to join; nothing is run")
    parser.add_argument("--out", type=Path, default=RESULTS / "active_selection")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    torch.set_num_threads(1)
    rows = [row for path in options.rows for row in json.loads(path.read_text())]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in [] if options.rows else options.seeds:
        rows.append(one_seed(seed, options))
        options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    seeds = ", ".join(str(row["seed"]) for row in rows)
    lines = ["# Choosing what to ask", "", f"Seeds {seeds}; mean and 95 % t interval over seeds, differences paired."]
    for measure, title in MEASURES.items():
        if there := measured(rows, measure):
            which = f" ({len(there)} seeds)" if len(there) < len(rows) else ""
            lines += ["", f"## {title[0].upper()}{title[1:]}{which}", "", *table(there, measure)]
            if len(there) > 1:
                path = options.out.with_name(f"{options.out.name}_{measure}.svg")
                path.write_text(picture(there, measure))
                lines += ["", f"![{title}, by labels]({path.name})"]
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
