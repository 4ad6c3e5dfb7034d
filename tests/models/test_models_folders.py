"""Folders in and out: the same numbers in a new process, and refusal of every folder that is not what it says."""

import copy
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from assent.errors import ArtefactError, ConfigError, ContractError
from assent.functional.fingerprint import fingerprint
from assent.models.folders import (
    GOLDEN,
    CausalModel,
    ModelShape,
    ScalarFolder,
    load_causal,
    load_scalar,
    new_causal,
    save_causal,
    save_scalar,
    scalar_from_causal,
)
from assent.models.tokenizer import SpecialTokens, encode_text, load_tokenizer, tokenizer_hash, train_bpe
from assent.types import Sequences

GATED = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
GATED = {**GATED, "intermediate_size": 8}
PROBE = [[5, 9, 2, 11, 250], [3, 3, 17, 0, 8]]

ANOTHER_PROCESS = """
import json, sys, torch
from assent.models.folders import load_causal, load_scalar
from assent.models.tokenizer import SpecialTokens, tokenizer_hash, train_bpe
from assent.types import Sequences
(ids, corpus), out = json.loads(sys.argv[1]), {}
trained = tokenizer_hash(train_bpe(corpus, vocab_size=300, special_tokens=SpecialTokens()))
for family in sys.argv[3:]:
    policy, reward = load_causal(f"{sys.argv[2]}/{family}/policy"), load_scalar(f"{sys.argv[2]}/{family}/reward")
    sequences = Sequences.of([r[:2] for r in ids], [r[2:] for r in ids])
    with torch.no_grad():
        out[family] = {
            "logits": policy.model(torch.tensor(ids)).logits.tolist(),
            "scores": reward.scalar.last_scores(sequences).tolist(),
            "values": reward.scalar.token_values(sequences).tolist(),
            "trained": trained,
            "text": policy.tokenizer("Köln kettle")["input_ids"],
        }
print(json.dumps(out))
"""


def probe() -> Sequences:
    return Sequences.of([r[:2] for r in PROBE], [r[2:] for r in PROBE])


@pytest.fixture(scope="module")
def folder(causal_models, sequences, tmp_path_factory):
    """A policy and a normalised reward model of each family, saved."""
    root = tmp_path_factory.mktemp("folders")
    for family, causal in causal_models.items():
        save_causal(root / family / "policy", causal)
        reward = scalar_from_causal(causal, seed=4)
        reward.scalar.normalise(0.3, 0.7)
        save_scalar(root / family / "reward", reward, golden=sequences)
    return root


def test_a_new_process_gives_the_same_logits_scores_values_and_tokens(causal_models, folder, corpus):
    """And trains the same tokenizer from the same texts, under another hash seed."""
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, json.dumps([PROBE, corpus]), str(folder), *causal_models],
        capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "77"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for family, got in json.loads(done.stdout.splitlines()[-1]).items():
        causal, scalar = causal_models[family], scalar_from_causal(causal_models[family], seed=4).scalar
        scalar.normalise(0.3, 0.7)
        with torch.no_grad():
            assert torch.equal(torch.tensor(got["logits"]), causal.model(torch.tensor(PROBE)).logits)
            assert torch.equal(torch.tensor(got["scores"]), scalar.last_scores(probe()))
            assert torch.equal(torch.tensor(got["values"]), scalar.token_values(probe()))
        assert got["trained"] == tokenizer_hash(causal.tokenizer)
        assert got["text"] == causal.tokenizer("Köln kettle")["input_ids"]


def test_tokenizer_comes_back_the_same(causal, family, folder):
    assert tokenizer_hash(load_causal(folder / family / "policy").tokenizer) == tokenizer_hash(causal.tokenizer)
    assert tokenizer_hash(load_scalar(folder / family / "reward").tokenizer) == tokenizer_hash(causal.tokenizer)


def test_plain_transformers_serves_the_score_up_to_the_offset(family, folder):
    """In a padded batch, with responses that end in the end token: transformers must find the right token."""
    path = folder / family / "reward"
    loaded = load_scalar(path)
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    texts = ["the kettle<|endoftext|>", "please send another one back<|endoftext|>"]
    batch = tokenizer(texts, padding=True, return_tensors="pt", padding_side="right")
    ids = [tokenizer(t)["input_ids"] for t in texts]
    with torch.no_grad():
        ours = loaded.scalar.last_scores(Sequences.of([i[:1] for i in ids], [i[1:] for i in ids]))
        theirs = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    assert loaded.scalar.offset == pytest.approx(-0.3 / 0.7)
    torch.testing.assert_close(theirs, ours - loaded.scalar.offset, rtol=1e-4, atol=1e-5)


def test_normalisation_survives_saving(causal, sequences, tmp_path):
    made = scalar_from_causal(causal, seed=9)
    scores = made.scalar.last_scores(sequences).detach().double()
    made.scalar.normalise(scores.mean().item(), scores.std(unbiased=False).item())
    save_scalar(tmp_path, made, golden=sequences)
    again = load_scalar(tmp_path).scalar.last_scores(sequences).detach().double()
    assert again.mean().abs() < 1e-5 and abs(again.std(unbiased=False) - 1) < 1e-5


# ------------------------------------------------------------------------------------------------ refusals


def edit_weights(folder, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def saved_reward(causal_models, sequences, folder, family="llama"):
    save_scalar(folder, scalar_from_causal(causal_models[family], seed=4), golden=sequences)
    return folder


def test_missing_unexpected_and_misshapen_weights_are_refused(causal_models, sequences, tmp_path):
    causal = causal_models["llama"]
    for name, change, message in (
        ("missing", lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "layers.1.mlp.up_proj"),
        ("unexpected", lambda t: t.update({"model.extra.weight": torch.ones(2)}), "model.extra.weight"),
        ("shape", lambda t: t.update({"model.norm.weight": torch.ones(7)}), "norm"),
    ):
        save_causal(tmp_path / name, causal)
        edit_weights(tmp_path / name, change)
        with pytest.raises(ContractError, match=message):
            load_causal(tmp_path / name)


def test_a_language_model_is_no_reward_model_nor_the_reverse(family, folder):
    with pytest.raises(ContractError, match="score"):
        load_scalar(folder / family / "policy")
    if family == "llama":
        with pytest.raises(ContractError, match=r"score\.weight"):
            load_causal(folder / family / "reward")


def test_golden_scores_are_checked_on_every_load(causal_models, sequences, tmp_path):
    path = saved_reward(causal_models, sequences, tmp_path / "a")
    record = json.loads((path / GOLDEN).read_text())
    assert len(record["rows"]) == 4 and record["rows"][0]["text"]
    edit_weights(path, lambda t: t["score.weight"].mul_(1.05))
    with pytest.raises(ContractError, match="golden row 0"):
        load_scalar(path)

    path = saved_reward(causal_models, sequences, tmp_path / "offset")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "assent_score_offset": 0.1}))
    with pytest.raises(ContractError, match="golden"):
        load_scalar(path)

    path = saved_reward(causal_models, sequences, tmp_path / "tokenizer")
    train_bpe(["another language altogether"] * 9, vocab_size=300).save_pretrained(path)
    with pytest.raises(ContractError, match="golden"):
        load_scalar(path)

    path = saved_reward(causal_models, sequences, tmp_path / "removed")
    (path / GOLDEN).unlink()
    with pytest.raises(ContractError, match="is gone"):
        load_scalar(path)


def test_golden_holds_at_most_ten(causal_models, tmp_path):
    many = Sequences.of([[i + 1] for i in range(12)], [[i + 2, 0] for i in range(12)])
    save_scalar(tmp_path, scalar_from_causal(causal_models["gpt2"], seed=4), golden=many)
    assert len(json.loads((tmp_path / GOLDEN).read_text())["rows"]) == 10
    load_scalar(tmp_path)


def test_a_reward_model_of_someone_else_needs_no_golden(causal_models, tmp_path):
    made = scalar_from_causal(causal_models["gpt2"], seed=4)
    model = copy.deepcopy(made.scalar.model)
    del model.config.assent_score_offset
    model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    loaded = load_scalar(tmp_path)
    assert loaded.scalar.offset == 0.0
    torch.testing.assert_close(loaded.scalar.last_scores(probe()), made.scalar.last_scores(probe()))


def test_no_such_folder_and_a_tokenizer_too_large(causal_models, tmp_path):
    for path in (tmp_path / "nowhere", "./nowhere", str(tmp_path / "nowhere")):
        with pytest.raises(ArtefactError, match="nowhere"):
            load_causal(path)
    large = train_bpe(
        ["more and more words of all kinds"] * 9, vocab_size=290, special_tokens=SpecialTokens(extra=("<x>",))
    )
    large.add_tokens([f"word{i}" for i in range(40)])
    save_causal(tmp_path / "a", CausalModel(causal_models["gpt2"].model, causal_models["gpt2"].tokenizer))
    large.save_pretrained(tmp_path / "a")
    with pytest.raises(ContractError, match="more tokens than"):
        load_causal(tmp_path / "a")


# ------------------------------------------------------------------------------------------------ new models


def test_the_same_seed_makes_the_same_model_and_leaves_the_global_stream_alone(tokenizer, family, causal_models):
    shape = ModelShape("gpt2", {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2})
    torch.manual_seed(0)
    untouched = torch.rand(1)
    torch.manual_seed(0)
    a, b, c = (new_causal(shape, tokenizer, seed=s) for s in (1, 1, 2))
    scalar_from_causal(causal_models[family], seed=3)
    assert torch.equal(torch.rand(1), untouched)
    a, b, c = (fingerprint(m.model.state_dict()) for m in (a, b, c))
    assert a == b != c


def test_new_model_knows_its_tokens_and_trains_the_pad_row(causal, tokenizer):
    model = causal.model
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.dtype == torch.float32
    assert model.get_input_embeddings().weight[tokenizer.pad_token_id].abs().max() > 0
    assert model.get_input_embeddings().padding_idx is None


def test_embedding_deviation(tokenizer):
    kwargs = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    made = new_causal(ModelShape("llama", kwargs, embedding_std=0.2), tokenizer, seed=1).model
    assert made.get_input_embeddings().weight.std().item() == pytest.approx(0.2, rel=0.03)
    assert made.model.layers[0].mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_rope_theta_has_its_effect(tokenizer):
    a = new_causal(ModelShape("llama", GATED), tokenizer, seed=1).model
    b = new_causal(ModelShape("llama", {**GATED, "rope_theta": 100.0}), tokenizer, seed=1).model
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    assert not torch.allclose(a(ids).logits, b(ids).logits)


@pytest.mark.parametrize(
    ("family", "kwargs", "message"),
    [
        ("lama", {}, "llama"),
        ("llama", {"hiden_size": 8}, "hidden_size"),
        ("gpt2", {"num_hiden_layers": 1}, "num_hidden_layers"),
        ("qwen3", {"vocab_size": 10}, "vocab_size"),
        ("llama", {"hidden_size": "eight"}, "hidden_size"),
        ("llama", {"hidden_size": 10, "num_attention_heads": 4}, "refuses"),
        ("qwen2", {**GATED, "num_key_value_heads": 3}, "cannot run"),
    ],
)
def test_wrong_shapes_are_refused(tokenizer, family, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        new_causal(ModelShape(family, kwargs), tokenizer, seed=1)


# ------------------------------------------------------------------------------------------------ scalar models


def test_head_is_drawn_with_its_deviation_and_the_trunk_is_the_same(tokenizer):
    """d = 4, where 1 / sqrt(d + 1) is far from 1 / sqrt(d)."""
    shape = ModelShape("gpt2", {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1})
    causal = new_causal(shape, tokenizer, seed=1)
    models = [scalar_from_causal(causal, seed=seed).scalar.model for seed in range(250)]
    drawn = torch.cat([m.score.weight.detach().flatten() for m in models]).double()
    # 1000 draws: the standard error of the deviation is 2.2 %, of the mean 3.2 % of the deviation
    assert drawn.std().item() == pytest.approx(1 / math.sqrt(5), rel=0.05)
    assert abs(drawn.mean().item()) < 0.1 / math.sqrt(5)
    assert fingerprint(models[-1].transformer.state_dict()) == fingerprint(causal.model.transformer.state_dict())


def test_scalar_does_not_share_memory_with_the_policy(causal):
    scalar = scalar_from_causal(causal, seed=1).scalar
    before = fingerprint(causal.model.state_dict())
    with torch.no_grad():
        for parameter in scalar.parameters():
            parameter.add_(1.0)
    assert fingerprint(causal.model.state_dict()) == before


def test_a_family_without_classifier_is_refused(tokenizer):
    causal = new_causal(ModelShape("granite", GATED), tokenizer, seed=1)
    with pytest.raises(ContractError, match="no scalar model"):
        scalar_from_causal(causal, seed=1)


def test_pad_equal_to_eos_leaves_no_pad_in_a_reward_folder(causal_models, sequences, tmp_path):
    """Transformers would score the token before the end; without a pad token it refuses batches, and is right alone."""
    pad_is_eos = train_bpe(["the kettle"] * 9, vocab_size=300, special_tokens=SpecialTokens(pad=None))
    made = scalar_from_causal(causal_models["gpt2"], seed=1)
    save_scalar(tmp_path, ScalarFolder(made.scalar, pad_is_eos), golden=sequences)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert plain.config.pad_token_id is None
    ids = [5, 6, 7, 0]
    ours = made.scalar.last_scores(Sequences.of([ids[:2]], [ids[2:]]))
    torch.testing.assert_close(plain(torch.tensor([ids])).logits[:, 0], ours, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="padding"):
        plain(torch.tensor([ids, ids]))


# ------------------------------------------------------------------------------------------------ fingerprint


def test_fingerprint_sees_one_bit_a_name_a_shape_and_a_type():
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1.5), "c": torch.ones(2, dtype=torch.bfloat16)}
    original = fingerprint(weights)
    assert fingerprint(dict(reversed(weights.items()))) == original
    assert fingerprint({**weights, "a": weights["a"].t().contiguous().t()}) == original, "layout is no content"
    one_bit = weights["a"].clone()
    one_bit.view(torch.int32)[1, 1] ^= 1
    changed = [
        {**weights, "a": one_bit},
        {**weights, "a": weights["a"].view(3, 2)},
        {**weights, "a": weights["a"].view(torch.int32)},
        {"aa": weights["a"], "b": weights["b"], "c": weights["c"]},
        {**weights, "b": torch.tensor([1.5])},
        {**weights, "c": -torch.zeros(2, dtype=torch.bfloat16)},
        {"a": weights["a"], "b": weights["b"]},
    ]
    digests = [fingerprint(c) for c in changed]
    assert original not in digests and len(set(digests)) == len(digests)


def test_saved_weights_have_the_fingerprint_of_the_made_ones(causal, family, folder):
    loaded = AutoModelForCausalLM.from_pretrained(folder / family / "policy")
    assert fingerprint(loaded.state_dict()) == fingerprint(causal.model.state_dict())


def test_a_tokenizer_that_transformers_would_read_otherwise_is_refused(tmp_path):
    """In a qwen2 folder transformers puts Qwen2's rules in the place of the tokenizer's own."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=270, special_tokens=["<e>"], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    backend.train_from_iterator(["2026 2026 2026"] * 9, trainer=trainer)
    other = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")
    with pytest.raises(ContractError, match="by other rules"):
        new_causal(ModelShape("qwen2", GATED), other, seed=1)
    new_causal(ModelShape("llama", GATED), other, seed=1)
    other.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    assert encode_text(load_tokenizer(tmp_path), "2026") == encode_text(other, "2026"), "read here, it keeps its own"
    assert encode_text(AutoTokenizer.from_pretrained(tmp_path), "2026") != encode_text(other, "2026")


def test_loaded_weights_lie_in_memory_of_their_own(folder, family):
    """Weights mapped from the file are not aligned, and then products round otherwise than those of the made model."""
    for loaded in (load_causal(folder / family / "policy").model, load_scalar(folder / family / "reward").scalar):
        assert all(p.data_ptr() % 64 == 0 for p in loaded.parameters())
