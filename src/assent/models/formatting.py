"""Which tokens of an encoded response are its content, and which were put around it: by the template, or to end it."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from assent.errors import ContractError
from assent.models.tokenizer import encode_text, render_answered, render_prompt, stop_ids
from assent.records import PromptText


def content_mask(
    tokenizer: PreTrainedTokenizerBase, prompt: PromptText, text: str, token_ids: Sequence[int]
) -> tuple[bool, ...]:
    """True where a token of the encoded response belongs to what was said.

    The header of the assistant's turn is part of the prompt. What a template writes between it and the content (an
    empty block of thoughts), behind the content, and the token that ends the turn, are formatting. A token that spans
    both is content.

    Args:
        token_ids: `text` as `encode_response` or `encode_dialogue_response` gives it.

    Raises:
        ContractError: the template does not write the content as it is.

    Source: Llama 3 (arXiv 2407.21783), section 4.1.4, masks formatting tokens in both responses of DPO.
    """
    first, last = 0, len(token_ids)
    if not isinstance(prompt, str):
        first, last = _between(
            tokenizer, render_answered(tokenizer, prompt, text)[len(render_prompt(tokenizer, prompt)) :], text
        )
    if token_ids[-1] in stop_ids(tokenizer):
        last = min(last, len(token_ids) - 1)
    return tuple(first <= i < last for i in range(len(token_ids)))


def _between(tokenizer: PreTrainedTokenizerBase, turn: str, text: str) -> tuple[int, int]:
    """The first token of the content within the turn, and the one behind its last."""
    content = text if text in turn else text.strip()
    start = turn.find(content)
    if start < 0:
        raise ContractError(
            "the chat template does not write the response as it is",
            got=f"{turn[:120]!r} for the response {text[:60]!r}",
            why="which of its tokens are formatting cannot be told",
            fix="set mask_formatting to false, or use a template that writes the content of a turn unchanged",
        )
    before, through = encode_text(tokenizer, turn[:start]), encode_text(tokenizer, turn[: start + len(content)])
    first = 0
    while first < len(before) and first < len(through) and before[first] == through[first]:
        first += 1
    return first, len(through)
