"""A prompt that several rows of a block share is run once, with gradients, and its keys and values are lent to each.

The K completions of a prompt (reward models, pairs, groups) repeat it K times. Here each distinct prompt goes through
the backbone once, with its cache kept in the graph; the cache is repeated for the rows, and only the responses run on
it, sorted by length in a few blocks of their own. States and gradients are those of the whole block (float32: to about
1e-6); time is saved where prompts are long or many share one. Works with every decoder whose cache is plain keys and
values; `shares_prefixes` compares the two ways on the model itself, and one that differs keeps to the whole block.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from assent.models.trunk import positions, require_positions
from assent.types import Sequences

GAIN = 1.15
"""Share the prompts where the whole block has this many times the slots: attention to lent keys takes a mask, which
costs about a tenth (GPT-2 4x160 and Llama of the same size, one core: 1.2 times as fast at 1.25 times the slots)."""

EVEN = 1.25
"""A block of responses of `ROWS` rows at least is cut where the next is shorter than its longest by this factor."""

ROWS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """How a block is read.

    Args:
        row_U: one row of each distinct prompt.
        prompt_B: which distinct prompt a row has.
        blocks: rows of each block of responses and their longest, in tokens to be run.
        width: longest prompt.
    """

    row_U: Tensor
    prompt_B: Tensor
    blocks: tuple[tuple[Tensor, int], ...]
    width: int

    @property
    def slots(self) -> int:
        return len(self.row_U) * self.width + sum(len(rows) * longest for rows, longest in self.blocks)


def plan(sequences: Sequences, reach_B: Tensor) -> Plan | None:
    """A plan that saves enough, or None.

    Args:
        reach_B: slots of each row that must be run: the last place asked for, and one.
    """
    row_U, prompt_B = sequences.distinct_prompts()
    if len(row_U) == len(sequences):
        return None
    needed_B = (reach_B - sequences.prompt_lengths_B).clamp(min=0)
    blocks = tuple(_blocks(needed_B))
    found = Plan(row_U, prompt_B, blocks, int(sequences.prompt_lengths_B.max()))
    return found if len(sequences) * int(reach_B.max()) >= GAIN * found.slots else None


def _blocks(needed_B: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Rows in order of their length, cut where it falls; rows that need nothing are in none."""
    order = needed_B.argsort(descending=True, stable=True)
    lengths = [n for n in needed_B[order].tolist() if n > 0]
    start = 0
    while start < len(lengths):
        end = start + 1
        while end < len(lengths) and (end - start < ROWS or EVEN * lengths[end] >= lengths[start]):
            end += 1
        yield order[start:end], lengths[start]
        start = end


def shared_states(model: PreTrainedModel, sequences: Sequences, plan: Plan, row_N: Tensor, place_N: Tensor) -> Tensor:
    """Hidden states at N places, `[N, D]`, each distinct prompt run once.

    Args:
        row_N, place_N: row of the block, and place within it.

    Raises:
        ContractError: a sequence is longer than the positions that the model has.
    """
    ids_UP = sequences.token_ids_BL[plan.row_U, : plan.width]
    require_positions(model, plan.width + max((longest for _, longest in plan.blocks), default=0))
    kept = DynamicCache()
    outputs = model.base_model(
        input_ids=ids_UP, attention_mask=None, position_ids=positions(ids_UP), past_key_values=kept, use_cache=True
    )
    parts, total = [outputs.last_hidden_state.flatten(0, 1)], ids_UP.numel()
    begin_B = torch.zeros_like(sequences.prompt_lengths_B)
    for rows, longest in plan.blocks:
        parts.append(_responses(model, sequences, plan, kept, rows, longest).flatten(0, 1))
        begin_B[rows] = total + torch.arange(len(rows), device=rows.device) * longest
        total += len(rows) * longest
    prompt_N, length_N = plan.prompt_B[row_N], sequences.prompt_lengths_B[row_N]
    in_prompt = place_N < length_N
    at_N = torch.where(in_prompt, prompt_N * plan.width + place_N, begin_B[row_N] + place_N - length_N)
    return torch.cat(parts).index_select(0, at_N)


def _responses(
    model: PreTrainedModel, sequences: Sequences, plan: Plan, kept: DynamicCache, rows: Tensor, longest: int
) -> Tensor:
    """States of the first `longest` response tokens of the rows, `[C, T, D]`."""
    lengths_C, prompt_C = sequences.prompt_lengths_B[rows], plan.prompt_B[rows]
    step_T = torch.arange(longest, device=rows.device)
    place_CT = lengths_C[:, None] + step_T
    ids_CT = sequences.token_ids_BL[rows].gather(1, place_CT.clamp(max=sequences.token_ids_BL.shape[1] - 1))
    lent = DynamicCache()
    for number, layer in enumerate(kept.layers):
        assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
        lent.update(layer.keys.index_select(0, prompt_C), layer.values.index_select(0, prompt_C), number)
    prompt_CP = torch.arange(plan.width, device=rows.device) < lengths_C[:, None]
    causal_TT = step_T[:, None] >= step_T
    mask = torch.cat(
        [
            prompt_CP[:, None, None].expand(-1, 1, longest, -1),
            causal_TT.expand(len(rows), 1, -1, -1),
        ],
        -1,
    )
    outputs = model.base_model(
        input_ids=ids_CT, attention_mask=mask, position_ids=place_CT, past_key_values=lent, use_cache=True
    )
    states_CTD: Tensor = outputs.last_hidden_state
    return states_CTD


def has_plain_cache(model: PreTrainedModel) -> bool:
    """Whether the model keeps keys and values of every token in every layer, and nothing else."""
    kept = DynamicCache()
    ids = torch.zeros(1, 2, dtype=torch.int64, device=next(model.parameters()).device)
    with torch.no_grad():
        try:
            model.base_model(input_ids=ids, past_key_values=kept, use_cache=True)
        except (TypeError, ValueError, AttributeError, RuntimeError):
            return False
    layers = model.config.get_text_config().num_hidden_layers
    return len(kept.layers) == layers and all(
        type(layer) is DynamicLayer and layer.get_seq_length() == 2 for layer in kept.layers
    )
