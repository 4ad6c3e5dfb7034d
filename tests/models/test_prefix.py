"""Prompts run once for all rows that share them: states, gradients and savings against the whole block."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from assent.models import prefix
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


def read(model, sequences: Sequences, shares: bool):
    """Outputs of every kind with their gradient, by the one way or the other."""
    model = copy.deepcopy(model)
    vars(model)["assent_shares"] = shares
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


@pytest.mark.parametrize(("k", "prompts"), [(4, (20, 20)), (3, (25, 6, 14)), (8, (30,))])
def test_outputs_and_gradients_are_those_of_the_whole_block(causal, k, prompts):
    assert causal.model.assent_shares, "every family here has a plain cache"
    sequences = grouped(k, prompts)
    assert prefix.plan(sequences, sequences.lengths_B) is not None
    (lent, lent_grads), (whole, whole_grads) = (read(causal.model, sequences, s) for s in (True, False))
    torch.testing.assert_close(lent.logprobs_BT, whole.logprobs_BT, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(lent.entropy_BT, whole.entropy_BT, rtol=1e-4, atol=2e-5)
    assert lent_grads.keys() == whole_grads.keys()
    scale = max(g.abs().max() for g in whole_grads.values())
    for name, gradient in whole_grads.items():
        assert (lent_grads[name] - gradient).abs().max() < 2e-5 * scale, name


def test_scores_and_values_too(causal):
    scalar = scalar_from_causal(CausalModel(causal.model, causal.tokenizer), seed=0).scalar
    assert scalar.model.assent_shares
    sequences = grouped(5, (22, 17), seed=2)
    lent = scalar.last_scores(sequences), scalar.token_values(sequences)
    vars(scalar.model)["assent_shares"] = False
    torch.testing.assert_close(lent, (scalar.last_scores(sequences), scalar.token_values(sequences)), atol=1e-4, rtol=0)


def test_a_prompt_is_run_once(causal_models):
    model, sequences = causal_models["llama"].model, grouped(6, (30, 24), seed=3)
    run = slots_run(model, lambda: ModelForward(policy=model).logprobs(sequences))
    whole = len(sequences) * (int(sequences.lengths_B.max()) - 1)
    assert run <= 2 * 30 + int(sequences.response_lengths_B.sum()) * prefix.EVEN * 2
    assert run < 0.5 * whole


def test_where_nothing_is_saved_the_block_stays_whole():
    alone = grouped(1, (9, 9, 4))
    assert prefix.plan(alone, alone.lengths_B) is None
    short = grouped(2, (1, 1), longest=30)
    assert prefix.plan(short, short.lengths_B) is None


def test_prompts_that_only_begin_alike_are_told_apart():
    prompts = [[5, 6], [5, 6, 7], [5, 6], [5, 6, 7], [5, 7, 0], [5, 7]]
    row_U, prompt_B = Sequences.of(prompts, [[1]] * 6).distinct_prompts()
    assert len(row_U) == 4
    assert [prompts[row_U[u]] for u in prompt_B] == prompts


@pytest.mark.parametrize("change", ["sliding window", "eager attention"])
def test_a_model_that_reads_otherwise_keeps_to_the_whole_block(change):
    """A sliding window forgets keys that are lent; eager attention adds the mask instead of applying it."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    settings = {**heads, "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40, "vocab_size": 300}
    window = 4 if change == "sliding window" else None
    config = AutoConfig.for_model("mistral", **settings, sliding_window=window, initializer_range=0.2)
    attention = "eager" if change == "eager attention" else "sdpa"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    reader_of(model)
    assert not model.assent_shares
    sequences = grouped(4, (10,))
    assert slots_run(model, lambda: ModelForward(policy=model).logprobs(sequences)) == len(sequences) * (
        int(sequences.lengths_B.max()) - 1
    )
