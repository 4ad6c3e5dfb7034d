"""Assent on the common work: `python ours.py WORK FOLDER [--threads N]`; the other side's rows in its order.

The parts are those that the stages put together: learner, engine, scoring, algorithms; batches are made here, so that
their order is the other side's.
"""

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from gate import Gate
from workload import given

from assent.algorithms.dpo import DPO
from assent.algorithms.grpo import GRPO
from assent.algorithms.ppo import PPO
from assent.algorithms.reward_model import RewardModel
from assent.algorithms.sft import SFT
from assent.dist.processes import Alone
from assent.models.folders import load_causal, load_scalar
from assent.models.forward import ModelForward, ValueHead, in_blocks
from assent.rewards.function import FunctionScorer
from assent.rewards.model import RewardModelScorer, same_tokens
from assent.rollout.native import NativeEngine
from assent.rollout.source import PromptSource
from assent.train.learner import LocalLearner
from assent.train.optimizers import AdamW
from assent.train.schedule import Schedule
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping
from assent.train.weighing import WeightedScorer
from assent.types import ComparisonBatch, Prompt, ReferencedPairBatch, Rollout, Sampling, Sequences, TokenBatch
from assent.types.micro_batches import map_sequences

LR, ROWS, LONGEST, END = 1e-4, 16, 128, 0
STILL = 1e-9
"""Learning rate where a step samples, on both sides: the lengths of the responses stay those of the common policy. At
1e-6 ours grew from 45 tokens to 77 within five updates of PPO, by one direction that all states share."""
BUDGET = int(os.environ.get("ASSENT_BUDGET", "8192"))
"""Slots of a micro-batch. Without padding to run, 1024 to 8192 differ by a tenth; memory grows with it."""

gate = Gate()


def learner_of(forward: ModelForward, roles: dict, *, samples: bool = False) -> LocalLearner:
    """Nothing is watched where the policy also samples: the lean decode step does not take a model with hooks."""
    rule = AdamW(STILL if samples else LR)
    optimizers = [o for r, m in roles.items() for o in rule.build([(f"{r}.{n}", p) for n, p in m.named_parameters()])]
    for model in () if samples else roles.values():
        if hasattr(model, "base_model") or hasattr(model, "model"):
            gate.watch(model if hasattr(model, "base_model") else model.model)
    return LocalLearner(
        forward,
        roles,
        optimizers,
        schedule=Schedule("constant"),
        total_steps=10**6,
        token_budget=BUDGET,
        seed=0,
        quarantine=Path("/tmp/assent-peers"),
        processes=Alone(),
    )


def batches(rows: list[dict], size: int) -> Iterator[list[dict]]:
    """In order, again and again; a pass leaves out what does not fill a batch."""
    while True:
        yield from (rows[i : i + size] for i in range(0, len(rows) - size + 1, size))


def distinct(some: list[dict], k: int) -> int:
    """Tokens of these prompts and of the first k responses to each."""
    return sum(len(r["prompt"]) + sum(map(len, r["responses"][:k])) for r in some)


def sft(folder: Path, rows: list[dict]) -> None:
    causal = load_causal(folder / "policy")
    learner = learner_of(ModelForward(policy=causal.model), {"policy": causal.model})
    real = sum(len(r["prompt"]) + len(r["responses"][0]) for r in rows) / len(rows)
    source = batches(rows, ROWS)
    while True:
        gate.wait()
        for some in itertools.islice(source, STEPS["sft"]):
            gate.useful += distinct(some, 1)
            batch = TokenBatch(Sequences.of([r["prompt"] for r in some], [r["responses"][0] for r in some]))
            gate.losses.append(learner.step(batch, SFT())["loss/tokens"].value)
        gate.done(ROWS * real * STEPS["sft"])


def comparisons(some: list[dict], k: int) -> ComparisonBatch:
    """The first k responses of each row, each better than those after it."""
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    rows = [(g * k + i, g * k + j, g) for g in range(len(some)) for i, j in pairs]
    better, worse, group = (torch.tensor(column) for column in zip(*rows, strict=True))
    return ComparisonBatch(
        Sequences.of([r["prompt"] for r in some for _ in range(k)], [a for r in some for a in r["responses"][:k]]),
        torch.full((len(some),), k),
        better,
        worse,
        group,
        torch.zeros(len(rows)),
    )


def reward(folder: Path, rows: list[dict], k: int = 2, size: int = ROWS) -> None:
    scalar = load_scalar(folder / "reward").scalar
    learner = learner_of(ModelForward(scalar=scalar), {"reward_model": scalar})
    source = batches(rows, size)
    while True:
        gate.wait()
        for some in itertools.islice(source, STEPS["reward"]):
            gate.useful += distinct(some, k)
            gate.losses.append(learner.step(comparisons(some, k), RewardModel())["loss/pairs"].value)
        gate.done(size * k * (k - 1) // 2 * STEPS["reward"])


def reward_k_wise(folder: Path, rows: list[dict]) -> None:
    """As many responses a step as the pairwise side reads: 8 prompts of 4."""
    reward(folder, rows, k=4, size=ROWS // 2)


def dpo(folder: Path, rows: list[dict], *, precomputed: bool = False) -> None:
    causal, ref = load_causal(folder / "policy"), load_causal(folder / "policy")
    ref.model.requires_grad_(False)
    learner = learner_of(ModelForward(policy=causal.model), {"policy": causal.model})
    gate.watch(ref.model)
    read = ModelForward(policy=ref.model)

    def sums(sequences: Sequences) -> torch.Tensor:
        (logprobs_BT,) = map_sequences(lambda s: (read.logprobs(s),), sequences, BUDGET)
        return logprobs_BT.sum(1)

    def batch_of(some: list[dict], known: torch.Tensor | None) -> ReferencedPairBatch:
        responses = [a for r in some for a in r["responses"][:2]]
        sequences = Sequences.of([r["prompt"] for r in some for _ in "ab"], responses)
        first = torch.arange(0, 2 * len(some), 2)
        ref_B = sums(sequences) if known is None else known
        return ReferencedPairBatch(sequences, torch.full((len(some),), 2), first, first + 1, ref_B)

    known = {}
    if precomputed:
        every = Sequences.of([r["prompt"] for r in rows for _ in "ab"], [a for r in rows for a in r["responses"][:2]])
        known = {id(r): ref for r, ref in zip(rows, sums(every).view(-1, 2), strict=True)}
    source = batches(rows, ROWS)
    while True:
        gate.wait()
        for some in itertools.islice(source, STEPS["dpo"]):
            gate.useful += distinct(some, 2) * (1 if known else 2)  # by the policy, and by the reference
            batch = batch_of(some, torch.cat([known[id(r)] for r in some]) if known else None)
            gate.losses.append(learner.step(batch, DPO())["loss/preference"].value)
        gate.done(ROWS * STEPS["dpo"])


def dpo_precomputed(folder: Path, rows: list[dict]) -> None:
    dpo(folder, rows, precomputed=True)


def source_of(engine: NativeEngine, rows: list[dict], *, prompts: int, samples: int) -> PromptSource:
    every = [Prompt(str(i), "w", tuple(r["prompt"])) for i, r in enumerate(rows)]
    sampling = Sampling(LONGEST, (END,))
    return PromptSource(
        every,
        engine,
        sampling,
        prompts_per_step=prompts,
        samples_per_prompt=samples,
        steps=10**6,
        seed=0,
        decode=lambda ids: " " * len(ids),
    )


def grpo(folder: Path, rows: list[dict]) -> None:
    causal, ref = load_causal(folder / "policy"), load_causal(folder / "policy")
    ref.model.requires_grad_(False)
    forward = ModelForward(policy=causal.model)
    learner = learner_of(forward, {"policy": causal.model}, samples=True)
    engine = NativeEngine(causal.model, slots=32)
    source = source_of(engine, rows, prompts=4, samples=8)
    scorer = FunctionScorer("length", lambda r: len(r.token_ids) / LONGEST)
    scoring = RolloutScoring(
        forward.logprobs,
        ModelForward(policy=ref.model).logprobs,
        [WeightedScorer(scorer)],
        shaping=Shaping(),
        kl_control=KLControl(0.04),
        token_budget=BUDGET,
    )
    online(source, scoring, GRPO(), learner, units=32)


def online(source, scoring, algorithm, learner, *, units: int) -> None:
    source.sync(learner.weights(), version=0)
    steps = iter(source)
    for version in itertools.count(1):
        gate.wait()
        _, rollouts = next(steps)
        experience = algorithm.experience(scoring(rollouts))
        learner.update(experience, algorithm)
        source.sync(learner.weights(), version=version)
        gate.done(units, length=sum(len(r.token_ids) for r in rollouts) / len(rollouts))


def rollouts_given(rows: list[dict], first: int, *, prompts: int, samples: int) -> list[Rollout]:
    """Responses that nobody sampled; their log-probabilities are the learner's to find."""
    asked = [(place % len(rows), k) for place in range(first, first + prompts) for k in range(samples)]
    return [
        Rollout(Prompt(str(i), "w", tuple(rows[i]["prompt"])), tuple(ids), (0.0,) * len(ids), True, "", 0)
        for i, ids in ((place, given(rows, place, k)) for place, k in asked)
    ]


def grpo_given(folder: Path, rows: list[dict]) -> None:
    """GRPO on given responses: the KL to the reference before each step says what the steps before it did."""
    causal, ref = load_causal(folder / "policy"), load_causal(folder / "policy")
    ref.model.requires_grad_(False)
    forward = ModelForward(policy=causal.model)
    learner = learner_of(forward, {"policy": causal.model})
    scorer = FunctionScorer("length", lambda r: len(r.token_ids) / LONGEST)
    read = ModelForward(policy=ref.model).logprobs
    scoring = RolloutScoring(
        forward.logprobs, read, [WeightedScorer(scorer)],
        shaping=Shaping(), kl_control=KLControl(0.04), token_budget=BUDGET,
    )  # fmt: skip
    for step in itertools.count():
        gate.wait()
        scored = scoring(rollouts_given(rows, 4 * step, prompts=4, samples=8))
        gate.losses.append(scored.metrics["kl/k3"].total / float(scored.mask_BT.sum()))
        learner.update(GRPO().experience(scored), GRPO())
        gate.done(32)


def ppo_given(folder: Path, rows: list[dict]) -> None:
    """The surrogate of PPO on given responses, four steps on each batch, values fixed and lambda 1.

    The other side has one state more, after the last token, and pays the score there: values and, below lambda 1,
    advantages differ for it. It clips no gradient.
    """
    causal, ref = load_causal(folder / "policy"), load_causal(folder / "policy")
    judge, critic = (load_scalar(folder / "reward").scalar for _ in "jc")
    for model in (ref.model, judge, critic):
        model.requires_grad_(False)
    forward = ModelForward(policy=causal.model, critic=critic)
    learner = learner_of(forward, {"policy": causal.model})
    learner.max_grad_norm = 1e9
    scorer = RewardModelScorer("judge", same_tokens, lambda s: in_blocks(lambda b: (judge.last_scores(b),), s)[0])
    read = ModelForward(policy=ref.model).logprobs
    plain = RolloutScoring(
        forward.logprobs, read, [WeightedScorer(scorer)],
        shaping=Shaping(), kl_control=KLControl(0.05), token_budget=BUDGET,
    )  # fmt: skip
    scoring = CriticScoring(plain, forward.values)
    algorithm = PPO(epochs=4, lam=1.0, value_coef=0.0)
    while True:
        gate.wait()
        scored = scoring(rollouts_given(rows, 0, prompts=64, samples=1))
        metrics = learner.update(algorithm.experience(scored), algorithm)
        gate.losses += [metrics["loss/policy_avg"].value, scored.metrics["objective/kl"].value]
        gate.done(64)


def ppo(folder: Path, rows: list[dict], *, shared: bool = False) -> None:
    causal, ref = load_causal(folder / "policy"), load_causal(folder / "policy")
    judge = load_scalar(folder / "reward").scalar
    for model in (ref.model, judge):
        model.requires_grad_(False)
    critic = ValueHead.on(causal.model) if shared else load_scalar(folder / "reward").scalar
    forward = ModelForward(policy=causal.model, critic=critic)
    learner = learner_of(forward, {"policy": causal.model, "critic": critic}, samples=True)
    source = source_of(NativeEngine(causal.model, slots=64), rows, prompts=64, samples=1)
    scorer = RewardModelScorer("judge", same_tokens, lambda s: in_blocks(lambda b: (judge.last_scores(b),), s)[0])
    scoring = RolloutScoring(
        forward.logprobs,
        ModelForward(policy=ref.model).logprobs,
        [WeightedScorer(scorer)],
        shaping=Shaping(),
        kl_control=KLControl(0.05),
        token_budget=BUDGET,
    )
    online(source, CriticScoring(scoring, forward.values), PPO(epochs=4, minibatches=4), learner, units=64)


def ppo_shared(folder: Path, rows: list[dict]) -> None:
    ppo(folder, rows, shared=True)


def rollouts(folder: Path, rows: list[dict]) -> None:
    """32 slots, as the other side's 32 rows; a slot is refilled when its sequence ends where more prompts wait, so that
    several batches are asked for at once."""
    causal = load_causal(folder / "policy")
    source = source_of(NativeEngine(causal.model, slots=32), rows, prompts=32 * WAITING, samples=1)
    for step in itertools.count():
        gate.wait()
        gate.done(sum(len(r.token_ids) for r in source.rollouts(step)))


STEPS = {"sft": 2, "reward": 2, "dpo": 1}
WAITING = 8
"""Batches of 32 prompts that are known at once, as in a step of PPO."""

WORK = {f.__name__: f for f in (sft, reward, reward_k_wise, dpo, dpo_precomputed, grpo, ppo, ppo_shared, rollouts)}
WORK |= {f.__name__: f for f in (grpo_given, ppo_given)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORK)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    WORK[options.work](options.folder, json.loads((options.folder / "rows.json").read_text()))
