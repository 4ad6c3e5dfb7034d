"""The distinct tokens of a block, each run once: no padding, and a prompt that several rows share is not repeated.

They stand in one row `[1, N]`, so that projections, feed-forward and norms, most of the work, see nothing else. Only
attention needs to know which token belongs to which sequence: it is handed a `Layout`, takes queries and keys out of
the row group by group, and puts what it found back. First every distinct prompt attends to itself, then the responses
to their prompt and themselves, both in groups of like length. States and gradients are those of the padded block
(float32: to about 1e-6).

Works with every decoder of transformers that takes its attention from `AttentionInterface` and masks nothing but the
future; `reads_ragged` in `prepare` compares the two ways on the model itself, and one that differs keeps to the block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from assent.errors import ContractError
from assent.models.placement import narrowed, running_in
from assent.models.trunk import require_positions
from assent.types import Sequences

ATTENTION = "assent_ragged"
"""The name under which transformers finds `attention`; without a layout it is its own `sdpa`."""

GAIN = 1.05
"""Leave the block where it has at most this many times the distinct tokens: what attention takes out and puts back
costs some hundredths."""

EVEN, ROWS = 1.25, 4
"""A group of `ROWS` rows at least is closed where the next is shorter than its longest by the factor `EVEN`."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that attend in one call; all tensors hold places in the row of distinct tokens.

    Args:
        query_CQ: of the tokens that ask; beyond a row's own it repeats its last.
        key_CK: of the tokens that are asked.
        mask_CQK: bool, who may see whom; None where query i sees keys 0 to i.
    """

    query_CQ: Tensor
    key_CK: Tensor
    mask_CQK: Tensor | None


@dataclass(frozen=True, slots=True)
class Layout:
    """A block as its distinct tokens.

    Args:
        token_ids_N, positions_N: the tokens, and where each stands in its own sequence.
        groups: who attends to whom.
        from_N: where each token's answer is among those of all groups, one after the other.
        prompt_B: place of the first token of each row's prompt.
        response_B: place of the first response token of each row.
        prompt_lengths_B: of the rows.
        longest: of the sequences, as far as they are run.
    """

    token_ids_N: Tensor
    positions_N: Tensor
    groups: tuple[Group, ...]
    from_N: Tensor
    prompt_B: Tensor
    response_B: Tensor
    prompt_lengths_B: Tensor
    longest: int

    def places(self, row_N: Tensor, place_N: Tensor) -> Tensor:
        """Where a token stands that has this row of the block, and this place in it."""
        response_N = place_N - self.prompt_lengths_B[row_N]
        return torch.where(response_N < 0, self.prompt_B[row_N] + place_N, self.response_B[row_N] + response_N)


def layout(sequences: Sequences, reach_B: Tensor) -> Layout | None:
    """The layout of a block, or None where its slots are hardly more than its distinct tokens.

    Args:
        reach_B: slots of each row that must be run: the last place asked for, and one.
    """
    longest = int(reach_B.max())
    if longest == 0:
        return None
    row_U, of_B = sequences.distinct_prompts()
    shared = len(row_U) < len(sequences)
    if shared:
        prompts_U, needed_B = sequences.prompt_lengths_B[row_U], (reach_B - sequences.prompt_lengths_B).clamp(min=0)
    else:  # rows that share nothing attend whole, in one call
        row_U = of_B = torch.arange(len(sequences), device=reach_B.device)
        prompts_U, needed_B = reach_B, torch.zeros_like(reach_B)
    if len(sequences) * longest < GAIN * int(prompts_U.sum() + needed_B.sum()):
        return None
    lengths = torch.cat([prompts_U, needed_B])  # of all pieces: the distinct prompts, then the responses
    starts = lengths.cumsum(0) - lengths
    first_U, first_B = starts.split([len(row_U), len(sequences)])
    piece_N = torch.repeat_interleave(lengths)
    within_N = torch.arange(len(piece_N), device=lengths.device) - starts[piece_N]
    row_N = torch.cat([row_U, torch.arange(len(sequences), device=lengths.device)])[piece_N]
    positions_N = within_N + torch.cat([torch.zeros_like(prompts_U), sequences.prompt_lengths_B])[piece_N]
    groups, from_N, done = [], torch.empty_like(piece_N), 0
    for pieces, is_prompt in [(p, True) for p in alike(prompts_U)] + [(p, False) for p in alike(needed_B)]:
        if is_prompt:
            query_CQ, inside_CQ = _spans(first_U[pieces], prompts_U[pieces])
            groups.append(Group(query_CQ, query_CQ, None))
        else:
            query_CQ, inside_CQ = _spans(first_B[pieces], needed_B[pieces])
            groups.append(_response(query_CQ, *_spans(first_U[of_B[pieces]], prompts_U[of_B[pieces]])))
        slots_CQ = done + torch.arange(query_CQ.numel(), device=lengths.device).view(query_CQ.shape)
        from_N[query_CQ[inside_CQ]] = slots_CQ[inside_CQ]
        done += query_CQ.numel()
    return Layout(
        sequences.token_ids_BL[row_N, positions_N],
        positions_N,
        tuple(groups),
        from_N,
        first_U[of_B],
        first_B if shared else first_U + sequences.prompt_lengths_B,
        sequences.prompt_lengths_B,
        longest,
    )


def _response(query_CQ: Tensor, prompt_CP: Tensor, is_prompt_CP: Tensor) -> Group:
    """Every response token sees its whole prompt, itself and the response tokens before it."""
    rows, longest = query_CQ.shape
    step_Q = torch.arange(longest, device=query_CQ.device)
    before_CQQ = (step_Q[:, None] >= step_Q).expand(rows, -1, -1)
    mask_CQK = torch.cat([is_prompt_CP[:, None].expand(-1, longest, -1), before_CQQ], 2)
    return Group(query_CQ, torch.cat([prompt_CP, query_CQ], 1), mask_CQK)


def _spans(first_C: Tensor, length_C: Tensor) -> tuple[Tensor, Tensor]:
    """Places of pieces as `[C, longest]`, the last repeated beyond a piece's end, and which are inside."""
    step = torch.arange(int(length_C.max()), device=first_C.device)
    return first_C[:, None] + torch.minimum(step, length_C[:, None] - 1), step < length_C[:, None]


def alike(lengths_C: Tensor) -> Iterator[Tensor]:
    """Pieces in order of their length, cut where it falls; pieces without a token are in none."""
    order = lengths_C.argsort(descending=True, stable=True)
    lengths = [n for n in lengths_C[order].tolist() if n > 0]
    start = 0
    while start < len(lengths):
        end = start + 1
        while end < len(lengths) and (end - start < ROWS or EVEN * lengths[end] >= lengths[start]):
            end += 1
        yield order[start:end]
        start = end


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    assent_layout: Layout | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers, `[1, heads, N, dim]` to `[1, N, heads, dim]`, within the sequences of a layout.

    Raises:
        ContractError: the model asks for something beside the scaling, such as a window or a cap on the scores.
    """
    if assent_layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    _require_plain(settings, assent_layout.longest)
    heads = query.shape[1]
    query_ND, key_ND, value_ND = (x.squeeze(0).transpose(0, 1).flatten(1) for x in (query, key, value))
    found = []
    for group in assent_layout.groups:
        queries, keys, values = (
            x_ND.index_select(0, places.flatten()).view(*places.shape, -1, query.shape[-1]).transpose(1, 2)
            for x_ND, places in ((query_ND, group.query_CQ), (key_ND, group.key_CK), (value_ND, group.key_CK))
        )
        mask = None if group.mask_CQK is None else group.mask_CQK[:, None]
        grouped = keys.shape[1] != heads
        if grouped and mask is not None and query.device.type != "cpu":
            # With a mask CUDA has no kernel for grouped heads but the one that keeps every score for the gradient.
            keys, values = (x.repeat_interleave(heads // x.shape[1], 1) for x in (keys, values))
            grouped = False
        found.append(
            F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=mask,
                is_causal=mask is None,
                scale=settings.get("scaling"),
                enable_gqa=grouped,
            )
            .transpose(1, 2)
            .flatten(2)
            .flatten(0, 1)
        )
    return torch.cat(found).index_select(0, assent_layout.from_N).unflatten(1, (heads, -1))[None], None


PLAIN = {"scaling", "dropout", "is_causal", "position_ids", "cache_position", "use_cache", "output_attentions"}
"""What may be asked of attention without changing who sees whom, or what is made of it; dropout is off."""


def _require_plain(settings: dict[str, Any], longest: int) -> None:
    asked = {n: v for n, v in settings.items() if n not in PLAIN and v is not None and v is not False}
    if (window := asked.pop("sliding_window", None)) is not None and longest > window:
        asked["sliding_window"] = window
    if asked:
        raise ContractError(
            "this model's attention is more than scaled dot products with everything before",
            got=f"it asks for {', '.join(sorted(asked))}",
            why="what is not known here would be left out",
            fix="nothing to mend where a model is loaded: it keeps to padded blocks",
        )


def ragged_states(model: PreTrainedModel, found: Layout) -> Tensor:
    """Hidden states after the final norm of the distinct tokens, `[N, D]`.

    Raises:
        ContractError: a sequence is longer than the positions that the model has; the model's attention is not plain.
    """
    require_positions(model, found.longest)
    with running_in(narrowed(model), found.token_ids_N.device):
        outputs = model.base_model(
            input_ids=found.token_ids_N[None],
            # Never read, since the layout says who sees whom; one of four dimensions keeps transformers from making it.
            attention_mask=torch.empty(1, 1, 1, 1, dtype=torch.bool, device=found.token_ids_N.device),
            position_ids=found.positions_N[None],
            use_cache=False,
            assent_layout=found,
        )
    states_ND: Tensor = outputs.last_hidden_state.squeeze(0)
    return states_ND


def window_of(model: PreTrainedModel) -> int | None:
    """Tokens that some layer of the model looks back, where not all."""
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    return None if window is None else int(window)


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
