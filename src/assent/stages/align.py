"""Direct alignment: comparisons to a policy in one offline loop, without a reward model and without sampling."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from assent.algorithms.dpo import DPO
from assent.algorithms.ipo import IPO
from assent.algorithms.orpo import ORPO
from assent.algorithms.simpo import SimPO
from assent.data.batches import ComparisonExample, PairBatches, PairExample, Pairs, pair_batch
from assent.data.splits import hold_out, record_key
from assent.data.tokenise import Budget
from assent.dist import processes
from assent.evals.intervals import Estimate, share_estimate
from assent.evals.judged import correct
from assent.loops.offline import offline
from assent.models.folders import CausalModel, save_causal
from assent.models.forward import BLOCK_TOKENS, ModelForward
from assent.models.tokenizer import require_same_tokenizer
from assent.pipeline.recipe import Number, Stage, StageSpec
from assent.pipeline.run import StageContext
from assent.protocols import Forward, Stateful
from assent.records import Comparison
from assent.stages.first_batch import SkipChecks, check_pairs
from assent.stages.parts import (
    HELD_OUT_SEED,
    MODEL,
    ModelRef,
    Optimization,
    build_learner,
    encoder,
    fitting,
    frozen,
    load_policy,
)
from assent.stages.reference_logprobs import reference_logprobs
from assent.stages.sources import AnyComparisons, take
from assent.train.batching import micro_batches
from assent.train.checkpoint import StateFile

AnyAlignment = Annotated[DPO | IPO | SimPO | ORPO, Field(discriminator="name")]


class AlignSpec(StageSpec):
    """Settings of direct alignment.

    Args:
        policy: what is trained; the SFT model that the compared responses were sampled from, in the papers.
        reference: what log-ratios are measured against; the policy's start when None. A frozen snapshot. Losses
            without a reference (SimPO, ORPO) refuse one.
        data: comparisons, from one or more sources; every strictly ordered pair is trained on.
        epochs: passes over the pairs; 1 as in SimPO.
        batch_size: pairs per optimiser step; 64 in the DPO paper.
        lengths: budget of a comparison in tokens, and what becomes of one that is over it.
        held_out: share of the prompts kept to measure the implicit reward on: the same prompts as a reward model's.
        algorithm: the loss: `{name: dpo}`, `ipo`, `simpo` or `orpo`, with its settings.
        optimization: how weights are moved.
        skip_checks: first-batch checks not to run, by name; recorded in the artefact.
    """

    policy: ModelRef
    reference: ModelRef | None = None
    data: list[AnyComparisons] = Field(min_length=1)
    epochs: int = Field(1, gt=0)
    batch_size: int = Field(64, gt=0)
    lengths: Budget = Budget()
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    algorithm: AnyAlignment = DPO()
    optimization: Optimization
    skip_checks: SkipChecks = ()

    @model_validator(mode="after")
    def _reference_is_read(self) -> "AlignSpec":
        if self.reference is not None and not self.algorithm.uses_reference:
            raise ValueError(f"{self.algorithm.name} has no reference: leave `reference` out, it would change nothing")
        return self

    @property
    def same_start(self) -> bool:
        """The reference is where the policy starts."""
        return self.reference is None or self.reference == self.policy


def run(spec: AlignSpec, context: StageContext) -> Mapping[str, float]:
    policy = load_policy(context, spec.policy)
    encode = encoder(policy)
    read = [c for source in spec.data for c in take(source, context)]
    kept = fitting([encode(c) for c in read], spec.lengths, "comparisons", policy.model, context)
    training, held = hold_out([read[i] for i in kept], spec.held_out, HELD_OUT_SEED)

    def pairs_of(comparisons: Sequence[Comparison]) -> Pairs:
        return Pairs.of(ComparisonExample(*encode(c), c.preferences) for c in comparisons)

    pairs, held_pairs = pairs_of(training), [pairs_of([c]).examples for c in held]
    judged = [e for examples in held_pairs for e in examples]
    context.say(f"training on {pairs}; {len(judged):,} pairs held out")
    known = _reference(spec, context, policy, [*pairs.examples, *judged])
    ref_P2, judged_P2 = (None, None) if known is None else (known[: len(pairs.examples)], known[len(pairs.examples) :])
    group = processes.current()
    batches = PairBatches(
        pairs.examples,
        ref_P2,
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        seed=context.seed,
        shard=(group.rank, group.world),
    )
    forward = ModelForward(policy=policy.model)
    learner = build_learner(context, spec.optimization, forward, {"policy": policy.model}, total_steps=len(batches))
    parts: dict[str, Stateful] = {"learner": learner, "batches": batches, "tracker": context.tracker}
    first_batch = check_pairs(
        spec.skip_checks, context, policy, batches, learner, spec.algorithm, same_start=spec.same_start
    )
    checkpoint = StateFile(context.state, parts, every_seconds=spec.optimization.checkpoint_seconds)
    offline(batches, spec.algorithm, learner, context.tracker, checkpoint)
    first_batch.finish()
    save_causal(context.out / MODEL, policy)
    keys = [record_key(c) for c, examples in zip(held, held_pairs, strict=True) for _ in examples]
    accuracy = _accuracy(spec, forward, judged, judged_P2, keys)
    interval = accuracy.interval
    return {
        "accuracy": accuracy.value if accuracy.value is not None else float("nan"),
        "accuracy_low": interval.low if interval else float("nan"),
        "accuracy_high": interval.high if interval else float("nan"),
        "held_out_pairs": float(len(judged)),
        "training_pairs": float(len(pairs.examples)),
        "ties_left_out": float(pairs.ties),
        "identical_left_out": float(pairs.identical),
    }


def _reference(
    spec: AlignSpec, context: StageContext, policy: CausalModel, examples: Sequence[PairExample]
) -> Tensor | None:
    """The reference's log-probabilities; before the first step the policy itself is its own reference."""
    if not spec.algorithm.uses_reference:
        return None
    if spec.reference is None or spec.same_start:
        return reference_logprobs(policy, examples, context, block_tokens=BLOCK_TOKENS)
    reference = load_policy(context, spec.reference)
    require_same_tokenizer(policy.tokenizer, reference.tokenizer, role="reference")
    frozen(reference.model)
    return reference_logprobs(reference, examples, context, block_tokens=BLOCK_TOKENS)


def _accuracy(
    spec: AlignSpec, forward: Forward, examples: Sequence[PairExample], ref_P2: Tensor | None, keys: Sequence[str]
) -> Estimate:
    """Share of held-out pairs in which the preferred response has the higher implicit reward, an equal one half."""
    if not examples:
        return share_estimate([], [])
    costs = torch.tensor([2 * len(e.prompt_ids) + len(e.chosen_ids) + len(e.rejected_ids) for e in examples])
    gaps = np.zeros(len(examples))
    with torch.no_grad():
        for rows in micro_batches(costs, spec.optimization.token_budget):
            batch: Any = pair_batch([examples[i] for i in rows.tolist()], None if ref_P2 is None else ref_P2[rows])
            rewards_P2 = spec.algorithm.implicit_rewards(batch, forward).view(-1, 2).double()
            gaps[rows.numpy()] = (rewards_P2[:, 0] - rewards_P2[:, 1]).numpy()
    return share_estimate(correct(gaps), keys)


def derive(spec: AlignSpec) -> Mapping[str, Number]:
    return {"epochs": spec.epochs, "pairs per update": spec.batch_size}


STAGE = Stage("align", AlignSpec, run, derive)
