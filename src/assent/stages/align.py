"""Direct alignment: judged responses to a policy in one offline loop, without a reward model and without sampling."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator
from torch import Tensor

from assent.algorithms.apo_down import APODown
from assent.algorithms.kto import KTO
from assent.data.judged import Row
from assent.data.tokenise import Budget
from assent.dist import processes
from assent.loops.offline import offline
from assent.models.folders import CausalModel, save_causal
from assent.models.forward import BLOCK_TOKENS, ModelForward
from assent.models.tokenizer import require_same_tokenizer
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.protocols import Stateful, Tracker
from assent.records import Comparison, Judgement
from assent.stages.align_data import (
    LogprobsOf,
    Material,
    Tokenising,
    UnpairedMaterial,
    pair_material,
    tokenised,
    unbalanced,
    unpaired_material,
)
from assent.stages.displacement import DisplacementWatch
from assent.stages.first_batch import SkipChecks, check_pairs
from assent.stages.offline_algorithms import DEFAULT, AnyAlignment
from assent.stages.parts import MODEL, ModelRef, Optimization, build_learner, frozen, load_policy
from assent.stages.reference_logprobs import reference_logprobs
from assent.stages.sources import AnyJudged, take
from assent.train.checkpoint import StateFile


class AlignSpec(StageSpec):
    """Settings of direct alignment.

    Args:
        policy: what is trained; the SFT model that the judged responses were sampled from, in the papers.
        reference: what log-ratios are measured against; the policy's start when None. A frozen snapshot. Losses
            without a reference (SimPO, ORPO, CPO) refuse one.
        data: comparisons, of which every strictly ordered pair is trained on; for KTO and BCO also responses that were
            judged each by itself (`{format: unpaired}`), a pair being one desirable response and one undesirable.
        epochs: passes over the data; 1 as in SimPO.
        batch_size: prompts per optimiser step, each with all its judged responses, which go through the model once;
            64 in the DPO paper, whose prompts have one pair each.
        lengths: budget of a prompt with its responses in tokens, and what becomes of one that is over it.
        held_out: share of the prompts kept to measure the implicit reward on: the same prompts as a reward model's.
        mask_formatting: leave what the chat template adds to a response, and the token that ends it, out of both
            log-probabilities (Llama 3, arXiv 2407.21783: such tokens stand on both sides of a pair, and pushing them up
            and down at once made its policies repeat themselves or stop at random). Off, as in DPO.
        algorithm: the loss: `{name: dpo}` and its settings; see `assent.stages.offline_algorithms`. DPO without a
            name; `{path: package.module:Name}` is one of your own.
        optimization: how weights are moved.
        skip_checks: first-batch checks not to run, by name; recorded in the artefact.
    """

    policy: ModelRef
    reference: ModelRef | None = None
    data: list[AnyJudged] = Field(min_length=1)
    epochs: int = Field(1, gt=0)
    batch_size: int = Field(64, gt=0)
    lengths: Budget = Budget()
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    mask_formatting: bool = False
    algorithm: AnyAlignment = DEFAULT
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
    material = _material(spec, context, policy)
    group = processes.current()
    batches = material.batches(
        batch_size=spec.batch_size, epochs=spec.epochs, seed=context.seed, shard=(group.rank, group.world)
    )
    forward = ModelForward(policy=policy.model)
    learner = build_learner(context, spec.optimization, forward, {"policy": policy.model}, total_steps=len(batches))
    tracker = _watched(spec, context)
    parts: dict[str, Stateful] = {"learner": learner, "batches": batches, "tracker": tracker}
    first_batch = check_pairs(
        spec.skip_checks,
        context,
        policy,
        batches,
        learner,
        spec.algorithm,
        same_start=spec.same_start,
        ends_masked=spec.mask_formatting,
    )
    checkpoint = StateFile(context.state, parts, every_seconds=spec.optimization.checkpoint_seconds)
    offline(batches, spec.algorithm, learner, tracker, checkpoint)
    first_batch.finish()
    save_causal(context.out / MODEL, policy)
    accuracy = material.accuracy(spec.algorithm, forward, token_budget=spec.optimization.token_budget)
    interval = accuracy.interval
    return {
        "accuracy": accuracy.value if accuracy.value is not None else float("nan"),
        "accuracy_low": interval.low if interval else float("nan"),
        "accuracy_high": interval.high if interval else float("nan"),
        **material.figures,
    }


def _material(spec: AlignSpec, context: StageContext, policy: CausalModel) -> Material:
    tokenising = Tokenising(lengths=spec.lengths, held_out=spec.held_out, mask_formatting=spec.mask_formatting)
    sources: Sequence[Any] = spec.data  # of two kinds of record, which the union cannot say
    records: list[Comparison | Judgement] = [r for source in sources for r in take(source, context)]
    training, held = tokenised(records, tokenising, policy, context)
    if not spec.algorithm.unpaired:
        reference = _reference(spec, context, policy) if spec.algorithm.uses_reference else None
        return pair_material(training, held, context, reference)
    material = unpaired_material(
        training,
        held,
        context,
        _reference(spec, context, policy),
        policy=policy,
        uses_mismatched=spec.algorithm.uses_mismatched,
    )
    _say_balance(spec, context, material)
    return material


def _say_balance(spec: AlignSpec, context: StageContext, material: UnpairedMaterial) -> None:
    kto = spec.algorithm
    if isinstance(kto, KTO):
        kinds = material.training.desirable, material.training.undesirable
        found = unbalanced(*kinds, kto.desirable_weight, kto.undesirable_weight)
        if found:
            context.say(found)


def _reference(spec: AlignSpec, context: StageContext, policy: CausalModel) -> LogprobsOf:
    """The reference's log-probabilities; before the first step the policy itself is its own reference."""
    reference = policy
    if spec.reference is not None and not spec.same_start:
        reference = load_policy(context, spec.reference)
        require_same_tokenizer(policy.tokenizer, reference.tokenizer, role="reference")
        frozen(reference.model)

    def ask(rows: Sequence[Row]) -> Tensor:
        return reference_logprobs(reference, rows, context, block_tokens=BLOCK_TOKENS)

    return ask


def _watched(spec: AlignSpec, context: StageContext) -> Tracker:
    """APO-down lowers both sides on purpose."""
    if isinstance(spec.algorithm, APODown):
        return context.tracker
    return DisplacementWatch(context.tracker, context.say)


def derive(spec: AlignSpec) -> Mapping[str, Number]:
    return {"epochs": spec.epochs, "prompts per update": spec.batch_size}


STAGE = Stage("align", AlignSpec, run, derive)
