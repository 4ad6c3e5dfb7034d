"""Which tokens of a response are content: under plain text, templates that frame, trim, think first or rewrite."""

import pytest
from tests.end_to_end.own import LLAMA3, SPEECH, TEXTS

from assent.errors import ContractError
from assent.models.formatting import content_mask
from assent.models.tokenizer import CHATML, SpecialTokens, encode_dialogue_response, encode_response, train_bpe
from assent.records import Message

ASKED = (Message("user", "Is the kettle new?"),)
THINKS = CHATML.replace("{{ message['content'] }}", "{% if message['role'] == 'assistant' %}<think>\n\n</think>\n\n"
                        "{% endif %}{{ message['content'] }}\n")  # fmt: skip
SHOUTS = LLAMA3.replace("m['content'] | trim", "m['content'] | upper")


def tokenizer_of(family: str, template: str | None = None):
    special, own, _ = SPEECH[family]
    return train_bpe(TEXTS, vocab_size=340, special_tokens=special, chat_template=template or own)


def kept(tokenizer, prompt, text: str, *, end: bool = True) -> tuple[str, str]:
    """What is included and what is not, as text."""
    encode = encode_response if isinstance(prompt, str) else None
    ids = encode(tokenizer, text, end=end) if encode else encode_dialogue_response(tokenizer, prompt, text, end=end)
    mask = content_mask(tokenizer, prompt, text, ids)
    assert len(mask) == len(ids)
    inside = [i for i, included in zip(ids, mask, strict=True) if included]
    outside = [i for i, included in zip(ids, mask, strict=True) if not included]
    return tokenizer.decode(inside), tokenizer.decode(outside)


def test_of_plain_text_all_but_the_end_token():
    tokenizer = tokenizer_of("gpt2")
    assert kept(tokenizer, "Is it?", " Yes, gladly.") == (" Yes, gladly.", "<|endoftext|>")
    assert kept(tokenizer, "Is it?", " Yes, gladly.", end=False) == (" Yes, gladly.", "")
    assert kept(tokenizer, "Is it?", "") == ("", "<|endoftext|>")


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_of_a_turn_all_but_its_end(family):
    assert kept(tokenizer_of(family), ASKED, "Yes, gladly.") == ("Yes, gladly.", SPEECH[family][2])


def test_what_a_template_puts_before_and_behind_the_content_is_formatting():
    inside, outside = kept(tokenizer_of("qwen2", THINKS), ASKED, "Yes, gladly.")
    assert inside == "Yes, gladly." and outside == "<think>\n\n</think>\n\n\n<|im_end|>"


def test_a_template_that_trims_is_understood_and_one_that_rewrites_refused():
    assert kept(tokenizer_of("llama"), ASKED, "  Yes, gladly.\n")[0] == "Yes, gladly."
    with pytest.raises(ContractError, match="does not write the response as it is"):
        kept(tokenizer_of("llama", SHOUTS), ASKED, "Yes, gladly.")


def test_an_end_token_of_another_kind_is_formatting_too():
    tokenizer = train_bpe(TEXTS, vocab_size=340, special_tokens=SpecialTokens())
    ids = [*encode_response(tokenizer, "Yes.", end=False), tokenizer.eos_token_id]
    assert content_mask(tokenizer, "Is it?", "Yes.", ids)[-1] is False
