"""Does it pay to choose what to ask? Labels against the accuracy of a reward model, on the embedded domain.

    python benchmarks/active_selection.py --labels 100 --rounds 6 --sft FOLDER [FOLDER ...]

One seed per SFT policy (the `model` folder of an `sft` artefact of `recipes/quickstart.yaml`). A pool of prompts, each
with candidates sampled from the policy; simulated annotators answer; the reward model is an ensemble of small heads on
frozen features of the policy, each pulled to its own start (as in Efficient exploration, arXiv 2402.00396), trained
from nothing after every round. The first round is random for every arm; after that the arms differ in the chooser and
keep a random share. Accuracy is that of the ensemble's mean on held-out pairs whose gold differs. Prints a table with
95 % t intervals over seeds, differences paired by seed, and writes `benchmarks/results/active_selection.{md,json}`.
"""

import argparse
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from assent.data import domain
from assent.feedback.annotators import SimulatedAnnotator
from assent.feedback.choose import ByDoubleThompson, ByInformationGain, Candidates, Chooser, choose
from assent.intervals import mean_interval
from assent.models.folders import CausalModel, load_causal
from assent.stages.generation import sample_responses
from assent.stages.parts import Generation
from assent.types import Rollout

RESULTS = Path(__file__).resolve().parent / "results"
MEMBERS, HIDDEN, STEPS, LEARNING_RATE, PULL = 10, 32, 200, 3e-3, 0.5
PER_PROMPT, RANDOM_SHARE = 2, 0.2
ARMS: dict[str, Chooser | None] = {
    "random": None,
    "information gain": ByInformationGain(),
    "double Thompson": ByDoubleThompson(draws=2),
}

Curve = list[float]


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
    used, where = torch.cat([left, right]).unique(return_inverse=True)
    for _ in range(STEPS):
        scores = read(weights, x[used])[:, where]
        gap = scores[:, : len(left)] - scores[:, len(left) :]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(gap, target.expand_as(gap)) * MEMBERS
        pull = sum(((w - w0) ** 2).sum() for w, w0 in zip(weights, start, strict=True))
        optimizer.zero_grad()
        (loss + PULL * pull / len(left)).backward()
        optimizer.step()
    return [w.detach() for w in weights]


def read(weights: list[Tensor], x: Tensor) -> Tensor:
    """Scores of every member, [MEMBERS, n]."""
    first, bias, last = weights
    return (torch.relu(x @ first + bias) @ last)[..., 0]


def gold_of(rollouts: Sequence[Rollout]) -> np.ndarray:
    return np.array([domain.judge(r.prompt.source, r.text, ended=r.ended).gold for r in rollouts])


def accuracy(scores_n: np.ndarray, gold_n: np.ndarray, samples: int) -> float:
    """Over pairs of one prompt whose gold differs; equal scores count half."""
    right = []
    for start in range(0, len(gold_n), samples):
        for i, j in itertools.combinations(range(start, start + samples), 2):
            if gold_n[i] != gold_n[j]:
                right.append(0.5 + 0.5 * np.sign(scores_n[i] - scores_n[j]) * np.sign(gold_n[i] - gold_n[j]))
    return float(np.mean(right))


def one_seed(sft: str, seed: int, options: argparse.Namespace) -> dict[str, Curve]:
    policy, generation = load_causal(sft), Generation(max_new_tokens=32)
    tasks = domain.tasks(options.prompts, seed=20_000 + seed)
    held = domain.tasks(options.held_out, seed=30_000 + seed, split="held_out")
    k = options.candidates
    pool = sample_responses(policy, tasks, generation, seed=seed, samples=k)
    test = sample_responses(policy, held, generation, seed=seed + 1, samples=4)
    x, gold, test_x, test_gold = features(policy, pool), gold_of(pool), features(policy, test), gold_of(test)
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, test_x = (x - mean) / std, (test_x - mean) / std
    annotator = SimulatedAnnotator("ben", noise=0.6)
    texts = [tuple(r.text for r in pool[n * k : (n + 1) * k]) for n in range(len(tasks))]
    curves = {}
    for name, chooser in ARMS.items():
        rng, asked, answers, curve = np.random.default_rng(seed), [], [], []
        scores = None
        for _ in range(options.rounds):
            candidates = [
                Candidates(str(n), texts[n], None if scores is None else scores[:, n * k : (n + 1) * k])
                for n in range(len(tasks))
            ]
            made = choose(
                candidates, options.labels, chooser=chooser if scores is not None else None, rng=rng,
                random_share=RANDOM_SHARE, per_prompt=PER_PROMPT * (len(curve) + 1), asked=asked,
            )  # fmt: skip
            for q in made:
                n = int(q.prompt_id)
                asked.append((q.prompt_id, q.first, q.second))
                i, j = n * k + q.first, n * k + q.second
                # The annotator's luck belongs to the pair, so that arms that ask the same hear the same.
                (said,) = annotator.compare(
                    "q", "", (pool[i].text, pool[j].text), (gold[i], gold[j]), rng=random.Random(f"{seed}/{i}/{j}")
                ).preferences
                answers.append((i, j, 0.5 if said.tie else float(said.better == 0)))
            left, right, target = (torch.tensor(c) for c in zip(*answers, strict=True))
            weights = heads(x, left, right, target, seed=seed * 1000 + len(curve))
            scores = read(weights, x).numpy()
            curve.append(accuracy(read(weights, test_x).mean(0).numpy(), test_gold, 4))
        curves[name] = curve
        print(f"seed {seed}, {name}: " + " ".join(f"{a:.3f}" for a in curve), flush=True)
    return curves


def needed(curve: Curve, goal: float, labels: int) -> float | None:
    """Labels at which a curve first reaches the goal, between rounds by a straight line; None where it does not."""
    for r, value in enumerate(curve):
        if value >= goal:
            before = curve[r - 1] if r else None
            return labels * (r + 1 if before is None else r + (goal - before) / (value - before))
    return None


def shown(values: Sequence[float], form: str = ".3f") -> str:
    e = mean_interval(values)
    assert e.value is not None and e.interval is not None
    return f"{e.value:{form}} [{e.interval.low:{form}}, {e.interval.high:{form}}]"


def table(rows: Sequence[dict[str, Curve]], labels: int) -> str:
    """Accuracy by labels, differences to random paired by seed, and the labels to what random reaches at its end."""
    heads_ = [*ARMS, *(f"{name} - random" for name in ARMS if name != "random")]
    lines = [f"| labels | {' | '.join(heads_)} |", "|---" * (len(heads_) + 1) + "|"]
    for r in range(len(rows[0]["random"])):
        cells = [shown([row[name][r] for row in rows]) for name in ARMS]
        cells += [shown([row[n][r] - row["random"][r] for row in rows], "+.3f") for n in ARMS if n != "random"]
        lines.append(f"| {labels * (r + 1)} | {' | '.join(cells)} |")
    lines += ["", "Labels to the accuracy that random has at its end, by seed (none: not reached):", ""]
    for name in ARMS:
        found = [needed(row[name], row["random"][-1], labels) for row in rows]
        lines.append(f"* {name}: " + ", ".join("none" if f is None else f"{f:.0f}" for f in found))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sft", nargs="+", required=True)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--labels", type=int, default=60, help="a round")
    parser.add_argument("--out", type=Path, default=RESULTS / "active_selection")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [one_seed(sft, seed, options) for seed, sft in enumerate(options.sft)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    if len(rows) > 1:
        options.out.with_suffix(".md").write_text("# Choosing what to ask\n\n" + table(rows, options.labels))
        print(table(rows, options.labels))


if __name__ == "__main__":
    main()
