"""Stop strings against a byte-level tokenizer: a token may be part of a letter, or several with the blank before."""

import random

import pytest

from assent.models.tokenizer import SpecialTokens, text_of, train_bpe
from assent.rollout.outputs import BROKEN, closing_tokens
from assent.types import Sampling, StopStrings

CORPUS = [
    "Human: is the kettle broken?\n\nAssistant: it is.\n\nHuman: send it back",
    "Grüße aus Köln: 3,50 € für 2 Kessel; 你好，水壶坏了。🙂",
] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(CORPUS, vocab_size=330, special_tokens=SpecialTokens())


@pytest.mark.parametrize("strings", [("\n\nHuman:",), ("你好", "。"), ("é", "ö"), ("t ", "🙂"), ("Human: is the k",)])
def test_only_a_token_that_may_complete_a_string_does(tokenizer, strings):
    """Random tokens, and tokens of texts that have the strings: the one at which a string is first there is marked."""
    decode = text_of(tokenizer)
    stop = StopStrings(strings, decode)
    marked = closing_tokens(stop, len(tokenizer))
    assert not marked.all() and marked.any()
    draw, met = random.Random(0), 0
    texts = [
        f"{draw.choice(CORPUS)[: draw.randrange(60)]}{draw.choice(strings)}{draw.choice(CORPUS)}" for _ in range(60)
    ]
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    rows += [[draw.randrange(len(tokenizer)) for _ in range(40)] for _ in range(200)]
    for ids in rows:
        first = next((t for t in range(len(ids)) if any(s in decode(ids[: t + 1]) for s in strings)), None)
        if first is not None:
            met += 1
            assert marked[ids[first]], (decode(ids[: first + 1]), ids[first])
    assert met >= 60


def test_a_token_of_part_of_a_letter_may_complete_one(tokenizer):
    decode = text_of(tokenizer)
    marked = closing_tokens(StopStrings(("zz",), decode), len(tokenizer))
    parts = [i for i in range(len(tokenizer)) if BROKEN in decode([0, i])]
    assert parts and all(marked[i] for i in parts)


def test_impossible_strings_and_shares_are_refused():
    for strings in ((), ("",), ("a", "")):
        with pytest.raises(ValueError, match="stop strings"):
            StopStrings(strings, str)
    for wrong in ({"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}):
        with pytest.raises(ValueError, match="top_k must be 0"):
            Sampling(4, (), **wrong)
