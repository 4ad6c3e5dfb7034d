"""D1, D3, D4, D5 on a healthy set-up and on the defects they are for."""

import copy

import pytest
import torch
from doctor_parts import END, TEMPERATURE, language_model, learner_on, scoring_on, source_on, world

from assent.algorithms.sft import SFT
from assent.doctor.policy import engine_follows_weights, engine_is_scored, kl_starts_at_zero, ratio_starts_at_one
from assent.errors import CheckFailed
from assent.evals.toy_world import TableEngine, TableForward, Tables
from assent.functional.fingerprint import fingerprint
from assent.models.forward import ModelForward
from assent.rollout.eager import EagerEngine
from assent.rollout.native import NativeEngine
from assent.types import Sampling, Sequences, TokenBatch

FLOAT = torch.float32
PROMPTS = [(5, 6, 7), (8, 9)]
SAMPLING = Sampling(4, (END,), TEMPERATURE)


def gradients(learner):
    return lambda batch, algorithm, budget: learner.gradients(batch, algorithm, token_budget=budget)


# ------------------------------------------------------------------------------------------------ D1


def ratio(parts):
    return ratio_starts_at_one(gradients(parts.learner), parts.experience, parts.algorithm, minibatches=2, dtype=FLOAT)


def test_d1_passes_where_old_and_training_forward_are_one(tmp_path):
    parts = world(tmp_path).parts
    parts.learner.roles.train()
    found = ratio(parts)
    assert found.figure <= 1e-5 and "in training mode" in found.detail


def test_d1_refuses_dropout(tmp_path):
    healthy = world(tmp_path)
    for module in healthy.policy.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    assert healthy.parts.experience is not None  # the old log-probabilities, without dropout
    healthy.policy.model.train()
    with pytest.raises(CheckFailed, match=r"D1 failed(.|\n)*dropout"):
        ratio(healthy.parts)


def test_d1_refuses_a_temperature_that_only_scoring_knows(tmp_path):
    healthy = world(tmp_path)
    plain = ModelForward(policy=healthy.policy.model)
    scoring = healthy.parts.scoring
    wrong = scoring_on(plain.logprobs, plain.logprobs, scoring.values, [w.scorer for w in scoring.scoring.scorers])
    with pytest.raises(CheckFailed, match="instead of 1"):
        ratio(healthy.with_(scoring=wrong))


def test_d1_hears_whatever_the_loss_asks_and_says_so_when_it_asks_nothing(tmp_path):
    parts = world(tmp_path).parts

    values_only = type(parts.algorithm)(policy_coef=0.0)
    found = ratio_starts_at_one(gradients(parts.learner), parts.experience, values_only, minibatches=1, dtype=FLOAT)
    assert "asks for no log-probabilities" in found.detail


# ------------------------------------------------------------------------------------------------ D3


def test_d3_passes_and_reports_the_tail(tmp_path):
    found = engine_is_scored(world(tmp_path).parts.scored, dtype=FLOAT)
    assert found.figure < 1e-4 and "p95" in found.detail and "largest" in found.detail


def test_d3_refuses_an_engine_without_the_temperature(tmp_path):
    healthy = world(tmp_path)

    class Cold:
        """Ignores the temperature it is asked for."""

        def __getattr__(self, name):
            return getattr(healthy.parts.engine, name)

        def generate(self, requests, sampling):
            plain = Sampling(sampling.max_new_tokens, sampling.stop_token_ids)
            return healthy.parts.engine.generate(requests, plain)

    with pytest.raises(CheckFailed, match="temperature"):
        engine_is_scored(healthy.with_(source=source_on(Cold())).scored, dtype=FLOAT)


# ------------------------------------------------------------------------------------------------ D4


def follow(engine, model, forward=None):
    forward = forward or ModelForward(policy=model, temperature=TEMPERATURE)
    weights = dict(model.named_parameters())
    return engine_follows_weights(engine, weights, forward.logprobs, PROMPTS, SAMPLING, version=0, dtype=FLOAT)


@pytest.mark.parametrize("make", [NativeEngine, EagerEngine])
@pytest.mark.parametrize("shared", [True, False])
def test_d4_passes_and_puts_every_weight_back(make, shared):
    model = language_model().model
    engine = make(model if shared else copy.deepcopy(model))
    before = fingerprint(dict(model.named_parameters()))
    found = follow(engine, model)
    assert "perturbed one by one" in found.detail
    assert fingerprint(dict(model.named_parameters())) == before == engine.fingerprint()


def test_d4_passes_on_tables():
    tables = Tables(10, 4, dtype=torch.float64)
    engine, forward = TableEngine(tables), TableForward(tables)
    weights = dict(tables.named_parameters())

    class Greedy:
        """Two tokens at most, as the tables have them."""

        sync, fingerprint = engine.sync, engine.fingerprint

        def generate(self, requests, sampling):
            return engine.generate(requests, sampling)

    prompts = [(1,), (2,)]
    sampling = Sampling(2, ())
    found = engine_follows_weights(
        Greedy(), weights, forward.logprobs, prompts, sampling, version=0, dtype=torch.float64
    )
    assert found.figure < 1e-8


class Stale:
    """An engine on its own copy of the weights, with one thing wrong."""

    def __init__(self, model, *, skips=(), lies=False):
        self.model, self.copy, self.skips, self.lies = model, copy.deepcopy(model), skips, lies
        self.inner = NativeEngine(self.copy)

    def generate(self, requests, sampling):
        return self.inner.generate(requests, sampling)

    def sync(self, weights, *, version):
        with torch.no_grad():
            for name, parameter in self.copy.named_parameters():
                if not any(part in name for part in self.skips):
                    parameter.copy_(weights[name])

    def fingerprint(self):
        return fingerprint(dict((self.model if self.lies else self.copy).named_parameters()))


def test_d4_a_copying_engine_that_takes_everything_passes():
    model = language_model().model
    follow(Stale(model), model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skips": ("",)}, "fingerprint stayed the same"),
        ({"skips": ("",), "lies": True}, "nats off"),
        ({"skips": ("h.1.mlp.c_proj.bias",), "lies": True}, "h.1.mlp.c_proj.bias"),
        ({"skips": ("h.0.attn.c_attn.weight",), "lies": True}, "h.0.attn.c_attn.weight"),
    ],
    ids=["stale", "stale and lies", "one bias never taken", "one matrix never taken"],
)
def test_d4_refuses_stale_weights_and_puts_the_learners_back(options, message):
    model = language_model().model
    before = fingerprint(dict(model.named_parameters()))
    with pytest.raises(CheckFailed, match=message):
        follow(Stale(model, **options), model)
    assert fingerprint(dict(model.named_parameters())) == before


def test_d4_refuses_an_engine_with_other_weights_from_the_start():
    with pytest.raises(CheckFailed, match="not that of the learner"):
        follow(Stale(language_model(2).model, skips=("",)), language_model(1).model)


# ------------------------------------------------------------------------------------------------ D5


def test_d5_passes_when_the_reference_is_the_start(tmp_path):
    assert kl_starts_at_zero(world(tmp_path).parts.scored, same_start=True, dtype=FLOAT).figure < 1e-5


def test_d5_refuses_a_wrong_reference_and_only_reports_a_named_one(tmp_path):
    healthy = world(tmp_path)
    scoring = healthy.parts.scoring
    other = ModelForward(policy=language_model(9).model, temperature=TEMPERATURE)
    wrong = scoring_on(scoring.scoring.old, other.logprobs, scoring.values, [w.scorer for w in scoring.scoring.scorers])
    scored = healthy.with_(scoring=wrong).scored
    with pytest.raises(CheckFailed, match="adapters off"):
        kl_starts_at_zero(scored, same_start=True, dtype=FLOAT)
    found = kl_starts_at_zero(scored, same_start=False, dtype=FLOAT)
    mask = scored.mask_BT
    by_hand = sum(
        float((scored.old_logprobs_BT - scored.ref_logprobs_BT)[row][mask[row]].sum()) for row in range(len(mask))
    ) / len(mask)
    assert found.figure == pytest.approx(by_hand, rel=1e-5) and found.tolerance is None


# ------------------------------------------------------------------------------------------------ the learner's part


def test_gradients_are_those_of_a_step_and_leave_nothing(tmp_path):
    model = language_model().model
    learner = learner_on(ModelForward(policy=model), {"policy": model}, tmp_path)
    batch = TokenBatch(Sequences.of([[5, 6], [7]], [[8, 9, END], [3, END]]))
    found = learner.gradients(batch, SFT())
    assert all(p.grad is None for p in model.parameters()) and learner.steps_done == 0
    learner.max_grad_norm = float("inf")
    learner.step(batch, SFT())
    assert all(torch.equal(p.grad, found[f"policy.{n}"]) for n, p in model.named_parameters())
