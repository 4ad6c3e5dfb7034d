"""Process reward models as scorers: a reward at each step, or one score of the whole solution."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from assent.functional import process
from assent.models.folders import CausalModel, load_scalar
from assent.models.forward import ScalarModel, in_blocks, step_reader
from assent.models.tokenizer import encode_prompt, step_ends, tokenizer_hash
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards.process import Form, ProcessScorer, Read, ReadSolution, same_steps
from assent.stages.generation import decoder
from assent.stages.parts import MODEL, ModelRef, frozen, model_folder, require_room, response_ids
from assent.stages.placement import placement_of
from assent.stages.scorers.base import Weighted
from assent.types import Delimited, Rollout, Sequences, texts_of

GUESSING = 0.5
"""Area under the curve of a model that knows nothing."""


def at_the_end(score: Tensor, logits_S: Tensor) -> Tensor:
    """One score on the last step, nothing on the others."""
    return torch.cat([logits_S.new_zeros(len(logits_S) - 1), score[None]])


FORMS: Mapping[str, Form] = {
    "differences": lambda z: process.differences(z.sigmoid()),
    "product_differences": lambda z: process.differences(process.running_product(z)),
    "minimum_differences": lambda z: process.differences(process.running_minimum(z)),
    "raw": lambda z: z.sigmoid(),
    "centred": lambda z: z.sigmoid() - 0.5,
    "product": lambda z: at_the_end(process.log_product(z), z),
    "minimum": lambda z: at_the_end(process.minimum(z), z),
    "last": lambda z: at_the_end(z[-1].sigmoid(), z),
}


class ProcessRewardRef(Weighted):
    """A process reward model: `{process_reward: NAME}`, NAME a stage, a folder or a hub name.

    Args:
        form: what a step earns, p being the model's probability that it is right.
            `differences`: how far it raises p, the potential of its prefix; adds up to the p of the last step, so that
            more steps earn nothing. For models that say whether a right answer can still be reached: trained on
            rollouts, or with `after_error: bad`.
            `product_differences`, `minimum_differences`: the same with the product, or the minimum, of all p so far as
            the potential, for models that judge each step by itself.
            `raw`: p itself, whose sum grows with the number of steps. `centred`: p - 1/2.
            `product` (its logarithm), `minimum`, `last`: one score of the solution, on its last token, for choosing
            among solutions; `last` is also how a model with outcome targets is read.
        delimiter: what separates steps.
    """

    process_reward: ModelRef
    form: Literal[
        "differences",
        "product_differences",
        "minimum_differences",
        "raw",
        "centred",
        "product",
        "minimum",
        "last",
    ] = "differences"
    delimiter: Annotated[str, Field(min_length=1)] = "\n"

    @property
    def label(self) -> str:
        """The stage, or the last part of the folder."""
        path = Path(self.process_reward)
        return path.parent.name if path.name == MODEL and path.parent.name else path.name

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        _say_doubt(self.process_reward, context)
        loaded = load_scalar(model_folder(context, self.process_reward), placement=placement_of(context))
        steps = Delimited(decoder(policy), self.delimiter)
        shared = tokenizer_hash(loaded.tokenizer) == tokenizer_hash(policy.tokenizer)
        read = same_steps if shared else _own_steps(loaded.tokenizer, steps)
        return ProcessScorer(self.label, steps, read, step_logits(frozen(step_reader(loaded.scalar))), FORMS[self.form])


def step_logits(scalar: ScalarModel) -> Callable[[Sequences], Tensor]:
    """Logits of the tokens that the mask names, without gradient."""

    def logits(sequences: Sequences) -> Tensor:
        require_room(scalar.model, int(sequences.lengths_B.max()))
        return in_blocks(lambda s: (scalar.step_scores(s, s.mask_BT),), sequences)[0]

    return logits


def _say_doubt(stage: str, context: StageContext) -> None:
    """Say of a model that is about to train or judge if held-out labels do not bear it out."""
    metrics = context.inputs[stage].metrics if stage in context.inputs else {}
    if not metrics.get("auc_low", 1.0) > GUESSING:
        context.say(
            f"  ! {stage}: held-out area under the curve {metrics['auc']:.3f}, 95 % interval {metrics['auc_low']:.3f} "
            f"to {metrics['auc_high']:.3f}, cannot be told from guessing; what it rewards says nothing of the labels"
        )


def _own_steps(tokenizer: PreTrainedTokenizerBase, steps: Delimited) -> Read:
    """For a model with another tokenizer: the text under its own template, and the steps by their characters."""

    def read(rollout: Rollout, ends: Sequence[int]) -> ReadSolution:
        source, texts = rollout.prompt.source, texts_of(rollout.token_ids, ends, steps.decode)
        ids = response_ids(tokenizer, source, "".join(texts), end=rollout.ended)
        return ReadSolution(encode_prompt(tokenizer, source), ids, step_ends(tokenizer, ids, texts))

    return read
