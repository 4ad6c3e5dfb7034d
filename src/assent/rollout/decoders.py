"""The arithmetic of GPT-2 and of the Llama family, one token or many, on the Hugging Face weights in place.

A decoder holds the model's own Parameter objects: whoever updates them in place has updated the decoder. Which models
qualify is decided here by exact class, and then by comparison with the model's own forward (see `native`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from assent.errors import ContractError
from assent.kernels import products

LAID_OUT = 2**28
"""Bytes of weights of which a second copy is made while a call samples."""

Angles = tuple[Tensor, Tensor] | None
Model = Any
"""A `transformers` module, whose parts have no static types."""


class Block(Protocol):
    """One transformer layer around its attn. The leading dimensions of `x` are free."""

    @property
    def scale(self) -> float: ...
    def normed(self, x: Tensor) -> Tensor: ...
    def q(self, normed: Tensor, angles: Angles) -> Tensor:
        """[..., heads, head_dim]."""
        ...

    def kv(self, normed: Tensor, angles: Angles) -> tuple[Tensor, Tensor]:
        """Each [..., kv_heads, head_dim]."""
        ...

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Output projection, residual and feed-forward; may overwrite `x`."""
        ...

    def projections(self) -> "list[Projection]": ...


class Decoder(Protocol):
    """A causal language model in the parts that a cache needs."""

    @property
    def blocks(self) -> list[Block]: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def head(self) -> "Projection":
        """The language-model head; the dtype and device of its weight are the decoder's."""
        ...

    def reserve(self, longest: int) -> None:
        """Positions below `longest` will be asked for."""
        ...

    def embed(self, token_ids: Tensor, positions: Tensor) -> Tensor: ...
    def angles(self, positions: Tensor) -> Angles: ...
    def logits(self, x: Tensor) -> Tensor: ...


def step_aside(reason: str) -> ContractError:
    """What is raised where the lean step does not cover a model."""
    return ContractError(
        "the lean decode step does not cover this model",
        got=reason,
        why="it reads the weights itself and would leave out what it does not know",
        fix="nothing to mend: the generic cached path generates with the model's own forward, only slower",
    )


def _plain(module: Model, kind: type) -> Model:
    if type(module) is not kind:
        raise step_aside(f"a {kind.__name__} has become a {type(module).__name__} (an adapter or a quantised layer)")
    return module


@dataclass
class Projection:
    """x @ weight + bias, without gradient.

    Args:
        weight: the model's own, `[M, K]`, or `[K, M]` in GPT-2.
        bias: `[M]`.
        by_input: whether it is GPT-2's.
        columns: of GPT-2's, where only some are wanted.
        panels: the weight as it was at `lay_out`, in the form that is multiplied fastest.
    """

    weight: Tensor
    bias: Tensor | None
    by_input: bool = False
    columns: slice | None = None
    panels: products.Panels | None = None

    @classmethod
    def linear(cls, module: Model) -> "Projection":
        _plain(module, nn.Linear)
        return cls(module.weight, module.bias)

    @classmethod
    def conv1d(cls, module: Model, columns: slice | None = None) -> "Projection":
        _plain(module, Conv1D)
        return cls(module.weight, module.bias, True, columns)

    def __call__(self, x: Tensor) -> Tensor:
        if self.panels is None and not self.by_input:
            return products.linear(x, self.weight, self.bias)
        bias = self.bias if self.bias is None or self.columns is None else self.bias[self.columns]
        y_NM = products.product(x if x.dim() == 2 else x.flatten(0, -2), self.panels or self._weight_KM(), bias)
        return y_NM if x.dim() == 2 else y_NM.unflatten(0, x.shape[:-1])

    def _weight_KM(self) -> Tensor:
        if not self.by_input:
            return self.weight.t()
        return self.weight if self.columns is None else self.weight[:, self.columns]

    def lay_out(self) -> None:
        self.panels = products.Panels.of(self._weight_KM())

    def forget(self) -> None:
        self.panels = None


def projections_of(decoder: "Decoder") -> list[Projection]:
    """The head, and those of every block."""
    return [decoder.head, *(p for block in decoder.blocks for p in block.projections())]


@contextmanager
def laid_out(decoder: "Decoder") -> Iterator[None]:
    """Within it the decoder may read copies of the weights that are multiplied faster. None is left behind, so that no
    copy can go stale; a decoder of more than `LAID_OUT` bytes is not copied, nor one that is not on a CPU."""
    projections = projections_of(decoder) if decoder.head.weight.device.type == "cpu" else []
    if sum(p.weight.numel() * p.weight.element_size() for p in projections) > LAID_OUT:
        projections = []
    try:
        for projection in projections:
            projection.lay_out()
        yield
    finally:
        for projection in projections:
            projection.forget()


def _activation(module: Model) -> Callable[[Tensor], Tensor]:
    """The same function in one kernel where Hugging Face spells it out in eight."""
    if type(module).__name__ in {"NewGELUActivation", "GELUTanh"}:
        return lambda x: F.gelu(x, approximate="tanh")
    return module


def _head(model: Model) -> Projection:
    head = Projection.linear(model.lm_head)
    if head.bias is not None:
        raise step_aside("a bias on the language-model head is not covered")
    return head


# ------------------------------------------------------------------------------------------------------------- GPT-2


@dataclass(frozen=True)
class _Gpt2Block:
    norm: nn.Module
    q_proj: Projection
    kv_proj: Projection
    out: Projection
    mlp_norm: nn.Module
    up: Projection
    down: Projection
    activation: Callable[[Tensor], Tensor]
    heads: int
    scale: float

    def normed(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def q(self, normed: Tensor, angles: Angles) -> Tensor:
        return self.q_proj(normed).unflatten(-1, (self.heads, -1))

    def kv(self, normed: Tensor, angles: Angles) -> tuple[Tensor, Tensor]:
        both = self.kv_proj(normed).unflatten(-1, (2 * self.heads, -1))
        return both[..., : self.heads, :], both[..., self.heads :, :]

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.out(attended.flatten(-2))
        return x.add_(self.down(self.activation(self.up(self.mlp_norm(x)))))

    def projections(self) -> list[Projection]:
        return [self.q_proj, self.kv_proj, self.out, self.up, self.down]


@dataclass(frozen=True)
class Gpt2:
    """GPT-2: learned positions, LayerNorm, fused and transposed projections."""

    blocks: list[Block]
    heads: int
    kv_heads: int
    head_dim: int
    tokens: Tensor
    positions: Tensor
    norm: nn.Module
    head: Projection

    @classmethod
    def of(cls, model: Model) -> "Gpt2":
        body, config = model.transformer, model.config
        if config.add_cross_attention:
            raise step_aside("cross-attention is not covered")
        heads = config.num_attention_heads
        blocks: list[Block] = [
            _Gpt2Block(
                norm=_plain(b.ln_1, nn.LayerNorm),
                q_proj=Projection.conv1d(b.attn.c_attn, slice(None, config.hidden_size)),
                kv_proj=Projection.conv1d(b.attn.c_attn, slice(config.hidden_size, None)),
                out=Projection.conv1d(b.attn.c_proj),
                mlp_norm=_plain(b.ln_2, nn.LayerNorm),
                up=Projection.conv1d(b.mlp.c_fc),
                down=Projection.conv1d(b.mlp.c_proj),
                activation=_activation(b.mlp.act),
                heads=heads,
                scale=b.attn.scaling,
            )
            for b in body.h
        ]
        head = _head(model)
        tokens, positions = _plain(body.wte, nn.Embedding).weight, _plain(body.wpe, nn.Embedding).weight
        dim = config.hidden_size // heads
        return cls(blocks, heads, heads, dim, tokens, positions, _plain(body.ln_f, nn.LayerNorm), head)

    def reserve(self, longest: int) -> None:
        """The position table is a weight: nothing to prepare."""

    def embed(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        return F.embedding(token_ids, self.tokens).add_(F.embedding(positions, self.positions))

    def angles(self, positions: Tensor) -> Angles:
        return None

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x))


# ------------------------------------------------------------------------------------------------------------- Llama


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    eps: float

    @classmethod
    def of(cls, module: Model) -> "_Norm":
        if not type(module).__name__.endswith("RMSNorm"):
            raise step_aside(f"a norm is a {type(module).__name__}, not an RMSNorm")
        return cls(module.weight, module.variance_epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True)
class _LlamaBlock:
    norm: _Norm
    q_proj: Projection
    k_proj: Projection
    v_proj: Projection
    out: Projection
    q_norm: _Norm | None
    k_norm: _Norm | None
    mlp_norm: _Norm
    gate: Projection
    up: Projection
    down: Projection
    activation: Callable[[Tensor], Tensor]
    head_dim: int
    scale: float

    def normed(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def q(self, normed: Tensor, angles: Angles) -> Tensor:
        return self._rotated(self.q_proj(normed), self.q_norm, angles)

    def kv(self, normed: Tensor, angles: Angles) -> tuple[Tensor, Tensor]:
        keys = self._rotated(self.k_proj(normed), self.k_norm, angles)
        return keys, self.v_proj(normed).unflatten(-1, (-1, self.head_dim))

    def _rotated(self, projected: Tensor, norm: _Norm | None, angles: Angles) -> Tensor:
        x = projected.unflatten(-1, (-1, self.head_dim))
        if norm is not None:
            x = norm(x)
        assert angles is not None
        cos, signed_sin = angles
        return torch.addcmul(x * cos, x.roll(self.head_dim // 2, -1), signed_sin)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.out(attended.flatten(-2))
        normed = self.mlp_norm(x)
        gated = self.activation(self.gate(normed)).mul_(self.up(normed))
        return x.add_(self.down(gated))

    def projections(self) -> list[Projection]:
        return [self.q_proj, self.k_proj, self.v_proj, self.out, self.gate, self.up, self.down]


@dataclass
class _Rotary:
    """cos and sin of each position as the model's own rotary module gives them, tabulated as far as was needed."""

    module: Model
    like: Tensor
    head_dim: int
    table: tuple[Tensor, Tensor] | None = field(default=None)

    def check(self, last: int) -> None:
        """A rotary module whose angles depend on how long the sequence is cannot be tabulated."""
        start = torch.arange(8, device=self.like.device)
        alone = self._ask(start)
        beside = self._ask(torch.cat([start, start.new_tensor([last])]))
        self._ask(start)
        if any(not torch.equal(a, b[: len(a)]) for a, b in zip(alone, beside, strict=True)):
            raise step_aside("its rotary angles change with the length of the sequence")
        if alone[0].shape[-1] != self.head_dim:
            raise step_aside("its rotary embedding turns only part of each head")

    def _ask(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self.module(self.like, positions[None])
        half = sin.shape[-1] // 2
        return cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)

    def __call__(self, positions: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        if self.table is None or len(self.table[0]) < longest:
            self.table = self._ask(torch.arange(longest, device=self.like.device))
        cos, signed_sin = self.table
        return F.embedding(positions, cos)[..., None, :], F.embedding(positions, signed_sin)[..., None, :]


@dataclass
class Llama:
    """Llama, Qwen2, Qwen3, Mistral: rotary positions, RMSNorm, grouped-query attention, gated feed-forward."""

    blocks: list[Block]
    heads: int
    kv_heads: int
    head_dim: int
    tokens: Tensor
    norm: _Norm
    head: Projection
    rotary: _Rotary
    longest: int = 0

    @classmethod
    def of(cls, model: Model) -> "Llama":
        body, config = model.model, model.config
        dim = body.layers[0].self_attn.head_dim
        head = _head(model)
        tokens = _plain(body.embed_tokens, nn.Embedding).weight
        rotary = _Rotary(body.rotary_emb, tokens, dim)
        rotary.check(config.max_position_embeddings - 1)
        blocks: list[Block] = [_llama_block(layer, dim) for layer in body.layers]
        norm = _Norm.of(body.norm)
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        return cls(blocks, heads, kv_heads, dim, tokens, norm, head, rotary)

    def reserve(self, longest: int) -> None:
        """Positions below `longest` will be asked for."""
        self.longest = max(self.longest, longest)

    def embed(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        return F.embedding(token_ids, self.tokens)

    def angles(self, positions: Tensor) -> Angles:
        return self.rotary(positions, self.longest)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x))


def _llama_block(layer: Model, dim: int) -> _LlamaBlock:
    attn, mlp = layer.self_attn, layer.mlp
    q_norm, k_norm = getattr(attn, "q_norm", None), getattr(attn, "k_norm", None)
    return _LlamaBlock(
        norm=_Norm.of(layer.input_layernorm),
        q_proj=Projection.linear(attn.q_proj),
        k_proj=Projection.linear(attn.k_proj),
        v_proj=Projection.linear(attn.v_proj),
        out=Projection.linear(attn.o_proj),
        q_norm=None if q_norm is None else _Norm.of(q_norm),
        k_norm=None if k_norm is None else _Norm.of(k_norm),
        mlp_norm=_Norm.of(layer.post_attention_layernorm),
        gate=Projection.linear(mlp.gate_proj),
        up=Projection.linear(mlp.up_proj),
        down=Projection.linear(mlp.down_proj),
        activation=_activation(mlp.act_fn),
        head_dim=dim,
        scale=attn.scaling,
    )


_FAMILIES: dict[str, Callable[[Model], Decoder]] = {
    "GPT2LMHeadModel": Gpt2.of,
    "LlamaForCausalLM": Llama.of,
    "MistralForCausalLM": Llama.of,
    "Qwen2ForCausalLM": Llama.of,
    "Qwen3ForCausalLM": Llama.of,
}
"""By exact class: a sibling that multiplies something somewhere (Granite, Gemma) must not slip in."""


def decoder_of(model: Model) -> Decoder:
    """The lean decoder of a model.

    Raises:
        ContractError: the family is not covered, or a part of the model is not what its family says.
    """
    name = type(model).__name__
    if name not in _FAMILIES or not type(model).__module__.startswith("transformers."):
        raise step_aside(f"{name} is not one of {', '.join(sorted(_FAMILIES))}")
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        raise step_aside("the model has forward hooks, which the lean step would skip")
    return _FAMILIES[name](model)


def window_of(model: Model) -> int | None:
    """Length beyond which some layer stops seeing the start of the sequence; None where all layers see everything."""
    kinds = getattr(model.config, "layer_types", None)
    window = getattr(model.config, "sliding_window", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return int(window)


def angles_of(model: Model) -> int | None:
    """Length up to which rotary angles do not depend on the length of the sequence; None where they never do.

    LongRoPE (Phi-3 and its kin) has two sets of angles, and takes the second for every token of a sequence that is
    longer. The angles of dynamic scaling change beyond `max_position_embeddings`, which no request may pass.
    """
    named = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    sets = [named, *(part for part in named.values() if isinstance(part, dict))]
    limits = [s["original_max_position_embeddings"] for s in sets if s.get("rope_type") == "longrope"]
    return min(map(int, limits), default=None)
