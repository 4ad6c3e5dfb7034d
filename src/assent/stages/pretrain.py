"""Learn the language of a domain, from nothing or from a given model; every token counts."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from assent.algorithms.sft import SFT
from assent.data.batches import PackedBatches
from assent.data.packing import DocumentBatches
from assent.dist import processes
from assent.loops.offline import offline
from assent.models.folders import CausalModel, ModelShape, new_causal, save_causal
from assent.models.forward import ModelForward
from assent.models.prepare import check_packing
from assent.models.tokenizer import CHATML, CHATML_TOKENS, SpecialTokens, encode_texts, train_bpe
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.protocols import Stateful
from assent.stages.first_batch import SkipChecks, check_tokens
from assent.stages.parts import MODEL, ModelRef, Optimization, build_learner, evaluate_loss, load_policy
from assent.stages.placement import placement_of
from assent.stages.sources import AnyDocuments, take
from assent.train.checkpoint import StateFile


class PretrainSpec(StageSpec):
    """Settings of pretraining.

    Args:
        data: the text.
        model: what to continue from; None starts from `shape` with a tokenizer of its own, trained on the text.
        shape: family and sizes of a new model.
        vocabulary: tokens of a new tokenizer.
        template: `chatml` gives the new tokenizer that chat template, so that later stages may take dialogues.
        layout: `documents` packs whole documents, each to itself; `stream` runs them on through the rows, as GPT-2 was
            trained.
        length: tokens of a packed row.
        batch_size: rows per optimiser step.
        epochs: passes over the text.
        validation: share of the documents kept for validation.
        optimization: how weights are moved.
        skip_checks: first-batch checks not to run, by name; recorded in the artefact.
    """

    data: AnyDocuments
    model: ModelRef | None = None
    shape: ModelShape | None = None
    vocabulary: int = Field(1024, gt=256)
    template: Literal["chatml"] | None = None
    layout: Literal["documents", "stream"] = "documents"
    length: int = Field(256, gt=1)
    batch_size: int = Field(8, gt=0)
    epochs: int = Field(1, gt=0)
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.02
    optimization: Optimization
    skip_checks: SkipChecks = ()

    @model_validator(mode="after")
    def _one_start(self) -> "PretrainSpec":
        if (self.model is None) == (self.shape is None):
            raise ValueError("give either `model` to continue from or `shape` to start from nothing")
        if self.model is not None and self.template is not None:
            raise ValueError("a template is for a new tokenizer; the model to continue from has its own")
        return self


def run(spec: PretrainSpec, context: StageContext) -> Mapping[str, float]:
    documents = take(spec.data, context)
    held = max(1, round(spec.validation * len(documents)))
    training = documents[held:]
    causal = _start(spec, context, [d.text for d in training])
    if spec.layout == "documents":
        check_packing(causal.model)
    end = causal.tokenizer.eos_token_id
    encoded = encode_texts(causal.tokenizer, [d.text for d in documents])
    group = processes.current()
    packed = LAYOUTS[spec.layout]
    batches = packed(
        encoded[held:],
        end_id=end,
        length=spec.length,
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        seed=context.seed,
        shard=(group.rank, group.world),
    )
    context.say(batches.report)
    forward = ModelForward(policy=causal.model)
    learner = build_learner(context, spec.optimization, forward, {"policy": causal.model}, total_steps=len(batches))
    parts: dict[str, Stateful] = {"learner": learner, "batches": batches, "tracker": context.tracker}
    first_batch = check_tokens(spec.skip_checks, context, causal, batches, learner, SFT(), ends_expected=False)
    checkpoint = StateFile(context.state, parts, every_seconds=spec.optimization.checkpoint_seconds)
    offline(batches, SFT(), learner, context.tracker, checkpoint)
    first_batch.finish()
    probe = packed(encoded[:held], end_id=end, length=spec.length, batch_size=32, epochs=1, seed=0)
    loss = evaluate_loss((b for _, b in probe), SFT(), forward)["loss/tokens"].value
    save_causal(context.out / MODEL, causal)
    return {"validation_loss": loss, "documents": len(training), "tokens": batches.tokens * spec.epochs}


LAYOUTS: Mapping[str, type[DocumentBatches] | type[PackedBatches]] = {
    "documents": DocumentBatches,
    "stream": PackedBatches,
}


def _start(spec: PretrainSpec, context: StageContext, texts: list[str]) -> CausalModel:
    if spec.model is not None:
        return load_policy(context, spec.model)
    assert spec.shape is not None
    template = None if spec.template is None else CHATML
    special = SpecialTokens(extra=() if spec.template is None else CHATML_TOKENS)
    tokenizer = train_bpe(texts, vocab_size=spec.vocabulary, special_tokens=special, chat_template=template)
    return new_causal(spec.shape, tokenizer, seed=context.seed, placement=placement_of(context))


def derive(spec: PretrainSpec) -> Mapping[str, Number]:
    return {
        "tokens per step": spec.batch_size * spec.length,
        "epochs": spec.epochs,
        **({"documents": count} if (count := getattr(spec.data, "count", None)) else {}),
    }


STAGE = Stage("pretrain", PretrainSpec, run, derive)
