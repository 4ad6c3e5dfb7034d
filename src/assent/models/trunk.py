"""The backbone of a transformers model: tokens to hidden states, before any head."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from assent.errors import ContractError
from assent.models.placement import narrowed, running_in


def embedding_weight(model: PreTrainedModel) -> Tensor:
    """The input embedding table, `[V, D]`."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight


def positions(token_ids_BL: Tensor) -> Tensor:
    """`[1, L]`: 0, 1, 2, ... With right padding the positions of a token do not depend on its neighbours."""
    return torch.arange(token_ids_BL.shape[1], device=token_ids_BL.device)[None]


def require_positions(model: PreTrainedModel, length: int) -> None:
    """Raises ContractError where the model has fewer positions than `length`."""
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise ContractError(
            "a sequence is longer than the model's positions",
            got=f"{length} tokens for max_position_embeddings={longest}",
            why="learned positions do not exist there, and rotary ones were never trained there",
            fix="shorten prompt plus response, or take a model with more positions",
        )


def backbone_states(model: PreTrainedModel, token_ids_BL: Tensor, positions_BL: Tensor | None = None) -> Tensor:
    """Hidden states after the final norm, `[B, L, D]`, before any head.

    Where positions fall, transformers begins another sequence and keeps attention within it (`check_packing`).
    No attention mask is passed: padding is on the right of causal attention, so no real token ever sees it, and
    scaled-dot-product attention takes its faster causal path.

    Raises:
        ContractError: the block is longer than the positions that the model has.
    """
    require_positions(model, token_ids_BL.shape[1])
    with running_in(narrowed(model), token_ids_BL.device):
        outputs = model.base_model(
            input_ids=token_ids_BL,
            attention_mask=None,
            position_ids=positions(token_ids_BL) if positions_BL is None else positions_BL,
            use_cache=False,
        )
    states_BLD: Tensor = outputs.last_hidden_state
    return states_BLD


def pick(states_BLX: Tensor, places_N: Tensor) -> Tensor:
    # index_select on the flattened block: its backward is one index_add, several times faster than that of x[rows, t].
    return states_BLX.flatten(0, 1).index_select(0, places_N)
