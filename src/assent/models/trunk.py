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
    """Raises ContractError where the model has fewer positions than `length`, or reads so long a sequence otherwise."""
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise ContractError(
            "a sequence is longer than the model's positions",
            got=f"{length} tokens for max_position_embeddings={longest}",
            why="learned positions do not exist there, and rotary ones were never trained there",
            fix="shorten prompt plus response, or take a model with more positions",
        )
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *(r for r in ropes.values() if isinstance(r, dict))):
        if rope.get("rope_type") == "longrope" and length > rope["original_max_position_embeddings"]:
            raise ContractError(
                "a sequence is longer than the first set of angles of this model reaches",
                got=f"{length} tokens for original_max_position_embeddings={rope['original_max_position_embeddings']}",
                why="LongRoPE turns a whole block by other angles once its longest sequence is beyond: the "
                "log-probabilities of the others would hang on their neighbours",
                fix="shorten prompt plus response, or take a model with one set of angles",
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
    states_BLD: Tensor | None = getattr(outputs, "last_hidden_state", None)
    if states_BLD is None:
        raise ContractError(
            "the model's trunk is not where it says",
            got=f"a {type(outputs).__name__} from {type(model).__name__}.base_model",
            why="heads run on the states before them, which only the trunk gives",
            fix="take a text model whose class names its trunk (base_model_prefix), as those of most families do",
        )
    return states_BLD


def pick(states_BLX: Tensor, places_N: Tensor) -> Tensor:
    # index_select on the flattened block: its backward is one index_add, several times faster than that of x[rows, t].
    return states_BLX.flatten(0, 1).index_select(0, places_N)
