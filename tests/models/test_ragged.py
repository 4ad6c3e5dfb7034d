"""Each distinct token run once: states, gradients and savings against the padded block."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from assent.errors import ContractError
from assent.models import ragged
from assent.models.folders import CausalModel, scalar_from_causal
from assent.models.forward import ModelForward
from assent.models.prepare import reader_of
from assent.types import Sequences


def grouped(k: int, prompts: tuple[int, ...], *, seed: int = 0, longest: int = 12) -> Sequences:
    """K responses of ragged lengths to prompts of these lengths, shuffled; one response has one token."""
    generator = torch.Generator().manual_seed(seed)
    texts = [torch.randint(1, 300, (n,), generator=generator).tolist() for n in prompts]
    rows = [(p, int(torch.randint(1, longest + 1, (1,), generator=generator))) for p in texts for _ in range(k)]
    rows[1] = (rows[1][0], 1)
    order = torch.randperm(len(rows), generator=generator).tolist()
    responses = [torch.randint(1, 300, (n,), generator=generator).tolist() for _, n in rows]
    return Sequences.of([rows[i][0] for i in order], [responses[i] for i in order])


def read(model, sequences: Sequences, is_ragged: bool):
    """Outputs of every kind with their gradient, by the one way or the other."""
    model = copy.deepcopy(model)
    vars(model)["assent_ragged"] = is_ragged
    outputs = ModelForward(policy=model).tokens(sequences)
    weights = torch.randn(outputs.logprobs_BT.shape, generator=torch.Generator().manual_seed(5))
    total = (weights * outputs.logprobs_BT).sum() + outputs.entropy_BT.square().sum()
    total.backward()
    return outputs, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def slots_run(model, call) -> int:
    """Slots of all blocks that the embedding reads."""
    seen: list[int] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda m, args, out: seen.append(args[0].numel()))
    try:
        call()
    finally:
        handle.remove()
    return sum(seen)


@pytest.mark.parametrize(("k", "prompts"), [(4, (20, 20)), (3, (25, 6, 14)), (8, (30,)), (1, (9, 25, 3))])
def test_outputs_and_gradients_are_those_of_the_whole_block(causal, k, prompts):
    assert causal.model.assent_ragged, "every family here has plain attention"
    sequences = grouped(k, prompts)
    assert ragged.layout(sequences, sequences.lengths_B) is not None
    (ours, our_grads), (whole, whole_grads) = (read(causal.model, sequences, s) for s in (True, False))
    torch.testing.assert_close(ours.logprobs_BT, whole.logprobs_BT, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(ours.entropy_BT, whole.entropy_BT, rtol=1e-4, atol=2e-5)
    assert our_grads.keys() == whole_grads.keys()
    scale = max(g.abs().max() for g in whole_grads.values())
    for name, gradient in whole_grads.items():
        assert (our_grads[name] - gradient).abs().max() < 2e-5 * scale, name


def test_scores_and_values_too(causal):
    scalar = scalar_from_causal(CausalModel(causal.model, causal.tokenizer), seed=0).scalar
    assert scalar.model.assent_ragged
    sequences = grouped(5, (22, 17), seed=2)
    ours = scalar.last_scores(sequences), scalar.token_values(sequences)
    vars(scalar.model)["assent_ragged"] = False
    torch.testing.assert_close(ours, (scalar.last_scores(sequences), scalar.token_values(sequences)), atol=1e-4, rtol=0)


def test_every_distinct_token_that_is_needed_is_run_once(causal_models):
    model, sequences = causal_models["llama"].model, grouped(6, (30, 24), seed=3)
    run = slots_run(model, lambda: ModelForward(policy=model).logprobs(sequences))
    assert run == 30 + 24 + int((sequences.response_lengths_B - 1).sum())


def test_where_hardly_anything_is_saved_the_block_stays():
    even = Sequences.of([[5, 6, 7], [5, 6, 8]], [[9] * 30, [9] * 29])
    assert ragged.layout(even, even.lengths_B) is None
    same = Sequences.of([[5], [5]], [[9] * 30, [9] * 30])
    assert ragged.layout(same, same.lengths_B) is None


def test_prompts_that_only_begin_alike_are_told_apart():
    prompts = [[5, 6], [5, 6, 7], [5, 6], [5, 6, 7], [5, 7, 0], [5, 7]]
    row_U, prompt_B = Sequences.of(prompts, [[1]] * 6).distinct_prompts()
    assert len(row_U) == 4
    assert [prompts[row_U[u]] for u in prompt_B] == prompts


@pytest.mark.parametrize(("window", "is_ragged"), [(4, False), (14, False), (None, True)])
def test_a_window_shorter_than_the_block_is_never_left_out(window, is_ragged):
    """The probe of 8 tokens cannot see a window of 14; the block's length tells."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    settings = {**heads, "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40, "vocab_size": 300}
    torch.manual_seed(0)
    config = AutoConfig.for_model("mistral", **settings, sliding_window=window, initializer_range=0.2)
    model = AutoModelForCausalLM.from_config(config)
    reader_of(model)
    sequences = grouped(4, (10,))
    assert sequences.token_ids_BL.shape[1] > 14
    run = slots_run(model, lambda: ModelForward(policy=model).logprobs(sequences))
    assert (run < len(sequences) * (int(sequences.lengths_B.max()) - 1)) is is_ragged


def test_a_model_that_adds_its_mask_keeps_to_the_block():
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 300}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **shape), attn_implementation="eager")
    reader_of(model)
    assert not model.assent_ragged
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("asked", [{"softcap": 30.0}, {"s_aux": torch.zeros(2)}, {"sliding_window": 5}])
def test_attention_refuses_what_it_would_leave_out(asked):
    sequences = grouped(2, (6,))
    found = ragged.layout(sequences, sequences.lengths_B)
    states = torch.randn(1, 2, len(found.token_ids_N), 4)
    ragged.attention(torch.nn.Identity(), states, states, states, None, assent_layout=found, scaling=0.5)
    with pytest.raises(ContractError, match=next(iter(asked))):
        ragged.attention(torch.nn.Identity(), states, states, states, None, assent_layout=found, **asked)


def test_beside_the_cpu_a_mask_and_grouped_heads_do_not_meet(monkeypatch):
    """CUDA has no kernel for both but the one that keeps every score; on the CPU grouped heads need no copies."""
    sequences, asked = grouped(3, (6, 4)), []
    found = ragged.layout(sequences, sequences.lengths_B)

    def attend(queries, keys, values, *, attn_mask, enable_gqa, **_):
        asked.append((attn_mask is not None, enable_gqa, keys.shape[1], values.shape[1]))
        return queries.new_empty(queries.shape)

    monkeypatch.setattr(ragged.F, "scaled_dot_product_attention", attend)
    for device, with_mask in (("cpu", (True, True, 2, 2)), ("meta", (True, False, 4, 4))):
        groups = [
            ragged.Group(*(None if x is None else x.to(device) for x in (g.query_CQ, g.key_CK, g.mask_CQK)))
            for g in found.groups
        ]
        there = replace(found, groups=tuple(groups), from_N=found.from_N.to(device))
        query, key = (torch.empty(1, heads, len(found.token_ids_N), 8, device=device) for heads in (4, 2))
        asked.clear()
        ragged.attention(torch.nn.Identity(), query, key, key, None, assent_layout=there, scaling=0.5)
        assert set(asked) == {with_mask, (False, True, 2, 2)}


def test_the_saved_folder_says_nothing_of_it(causal, tmp_path):
    causal.model.save_pretrained(tmp_path)
    assert "assent_ragged" not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
