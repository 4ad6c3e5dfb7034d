"""What every transformers model goes through before it is trained or trusted.

Three properties of transformers models break RLHF without a word, so they are taken away or checked here:

* dropout makes the policy differ from itself between two forward passes, so the ratio is not 1 before the first update;
* an embedding built with `padding_idx` never trains that row, which is the end token when pad equals eos;
* some families change the logits after the head (soft-capping, scaling), so backbone plus head is not the model.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from assent.errors import ContractError
from assent.functional import kl
from assent.functional.logprobs import (
    KeptTokens,
    entropy,
    linear_token_logprobs,
    linear_token_logprobs_and_entropy,
    token_logprobs,
)
from assent.models import ragged
from assent.models.allocator import keep_memory
from assent.models.fused import fuse
from assent.models.placement import narrowed, running_in
from assent.models.trunk import backbone_states, embedding_weight, pick, positions
from assent.types import PackedSequences, Sequences

PROBE_ROWS, PROBE_LENGTH = 2, 8
PROBE_TOLERANCE = 1e-4  # relative; float32 differs by about 1e-6 between two orders of summation
HALF_TOLERANCE = 5e-2  # relative; bfloat16 keeps 8 bits


@dataclass(frozen=True, slots=True)
class HeadStates:
    """Hidden states at N places, and the head that turns them into logits only when asked."""

    hidden_ND: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None
    products: torch.dtype | None = None
    """The number type of the product with the head; None for that of its weights."""
    kept: KeptTokens | None = None
    """What could be drawn at each place; None for all tokens."""

    def _products(self) -> AbstractContextManager[object]:
        return running_in(self.products, self.hidden_ND.device)

    def logprobs(self, tokens_N: Tensor, temperature: float) -> Tensor:
        with self._products():
            return linear_token_logprobs(
                self.hidden_ND, self.weight_VD, tokens_N, temperature=temperature, bias_V=self.bias_V, kept=self.kept
            )

    def logprobs_and_entropy(self, tokens_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        with self._products():
            return linear_token_logprobs_and_entropy(
                self.hidden_ND, self.weight_VD, tokens_N, temperature=temperature, bias_V=self.bias_V, kept=self.kept
            )

    def logits(self) -> Tensor:
        with self._products():
            return _restricted(nn.functional.linear(self.hidden_ND, self.weight_VD, self.bias_V), self.kept)


@dataclass(frozen=True, slots=True)
class LogitStates:
    """Hidden states and finished logits at N places, for models whose logits are more than a linear head."""

    hidden_ND: Tensor
    logits_NV: Tensor
    kept: KeptTokens | None = None
    """What could be drawn at each place; None for all tokens."""

    def logprobs(self, tokens_N: Tensor, temperature: float) -> Tensor:
        return token_logprobs(self.logits(), tokens_N, temperature=temperature)

    def logprobs_and_entropy(self, tokens_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        return self.logprobs(tokens_N, temperature), entropy(self.logits(), temperature=temperature)

    def logits(self) -> Tensor:
        return _restricted(self.logits_NV, self.kept)


def _restricted(logits_NV: Tensor, kept: KeptTokens | None) -> Tensor:
    return logits_NV if kept is None else kept.restrict(logits_NV)


def exact_kl(states: HeadStates | LogitStates, reference: HeadStates | LogitStates, temperature: float) -> Tensor:
    """KL(policy || reference) at N places over all that could be drawn there, `[N]`, nats; a chunk of logits at a
    time where both are heads. No gradient reaches the reference."""
    if isinstance(states, HeadStates) and isinstance(reference, HeadStates):
        with running_in(states.products, states.hidden_ND.device):
            return kl.linear_exact(
                states.hidden_ND, states.weight_VD, reference.hidden_ND, reference.weight_VD,
                temperature=temperature, bias_V=states.bias_V, ref_bias_V=reference.bias_V, kept=states.kept,
            )  # fmt: skip
    return kl.exact(states.logits() / temperature, reference.logits().detach() / temperature)


ReadStates = Callable[[PreTrainedModel, Sequences, Tensor, Tensor], HeadStates | LogitStates]
"""`(model, sequences, row_N, place_N) -> states` at N places of the block."""


def hidden_at(model: PreTrainedModel, sequences: Sequences, row_N: Tensor, place_N: Tensor) -> Tensor:
    """Hidden states after the final norm at N places, `[N, D]`; only as many columns are run as are asked for, and a
    prompt that several rows share once, where that saves time.

    Args:
        row_N, place_N: row of the block, and place within it.

    Raises:
        ContractError: the block is longer than the positions that the model has.
    """
    reach_B = torch.zeros_like(sequences.prompt_lengths_B).scatter_reduce(0, row_N, place_N + 1, "amax")
    if _may_be_ragged(model, sequences):
        found = ragged.layout(sequences, reach_B)
        if found is not None:
            return ragged.ragged_states(model, found).index_select(0, found.places(row_N, place_N))
    width = max(1, int(reach_B.max()))
    states_BLD = backbone_states(model, sequences.token_ids_BL[:, :width], sequences.positions()[:, :width])
    return pick(states_BLD, row_N * width + place_N)


def _may_be_ragged(model: PreTrainedModel, sequences: Sequences) -> bool:
    if not getattr(model, "assent_ragged", False) or isinstance(sequences, PackedSequences):
        return False
    window = ragged.window_of(model)
    return window is None or sequences.token_ids_BL.shape[1] <= window


def read_through_head(model: PreTrainedModel, sequences: Sequences, row_N: Tensor, place_N: Tensor) -> HeadStates:
    """Backbone, then the head where asked; the logits of other places never exist."""
    head = model.get_output_embeddings()
    return HeadStates(hidden_at(model, sequences, row_N, place_N), head.weight, head.bias, narrowed(model))


def read_whole_logits(model: PreTrainedModel, sequences: Sequences, row_N: Tensor, place_N: Tensor) -> LogitStates:
    """The model's own logits at every place; slower and larger, and right for every model."""
    # The last token of the block predicts nothing that is asked, so it is not read.
    ids_BL = sequences.token_ids_BL[:, :-1]
    with running_in(narrowed(model), ids_BL.device):
        outputs = model(
            input_ids=ids_BL,
            attention_mask=None,
            position_ids=sequences.positions()[:, :-1],
            use_cache=False,
            output_hidden_states=True,
        )
    at_N = row_N * ids_BL.shape[1] + place_N
    return LogitStates(pick(outputs.hidden_states[-1], at_N), pick(outputs.logits, at_N))


@torch.no_grad()
def check_packing(model: PreTrainedModel) -> None:
    """Two documents in one row have the states they have alone.

    Raises:
        ContractError: the model's attention does not follow its positions.
    """
    ids_BL = _probe_ids(model)
    half = ids_BL.shape[1] // 2
    apart = torch.cat([torch.arange(half), torch.arange(ids_BL.shape[1] - half)])[None]
    packed = backbone_states(model, ids_BL, apart.to(ids_BL.device).expand(len(ids_BL), -1))
    alone = torch.cat([backbone_states(model, ids_BL[:, :half]), backbone_states(model, ids_BL[:, half:])], 1)
    if not _close(packed, alone):
        raise ContractError(
            "documents of one row see each other in this model",
            got=f"{type(model).__name__}, states that differ by up to {(packed - alone).abs().max().item():.2g}",
            why="it would be trained on contexts that never occur",
            fix="set layout: stream, which packs as GPT-2 was trained, or use another model",
        )


# ------------------------------------------------------------------------------------------------ changes to the model


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability of the modules to 0; the config, which describes the saved folder, stays as it is.

    RLHF compares a policy with itself a moment ago, so its forward pass must be a function of its weights: train() and
    eval() then give the same numbers (TRL disables dropout in policy and reference for the same reason).
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def free_padding_row(model: nn.Module) -> None:
    """Let the pad token's embedding train like any other.

    Llama-like models build their embedding with `padding_idx`, which silently gives that row no gradient. Masks and
    lengths are explicit here, so nothing needs it, and with pad equal to eos the end token would never be learned as
    an input.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None


def prepare(model: PreTrainedModel) -> None:
    """Dropout off, padding row free, GELU and RMS norms in one piece, causality and determinism checked.

    Called on every model that is loaded or made.

    Raises:
        ContractError: see `check_backbone`.
    """
    keep_memory()
    disable_dropout(model)
    free_padding_row(model)
    fuse(model)
    check_backbone(model)
    vars(model)["assent_ragged"] = reads_ragged(model)


# ------------------------------------------------------------------------------------------------ probes


def _probe_ids(model: PreTrainedModel) -> Tensor:
    weight = embedding_weight(model)
    size = weight.shape[0]
    ids = torch.randint(size, (PROBE_ROWS, PROBE_LENGTH), generator=torch.Generator().manual_seed(0))
    return ids.to(weight.device)


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = PROBE_TOLERANCE if a.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE
    a, b = a.double(), b.double()
    scale = max(1e-12, b.abs().max().item())
    return bool(torch.isfinite(a).all()) and (a - b).abs().max().item() <= tolerance * scale


@contextmanager
def _training_mode(model: nn.Module, training: bool) -> Iterator[None]:
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


@torch.no_grad()
def check_backbone(model: PreTrainedModel) -> None:
    """The backbone is a function of the tokens so far, the same in train and eval mode.

    Raises:
        ContractError: train() changes the hidden states (dropout or routing noise is left), a later token changes an
            earlier state (the model is not causal), or a state is not finite.
    """
    ids_BL = _probe_ids(model)
    with _training_mode(model, False):
        states = backbone_states(model, ids_BL)
        shorter = backbone_states(model, ids_BL[:, :-2])
    with _training_mode(model, True):
        trained = backbone_states(model, ids_BL)
    if not torch.isfinite(states).all():
        raise ContractError(
            "the model's hidden states are not finite",
            got=f"{int((~torch.isfinite(states)).sum())} of {states.numel()} values on random tokens",
            why="every log-probability would be nan",
            fix="check the weights of the folder; load in float32",
        )
    if not _close(trained, states):
        raise ContractError(
            "the model gives other numbers in train mode than in eval mode",
            got=f"largest difference {(trained - states).abs().max().item():.3g} on random tokens",
            why="the ratio to the old policy would not be 1 before the first update",
            fix="turn off what is random in training (router noise, layer drop) in the model's config",
        )
    if not _close(shorter, states[:, :-2]):
        raise ContractError(
            "the model is not causal",
            got="hidden states that change when later tokens are cut off",
            why="a token's log-probability would depend on the tokens after it, and on padding",
            fix="use a decoder-only language model",
        )


@torch.no_grad()
def reads_ragged(model: PreTrainedModel) -> bool:
    """Whether the model gives the same states when each distinct token is run once, without padding; if so it is left
    with the attention that this takes."""
    if model.config._attn_implementation not in ("sdpa", ragged.ATTENTION) or not model._can_set_attn_implementation():
        return False
    ids_BL = _probe_ids(model)[:1].expand(3, -1).clone()
    ids_BL[1:, 4:] = ids_BL[:2, 4:].flip(1)
    prompts, responses = [4, 4, 3], [4, 2, 3]
    sequences = Sequences.of(
        [row[:n] for row, n in zip(ids_BL.tolist(), prompts, strict=True)],
        [row[n : n + t] for row, n, t in zip(ids_BL.tolist(), prompts, responses, strict=True)],
    ).to(ids_BL.device)
    row_N = torch.tensor([r for r in range(3) for _ in range(prompts[r] + responses[r])], device=ids_BL.device)
    place_N = torch.cat([torch.arange(p + t) for p, t in zip(prompts, responses, strict=True)]).to(ids_BL.device)
    found = ragged.layout(sequences, sequences.lengths_B)
    assert found is not None
    with _training_mode(model, False):
        whole = pick(backbone_states(model, sequences.token_ids_BL), row_N * sequences.token_ids_BL.shape[1] + place_N)
        model.set_attn_implementation(ragged.ATTENTION)
        try:
            if _close(ragged.ragged_states(model, found).index_select(0, found.places(row_N, place_N)), whole):
                return True
        except (TypeError, ValueError, RuntimeError, ContractError):
            pass  # it takes no layout, or attends otherwise
        model.set_attn_implementation("sdpa")
    return False


@torch.no_grad()
def check_scores(model: PreTrainedModel) -> None:
    """A classification model's own logit is its `.score` of the last token's hidden state.

    Raises:
        ContractError: it is something else, such as a pooled or post-processed state.
    """
    ids_BL = _probe_ids(model)[:1]
    if int(ids_BL[0, -1]) == model.config.get_text_config().pad_token_id:
        ids_BL[0, -1] = (ids_BL[0, -1] + 1) % embedding_weight(model).shape[0]
    with _training_mode(model, False):
        logits = model(input_ids=ids_BL, position_ids=positions(ids_BL), use_cache=False).logits[0]
        head = model.score
        assert isinstance(head, nn.Linear)
        ours = head(backbone_states(model, ids_BL))[0, -1]
    if not _close(ours, logits):
        raise ContractError(
            "the model's score is more than its head on the last token",
            got=f"{logits.tolist()} from {type(model).__name__}, {ours.tolist()} from head and hidden state",
            why="other servers of the folder would give other scores",
            fix="use a ...ForSequenceClassification model that scores the last token with one linear layer",
        )


def check_head_path(model: PreTrainedModel) -> ReadStates:
    """Find out whether backbone plus head is the whole model, and remember on the model how to read it.

    The head's output is replaced by planted numbers from 1e-2 to 1e3: if exactly they come out as logits, nothing
    follows the head at any size (soft-capping of a freshly made model would pass a mere comparison). Then real
    numbers are compared.

    Returns:
        `read_through_head`, or `read_whole_logits` for models whose logits are more than a linear head.
    """
    reader = read_through_head if _head_is_all(model) else read_whole_logits
    vars(model)["assent_reader"] = reader
    return reader


def reader_of(model: PreTrainedModel) -> ReadStates:
    """The reader that the probe chose; a model that nobody has prepared and probed is prepared and probed now."""
    known: ReadStates | None = getattr(model, "assent_reader", None)
    if known is None:
        prepare(model)
        known = check_head_path(model)
    return known


@torch.no_grad()
def _head_is_all(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids_BL = _probe_ids(model)
    planted_BLV = _planted(head.weight, ids_BL)
    inputs: list[Tensor] = []

    def plant(_: nn.Module, arguments: tuple[Tensor, ...], __: Tensor) -> Tensor:
        inputs.append(arguments[0])
        return planted_BLV

    with _training_mode(model, False):
        states = backbone_states(model, ids_BL)
        real = model(input_ids=ids_BL, position_ids=positions(ids_BL), use_cache=False).logits
        handle = head.register_forward_hook(plant)
        try:
            planted_out = model(input_ids=ids_BL, position_ids=positions(ids_BL), use_cache=False).logits
        finally:
            handle.remove()
    return (
        len(inputs) == 1
        and torch.equal(planted_out.float(), planted_BLV.float())
        and _close(inputs[0], states)
        and _close(nn.functional.linear(states, head.weight, head.bias), real)
    )


def _planted(weight_VD: Tensor, ids_BL: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (*ids_BL.shape, weight_VD.shape[0])
    magnitudes = 10.0 ** (torch.rand(shape, generator=generator) * 5 - 2)
    signs = torch.randint(2, shape, generator=generator) * 2 - 1
    return (magnitudes * signs).to(weight_VD)
