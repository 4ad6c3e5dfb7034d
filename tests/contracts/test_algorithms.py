"""What every algorithm must do, whatever it is; a new one is taken up by adding its name to `CASES`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from assent.algorithms.apo_down import APODown
from assent.algorithms.apo_zero import APOZero
from assent.algorithms.bco import BCO
from assent.algorithms.cispo import CISPO
from assent.algorithms.cpo import CPO
from assent.algorithms.dpo import DPO
from assent.algorithms.grpo import GRPO
from assent.algorithms.hinge import Hinge
from assent.algorithms.ipo import IPO
from assent.algorithms.kto import KTO
from assent.algorithms.leash import ExactInLoss, K2InLoss, KLInReward
from assent.algorithms.online_dpo import OnlineDPO
from assent.algorithms.orpo import ORPO
from assent.algorithms.plackett_luce import PlackettLuce
from assent.algorithms.ppo import PPO
from assent.algorithms.ppo_lagrangian import PPOLagrangian
from assent.algorithms.process_reward import ProcessReward
from assent.algorithms.reinforce import Reinforce
from assent.algorithms.reinforce_pp import ReinforcePP
from assent.algorithms.reinforce_pp_baseline import ReinforcePPBaseline
from assent.algorithms.remax import ReMax
from assent.algorithms.reward_model import RewardModel
from assent.algorithms.rloo import RLOO
from assent.algorithms.robust_dpo import RobustDPO
from assent.algorithms.safety_reward_model import SafetyRewardModel
from assent.algorithms.sft import SFT
from assent.algorithms.simpo import SimPO
from assent.algorithms.soft_reward_model import SoftRewardModel
from assent.evals.toy_world import TableForward, Tables
from assent.track.catalogue import lookup
from assent.types import (
    BaselinedBatch,
    ComparisonBatch,
    ConstantLength,
    ConstrainedExperience,
    Experience,
    LabelledComparisonBatch,
    PairBatch,
    PairExperience,
    PolicyExperience,
    RankedComparisonBatch,
    Reduction,
    ReferencedPairBatch,
    SequenceMean,
    Sequences,
    SoftComparisonBatch,
    StepBatch,
    TokenBatch,
    TokenMean,
    UnpairedBatch,
)


def sequences_of(count: int, seed: int) -> Sequences:
    """Responses of one and two tokens over a vocabulary of 3, two prompts."""
    ids = torch.randint(0, 3, (count, 3), generator=torch.Generator().manual_seed(seed)).tolist()
    return Sequences.of([[r[0] % 2] for r in ids], [r[1 : 2 + i % 2] for i, r in enumerate(ids)])


def tokens(seed: int) -> TokenBatch:
    return TokenBatch(sequences_of(9, seed))


def comparisons(seed: int) -> ComparisonBatch:
    """Prompts of 2, 3 and 4 responses of two tokens each, in a chain of preferences."""
    counts = [2, 3, 4, 2]
    total = sum(counts)
    ids = torch.randint(0, 3, (total, 2), generator=torch.Generator().manual_seed(seed)).tolist()
    starts = [sum(counts[:g]) for g in range(len(counts))]
    pairs = [(s + i, s + j, g) for g, s in enumerate(starts) for i in range(counts[g]) for j in range(i + 1, counts[g])]
    group = [g for g, k in enumerate(counts) for _ in range(k)]
    return ComparisonBatch(
        Sequences.of([[g % 2] for g in group], ids),
        torch.tensor(counts),
        torch.tensor([p[0] for p in pairs]),
        torch.tensor([p[1] for p in pairs]),
        torch.tensor([p[2] for p in pairs]),
        torch.full((len(pairs),), 0.2, dtype=torch.float64),
    )


COUNTS, CHOSEN, REJECTED = [2, 4, 3, 1, 2], [0, 2, 2, 4, 5, 6, 8, 10], [1, 3, 4, 3, 2, 7, 6, 11]
"""Five prompts, the second with four responses in four pairs, the fourth with a response in no pair."""


def steps(seed: int) -> StepBatch:
    """Every second solution has a label on its first token, all on their last: hard ones and shares."""
    sequences = sequences_of(9, seed)
    at = torch.arange(2) == sequences.response_lengths_B[:, None] - 1
    at[::2, 0] = True
    shares = torch.rand(at.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return StepBatch(sequences, at, torch.where(at, torch.where(shares > 0.7, 1.0, shares), 0.0))


def soft_comparisons(seed: int) -> SoftComparisonBatch:
    """The same pairs with shares of votes, a tie and a plain choice among them."""
    base = comparisons(seed)
    targets = 0.5 + 0.5 * torch.rand(len(base.better_P), generator=torch.Generator().manual_seed(seed))
    targets[0], targets[1] = 0.5, 1.0
    return SoftComparisonBatch(**vars(base), target_P=targets)


def rankings(seed: int) -> RankedComparisonBatch:
    """The second prompt of three responses has no whole ranking."""
    ranks = torch.tensor([1, 2, 1, 1, 1, 1, 2, 3, 4, 1, 2])
    return RankedComparisonBatch(
        **vars(comparisons(seed)), ranks_B=ranks, ranked_G=torch.tensor([True, False, True, True])
    )


def labelled_comparisons(seed: int) -> LabelledComparisonBatch:
    """Labels of all prompts but one."""
    base = comparisons(seed)
    safe = torch.rand(len(base.sequences), generator=torch.Generator().manual_seed(seed)) > 0.4
    labelled = torch.tensor([True] * 5 + [False] * 4 + [True] * 2)
    safe[0] = False
    return LabelledComparisonBatch(**vars(base), safe_B=safe & labelled, labelled_B=labelled)


def pairs(seed: int) -> PairBatch:
    indices = torch.tensor(COUNTS), torch.tensor(CHOSEN), torch.tensor(REJECTED)
    return PairBatch(sequences_of(sum(COUNTS), seed), *indices)


def by_the_reference(sequences: Sequences) -> torch.Tensor:
    """Another table than the policy."""
    with torch.no_grad():
        log = TableForward(Tables(2, 3, seed=7)).logprobs(sequences)
    return torch.where(sequences.mask_BT, log, 0.0).sum(1)


def referenced_pairs(seed: int) -> ReferencedPairBatch:
    base = pairs(seed)
    return ReferencedPairBatch(
        base.sequences, base.counts_G, base.chosen_P, base.rejected_P, by_the_reference(base.sequences)
    )


def single_judgements(seed: int) -> BaselinedBatch:
    """Responses that were judged up to three times, against a baseline."""
    sequences = sequences_of(sum(COUNTS), seed)
    rows = torch.tensor([0, 1, 2, 2, 2, 4, 5, 6, 8, 9, 10, 11])
    desirable = torch.arange(len(rows)) % 3 != 1
    batch = UnpairedBatch(sequences, torch.tensor(COUNTS), rows, desirable, by_the_reference(sequences))
    return batch.against(0.2)


def experience(seed: int) -> Experience:
    sequences = sequences_of(9, seed)
    g = torch.Generator().manual_seed(seed)
    shape = sequences.mask_BT.shape
    with torch.no_grad():
        old = TableForward(Tables(2, 3, seed=7)).logprobs(sequences)
    noise = [torch.where(sequences.mask_BT, torch.randn(shape, generator=g, dtype=torch.float64), 0.0) for _ in "abc"]
    return Experience(sequences, torch.where(sequences.mask_BT, old, 0.0), *noise)


def constrained_experience(seed: int) -> ConstrainedExperience:
    base = experience(seed)
    return ConstrainedExperience(
        base.sequences, base.old_logprobs_BT, base.advantages_BT, base.old_values_BT, base.returns_BT,
        old_cost_values_BT=torch.where(base.mask_BT, base.old_values_BT - 0.3, 0.0),
        cost_returns_BT=torch.where(base.mask_BT, 0.5 * base.returns_BT + base.advantages_BT, 0.0),
    )  # fmt: skip


def reduced_by(reduction: Reduction) -> Callable[[int], PolicyExperience]:
    """Experience without a critic, a little off-policy, with a KL term."""

    def made(seed: int) -> PolicyExperience:
        base = experience(seed)
        weights_BT, units_B = reduction.weigh(base.sequences.mask_BT)
        ref = base.old_logprobs_BT + 0.3 * base.returns_BT
        return PolicyExperience(base.sequences, base.old_logprobs_BT, ref, base.advantages_BT, weights_BT, units_B, 0.2)

    return made


def own_pairs(seed: int) -> PairExperience:
    """Pairs of the policy's own responses, some ordered for certain and some by chance."""
    known = referenced_pairs(seed)
    with torch.no_grad():
        old = TableForward(Tables(2, 3, seed=7)).logprobs(known.sequences)
    target = torch.linspace(0.5, 1.0, len(known.chosen_P), dtype=torch.float64)
    parts = (known.sequences, known.counts_G, known.chosen_P, known.rejected_P, known.ref_logprobs_B)
    return PairExperience(*parts, old, target, 0.5)


Case = tuple[Any, Callable[[int], Any]]
CASES: dict[str, Case] = {
    "sft": (SFT(), tokens),
    "reward_model": (RewardModel(), comparisons),
    "reward_model centred": (RewardModel(centering=0.01), comparisons),
    "process_reward": (ProcessReward(), steps),
    "soft reward model": (SoftRewardModel(), soft_comparisons),
    "plackett_luce": (PlackettLuce(), rankings),
    "safety reward model": (SafetyRewardModel(coefficient=0.7), labelled_comparisons),
    "dpo": (DPO(), referenced_pairs),
    "dpo with every option": (DPO(beta=0.5, label_smoothing=0.1, nll_weight=0.2), referenced_pairs),
    "dpo length-normalised": (DPO(beta=5.0, length_normalised=True), referenced_pairs),
    "robust_dpo": (RobustDPO(), referenced_pairs),
    "ipo": (IPO(), referenced_pairs),
    "hinge": (Hinge(), referenced_pairs),
    "apo_zero": (APOZero(), referenced_pairs),
    "apo_down": (APODown(label_smoothing=0.1), referenced_pairs),
    "cpo": (CPO(), pairs),
    "kto": (KTO(desirable_weight=1.3), single_judgements),
    "bco": (BCO(), single_judgements),
    "simpo": (SimPO(), pairs),
    "simpo with nll": (SimPO(nll_weight=0.5), pairs),
    "orpo": (ORPO(), pairs),
    "ppo": (PPO(), experience),
    "ppo with every option": (PPO(dual_clip=3.0, entropy_coef=0.01, value_clip=None, clip_high=0.28), experience),
    "ppo in critic warm-up": (PPO(critic_warmup_steps=5).at(0), experience),
    "ppo_lagrangian": (PPOLagrangian(), constrained_experience),
    "reinforce": (Reinforce(), reduced_by(ConstantLength(1))),
    "reinforce_pp": (ReinforcePP(), reduced_by(TokenMean())),
    "reinforce_pp_baseline": (ReinforcePPBaseline(), reduced_by(TokenMean())),
    "remax": (ReMax(), reduced_by(ConstantLength(1))),
    "cispo": (CISPO(clip_high=0.1), reduced_by(TokenMean())),
    "online_dpo": (OnlineDPO(), own_pairs),
    "rloo": (RLOO(), reduced_by(ConstantLength(1))),
    "grpo": (GRPO(), reduced_by(SequenceMean())),
    "grpo with k2": (GRPO(leash=K2InLoss()), reduced_by(SequenceMean())),
    "grpo with exact kl": (GRPO(leash=ExactInLoss()), reduced_by(SequenceMean())),
    "grpo with kl in the reward": (GRPO(leash=KLInReward()), reduced_by(SequenceMean())),
    "grpo as dr grpo": (GRPO(scale_by_std=False, reduction=ConstantLength(5)), reduced_by(ConstantLength(5))),
    "grpo as dapo": (GRPO(clip_high=0.28, reduction=TokenMean()), reduced_by(TokenMean())),
    "grpo as gspo": (GRPO(sequence_ratio=True, clip_low=3e-4, clip_high=4e-4), reduced_by(SequenceMean())),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request) -> Case:
    return CASES[request.param]


def tables() -> Tables:
    made = Tables(2, 3, seed=1)
    with torch.no_grad():
        made.scores_XVV.normal_(generator=torch.Generator().manual_seed(2))
        made.values_XS.normal_(generator=torch.Generator().manual_seed(3))
        made.cost_values_XS.normal_(generator=torch.Generator().manual_seed(4))
    return made


def gradient(algorithm: Any, batches: list[Any]) -> torch.Tensor:
    """Of the summed loss over several batches, undivided."""
    model = tables()
    torch.stack([algorithm.loss(batch, TableForward(model)).sum() for batch in batches]).sum().backward()
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
    )


def test_it_is_a_frozen_value_that_refuses_unknown_settings(case):
    algorithm, _ = case
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        algorithm.surely_no_field = 1
    adapter = TypeAdapter(type(algorithm))
    assert adapter.validate_python(dataclasses.asdict(algorithm)) == algorithm
    with pytest.raises(ValidationError, match="surely_no_field"):
        adapter.validate_python({"surely_no_field": 1})


def test_the_sum_and_the_denominator_add_over_units(case):
    algorithm, make = case
    batch = make(0)
    units = [batch.select(torch.tensor([i])) for i in range(len(batch))]
    assert sum(u.denominator for u in units) == pytest.approx(batch.denominator)
    assert int(sum(u.costs for u in units)) == int(batch.costs.sum())
    torch.testing.assert_close(gradient(algorithm, units), gradient(algorithm, [batch]), rtol=1e-9, atol=1e-12)


def test_the_order_of_units_changes_nothing(case):
    algorithm, make = case
    batch = make(1)
    shuffled = batch.select(torch.randperm(len(batch), generator=torch.Generator().manual_seed(9)))
    torch.testing.assert_close(gradient(algorithm, [shuffled]), gradient(algorithm, [batch]), rtol=1e-9, atol=1e-12)


POISONED = ("labels_BT", "advantages_BT", "returns_BT", "old_logprobs_BT", "ref_logprobs_BT", "old_values_BT",
            "weights_BT", "old_cost_values_BT", "cost_returns_BT")  # fmt: skip


def test_what_is_masked_changes_nothing_not_even_as_nan(case):
    """Poison beyond each response: token ids and every tensor of the experience."""
    algorithm, make = case
    batch = make(2)
    s = batch.sequences
    ids = s.token_ids_BL.clone()
    beyond = torch.arange(ids.shape[1]) >= s.lengths_B[:, None]
    ids[beyond] = 2
    clean = Sequences(ids, s.prompt_lengths_B, s.response_lengths_B, s.mask_BT)
    changes: dict[str, Any] = {"sequences": clean}
    for field in POISONED:
        if hasattr(batch, field):
            changes[field] = torch.where(s.mask_BT, getattr(batch, field), float("nan"))
    poisoned = dataclasses.replace(batch, **changes)
    torch.testing.assert_close(gradient(algorithm, [poisoned]), gradient(algorithm, [batch]), rtol=0, atol=0)


def test_every_metric_is_declared_and_a_mean_over_something(case):
    algorithm, make = case
    metrics = algorithm.loss(make(3), TableForward(tables())).metrics
    assert metrics
    for name, mean in metrics.items():
        lookup(name)
        assert mean.count > 0 and mean.value == mean.value


def test_metrics_add_like_the_loss(case):
    algorithm, make = case
    batch = make(4)
    whole = algorithm.loss(batch, TableForward(tables())).metrics
    for name, mean in whole.items():
        parts = [algorithm.loss(batch.select(torch.tensor([i])), TableForward(tables())).metrics[name]
                 for i in range(len(batch))]  # fmt: skip
        assert sum(p.total for p in parts) == pytest.approx(mean.total, rel=1e-6, abs=1e-6)
        assert sum(p.count for p in parts) == pytest.approx(mean.count)


def test_it_leaves_its_batch_untouched(case):
    algorithm, make = case
    batch, again = make(5), make(5)
    gradient(algorithm, [batch])
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(again, field.name))
