"""The learner: one denominator, clipping by role, refusal of what is not finite, mixtures, early ends."""

from pathlib import Path

import pytest
import torch
from torch import nn

from assent.algorithms.ppo import PPO
from assent.algorithms.sft import SFT
from assent.dist.processes import Alone
from assent.errors import ContractError, NonFiniteError
from assent.evals.toy_world import TableForward, Tables
from assent.train.learner import LocalLearner, Mixture
from assent.train.schedule import Schedule
from assent.types import Experience, Loss, Mean, Sequences, TokenBatch


def learner_of(tables: Tables, folder: Path, **changes) -> LocalLearner:
    optimizer = changes.pop("optimizer", None) or torch.optim.SGD(tables.parameters(), lr=1.0)
    settings = dict(
        schedule=Schedule("constant"), total_steps=100, token_budget=1000, seed=0, quarantine=folder,
        processes=Alone(), max_grad_norm=1e9,
    )  # fmt: skip
    return LocalLearner(TableForward(tables), {"policy": tables}, [optimizer], **(settings | changes))


def batch_of(rows: list[tuple[int, int, int]]) -> TokenBatch:
    return TokenBatch(Sequences.of([[x] for x, _, _ in rows], [[a, b] for _, a, b in rows]))


def experience_of(count: int, seed: int = 0) -> Experience:
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 3, (count, 3), generator=g)
    sequences = Sequences.of([[int(r[0]) % 2] for r in ids], [[int(r[1]), int(r[2])] for r in ids])
    noise = [torch.randn(count, 2, generator=g, dtype=torch.float64) for _ in range(3)]
    with torch.no_grad():
        old = TableForward(Tables(2, 3, seed=5)).logprobs(sequences)
    return Experience(sequences, old, noise[0], noise[1], noise[2])


def test_micro_batch_size_changes_no_weight_and_no_metric(tmp_path):
    """Sequences of unequal weight would tell a mean of means from a mean."""
    rows = [(0, 0, 1), (1, 2, 2), (0, 1, 1), (1, 0, 2), (0, 2, 0)]
    results = []
    for budget in (1, 4, 7, 1000):
        tables = Tables(2, 3, seed=1)
        metrics = learner_of(tables, tmp_path, token_budget=budget).step(batch_of(rows), SFT())
        results.append((tables.logits_XSV.detach().clone(), metrics["loss/tokens"].value, metrics["grad_norm"].value))
    for logits, loss, norm in results[1:]:
        torch.testing.assert_close(logits, results[0][0], rtol=1e-12, atol=1e-12)
        assert loss == pytest.approx(results[0][1], rel=1e-12)
        assert norm == pytest.approx(results[0][2], rel=1e-12)


def test_micro_batches_of_unequal_token_counts_are_not_averaged(tmp_path):
    """One row with a hole in its mask: the loss is the mean over the five included tokens, not over rows."""
    batch = batch_of([(0, 0, 1), (1, 2, 2), (0, 1, 1)])
    mask = batch.sequences.mask_BT.clone()
    mask[0, 1] = False
    s = batch.sequences
    holed = TokenBatch(Sequences(s.token_ids_BL, s.prompt_lengths_B, s.response_lengths_B, mask))
    tables = Tables(2, 3, seed=1)
    log = tables.logits_XSV.detach().log_softmax(-1)
    by_hand = -(log[0, 0, 0] + log[1, 0, 2] + log[1, 3, 2] + log[0, 0, 1] + log[0, 2, 1]) / 5
    metrics = learner_of(tables, tmp_path, token_budget=1).step(holed, SFT())
    assert metrics["loss/tokens"].value == pytest.approx(by_hand.item(), rel=1e-12)


def test_ppo_update_is_the_same_under_any_token_budget(tmp_path):
    results = []
    for budget in (3, 10, 10_000):
        tables = Tables(2, 3, seed=5)
        learner = learner_of(tables, tmp_path, token_budget=budget)
        learner.update(experience_of(23), PPO(epochs=2, minibatches=3))
        results.append(torch.cat([p.detach().flatten() for p in tables.parameters()]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(results[2], results[0], rtol=1e-10, atol=1e-12)


def test_each_epoch_uses_every_sequence_once(tmp_path):
    seen: list[int] = []

    class Spy(PPO):
        def loss(self, batch, forward):
            seen.extend((batch.returns_BT[:, 0] * 1e6).round().long().tolist())
            return PPO().loss(batch, forward)

    experience = experience_of(10)
    learner_of(Tables(2, 3, seed=5), tmp_path, token_budget=6).update(experience, Spy(epochs=3, minibatches=4))
    wanted = sorted((experience.returns_BT[:, 0] * 1e6).round().long().tolist() * 3)
    assert sorted(seen) == wanted


def test_gradients_are_clipped_role_by_role(tmp_path):
    policy, critic = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        policy.weight.fill_(0.0)
        critic.weight.fill_(0.0)

    class Steep:
        def loss(self, batch, forward):
            per_item = (3 * policy.weight + 400 * critic.weight).view(1).expand(len(batch))
            return Loss(per_item, torch.ones(len(batch), dtype=torch.bool))

    roles = {"policy": policy, "critic": critic}
    optimizer = torch.optim.SGD([*policy.parameters(), *critic.parameters()], lr=1.0)
    learner = LocalLearner(
        None, roles, [optimizer], schedule=Schedule("constant"), total_steps=1, token_budget=10, seed=0,
        quarantine=tmp_path, processes=Alone(), max_grad_norm=5.0,
    )  # fmt: skip
    batch = TokenBatch(Sequences.of([[0]], [[1]]))
    metrics = learner.step(batch, Steep())
    assert policy.weight.item() == pytest.approx(-3.0, rel=1e-5), "within the limit: untouched by the critic's norm"
    assert critic.weight.item() == pytest.approx(-5.0, rel=1e-4)
    assert metrics["grad_norm/critic"].value == pytest.approx(400.0)


def test_a_loss_that_is_not_finite_stops_before_the_step_and_keeps_the_batch(tmp_path):
    tables = Tables(2, 3, seed=1)
    before = tables.logits_XSV.detach().clone()

    class Broken:
        def loss(self, batch, forward):
            per_token = -forward.logprobs(batch.sequences)
            per_token = torch.where(torch.tensor([[False, True]]), per_token * float("inf"), per_token)
            return Loss(per_token, batch.sequences.mask_BT)

    with pytest.raises(NonFiniteError, match=r"item \[0, 1\] of the loss"):
        learner_of(tables, tmp_path).step(batch_of([(0, 0, 1), (1, 1, 1)]), Broken())
    assert torch.equal(tables.logits_XSV, before)
    kept = torch.load(next(tmp_path.glob("non_finite_step_0.pt")), weights_only=True)
    assert kept["sequences"]["token_ids_BL"].tolist() == [[0, 0, 1], [1, 1, 1]]


def test_a_gradient_that_is_not_finite_names_its_tensor(tmp_path):
    tables = Tables(2, 3, seed=1)
    before = tables.logits_XSV.detach().clone()

    class RootAtZero:
        """A finite loss with an infinite gradient."""

        def loss(self, batch, forward):
            per_item = (tables.values_XS[0, :1] * 0).sqrt() + forward.logprobs(batch.sequences)[:, 0]
            return Loss(per_item, torch.ones(len(batch), dtype=torch.bool))

    with pytest.raises(NonFiniteError, match=r"policy\.values_XS"):
        learner_of(tables, tmp_path).step(batch_of([(0, 0, 1)]), RootAtZero())
    assert torch.equal(tables.logits_XSV, before)


def test_a_batch_with_nothing_to_train_on_is_refused(tmp_path):
    s = batch_of([(0, 0, 1)]).sequences
    nothing = Sequences(s.token_ids_BL, s.prompt_lengths_B, s.response_lengths_B, torch.zeros_like(s.mask_BT))
    with pytest.raises(ContractError, match="nothing to train on"):
        learner_of(Tables(2, 3), tmp_path).step(TokenBatch(nothing), SFT())


class _Endless:
    """A batch source of one batch, again and again, that counts."""

    def __init__(self, batch: TokenBatch) -> None:
        self.batch, self.given = batch, 0

    def __iter__(self):
        while True:
            self.given += 1
            yield self.given - 1, self.batch

    def __len__(self) -> int:
        return 10**6

    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.given = state["given"]


def test_a_mixture_adds_its_own_mean_gradient_times_its_coefficient(tmp_path):
    """PPO-ptx: gradient = experience's + coefficient * that of the text, each over its own denominator."""
    experience, text = experience_of(6), batch_of([(0, 1, 1), (1, 2, 0), (0, 0, 0)])
    ppo = PPO(epochs=1, minibatches=1)

    def moved(run, mixture=None) -> torch.Tensor:
        tables = Tables(2, 3, seed=5)
        start = tables.logits_XSV.detach().clone()
        run(learner_of(tables, tmp_path, mixture=mixture))
        return tables.logits_XSV.detach() - start

    alone = moved(lambda learner: learner.update(experience, ppo))
    language = moved(lambda learner: learner.step(text, SFT()))
    source = _Endless(text)
    mixed = moved(lambda learner: learner.update(experience, ppo), Mixture(source, SFT(), 27.8))
    torch.testing.assert_close(mixed, alone + 27.8 * language, rtol=1e-9, atol=1e-12)
    assert source.given == 1


@pytest.mark.parametrize(("rows", "asked", "sizes"), [(6, 4, [2, 2, 1, 1]), (9, 8, [2] + [1] * 7), (3, 5, [1] * 3)])
def test_a_pass_takes_as_many_steps_as_it_was_asked_for(tmp_path, rows, asked, sizes):
    """However few the rows; the schedule counts on it. Minibatches of one pass differ by one row at most."""
    seen = []

    class Counting(PPO):
        def loss(self, batch, forward):
            seen.append(len(batch))
            return PPO.loss(self, batch, forward)

    learner = learner_of(Tables(2, 3, seed=5), tmp_path)
    learner.update(experience_of(rows), Counting(epochs=2, minibatches=asked))
    assert learner.steps_done == 2 * len(sizes) and seen == 2 * sizes


def test_an_update_ends_early_at_its_kl_limit(tmp_path):
    learner = learner_of(Tables(2, 3, seed=5), tmp_path, optimizer=None)
    for group in learner.optimizers[0].param_groups:
        group["lr"] = 30.0
    learner.peaks = [[30.0]]
    learner.update(experience_of(12), PPO(epochs=8, minibatches=2, update_kl_limit=0.05))
    assert 1 < learner.steps_done < 16


def test_critic_warm_up_leaves_the_policy_alone(tmp_path):
    tables = Tables(2, 3, seed=5)
    logits, values = tables.logits_XSV.detach().clone(), tables.values_XS.detach().clone()
    ppo = PPO(epochs=1, minibatches=2, critic_warmup_steps=3)
    learner_of(tables, tmp_path).update(experience_of(12), ppo.at(2))
    assert torch.equal(tables.logits_XSV, logits)
    assert not torch.equal(tables.values_XS, values)
    learner_of(tables, tmp_path).update(experience_of(12), ppo.at(3))
    assert not torch.equal(tables.logits_XSV, logits)


def test_state_brings_back_weights_optimiser_shuffles_and_schedule(tmp_path):
    def fresh() -> LocalLearner:
        tables = Tables(2, 3, seed=5)
        return learner_of(
            tables, tmp_path, optimizer=torch.optim.AdamW(tables.parameters(), lr=0.1), schedule=Schedule("linear")
        )

    ppo = PPO(epochs=2, minibatches=3)
    whole = fresh()
    for seed in range(4):
        whole.update(experience_of(11, seed), ppo)
    first = fresh()
    for seed in range(2):
        first.update(experience_of(11, seed), ppo)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = fresh()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for seed in range(2, 4):
        second.update(experience_of(11, seed), ppo)
    for a, b in zip(whole.roles.parameters(), second.roles.parameters(), strict=True):
        assert torch.equal(a, b)


def test_metrics_are_totals_over_the_items_of_all_minibatches(tmp_path):
    """Five sequences in two minibatches: three weigh more than two."""

    class Count(PPO):
        def loss(self, batch, forward):
            loss = PPO().loss(batch, forward)
            return Loss(loss.per_item, loss.mask, {"val/ratio": Mean.of(batch.returns_BT, batch.mask_BT)})

    experience = experience_of(5)
    metrics = learner_of(Tables(2, 3, seed=5), tmp_path).update(experience, Count(epochs=1, minibatches=2))
    assert metrics["val/ratio"].value == pytest.approx(experience.returns_BT.mean().item(), rel=1e-9)
