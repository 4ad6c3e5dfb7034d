"""PPO-ptx: text mixed into every optimiser step of an update."""

from pydantic import Field

from assent.algorithms.sft import SFT
from assent.config import Frozen
from assent.data.batches import PackedBatches, TokenBatches
from assent.models.folders import CausalModel
from assent.models.tokenizer import encode_texts
from assent.pipeline.stage import StageContext
from assent.protocols import BatchSource, Forward
from assent.stages.parts import example_of
from assent.stages.sources import AnyDemonstrations, AnyDocuments, take
from assent.train.learner import Mixture
from assent.types import Loss, TokenBatch


class PretrainingMix(Frozen):
    """PPO-ptx: text mixed into every optimiser step.

    Args:
        documents, demonstrations: where it comes from; exactly one.
        coefficient: multiplies its mean loss; 27.8 in InstructGPT's normalisation, tune by gradient norm.
        batch_size: rows per optimiser step.
        length: tokens per packed row of documents.
    """

    documents: AnyDocuments | None = None
    demonstrations: AnyDemonstrations | None = None
    coefficient: float = Field(gt=0)
    batch_size: int = Field(8, gt=0)
    length: int = Field(128, gt=1)


def build_mixture(mix: PretrainingMix, context: StageContext, policy: CausalModel, updates: int) -> Mixture:
    batches: BatchSource
    if mix.documents is not None:
        encoded = encode_texts(policy.tokenizer, [d.text for d in take(mix.documents, context)])
        tokens = sum(len(e) + 1 for e in encoded)
        epochs = 1 + updates * mix.batch_size * mix.length // tokens
        end = policy.tokenizer.eos_token_id
        batches = PackedBatches(
            encoded,
            end_id=end,
            length=mix.length,
            batch_size=mix.batch_size,
            epochs=epochs + 1,
            seed=context.seed,
        )
    else:
        assert mix.demonstrations is not None
        examples = [example_of(policy, d) for d in take(mix.demonstrations, context)]
        epochs = 1 + updates * mix.batch_size // len(examples)
        batches = TokenBatches(examples, batch_size=mix.batch_size, epochs=epochs + 1, seed=context.seed)
    return Mixture(batches, _Mixed(), mix.coefficient)


class _Mixed:
    """SFT's loss under a metric name of its own."""

    def loss(self, batch: TokenBatch, forward: Forward) -> Loss:
        loss = SFT().loss(batch, forward)
        return Loss(loss.per_item, loss.mask, {"ptx/loss": loss.metrics["loss/tokens"]})
