"""Steps are spans of the sampled tokens: merged delimiters, blank lines, a missing last delimiter, split characters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.models.tokenizer import SpecialTokens, encode_response, step_ends, train_bpe
from assent.types import Delimited, ends_by_text, texts_of


class Pieces:
    """A tokenizer whose vocabulary is given: token i is the i-th piece, in bytes; the last one is a silent end."""

    def __init__(self, *pieces: str | bytes) -> None:
        self.pieces = [p.encode() if isinstance(p, str) else p for p in pieces] + [b""]
        self.end = len(self.pieces) - 1

    def __call__(self, ids) -> str:
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")


def all_of(tokens: Pieces) -> list[int]:
    return list(range(len(tokens.pieces)))


CASES = {
    "a newline of its own": (("a", "\n", "b", "\n", "c"), (1, 3, 5), ("a\n", "b\n", "c")),
    "merged with what is before": (("a", "b\n", "c"), (1, 3), ("ab\n", "c")),
    "merged with what is after": (("a", "\nb", "c"), (1, 3), ("a\nb", "c")),
    "in the middle of a token": (("a", "b\nc", "d\n", "e"), (1, 2, 4), ("ab\nc", "d\n", "e")),
    "two in one token": (("a\n\n", "b"), (0, 2), ("a\n\n", "b")),
    "blank lines go on into the next step": (("a", "\n", "\n", " \n", "b", "\n"), (1, 6), ("a\n", "\n \nb\n")),
    "blank lines at the start": (("\n", "\n", "a", "\n", "b"), (3, 5), ("\n\na\n", "b")),
    "blank lines at the end": (("a", "\n", "b", "\n", "\n"), (1, 5), ("a\n", "b\n\n")),
    "the end token after the last delimiter": (("a", "\n", "b\n"), (1, 3), ("a\n", "b\n")),
    "no delimiter at all": (("a", "b"), (2,), ("ab",)),
    "nothing visible": (("\n", " "), (2,), ("\n ",)),
    "bytes of one character in two tokens": (("€".encode()[:2], "€".encode()[2:], "\n", "é"), (2, 4), ("€\n", "é")),
    "a character that begins before the boundary": (
        ("a", b"\n" + "€".encode()[:1], "€".encode()[1:], "\n", "b"),
        (1, 3, 5),
        ("a\n", "€\n", "b"),
    ),
}


@pytest.mark.parametrize(("pieces", "ends", "texts"), CASES.values(), ids=[c.replace(" ", "_") for c in CASES])
def test_where_steps_end(pieces, ends, texts):
    tokens = Pieces(*pieces)
    ids = all_of(tokens)
    found = Delimited(tokens).ends(ids)
    assert found == ends
    assert texts_of(ids, found, tokens) == texts
    assert "".join(texts) == tokens(ids)


def test_without_an_end_token_the_last_step_still_reaches_to_the_last_token():
    tokens = Pieces("a", "\n", "b")
    assert Delimited(tokens).ends([0, 1, 2]) == (1, 2)
    assert Delimited(tokens).ends([0, 1]) == (1,)


@pytest.mark.parametrize(
    ("delimiter", "pieces", "ends"),
    [
        ("\n\n", ("a", "\n", "b", "\n", "\n", "c"), (4, 6)),
        ("\n\n", ("a\n", "\nb", "c"), (1, 3)),
        ("。", ("a", "。".encode()[:1], "。".encode()[1:], "b"), (2, 4)),
        ("Step ", ("Ste", "p ", "a", "St", "ep b", "c"), (4, 6)),
    ],
)
def test_a_delimiter_of_several_characters_or_bytes(delimiter, pieces, ends):
    tokens = Pieces(*pieces)
    assert Delimited(tokens, delimiter).ends(all_of(tokens)) == ends


def test_impossible_input_is_refused():
    with pytest.raises(ValueError, match="delimiter"):
        Delimited(Pieces("a"), "")
    with pytest.raises(ValueError, match="at least one token"):
        Delimited(Pieces("a")).ends([])


SOME = st.sampled_from(["a", "\n", "b\n", "\nc", " ", "\n\n", "é", b"\xc3", b"\xa9"])


@settings(max_examples=200, deadline=None)
@given(st.lists(SOME, min_size=1, max_size=12))
def test_steps_take_up_every_token_once_and_are_found_without_looking_ahead(pieces):
    tokens = Pieces(*pieces)
    ids = all_of(tokens)
    steps = Delimited(tokens)
    ends = steps.ends(ids)
    assert list(ends) == sorted(set(ends)) and ends[-1] == len(ids) - 1
    assert "".join(texts_of(ids, ends, tokens)) == tokens(ids)
    # Where a step ended does not change with what follows, so it can be rewarded as soon as it is there.
    for cut in range(1, len(ids)):
        assert steps.ends(ids[:cut])[:-1] == tuple(e for e in ends if e < cut - 1)[: len(steps.ends(ids[:cut])) - 1]


# ------------------------------------------------------------------------------------------------ known texts


@pytest.fixture(scope="module")
def tokenizer():
    corpus = ["Grüße: 3,50 €\nund 你好\n", "one\ntwo\n\nthree", "12+3=15\n15-4=11\nAnswer: 11"] * 5
    return train_bpe(corpus, vocab_size=300, special_tokens=SpecialTokens())


STEPS = [
    ("12+3=15\n", "15-4=11\n", "Answer: 11"),
    ("Grüße €\n", "你好，水壶坏了\n", "ü"),
    ("one ", "two", "\n\nthree\n"),
    ("alone",),
]


@pytest.mark.parametrize("steps", STEPS, ids=range(len(STEPS)))
def test_a_known_text_is_cut_where_its_steps_are_complete(tokenizer, steps):
    ids = encode_response(tokenizer, "".join(steps))
    ends = step_ends(tokenizer, ids, steps)
    assert len(ends) == len(steps) and ends[-1] == len(ids) - 1
    reached = ""
    for step, end in zip(steps[:-1], ends[:-1], strict=True):
        reached += step
        shown, short = (tokenizer.decode(ids[:n], skip_special_tokens=True) for n in (end + 1, end))
        assert shown.startswith(reached), "the step is complete at its last token"
        assert not short.startswith(reached), "and not before"


def test_a_known_text_and_the_delimiter_agree_on_lines(tokenizer):
    def decode(ids):
        return tokenizer.decode(list(ids), skip_special_tokens=True)

    for steps in STEPS[:2]:
        ids = encode_response(tokenizer, "".join(steps))
        assert Delimited(decode).ends(ids) == step_ends(tokenizer, ids, steps) == ends_by_text(ids, steps, decode)


def test_two_steps_in_one_token_share_its_index():
    tokens = Pieces("a\nb\n", "c")
    assert ends_by_text([0, 1, 2], ["a\n", "b\n", "c"], tokens) == (0, 0, 2)


def test_tokens_of_another_text_are_refused():
    with pytest.raises(ValueError, match="must decode to the steps"):
        ends_by_text([0, 1], ["a", "c"], Pieces("a", "b"))


def test_a_tokenizer_that_does_not_keep_text_gives_places_instead():
    """Word pieces in lower case, without spaces and newlines, as BERT's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "[SEP]", "one", "two", "three", "##s", "."]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    lossy = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]", unk_token="[UNK]")
    steps = ("One  TWOs.\n", "Two\n", "three.")
    ids = encode_response(lossy, "".join(steps))
    assert [lossy.convert_ids_to_tokens(ids)[e] for e in step_ends(lossy, ids, steps)] == [".", "two", "[SEP]"]
