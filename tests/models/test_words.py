"""Texts cut into words here have the ids that the tokenizer itself gives them."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers
from transformers import Qwen2Tokenizer

from assent.data import domain
from assent.models import words
from assent.models.tokenizer import CHATML_TOKENS, SpecialTokens, encode_text, train_bpe

ASCII = "".join(map(chr, range(128)))
HARD = [
    *("", " ", "  ", "\n", "\r\n", " \n x", "a  b", "a \t b", "x\n\n\ny", "  \n", "tab\t\tx", "end   "),
    *("don't", "DON'T we'LL", "it'sister", "'s's", "12345 6", "a1b2", "3.50 (x+y)==z;", "...\n\n...", " ?!\r\n!"),
    *("\x00\x01", "a\x1cb", "a\x1c\x1d b", "\x0b\x0c", "\x7f", "Grüße", "你好", "a\u00a0b", "'ſ", "e\u0301"),
    *("<|endoftext|>", "a<|endoftext|>b", "<|endoftext|", "<|im_start|>user\n"),
]


@pytest.fixture(scope="module")
def ours():
    corpus = [d.text for d in domain.documents(200, seed=100)] + ["don't we'll they're", "x = 12 + 3; y == z\n\n\n"] * 9
    return train_bpe(corpus, vocab_size=600, special_tokens=SpecialTokens(extra=CHATML_TOKENS))


def padded_out(texts):
    """Enough of them to be cut into words."""
    return [*texts, *["again the kettle"] * words.ENOUGH]


def alone(tokenizer, texts):
    return [encode_text(tokenizer, t) for t in texts]


@pytest.fixture
def cut(monkeypatch):
    """How many texts were given to the tokenizer whole, at each call."""
    whole, plainly = [], words._plainly
    monkeypatch.setattr(words, "_plainly", lambda t, texts: whole.append(list(texts)) or plainly(t, texts))
    return whole


def test_hard_texts(ours):
    assert words.encode_each(ours, padded_out(HARD))[: len(HARD)] == alone(ours, HARD)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(ASCII), max_size=20), st.lists(st.text(string.whitespace + "a1'.sS"), max_size=40))
def test_any_ascii(ours, some, dense):
    texts = [*some, *dense]
    assert words.encode_each(ours, padded_out(texts))[: len(texts)] == alone(ours, texts)


def test_over_several_blocks(ours):
    texts = [d.text for d in domain.documents(words.BLOCK + 300, seed=101)]
    assert words.encode_each(ours, texts) == [list(i) for i in ours(texts, add_special_tokens=False)["input_ids"]]


def test_words_are_encoded_once_and_other_texts_whole(ours, cut):
    words.encode_each(ours, padded_out(["again the kettle", "你好", "a <|pad|>"]))
    assert sorted(cut[0]) == [" kettle", " the", "again"]
    assert cut[1:] == [["你好", "a <|pad|>"]]


def test_what_was_padded_before_is_not_padded_now(ours):
    ours(["a", "a kettle"], padding=True)
    assert words.encode_each(ours, padded_out(["a"]))[0] == encode_text(ours, "a")


def dropping(backend):
    backend.model.dropout = 0.5


def lowering(backend):
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])


def cutting_otherwise(backend):
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)


def with_a_space(backend):
    split, _ = backend.pre_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
    )


@pytest.mark.parametrize("change", [dropping, lowering, cutting_otherwise, with_a_space])
def test_a_tokenizer_that_does_otherwise_is_given_the_texts_whole(ours, cut, change):
    texts = padded_out(["A Kettle  is, 12"])
    other = train_bpe(texts, vocab_size=300)
    change(other.backend_tokenizer)
    words.encode_each(other, texts)
    assert cut == [texts]


def test_a_class_that_encodes_otherwise_is_given_the_texts_whole(ours, cut):
    class Other(type(ours)):
        def _encode_plus(self, *args, **kwargs):
            return super()._encode_plus(*args, **kwargs)

    texts = padded_out([])
    words.encode_each(Other(tokenizer_object=ours.backend_tokenizer), texts)
    assert cut == [texts]


def test_the_pattern_is_the_one_of_qwen():
    split, _ = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    assert words._state(split)["pattern"] == {"Regex": words.PATTERN}
