"""Log-probabilities before an update: the sampler's where it and the learner agree to rounding, the learner's else."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from assent.algorithms.grpo import GRPO
from assent.algorithms.online_dpo import OnlineDPO
from assent.algorithms.ppo import PPO
from assent.algorithms.rloo import RLOO
from assent.dist.processes import Alone
from assent.models.forward import ModelForward, ValueHead
from assent.rewards.function import FunctionScorer
from assent.rollout.native import NativeEngine
from assent.rollout.source import PromptSource
from assent.train.learner import LocalLearner
from assent.train.schedule import Schedule
from assent.train.scoring import PROBED, CriticScoring, KLControl, RolloutScoring, Shaping, old_logprobs
from assent.train.weighing import WeightedScorer
from assent.types import Prompt, Rollout, Sampling, Sequences, sampler_logprobs


def rollouts_of(count: int, *, version: int = 0) -> list[Rollout]:
    """Of 1 to 4 tokens, four to a prompt; the sampler's log-probability is minus the token, less an eighth."""
    ids = [tuple(range(1, 2 + i % 4)) for i in range(count)]
    return [
        Rollout(Prompt(f"{i // 4}", "x", (9, i // 4)), t, tuple(-n - 0.125 for n in t), True, "", version)
        for i, t in enumerate(ids)
    ]


class Reads:
    """A learner whose log-probabilities are those of `rollouts_of`, but for `off`; counts what it was asked."""

    def __init__(self, off: float = 0.0, *, dtype: torch.dtype = torch.float32) -> None:
        self.off, self.dtype, self.asked = off, dtype, 0

    def __call__(self, sequences: Sequences) -> torch.Tensor:
        self.asked += len(sequences)
        at = torch.arange(sequences.mask_BT.shape[1])
        return torch.where(sequences.mask_BT, (-(at + 1.0) - 0.125 + self.off).to(self.dtype), 0.0)


def read(own, rollouts):
    return old_logprobs(own, rollouts, Sequences.of_rollouts(rollouts), token_budget=8)


@pytest.mark.parametrize("count", [9, 16, 43])
def test_where_both_agree_an_eighth_is_read_and_the_rest_is_the_sampler_s(count):
    own, rollouts = Reads(off=1e-5), rollouts_of(count)
    old, told = read(own, rollouts)
    assert own.asked == math.ceil(count / PROBED)
    sampled = sampler_logprobs(rollouts, Sequences.of_rollouts(rollouts).mask_BT).float()
    from_learner = (old != sampled).any(1)
    assert int(from_learner.sum()) == own.asked and torch.allclose(old, sampled, atol=2e-5)
    tokens = sum(len(r.token_ids) for r in rollouts)
    of_learner = sum(len(r.token_ids) for r, is_own in zip(rollouts, from_learner.tolist(), strict=True) if is_own)
    assert told["sampler/taken"].value == pytest.approx(1 - of_learner / tokens)
    assert told["sampler/gap_max"].value == pytest.approx(1e-5, rel=0.1)


@pytest.mark.parametrize(("off", "dtype"), [(1e-4, torch.float32), (math.nan, torch.float32), (1e-7, torch.float64)])
def test_where_they_differ_the_learner_reads_every_response_once(off, dtype):
    own, rollouts = Reads(off, dtype=dtype), rollouts_of(21, version=2)
    old, told = read(own, rollouts)
    assert own.asked == 21 and old.dtype == dtype and told["sampler/taken"].value == 0.0
    assert torch.equal(old.nan_to_num(7.0), Reads(off, dtype=dtype)(Sequences.of_rollouts(rollouts)).nan_to_num(7.0))


def test_one_response_is_always_read():
    own = Reads()
    assert read(own, rollouts_of(1))[1]["sampler/taken"].value == 0.0 and own.asked == 1


@pytest.mark.parametrize("count", [8, 20, 64])
def test_every_response_is_read_within_so_many_versions(count):
    seen = torch.zeros(count, dtype=torch.bool)
    for version in range(PROBED):
        rollouts = rollouts_of(count, version=version)
        old, _ = read(Reads(off=1e-5), rollouts)
        seen |= (old != sampler_logprobs(rollouts, Sequences.of_rollouts(rollouts).mask_BT).float()).any(1)
    assert seen.all()


def test_one_token_of_those_that_are_read_is_enough_to_read_all():
    rollouts = rollouts_of(16)
    rollouts[1] = replace(rollouts[1], sampler_logprobs=(-1.125, -2.125 - 1e-3))
    own = Reads()
    assert read(own, rollouts)[1]["sampler/taken"].value == 0.0 and own.asked == 16


# ------------------------------------------------------------------------------------------ models, engine, learner


def parts(algorithm, folder, *, engine_temperature: float = 0.8, **restriction):
    torch.manual_seed(0)
    shape = dict(n_layer=2, n_embd=32, n_head=4, vocab_size=64, n_positions=64, initializer_range=0.2)
    still = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    policy, reference = (GPT2LMHeadModel(GPT2Config(**shape, **still)) for _ in "pr")
    critic = ValueHead.on(policy) if algorithm.uses_critic else None
    forward = ModelForward(policy=policy, critic=critic, temperature=0.8)
    roles = {"policy": policy} | ({} if critic is None else {"critic": critic})
    learner = LocalLearner(
        forward,
        roles,
        [torch.optim.SGD(policy.parameters(), lr=0.1)],
        schedule=Schedule("constant"),
        total_steps=9,
        token_budget=128,
        seed=0,
        quarantine=folder,
        processes=Alone(),
    )
    source = PromptSource(
        [Prompt(f"{i}", "x", tuple(range(2, 5 + i))) for i in range(6)],
        NativeEngine(policy, slots=8),
        Sampling(16, (1,), engine_temperature, **restriction),
        prompts_per_step=6,
        samples_per_prompt=4,
        steps=9,
        seed=0,
        decode=str,
    )
    scoring = RolloutScoring(
        forward.logprobs,
        ModelForward(policy=reference, temperature=0.8).logprobs,
        [WeightedScorer(FunctionScorer("low", lambda r: -sum(r.token_ids) / 64 / len(r.token_ids)))],
        shaping=Shaping(),
        kl_control=KLControl(0.1),
        token_budget=128,
    )
    return learner, source, CriticScoring(scoring, forward.values) if algorithm.uses_critic else scoring, forward


ALGORITHMS = [
    GRPO(),
    GRPO(importance_cap=2.0),
    RLOO(),
    PPO(epochs=1),
    PPO(epochs=4, minibatches=2, importance_cap=2.0),
    OnlineDPO(),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: f"{a.name}-{a.epochs}x{a.minibatches}")
def test_the_gradient_is_that_of_a_forward_pass_over_everything(algorithm, tmp_path, monkeypatch):
    found = {}
    for probed in (PROBED, 1):
        monkeypatch.setattr("assent.train.scoring.PROBED", probed)
        learner, source, scoring, _ = parts(algorithm, tmp_path)
        scored = scoring(source.rollouts(0))
        assert scored.metrics["sampler/taken"].value == pytest.approx(7 / 8 if probed > 1 else 0.0, abs=0.1)
        found[probed] = learner.gradients(algorithm.experience(scored), algorithm)
    taken, recomputed = found[PROBED], found[1]
    assert taken.keys() == recomputed.keys()
    scale = max(float(g.abs().max()) for g in recomputed.values())
    for name, gradient in taken.items():
        assert float((gradient - recomputed[name]).abs().max()) < 1e-6 * scale + 1e-9, name


def test_weights_that_moved_since_are_told_and_read_anew(tmp_path):
    algorithm = GRPO(importance_cap=2.0)
    learner, source, scoring, forward = parts(algorithm, tmp_path)
    late = source.rollouts(1)
    learner.update(algorithm.experience(scoring(source.rollouts(0))), algorithm)
    scored = scoring(late)
    assert scored.metrics["sampler/taken"].value == 0.0 and scored.metrics["sampler/gap_max"].value > 1e-3
    with torch.no_grad():
        assert torch.allclose(scored.old_logprobs_BT, forward.logprobs(scored.sequences), atol=1e-6)
    weights = algorithm.experience(scored).metrics["importance/mean"].value
    ratios = (scored.old_logprobs_BT - scored.sampler_logprobs_BT).exp().clamp(max=2.0)[scored.mask_BT]
    assert weights == pytest.approx(ratios.mean().item(), rel=1e-5) and weights != 1.0


def test_an_engine_at_another_temperature_is_not_believed(tmp_path):
    _, source, scoring, forward = parts(GRPO(), tmp_path, engine_temperature=0.81)
    scored = scoring(source.rollouts(0))
    assert scored.metrics["sampler/taken"].value == 0.0
    with torch.no_grad():
        assert torch.allclose(scored.old_logprobs_BT, forward.logprobs(scored.sequences), atol=1e-6)


@pytest.mark.parametrize(
    "restriction", [{"top_k": 1}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 12, "top_p": 0.8, "min_new_tokens": 3}]
)
def test_what_was_drawn_from_a_few_tokens_is_scored_among_them(restriction, tmp_path):
    algorithm = PPO(epochs=1)
    learner, source, scoring, forward = parts(algorithm, tmp_path, **restriction)
    rollouts = source.rollouts(0)
    scored = scoring(rollouts)
    assert scored.metrics["sampler/gap_max"].value < 1e-5 and scored.metrics["sampler/taken"].value > 0.7
    with torch.no_grad():
        old, entropy = forward.tokens(scored.sequences).logprobs_BT, forward.tokens(scored.sequences).entropy_BT
        everywhere = forward.logprobs(replace(scored.sequences, kept=None))
    mask = scored.mask_BT
    assert (old - scored.old_logprobs_BT)[mask].abs().max() < 1e-5
    assert (old - everywhere)[mask].min() >= -1e-6 and (old - everywhere)[mask].mean() > 0.1, "fewer to choose from"
    sizes = [n for r in rollouts for n in r.kept.counts]
    assert torch.all(entropy[mask] <= torch.tensor(sizes).log() + 1e-4), "no more than that of equal chances"
    certain = torch.tensor(sizes) == 1
    assert torch.where(certain, scored.ref_logprobs_BT[mask], 0.0).abs().max() < 1e-6, "there the reference is as sure"
    metrics = learner.update(algorithm.experience(scored), algorithm)
    assert metrics["val/ratio"].value == pytest.approx(1, abs=1e-5)
