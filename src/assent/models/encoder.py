"""Encoders as reward models: every token sees every other, so padding is kept out by a mask, here and nowhere else.

An encoder reads prompt and response as the pair that its tokenizer makes of two texts (`tokenizer.encode_pair`), and
its score is one number of the whole: it is no critic, which must value a state without its future.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from assent.errors import ContractError
from assent.models.placement import device_of, narrowed, running_in
from assent.models.prepare import disable_dropout, free_padding_row
from assent.models.ragged import alike
from assent.models.raw_scores import RawScale, raw_scale, remember_raw
from assent.models.trunk import embedding_weight
from assent.types import Sequences

Pooling = Literal["mean", "cls"]
"""How sentence-transformers makes one vector of a text: the mean over its tokens, or its first token."""

PROBE_TOLERANCE = 1e-4  # relative; float32 differs by about 1e-6 between two orders of summation


def encoder_inputs(model: PreTrainedModel, sequences: Sequences) -> dict[str, Tensor]:
    """Arguments of the model's forward: tokens, the mask of padding, and types (0 prompt, 1 response) where it has
    them.

    Raises:
        ContractError: the block is longer than the positions that the model has.
    """
    ids_BL = sequences.token_ids_BL
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and ids_BL.shape[1] > longest and int(sequences.lengths_B.max()) > longest:
        raise ContractError(
            "a sequence is longer than the model's positions",
            got=f"{int(sequences.lengths_B.max())} tokens for max_position_embeddings={longest}",
            why="positions do not exist there",
            fix="set lengths: {prompt_tokens: ..., response_tokens: ..., over_long: drop}, or take a longer model",
        )
    ids_BL = ids_BL[:, : int(sequences.lengths_B.max())]
    inside_BL = _inside(sequences, ids_BL.shape[1])
    inputs = {"input_ids": torch.where(inside_BL, ids_BL, 0), "attention_mask": inside_BL.long()}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        of_response = torch.arange(ids_BL.shape[1], device=ids_BL.device) >= sequences.prompt_lengths_B[:, None]
        inputs["token_type_ids"] = (of_response & inside_BL).long()
    return inputs


def _inside(sequences: Sequences, width: int) -> Tensor:
    return torch.arange(width, device=sequences.token_ids_BL.device) < sequences.lengths_B[:, None]


def read_alike(read: Callable[[Sequences], Tensor], sequences: Sequences) -> Tensor:
    """Read rows of like length together, `[B, ...]` in their order: what a row gives does not depend on its block.

    The answers to one prompt stand in one micro-batch however much their lengths differ, and an encoder runs every
    slot of it: on people's answers of 11 to 202 tokens, 1.47 slots a token in micro-batches of 2,048, and 1.11 so. On a
    GPU the block stays whole, since there a slot costs less than a further call.
    """
    if sequences.token_ids_BL.device.type != "cpu":
        return read(sequences)
    parts = list(alike(sequences.lengths_B))
    if len(parts) == 1:
        return read(sequences)
    return torch.cat([read(sequences.select(rows)) for rows in parts])[torch.cat(parts).argsort()]


@contextmanager
def running(model: PreTrainedModel, device: torch.device) -> Iterator[None]:
    """Products as the model was placed, and an attention whose backward pass is not the slowest part of a step.

    torch's fused attention takes 48 ms for the gradient of 8 rows of 130 tokens in bfloat16 on a processor, and 12 ms
    unfused (14 fused in float32; 2.13, AMD EPYC): two fifths of an optimiser step. Texts of an encoder are short enough
    for the memory of it.
    """
    products = narrowed(model)
    unfused = products is not None and device.type == "cpu" and torch.is_grad_enabled()
    with running_in(products, device), sdpa_kernel(SDPBackend.MATH) if unfused else nullcontext():
        yield


class PooledEncoder(nn.Module):
    """An encoder's states, pooled, and one linear output: score = head(pooled). Of sentence-transformers' layout.

    Args:
        model: the bare encoder (`AutoModel`).
        head: `[1, D]` with a bias, which holds the offset of a normalisation.
        pooling: as the encoder was trained: `mean` over tokens, or `cls`.

    Raises:
        ContractError: the model is no function of the tokens alone (see `check_encoder`).
    """

    bidirectional: ClassVar[bool] = True
    offset: ClassVar[float] = 0.0

    def __init__(self, model: PreTrainedModel, head: nn.Linear, pooling: Pooling) -> None:
        super().__init__()
        self.model, self.head, self.pooling = model, head, pooling
        check_encoder(self)

    def pooled(self, sequences: Sequences) -> Tensor:
        """`[B, D]`, float32 at least."""
        return read_alike(self._pooled, sequences.to(device_of(self.model)))

    def _pooled(self, sequences: Sequences) -> Tensor:
        with running(self.model, sequences.token_ids_BL.device):
            states_BLD = self.model(**encoder_inputs(self.model, sequences)).last_hidden_state
        states_BLD = states_BLD if states_BLD.dtype == torch.float64 else states_BLD.float()
        if self.pooling == "cls":
            return states_BLD[:, 0]
        inside_BL = _inside(sequences, states_BLD.shape[1])
        return torch.where(inside_BL[..., None], states_BLD, 0.0).sum(1) / sequences.lengths_B[:, None]

    def last_scores(self, sequences: Sequences) -> Tensor:
        """Score of each whole sequence, `[B]`."""
        pooled_BD = self.pooled(sequences)
        weight, bias = self.head.weight.to(pooled_BD.dtype), self.head.bias.to(pooled_BD.dtype)
        return nn.functional.linear(pooled_BD, weight, bias)[:, 0]

    def normalise(self, mean: float, std: float) -> None:
        """Change the scores s to (s - mean) / std, for good; both numbers as `ScalarModel.normalise`."""
        remember_raw(self.model.config, mean, std)
        rescale(self.head, mean, std)

    @property
    def raw_scale(self) -> RawScale:
        """As `ScalarModel.raw_scale`."""
        return raw_scale(self.model.config)


class ClassifierEncoder(nn.Module):
    """An encoder with its family's own classification head, pooler and all: score = the one logit.

    Args:
        model: `AutoModelForSequenceClassification` with one label.

    Raises:
        ContractError: it has not exactly one linear layer with one output, or see `check_encoder`.
    """

    bidirectional: ClassVar[bool] = True
    offset: ClassVar[float] = 0.0

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        outputs = [m for m in model.modules() if type(m) is nn.Linear and m.out_features == 1]
        if len(outputs) != 1 or outputs[0].bias is None:
            raise ContractError(
                "a scalar model needs one linear output with a bias",
                got=f"{type(model).__name__} with {len(outputs)} linear layers of one output",
                why="a normalisation of the scores is folded into it",
                fix="use a ...ForSequenceClassification model with num_labels=1",
            )
        self.model, self._output = model, [outputs[0]]  # in a list: it is a module of `model` already
        check_encoder(self)

    @property
    def head(self) -> nn.Linear:
        return self._output[0]

    def last_scores(self, sequences: Sequences) -> Tensor:
        """Score of each whole sequence, `[B]`."""
        return read_alike(self._scores, sequences.to(device_of(self.model)))

    def _scores(self, sequences: Sequences) -> Tensor:
        with running(self.model, sequences.token_ids_BL.device):
            logits: Tensor = self.model(**encoder_inputs(self.model, sequences)).logits[:, 0]
        return logits if logits.dtype == torch.float64 else logits.float()

    def normalise(self, mean: float, std: float) -> None:
        """Change the scores s to (s - mean) / std, for good; both numbers as `ScalarModel.normalise`."""
        remember_raw(self.model.config, mean, std)
        rescale(self.head, mean, std)

    @property
    def raw_scale(self) -> RawScale:
        """As `ScalarModel.raw_scale`."""
        return raw_scale(self.model.config)


AnyEncoder = PooledEncoder | ClassifierEncoder


@torch.no_grad()
def rescale(head: nn.Linear, mean: float, std: float) -> None:
    """Fold (s - mean) / std into a head with a bias.

    Raises:
        ContractError: std is not above 0, or a number is not finite.
    """
    if not (std > 0 and torch.isfinite(torch.tensor([mean, std])).all()):
        raise ContractError(
            "scores cannot be normalised by these moments",
            got=f"mean {mean}, standard deviation {std}",
            why="equal or non-finite scores carry no preference",
            fix="check that the reward model was trained, and that the reference samples differ",
        )
    head.weight.div_(std)
    head.bias.sub_(mean).div_(std)


@torch.no_grad()
def check_encoder(scalar: Any) -> None:
    """Dropout off, padding row free; then: train mode as eval mode, and padding without effect.

    Raises:
        ContractError: either is not so, or a score is not finite.
    """
    model: PreTrainedModel = scalar.model
    disable_dropout(model)
    free_padding_row(model)
    weight = embedding_weight(model)
    ids = torch.randint(weight.shape[0], (2, 9), generator=torch.Generator().manual_seed(0)).tolist()
    rows = Sequences.of([ids[0][:4], ids[1][:2]], [ids[0][4:], ids[1][2:4]])
    was = model.training
    together = {mode: _in_mode(scalar, mode, lambda: scalar.last_scores(rows)) for mode in (True, False)}
    alone = torch.cat([scalar.last_scores(rows.select(torch.tensor([i]))) for i in range(2)])
    model.train(was)
    half = weight.dtype not in (torch.float32, torch.float64)
    allowed = (5e-2 if half else PROBE_TOLERANCE) * max(1.0, alone.abs().max().item())
    for what, other in (("train mode", together[True]), ("a padded block", together[False])):
        # "not <=" and not ">", so that nan is refused.
        if not (other - alone).abs().max().item() <= allowed:
            raise ContractError(
                f"the encoder gives other scores in {what}",
                got=f"{other.tolist()} against {alone.tolist()} alone in eval mode, from {type(model).__name__}",
                why="a score must depend on the text alone",
                fix="turn off what is random in training; use an encoder that keeps to its attention mask",
            )


def _in_mode(scalar: nn.Module, training: bool, read: Callable[[], Tensor]) -> Tensor:
    scalar.train(training)
    return read()
