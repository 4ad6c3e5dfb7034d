"""What follows the policy: reset and average of the reference, the average that is saved; each once per version."""

import io

import pytest
import torch
from torch import nn

from assent.errors import ContractError
from assent.protocols import Follower
from assent.train.divergence import exact_divergence, first_divergence
from assent.train.followers import Averaging, MovingReference, ReferenceAverage, ReferenceReset, WeightAverage
from assent.train.guard import KLBudget, KLGuard
from assent.types import Mean, Prompt, Rollout, Scored, Sequences


def model(value: float) -> nn.Module:
    made = nn.Linear(2, 1, dtype=torch.float64)
    with torch.no_grad():
        made.weight.fill_(value)
        made.bias.fill_(-value)
    return made


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters())


def history(part: Follower, policy: nn.Module, held, versions, start: float = 0.0) -> list[float]:
    """One weight of what follows, after each version; the policy's weight is its version."""
    seen = []
    for version in versions:
        with torch.no_grad():
            policy.weight.fill_(start + version)
        part.follow(weights(policy), version=version)
        seen.append(held().item())
    return seen


def test_a_reset_takes_the_policy_as_it_is_and_ages_in_between():
    policy, reference = model(0.0), model(-1.0)
    part = MovingReference(ReferenceReset(every=3), reference)
    ages = []
    seen = []
    for version in range(8):
        seen += history(part, policy, lambda: reference.weight[0, 0], [version])
        ages.append(part.metrics()["kl/reference_age"].value)
    assert seen == [-1, -1, -1, 3, 3, 3, 6, 6]
    assert ages == [0, 1, 2, 0, 1, 2, 0, 1]
    with torch.no_grad():
        policy.weight.fill_(99.0)
    assert reference.weight[0, 0] == 6.0, "a snapshot, never a view of the policy"


def test_an_average_is_the_sum_of_its_definition():
    policy, reference = model(0.0), model(0.0)
    seen = history(MovingReference(ReferenceAverage(0.25), reference), policy, lambda: reference.weight[0, 0], range(6))
    assert seen[-1] == pytest.approx(sum(0.25 * 0.75 ** (5 - v) * v for v in range(1, 6)))
    slow = model(0.0)
    part = MovingReference(ReferenceAverage(0.25, every=2), slow)
    assert history(part, policy, lambda: slow.weight[0, 0], range(6))[-1] == pytest.approx(0.25 * 0.75 * 2 + 0.25 * 4)


def test_the_average_that_is_saved_leaves_the_policy_alone_until_the_end():
    policy = model(1.0)
    part = WeightAverage(Averaging(0.9), policy)
    history(part, policy, lambda: part.kept["weight"][0, 0], range(1, 4))
    wanted = 0.9**3 * 1.0 + 0.1 * (0.9**2 * 1 + 0.9 * 2 + 3)
    assert part.kept["weight"][0, 0].item() == pytest.approx(wanted) and policy.weight[0, 0] == 3.0
    part.put()
    assert policy.weight[0, 0].item() == pytest.approx(wanted) and policy.bias[0].item() == pytest.approx(-1.0)


PARTS = {
    "reset": lambda policy, reference: MovingReference(ReferenceReset(every=3), reference),
    "ema": lambda policy, reference: MovingReference(ReferenceAverage(0.3, every=2), reference),
    "average": lambda policy, reference: WeightAverage(Averaging(0.9), policy),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("cut", [0, 1, 3, 5])
def test_resuming_changes_nothing_and_a_version_counts_once(name, cut):
    def state_after(versions, state=None):
        policy, reference = model(0.5), model(0.0)
        part: Follower = PARTS[name](policy, reference)
        if state is not None:
            part.load_state_dict(state)
        history(part, policy, lambda: reference.weight[0, 0], versions, start=0.1)
        torch.save(part.state_dict(), buffer := io.BytesIO())
        buffer.seek(0)
        return torch.load(buffer, weights_only=True)

    whole = state_after(range(8))
    # The loop passes on again, when it resumes, the version that it had finished.
    resumed = state_after(range(cut, 8), state_after(range(cut + 1)))
    for key in ("weights", "kept"):
        for n in whole.get(key, {}):
            assert torch.equal(whole[key][n], resumed[key][n])
    assert {k: v for k, v in whole.items() if not isinstance(v, dict)} == {
        k: v for k, v in resumed.items() if not isinstance(v, dict)
    }


def test_a_reference_of_another_shape_is_refused():
    part = MovingReference(ReferenceReset(every=1), nn.Linear(3, 1))
    with pytest.raises(ContractError, match="not those of the model that follows"):
        part.follow(weights(model(1.0)), version=1)


@pytest.mark.parametrize(
    "make",
    [lambda: ReferenceReset(0), lambda: ReferenceAverage(0.0), lambda: ReferenceAverage(1.1), lambda: Averaging(1.0)],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()


# ------------------------------------------------------------------------------------------------ divergences


def scored_of(old: float, ref: float) -> Scored:
    sequences = Sequences.of([[1], [1]], [[2, 3, 4], [5]])
    filled = [torch.where(sequences.mask_BT, torch.full(sequences.mask_BT.shape, x), 0.0) for x in (old, ref)]
    rollouts = tuple(Rollout(Prompt(f"p{i}", "x", (1,)), (2,), (-0.1,), True, "", 0) for i in range(2))
    metrics = {"objective/kl": Mean(2 * (old - ref) * 2, 2)}
    return Scored(rollouts, sequences, torch.zeros_like(filled[0]), (), *filled, 0.1, metrics)


def test_divergences_are_summed_over_each_response():
    scored = scored_of(-0.5, -0.6)
    note = first_divergence(lambda s: torch.full(s.mask_BT.shape, -0.8), token_budget=4)
    assert note(scored)["kl/first"].value == pytest.approx(0.3 * (3 + 1) / 2, rel=1e-5)
    exact = exact_divergence(lambda s: torch.full(s.mask_BT.shape, 0.25), token_budget=4)
    assert exact(scored)["kl/exact"].value == pytest.approx(0.25 * (3 + 1) / 2)


def test_the_budget_counts_from_the_first_reference_where_that_is_known():
    policy = model(1.0)
    guard, scored = KLGuard(KLBudget(limit=1.0), policy), scored_of(-0.5, -0.6)
    assert not guard.spent(scored)
    far = {**scored.metrics, "kl/first": Mean(4.0, 2)}
    from dataclasses import replace

    assert guard.spent(replace(scored, metrics=far))
