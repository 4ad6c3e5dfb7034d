"""The forward pass against the model's own logits, one sequence at a time and without padding."""

import copy
import dataclasses
from array import array

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaForSequenceClassification,
)

from assent.errors import ContractError
from assent.models.folders import scalar_from_causal
from assent.models.forward import (
    ModelForward,
    ScalarModel,
    ValueHead,
    in_blocks,
    token_logprobs,
    token_outputs,
)
from assent.models.prepare import (
    check_backbone,
    check_head_path,
    disable_dropout,
    prepare,
    read_through_head,
    read_whole_logits,
)
from assent.types import Kept, KeptBlock, Sequences

TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


def alone(model, prompt, response, temperature=1.0):
    """Oracle: log-probabilities and entropies of one response, from the model's own logits of that sequence alone."""
    logits = model(torch.tensor([[*prompt, *response]])).logits[0].double() / temperature
    table = logits.log_softmax(-1)
    at = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    logprobs = torch.stack([table[i, token] for i, token in zip(at, response, strict=True)])
    entropies = torch.stack([-(table[i].exp() * table[i]).sum() for i in at])
    return logprobs, entropies


def hidden_alone(model, ids):
    return model.base_model(torch.tensor([ids])).last_hidden_state[0]


def widened(sequences: Sequences, extra: int, filler: int) -> Sequences:
    padding = torch.full((len(sequences), extra), filler)
    return dataclasses.replace(sequences, token_ids_BL=torch.cat([sequences.token_ids_BL, padding], 1))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_and_entropy_are_those_of_the_sequence_alone(causal, rows, sequences, temperature):
    outputs = token_outputs(causal.model, sequences, temperature=temperature)
    for b, (prompt, response) in enumerate(zip(*rows, strict=True)):
        logprobs, entropies = alone(causal.model, prompt, response, temperature)
        n = len(response)
        torch.testing.assert_close(outputs.logprobs_BT[b, :n].double(), logprobs, **TOLERANCE)
        torch.testing.assert_close(outputs.entropy_BT[b, :n].double(), entropies, **TOLERANCE)
        assert (outputs.logprobs_BT[b, n:] == 0).all() and (outputs.entropy_BT[b, n:] == 0).all()
    logprobs_BT = token_logprobs(causal.model, sequences, temperature=temperature)
    torch.testing.assert_close(logprobs_BT, outputs.logprobs_BT)


def test_padding_and_order_change_nothing(causal, sequences):
    expected = token_outputs(causal.model, sequences, temperature=1.0)
    for filler in (0, 17):
        wide = token_outputs(causal.model, widened(sequences, 5, filler), temperature=1.0)
        torch.testing.assert_close(wide.logprobs_BT, expected.logprobs_BT, **TOLERANCE)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = token_outputs(causal.model, sequences.select(order), temperature=1.0)
    torch.testing.assert_close(shuffled.logprobs_BT, expected.logprobs_BT[order], **TOLERANCE)
    torch.testing.assert_close(shuffled.entropy_BT, expected.entropy_BT[order], **TOLERANCE)


def test_gradients_are_those_of_the_sequences_alone(causal, rows, sequences):
    model = copy.deepcopy(causal.model).train()
    outputs = token_outputs(model, sequences, temperature=0.7)
    (outputs.logprobs_BT.sum() + 0.3 * outputs.entropy_BT.sum()).backward()
    got = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    for prompt, response in zip(*rows, strict=True):
        logprobs, entropies = alone(model, prompt, response, 0.7)
        (logprobs.sum() + 0.3 * entropies.sum()).backward()
    for name, parameter in model.named_parameters():
        scale = parameter.grad.abs().max().item() + 1e-3
        torch.testing.assert_close(got[name], parameter.grad, rtol=0, atol=1e-4 * scale, msg=name)


def test_a_hole_in_the_mask_is_zero_and_sends_no_gradient(causal_models, sequences):
    model = copy.deepcopy(causal_models["llama"].model)
    mask = sequences.mask_BT.clone()
    mask[0, 1:3] = False
    holed = dataclasses.replace(sequences, mask_BT=mask)
    whole = token_logprobs(model, sequences, temperature=1.0)
    got = token_logprobs(model, holed, temperature=1.0)
    torch.testing.assert_close(got, torch.where(mask, whole, 0.0), **TOLERANCE)
    assert (got[0, 1:3] == 0).all() and (whole[0, 1:3] != 0).all()


def test_nothing_included_is_all_zero(causal_models, sequences):
    none = dataclasses.replace(sequences, mask_BT=torch.zeros_like(sequences.mask_BT))
    outputs = token_outputs(causal_models["gpt2"].model, none, temperature=1.0)
    assert not outputs.logprobs_BT.any() and not outputs.entropy_BT.any()


def test_pad_equal_to_eos_changes_nothing(causal_models, sequences):
    """Neither log-probabilities nor the gradient of the end token's embedding, which Llama's padding_idx would kill."""
    gradients = []
    for pad in (None, 0):
        config = copy.deepcopy(causal_models["llama"].model.config)
        config.pad_token_id, config.eos_token_id, config.tie_word_embeddings = pad, 0, False
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(config)
        model.load_state_dict(causal_models["llama"].model.state_dict(), strict=False)
        torch.nn.init.constant_(model.lm_head.weight, 0.01)
        model.lm_head.weight.data[3:9] = causal_models["llama"].model.lm_head.weight.data[3:9]
        prepare(model)
        token_logprobs(model, sequences, temperature=1.0).sum().backward()
        gradients.append(model.get_input_embeddings().weight.grad)
    assert gradients[0][0].abs().max() > 1e-4, "the sequence with an end token inside must move its embedding"
    torch.testing.assert_close(*gradients)


def test_half_precision_is_raised_before_the_softmax(causal_models, sequences):
    model = copy.deepcopy(causal_models["qwen2"].model).to(torch.bfloat16)
    outputs = token_outputs(model, sequences, temperature=1.0)
    assert outputs.logprobs_BT.dtype == torch.float32
    half = copy.deepcopy(scalar_from_causal(causal_models["qwen2"], seed=2).scalar.model).to(torch.bfloat16)
    scalar = ScalarModel(half)
    assert scalar.last_scores(sequences).dtype == scalar.token_values(sequences).dtype == torch.float32
    exact = token_outputs(causal_models["qwen2"].model, sequences, temperature=1.0)
    assert (outputs.logprobs_BT - exact.logprobs_BT).abs().max() < 0.5


def test_too_long_for_the_positions_is_refused(causal_models):
    with pytest.raises(ContractError, match="positions"):
        token_logprobs(causal_models["gpt2"].model, Sequences.of([[1] * 60], [[2] * 10]), temperature=1.0)


# ------------------------------------------------------------------------------------------------ probes


def tiny(family, **kwargs):
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape, **kwargs))


def test_softcapped_and_scaled_logits_take_the_whole_model():
    capped = tiny("gemma2", num_key_value_heads=1, head_dim=8, intermediate_size=16, final_logit_softcapping=3.0)
    scaled = tiny("granite", num_key_value_heads=1, intermediate_size=16, logits_scaling=4.0)
    for model in (capped, scaled):
        prepare(model)
        assert check_head_path(model) is read_whole_logits
        prompts, responses = [[1, 2, 3], [4]], [[5, 6], [7, 8, 9]]
        got = token_outputs(model, Sequences.of(prompts, responses), temperature=0.5)
        for b, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            logprobs, entropies = alone(model, prompt, response, 0.5)
            torch.testing.assert_close(got.logprobs_BT[b, : len(response)].double(), logprobs, **TOLERANCE)
            torch.testing.assert_close(got.entropy_BT[b, : len(response)].double(), entropies, **TOLERANCE)


def test_a_capping_that_random_weights_would_hide_is_still_found():
    """Logits of a fresh model are far below 30, where capping at 30 changes them by less than any tolerance."""
    model = tiny("gemma2", num_key_value_heads=1, head_dim=8, intermediate_size=16, final_logit_softcapping=30.0)
    prepare(model)
    ids = torch.arange(8)[None]
    plain = model.base_model(ids).last_hidden_state @ model.lm_head.weight.T
    torch.testing.assert_close(model(ids).logits, plain, rtol=1e-4, atol=1e-4)
    assert check_head_path(model) is read_whole_logits


def test_usual_families_take_the_head_alone(causal):
    assert check_head_path(causal.model) is read_through_head
    assert not causal.model.lm_head._forward_hooks


def test_head_with_bias_is_right():
    model = tiny("phi")
    torch.nn.init.normal_(model.lm_head.bias)
    prepare(model)
    assert check_head_path(model) is read_through_head
    got = token_logprobs(model, Sequences.of([[1, 2]], [[3, 4]]), temperature=1.0)
    torch.testing.assert_close(got[0].double(), alone(model, [1, 2], [3, 4])[0], **TOLERANCE)


def test_dropout_is_off_in_training_mode(tokenizer):
    model = tiny("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    ids = torch.arange(8)[None]
    assert not torch.equal(model.train()(ids).logits, model.eval()(ids).logits), "the oracle: dropout was on"
    disable_dropout(model)
    torch.testing.assert_close(model.train()(ids).logits, model.eval()(ids).logits)
    assert model.config.resid_pdrop == 0.5
    attention = tiny("llama", num_key_value_heads=1, intermediate_size=16, attention_dropout=0.5)
    with pytest.raises(ContractError, match="train mode"):
        check_backbone(attention)
    prepare(attention)


def test_models_that_see_the_future_or_give_nan_are_refused(causal_models):
    blind = copy.deepcopy(causal_models["llama"].model)
    for layer in blind.model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(ContractError, match="not causal"):
        prepare(blind)
    broken = copy.deepcopy(causal_models["gpt2"].model)
    broken.transformer.ln_f.weight.data[0] = float("nan")
    with pytest.raises(ContractError, match="not finite"):
        prepare(broken)


# ------------------------------------------------------------------------------------------------ scalar models


@pytest.fixture
def scalar(causal) -> ScalarModel:
    return scalar_from_causal(causal, seed=2).scalar


def test_values_are_read_before_each_token_and_scores_at_the_last(scalar, rows, sequences):
    values_BT, scores_B = scalar.token_values(sequences), scalar.last_scores(sequences)
    head = scalar.model.score.weight[0]
    for b, (prompt, response) in enumerate(zip(*rows, strict=True)):
        states = hidden_alone(scalar.model, [*prompt, *response]) @ head
        n = len(response)
        torch.testing.assert_close(values_BT[b, :n], states[len(prompt) - 1 : -1], **TOLERANCE)
        torch.testing.assert_close(scores_B[b], states[-1], **TOLERANCE)
        assert (values_BT[b, n:] == 0).all()


def test_step_scores_are_those_of_the_prefix(scalar, rows, sequences):
    """A step is scored as if the response ended with it: what follows is not read, and nothing else is scored."""
    at_BT = torch.zeros_like(sequences.mask_BT)
    at_BT[0, [1, 4]] = at_BT[1, 0] = at_BT[2, [0, 3, 8]] = True  # the fourth row has no step
    scores_BT = scalar.step_scores(sequences, at_BT)
    assert torch.equal(scores_BT != 0, at_BT)
    for b, (prompt, response) in enumerate(zip(*rows, strict=True)):
        for t in at_BT[b].nonzero()[:, 0].tolist():
            alone = Sequences.of([prompt], [response[: t + 1]])
            torch.testing.assert_close(scores_BT[b, t], scalar.last_scores(alone)[0], **TOLERANCE)
    torch.testing.assert_close(scalar.step_scores(widened(sequences, 4, 9), at_BT), scores_BT, **TOLERANCE)


def test_flips(scalar, sequences):
    """The last word changes the score; padding does not; a token changes only the values after it."""
    values_BT, scores_B = scalar.token_values(sequences), scalar.last_scores(sequences)
    last = sequences.lengths_B - 1
    flipped = sequences.token_ids_BL.clone()
    flipped[torch.arange(4), last] = (flipped[torch.arange(4), last] + 7) % 300
    changed = dataclasses.replace(sequences, token_ids_BL=flipped)
    assert ((scalar.last_scores(changed) - scores_B).abs() > 1e-4).all()
    torch.testing.assert_close(scalar.token_values(changed), values_BT, **TOLERANCE)
    torch.testing.assert_close(scalar.last_scores(widened(sequences, 4, 9)), scores_B, **TOLERANCE)

    second = sequences.token_ids_BL.clone()
    second[0, 3 + 1] = (second[0, 3 + 1] + 7) % 300
    moved = scalar.token_values(dataclasses.replace(sequences, token_ids_BL=second))
    torch.testing.assert_close(moved[0, :2], values_BT[0, :2], **TOLERANCE)
    assert ((moved[0, 2:5] - values_BT[0, 2:5]).abs() > 1e-5).all()


def test_score_ignores_the_mask_of_the_last_token(scalar, sequences):
    mask = sequences.mask_BT.clone()
    mask[0, 4] = False
    holed = dataclasses.replace(sequences, mask_BT=mask)
    torch.testing.assert_close(scalar.last_scores(holed), scalar.last_scores(sequences))


def test_normalisation_is_exact_and_repeatable(scalar, sequences):
    for _ in range(2):
        before = scalar.last_scores(sequences).detach().double()
        scalar.normalise(before.mean().item(), before.std().item())
        after = scalar.last_scores(sequences).detach().double()
        torch.testing.assert_close(after, (before - before.mean()) / before.std(), rtol=1e-4, atol=1e-5)
    assert after.mean().abs() < 1e-5 and abs(after.std() - 1) < 1e-5
    critic = copy.deepcopy(scalar)
    scalar.normalise(1.0, 2.0)
    again = scalar.last_scores(sequences).detach().double()
    torch.testing.assert_close(again, (after - 1.0) / 2.0, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(critic.last_scores(sequences).detach().double(), after)
    for mean, std in ((0.0, 0.0), (float("nan"), 1.0), (0.0, -1.0)):
        with pytest.raises(ContractError, match="normalised"):
            scalar.normalise(mean, std)


def test_two_labels_are_refused(causal_models):
    config = copy.deepcopy(causal_models["gpt2"].model.config)
    config.num_labels = 2
    with pytest.raises(ContractError, match=r"\.score"):
        ScalarModel(AutoModelForSequenceClassification.from_config(config))


def test_a_score_that_is_more_than_the_head_is_refused(causal_models):
    class Squashed(LlamaForSequenceClassification):
        def forward(self, *args, **kwargs):
            outputs = super().forward(*args, **kwargs)
            outputs.logits = outputs.logits.tanh()
            return outputs

    config = copy.deepcopy(causal_models["llama"].model.config)
    config.num_labels = 1
    model = Squashed(config)
    torch.nn.init.normal_(model.score.weight)
    with pytest.raises(ContractError, match="more than its head"):
        ScalarModel(model)


def test_a_model_that_nobody_prepared_is_prepared_when_first_read():
    model = tiny("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    got = token_logprobs(model, Sequences.of([[1, 2]], [[3, 4]]), temperature=1.0)
    torch.testing.assert_close(got[0].double(), alone(model.eval(), [1, 2], [3, 4])[0], **TOLERANCE)


# ------------------------------------------------------------------------------------------------ the learner's handle


def test_forward_of_two_models_and_of_one_trunk(causal, sequences):
    policy = copy.deepcopy(causal.model)
    critic = scalar_from_causal(causal, seed=2).scalar
    expected = token_outputs(policy, sequences, temperature=0.7)
    two = ModelForward(policy=policy, critic=critic, temperature=0.7)
    outputs = two.actor_critic(sequences)
    torch.testing.assert_close(outputs.logprobs_BT, expected.logprobs_BT)
    torch.testing.assert_close(outputs.entropy_BT, expected.entropy_BT)
    torch.testing.assert_close(outputs.values_BT, critic.token_values(sequences))
    torch.testing.assert_close(two.tokens(sequences).logprobs_BT, expected.logprobs_BT)
    roles = {name.split(".")[0] for name, _ in two.modules.named_parameters()}
    assert roles == {"policy", "critic"}
    assert ModelForward(scalar=critic).scores(sequences).shape == (4,)
    with pytest.raises(ContractError, match="no scalar model"):
        two.scores(sequences)


def test_one_trunk_runs_once_and_learns_from_values(causal, sequences):
    policy = copy.deepcopy(causal.model)
    head = ValueHead.on(policy)
    forward = ModelForward(policy=policy, critic=head)
    calls = []
    policy.base_model.register_forward_hook(lambda *_: calls.append(1))
    outputs = forward.actor_critic(sequences)
    assert len(calls) == 1 and not outputs.values_BT.any(), "zero at the start"
    torch.nn.init.normal_(head.linear.weight)
    torch.nn.init.constant_(head.linear.bias, 0.5)
    values_BT = forward.actor_critic(sequences).values_BT
    states = hidden_alone(policy, sequences.token_ids_BL[0, :8].tolist())
    expected = states[2:7] @ head.linear.weight[0] + 0.5
    torch.testing.assert_close(values_BT[0, :5], expected, **TOLERANCE)
    values_BT.sum().backward()
    assert policy.get_input_embeddings().weight.grad.abs().sum() > 0


def test_trunk_values_of_a_capped_model_come_from_the_same_states():
    model = tiny("gemma2", num_key_value_heads=1, head_dim=8, intermediate_size=16, final_logit_softcapping=3.0)
    prepare(model)
    head = ValueHead.on(model)
    torch.nn.init.normal_(head.linear.weight)
    values_BT = ModelForward(policy=model, critic=head).actor_critic(Sequences.of([[1, 2]], [[3, 4]])).values_BT
    expected = hidden_alone(model, [1, 2, 3, 4])[1:3] @ head.linear.weight[0]
    torch.testing.assert_close(values_BT[0], expected, **TOLERANCE)


@pytest.mark.parametrize("block_tokens", [1, 20, 10_000])
def test_blocks_give_the_rows_back_in_order(causal_models, sequences, block_tokens):
    model, scalar = causal_models["qwen3"].model, scalar_from_causal(causal_models["qwen3"], seed=2).scalar
    sizes = []

    def read(block):
        sizes.append(len(block))
        return token_logprobs(model, block, temperature=1.0), scalar.last_scores(block)

    logprobs_BT, scores_B = in_blocks(read, sequences, block_tokens=block_tokens)
    torch.testing.assert_close(logprobs_BT, token_logprobs(model, sequences, temperature=1.0), **TOLERANCE)
    torch.testing.assert_close(scores_B, scalar.last_scores(sequences), **TOLERANCE)
    assert not logprobs_BT.requires_grad
    assert sum(sizes) == 4 and (block_tokens > 1 or sizes == [1] * 4)


# ------------------------------------------------------------------------------------------------ exact KL


@pytest.fixture
def other(causal):
    """A model of the same family with other weights."""
    model = copy.deepcopy(causal.model)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.8)
    return model


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_exact_kl_and_its_gradient_are_those_of_each_sequence_alone(causal, other, rows, sequences, temperature):
    model = copy.deepcopy(causal.model)
    forward = ModelForward(policy=model, reference=other, temperature=temperature)
    outputs = forward.leashed(sequences)
    total = torch.zeros((), dtype=torch.float64)
    for b, (prompt, response) in enumerate(zip(*rows, strict=True)):
        ids = torch.tensor([[*prompt, *response]])
        p, q = ((m(ids).logits[0].double() / temperature).softmax(-1) for m in (model, other))
        at = slice(len(prompt) - 1, len(prompt) + len(response) - 1)
        kl = (p[at] * (p[at] / q[at].detach()).log()).sum(-1)
        torch.testing.assert_close(outputs.kl_BT[b, : len(response)].double(), kl, rtol=1e-3, atol=2e-5)
        assert (outputs.kl_BT[b, len(response) :] == 0).all()
        total = total + kl.sum()
    wanted = torch.autograd.grad(total, list(model.parameters()))
    got = torch.autograd.grad(outputs.kl_BT.sum(), list(model.parameters()))
    for one, exact in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, exact, rtol=0, atol=1e-3 * (exact.abs().max().item() + 1e-3))
    torch.testing.assert_close(forward.exact_kl(sequences), outputs.kl_BT)
    torch.testing.assert_close(forward.tokens(sequences).logprobs_BT, outputs.logprobs_BT)
    assert all(p.grad is None for p in other.parameters()) and "reference" not in forward.modules


def test_exact_kl_of_models_whose_logits_are_more_than_a_head(causal, other, sequences):
    heads = ModelForward(policy=causal.model, reference=other).exact_kl(sequences)
    whole = copy.deepcopy(causal.model)
    vars(whole)["assent_reader"] = read_whole_logits
    torch.testing.assert_close(ModelForward(policy=whole, reference=other).exact_kl(sequences), heads, **TOLERANCE)


def test_exact_kl_without_a_reference_is_refused(causal_models, sequences):
    with pytest.raises(ContractError, match="no reference model"):
        ModelForward(policy=causal_models["gpt2"].model).leashed(sequences)


def tiny_llama(**more):
    config = AutoConfig.for_model("llama", hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                                  num_attention_heads=2, vocab_size=40, max_position_embeddings=64, **more)  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def test_a_block_beyond_the_first_angles_of_a_model_with_two_is_refused():
    """One long neighbour would turn every other sequence of the block by the second set."""
    ropes = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16,
             "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}  # fmt: skip
    forward = ModelForward(policy=tiny_llama(rope_parameters=ropes))
    short = ([5] * 6, [6] * 6)
    forward.logprobs(Sequences.of(*([part] * 2 for part in short)))
    with pytest.raises(ContractError, match="original_max_position_embeddings=16"):
        forward.logprobs(Sequences.of([short[0], short[0]], [short[1], [6] * 12]))


def test_a_trunk_that_is_not_found_is_said():
    model = tiny_llama()
    model.base_model_prefix = "elsewhere"  # as of Llama 4's text model: its trunk is then the whole model
    with pytest.raises(ContractError, match="trunk is not where it says"):
        ModelForward(policy=model)


# ------------------------------------------------------------------------------------------------ kept tokens


def kept_of(responses, *, vocabulary=300, unrestricted=()):
    """For each response which tokens could be drawn at each place: its own and a few others; None for some rows."""
    generator = torch.Generator().manual_seed(4)
    sets = [
        [sorted({t, *torch.randint(vocabulary, (1 + i % 3,), generator=generator).tolist()}) for i, t in enumerate(r)]
        for r in responses
    ]
    records = [
        None if row in unrestricted else Kept(array("i", map(len, of_row)), array("i", [t for k in of_row for t in k]))
        for row, of_row in enumerate(sets)
    ]
    return sets, records


def restricted(sequences, records):
    return dataclasses.replace(sequences, kept=KeptBlock.of(records).padded(sequences.mask_BT.shape[1]))


@pytest.mark.parametrize("reader", [None, read_whole_logits])
def test_among_kept_tokens_logprobs_entropy_and_exact_kl_are_those_of_each_sequence_alone(
    causal, other, rows, sequences, reader
):
    sets, records = kept_of(rows[1], unrestricted=(1,))
    model = copy.deepcopy(causal.model)
    if reader is not None:
        vars(model)["assent_reader"] = reader
    forward = ModelForward(policy=model, reference=other, temperature=0.7)
    outputs = forward.leashed(restricted(sequences, records))
    for b, (prompt, response) in enumerate(zip(*rows, strict=True)):
        ids = torch.tensor([[*prompt, *response]])
        p, q = (m(ids).logits[0].double() / 0.7 for m in (causal.model, other))
        for t, token in enumerate(response):
            among = list(range(300)) if records[b] is None else sets[b][t]
            at = len(prompt) - 1 + t
            ours, theirs = p[at, among].log_softmax(-1), q[at, among].log_softmax(-1)
            expected = (ours[among.index(token)], -(ours.exp() * ours).sum(), (ours.exp() * (ours - theirs)).sum())
            got = (outputs.logprobs_BT[b, t], outputs.entropy_BT[b, t], outputs.kl_BT[b, t])
            torch.testing.assert_close(torch.stack(got).double(), torch.stack(expected), rtol=1e-3, atol=3e-5)


def test_kept_tokens_follow_their_rows_through_micro_batches(causal, rows, sequences):
    _, records = kept_of(rows[1], unrestricted=(2,))
    whole = restricted(sequences, records)
    expected = token_logprobs(causal.model, whole, temperature=1.0)
    (again,) = in_blocks(lambda s: (token_logprobs(causal.model, s, temperature=1.0),), whole, block_tokens=12)
    torch.testing.assert_close(again, expected, **TOLERANCE)
    twice = whole.select(torch.tensor([3, 1, 3])).select(torch.tensor([2, 1]))
    torch.testing.assert_close(
        token_logprobs(causal.model, twice, temperature=1.0), expected[[3, 1], : twice.mask_BT.shape[1]], **TOLERANCE
    )
    assert (expected != token_logprobs(causal.model, sequences, temperature=1.0)).any(1).tolist() == [
        True,
        True,
        False,
        True,
    ]
