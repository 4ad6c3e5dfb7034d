"""One rule for BOS, end tokens and templates; one notion of the same tokenizer."""

import copy

import pytest
from tokenizers import pre_tokenizers, processors
from transformers import AutoTokenizer

from assent.errors import ConfigError, ContractError, DataError
from assent.models.tokenizer import (
    SpecialTokens,
    adds_begin,
    boundary_report,
    encode_dialogue_response,
    encode_prompt,
    encode_response,
    encode_text,
    encode_texts,
    end_of_turn,
    require_same_tokenizer,
    serving_pad,
    stop_ids,
    train_bpe,
)
from assent.records import Message

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
ASKED = (Message("user", "the kettle is broken"),)


@pytest.fixture(scope="module")
def chat(corpus):
    special = SpecialTokens(extra=("<|im_start|>", "<|im_end|>"))
    return train_bpe(corpus, vocab_size=300, special_tokens=special, chat_template=CHATML)


@pytest.fixture(scope="module")
def with_bos(corpus):
    special = SpecialTokens(end="</s>", begin="<s>", pad=None)
    return train_bpe(corpus, vocab_size=300, special_tokens=special, chat_template=LLAMA2)


# ------------------------------------------------------------------------------------------------ training


def test_any_text_comes_back_exactly(tokenizer, corpus):
    for text in ("kettle", "  two  spaces, tab\t\n\nlines ", "Köln 你好 🫖", "don't , n't .", ""):
        ids = encode_text(tokenizer, text)
        assert tokenizer.decode(ids) == text
    assert len(encode_text(tokenizer, corpus[0])) < len(corpus[0]) / 2


def test_special_tokens_have_the_first_ids_and_are_no_text(chat):
    assert encode_text(chat, "<|endoftext|><|pad|><|im_start|><|im_end|>") == [0, 1, 2, 3]
    assert (chat.eos_token_id, chat.pad_token_id, chat.bos_token_id) == (0, 1, None)
    assert len(chat) == 300


def test_no_room_for_the_alphabet_is_refused(corpus):
    with pytest.raises(ConfigError, match="258"):
        train_bpe(corpus, vocab_size=257)
    assert len(train_bpe(corpus, vocab_size=258)) == 258


# ------------------------------------------------------------------------------------------------ prompts


def test_plain_prompt_gets_no_more_than_the_text_without_bos(tokenizer):
    assert not adds_begin(tokenizer)
    assert encode_prompt(tokenizer, "the kettle") == encode_text(tokenizer, "the kettle")


def test_plain_prompt_gets_bos_once(with_bos):
    assert adds_begin(with_bos)
    bos = with_bos.bos_token_id
    ids = encode_prompt(with_bos, "the kettle")
    assert ids == [bos, *encode_text(with_bos, "the kettle")]
    assert encode_prompt(with_bos, "<s>the kettle") == ids
    assert encode_prompt(with_bos, "") == [bos]
    with pytest.raises(ContractError, match="two BOS"):
        encode_prompt(with_bos, "<s><s>the kettle")


def test_no_end_token_closes_a_prompt_even_if_the_tokenizer_would(with_bos):
    closing = copy.deepcopy(with_bos)
    closing.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", closing.bos_token_id), ("</s>", closing.eos_token_id)]
    )
    assert closing("the")["input_ids"][-1] == closing.eos_token_id, "the oracle: it would"
    assert encode_prompt(closing, "the") == encode_prompt(with_bos, "the")
    assert encode_response(closing, "the") == encode_response(with_bos, "the")


def test_a_template_writes_its_bos_alone(with_bos):
    ids = encode_prompt(with_bos, ASKED)
    assert with_bos.decode(ids) == "<s>[INST] the kettle is broken [/INST]"
    assert ids.count(with_bos.bos_token_id) == 1
    doubled = copy.deepcopy(with_bos)
    doubled.chat_template = "{{ bos_token }}" + LLAMA2
    with pytest.raises(ContractError, match="two BOS"):
        encode_prompt(doubled, ASKED)


def test_empty_prompt_and_missing_template_are_refused(tokenizer):
    with pytest.raises(DataError, match="no token"):
        encode_prompt(tokenizer, "")
    with pytest.raises(ContractError, match="chat template"):
        encode_prompt(tokenizer, ASKED)


# ------------------------------------------------------------------------------------------------ responses


def test_response_is_closed_once(tokenizer):
    ids = encode_response(tokenizer, " is broken")
    assert ids == [*encode_text(tokenizer, " is broken"), tokenizer.eos_token_id]
    assert encode_response(tokenizer, " is broken<|endoftext|>") == ids
    assert encode_response(tokenizer, " is broken", end=False) == ids[:-1]
    assert encode_response(tokenizer, "") == [tokenizer.eos_token_id]
    with pytest.raises(DataError, match="no token"):
        encode_response(tokenizer, "", end=False)


def test_dialogue_response_ends_with_the_turn(chat, with_bos):
    turn_end = chat.convert_tokens_to_ids("<|im_end|>")
    assert end_of_turn(chat) == turn_end and stop_ids(chat) == (turn_end, chat.eos_token_id)
    ids = encode_dialogue_response(chat, ASKED, "send it back")
    assert ids == [*encode_text(chat, "send it back"), turn_end]
    assert encode_dialogue_response(chat, ASKED, "send it back", end=False) == ids[:-1]
    # prompt and response are what the template writes of the whole dialogue, up to the newline after the turn
    whole = chat.apply_chat_template(
        [{"role": "user", "content": ASKED[0].content}, {"role": "assistant", "content": "send it back"}],
        tokenize=False,
    )
    assert chat.decode(encode_prompt(chat, ASKED) + ids) + "\n" == whole

    assert end_of_turn(with_bos) == with_bos.eos_token_id and stop_ids(with_bos) == (with_bos.eos_token_id,)
    ids = encode_dialogue_response(with_bos, ASKED, "send it back")
    assert with_bos.decode(ids) == " send it back</s>", "the template's own space is kept"


def test_a_template_that_closes_no_turn_gets_the_end_token(chat):
    bare = copy.deepcopy(chat)
    bare.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert end_of_turn(bare) == bare.eos_token_id
    assert bare.decode(encode_dialogue_response(bare, ASKED, "no")) == "no\n<|endoftext|>"


def test_a_template_that_rewrites_the_prompt_is_refused(chat):
    shifty = copy.deepcopy(chat)
    shifty.chat_template = "{{ messages | length }}" + CHATML
    with pytest.raises(ContractError, match="rewrites the prompt"):
        encode_dialogue_response(shifty, ASKED, "no")


# ------------------------------------------------------------------------------------------------ identity


def test_pad_is_no_part_of_the_identity(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.pad_token = other.eos_token
    other.backend_tokenizer.enable_padding(pad_id=0, pad_token="<|endoftext|>")
    require_same_tokenizer(tokenizer, other)
    assert encode_prompt(other, "the kettle") == encode_prompt(tokenizer, "the kettle")
    assert encode_response(other, "the kettle") == encode_response(tokenizer, "the kettle")


def test_equal_size_is_not_the_same_tokenizer(tokenizer, chat, corpus):
    other = train_bpe([t.upper() for t in corpus], vocab_size=300)
    assert len(other) == len(tokenizer)
    with pytest.raises(ContractError, match="does not share"):
        require_same_tokenizer(tokenizer, other)
    template = copy.deepcopy(chat)
    template.chat_template = LLAMA2
    with pytest.raises(ContractError, match="template"):
        require_same_tokenizer(chat, template)
    other_end = copy.deepcopy(chat)
    other_end.eos_token = "<|im_end|>"
    with pytest.raises(ContractError, match="does not share"):
        require_same_tokenizer(chat, other_end)
    added = copy.deepcopy(tokenizer)
    added.add_tokens(["kettle"])
    with pytest.raises(ContractError, match="'kettle'"):
        require_same_tokenizer(tokenizer, added)
    spaced = copy.deepcopy(tokenizer)
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(ContractError, match="does not share"):
        require_same_tokenizer(tokenizer, spaced)


@pytest.mark.parametrize("name", ["tokenizer", "chat", "with_bos"])
def test_saving_keeps_the_identity(name, request, tmp_path):
    tokenizer = request.getfixturevalue(name)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    require_same_tokenizer(tokenizer, again)
    assert encode_prompt(again, "the kettle, Köln") == encode_prompt(tokenizer, "the kettle, Köln")


def test_pad_for_other_servers_never_ends_a_sequence(tokenizer, chat, with_bos, corpus):
    assert serving_pad(tokenizer) == serving_pad(chat) == "<|pad|>"
    assert serving_pad(with_bos) == "<s>", "its pad is its end token"
    assert serving_pad(train_bpe(corpus, vocab_size=300, special_tokens=SpecialTokens(pad=None))) is None


def test_boundaries_that_a_joint_text_would_lose_are_counted(tokenizer):
    rows = [("the kett", "le"), ("the kettle", " is"), ("", "a"), ("k", "ettle is")]
    report = boundary_report(tokenizer, rows)
    assert report.total == 4 and 0 in report.examples
    assert report.differing == len(report.examples) and 1 not in report.examples


def test_many_texts_at_once_are_each_alone(tokenizer, corpus):
    texts = [*corpus, "", " leading and trailing ", "你好，水壶坏了", "<|endoftext|> in the text"]
    assert encode_texts(tokenizer, texts) == [encode_text(tokenizer, t) for t in texts]
    assert encode_texts(tokenizer, []) == []
