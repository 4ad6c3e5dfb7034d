"""Classifiers as scorers: the same logits in company as alone, no text cut, no template made up."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from assent.errors import ConfigError
from assent.models.classifier import load_classifier
from assent.models.tokenizer import SpecialTokens, train_bpe
from assent.records import Message
from assent.rewards.classifier import TEXTS, ClassifierScorer
from assent.types import Prompt, Rollout

TEXT = ["A film.", "Nobody who saw this film will forget it", "good", "bad " * 12]
FAMILIES = {
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24},
    "bert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24},
    "gpt2": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
}


@pytest.fixture(scope="module", params=[*FAMILIES, "gpt2 without pad"])
def folder(request, tmp_path_factory):
    """A classifier of random weights with three labels and room for 64 tokens."""
    family, _, without_pad = request.param.partition(" ")
    # Encoders frame a text; transformers reads a GPT-2 folder by rules that do not, whatever its tokenizer.json says.
    begin = None if family == "gpt2" else "[CLS]"
    tokenizer = train_bpe(TEXT * 3, vocab_size=280, special_tokens=SpecialTokens("[SEP]", begin, "[PAD]"))
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        pad_token_id=None if without_pad else tokenizer.pad_token_id,
        id2label={0: "bad", 1: "so so", 2: "good"},
        initializer_range=0.5,
        **FAMILIES[family],
    )
    folder = tmp_path_factory.mktemp(family)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rollout(prompt, text: str) -> Rollout:
    return Rollout(Prompt("p", prompt, (1,)), (2, 3), (0.0, 0.0), True, text, 0)


def test_each_text_has_the_logit_that_transformers_gives_it_alone(folder):
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        alone = [model.eval()(torch.tensor([tokenizer(t)["input_ids"]])).logits[0, 2].item() for t in TEXT]
    assert load_classifier(folder).logits_of("good")(TEXT) == pytest.approx(alone, abs=1e-5)


def test_a_text_beyond_its_reach_has_no_score_and_spoils_no_other(folder):
    classifier = load_classifier(folder)
    scorer = ClassifierScorer("good", classifier.logits_of("good"), TEXTS["whole"])
    short, long = rollout("A film. ", "good"), rollout("A film. ", "bad " * 80)
    (first,), nothing, (again,) = scorer.score([short, long, short])
    assert nothing == () and first == again and first.index == 1
    assert scorer.score([long]) == [()]


def test_what_it_reads(folder):
    seen: list[str] = []
    for reads, expected in (("whole", "A film. good"), ("response", "good")):
        ClassifierScorer("x", lambda texts: [seen.extend(texts), [0.0]][1], TEXTS[reads]).score(
            [rollout("A film. ", "good")]
        )
        assert seen.pop() == expected


def test_a_dialogue_has_no_whole(folder):
    asked = (Message("user", "Liked it?"),)
    assert TEXTS["response"](rollout(asked, "good")) == "good"
    with pytest.raises(ValueError, match="reads: response"):
        TEXTS["whole"](rollout(asked, "good"))


def test_labels_go_by_name(folder):
    with pytest.raises(ConfigError, match="no label of this name"):
        load_classifier(folder).logits_of("GOOD")
