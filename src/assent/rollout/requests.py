"""What is refused before the first token is computed."""

from collections.abc import Sequence

from assent.errors import ConfigError, ContractError, NonFiniteError
from assent.rollout.decoders import Model
from assent.types import Request, Sampling


def vocabulary_of(model: Model) -> int:
    """Rows of the input embedding: ids at or above it cannot be read."""
    return int(model.get_input_embeddings().weight.shape[0])


def positions_of(model: Model) -> int | None:
    """`max_position_embeddings` of the model's config; None where the family has no such limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)


def check_requests(requests: Sequence[Request], sampling: Sampling, *, vocabulary: int, positions: int | None) -> None:
    """Raises:
    ContractError: no request, an empty prompt, a token outside the vocabulary, a prompt too long for the model.
    ConfigError: stop tokens outside the vocabulary, or nothing left to sample.
    """
    if not requests:
        raise ContractError(
            "nothing to generate",
            got="0 requests",
            why="an engine returns one sample per request; an empty batch is a mistake upstream",
            fix="check that the prompt data set and its split are not empty",
        )
    _check_stops(sampling, vocabulary)
    longest = max(len(r.token_ids) for r in requests)
    if positions is not None and longest + sampling.max_new_tokens > positions:
        raise ContractError(
            "a prompt and its response budget do not fit the model",
            got=f"prompt of {longest} tokens + max_new_tokens {sampling.max_new_tokens} > {positions} positions",
            why="beyond max_position_embeddings the model has no trained (or no) position to read",
            fix=f"set max_new_tokens to at most {max(0, positions - longest)}, or shorten or drop the longest prompts",
        )
    for index, request in enumerate(requests):
        if not request.token_ids:
            raise ContractError(
                "a request has no prompt tokens",
                got=f"request {index} is empty",
                why="the first token is sampled from what follows the last prompt token",
                fix="give the prompt at least a BOS token",
            )
        if min(request.token_ids) < 0 or max(request.token_ids) >= vocabulary:
            bad = next(t for t in request.token_ids if not 0 <= t < vocabulary)
            raise ContractError(
                "a prompt has a token that the model does not know",
                got=f"token id {bad} in request {index}; the model's vocabulary is 0..{vocabulary - 1}",
                why="it would read past the embedding table",
                fix="encode prompts with the tokenizer saved beside this model",
            )


def _check_stops(sampling: Sampling, vocabulary: int) -> None:
    outside = [t for t in sampling.stop_token_ids if not 0 <= t < vocabulary]
    if outside:
        raise ConfigError(
            "a stop token is outside the vocabulary",
            got=f"stop_token_ids {outside}; the model's vocabulary is 0..{vocabulary - 1}",
            why="it can never be sampled, so no response would end by it",
            fix="take stop_token_ids from the tokenizer saved beside this model",
        )
    if sampling.min_new_tokens > 0 and len(set(sampling.stop_token_ids)) == vocabulary:
        raise ConfigError(
            "no token is left to sample",
            got=f"min_new_tokens {sampling.min_new_tokens} and every token of the vocabulary a stop token",
            why="before min_new_tokens, stop tokens are impossible",
            fix="set min_new_tokens to 0, or list fewer stop tokens",
        )


def not_finite(row: int) -> NonFiniteError:
    """What is raised where a distribution to sample from is nan."""
    return NonFiniteError(
        "a sampled log-probability is not a finite number",
        got=f"nan or infinity in request {row}",
        why="the weights have become nan or infinite, so every token drawn from them is meaningless",
        fix="restore the last good checkpoint and lower the learning rate or the gradient clip",
    )
