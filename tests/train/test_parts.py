"""Micro-batch plans, schedules, Muon, the KL guard and the state file."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from assent.errors import ArtefactError
from assent.train.checkpoint import StateFile
from assent.train.guard import KLBudget, KLGuard
from assent.train.optimizers import AdamW, Muon, orthogonalise
from assent.train.schedule import Schedule
from assent.types import Mean, Scored, Sequences
from assent.types.micro_batches import map_sequences, micro_batches


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 120), st.integers(1, 9) | st.none())
def test_micro_batches_partition_the_units_within_the_budget(costs, budget, groups):
    together = None if groups is None else torch.arange(len(costs)) * 7 % groups
    parts = micro_batches(torch.tensor(costs), budget, together)
    assert sorted(i for part in parts for i in part.tolist()) == list(range(len(costs)))
    for part in parts:
        widest = max(costs[i] for i in part.tolist())
        assert len(part) == 1 or len(part) * widest <= budget


def test_units_of_one_group_stay_side_by_side():
    costs, together = torch.tensor([3, 9, 5, 9, 2, 7]), torch.tensor([0, 1, 1, 2, 2, 0])
    assert [p.tolist() for p in micro_batches(costs, 1000, together)] == [[1, 2, 3, 4, 5, 0]]
    assert [p.tolist() for p in micro_batches(costs, 18, together)] == [[1, 2], [3, 4], [5, 0]]
    assert [p.tolist() for p in micro_batches(costs, 1000)] == [[1, 3, 5, 2, 0, 4]]


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7)), min_size=1, max_size=12), st.integers(1, 40))
def test_mapping_over_sequences_puts_rows_back_in_order(lengths, budget):
    sequences = Sequences.of([[7] * p for p, _ in lengths], [list(range(10, 10 + r)) for _, r in lengths])
    tokens, count = map_sequences(
        lambda s: (torch.where(s.mask_BT, s.response_ids_BT, 0), s.response_lengths_B), sequences, budget
    )
    assert torch.equal(tokens, torch.where(sequences.mask_BT, sequences.response_ids_BT, 0))
    assert torch.equal(count, sequences.response_lengths_B)


def test_schedule_by_hand():
    cosine = Schedule("cosine", warmup=0.2, start=0.1, floor=0.1)
    assert cosine.factor(0, 10) == pytest.approx(0.55)
    assert cosine.factor(1, 10) == pytest.approx(1.0)
    assert cosine.factor(2, 10) == pytest.approx(1.0)
    assert cosine.factor(6, 10) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert Schedule("linear", floor=0.0).factor(75, 100) == pytest.approx(0.25)
    assert Schedule("constant").factor(99, 100) == 1.0
    with pytest.raises(ValueError, match="share"):
        Schedule("linear", warmup=5)


def test_orthogonalised_matrices_have_singular_values_near_one():
    for shape in ((3, 32, 64), (2, 64, 32), (1, 48, 48)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalise(x))
        assert values.max() < 1.3 and values.quantile(0.1) > 0.5
        u, _, v = torch.linalg.svd(x, full_matrices=False)
        assert torch.nn.functional.cosine_similarity(orthogonalise(x).flatten(), (u @ v).flatten(), dim=0) > 0.95


def test_muon_takes_hidden_matrices_and_leaves_ends_norms_and_biases_to_adamw():
    model = nn.ModuleDict({"embed_tokens": nn.Embedding(5, 4), "layer": nn.Linear(4, 4), "lm_head": nn.Linear(4, 5)})
    muon, adamw = Muon(lr=0.02, rest=AdamW(lr=0.01)).build(model.named_parameters())
    assert [p is model["layer"].weight for g in muon.param_groups for p in g["params"]] == [True]
    assert sum(len(g["params"]) for g in adamw.param_groups) == 4


def test_muon_resumes_exactly():
    def train(model: nn.Linear, optimizers: list, steps: range) -> None:
        for step in steps:
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
            model(x).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

    def fresh() -> tuple[nn.Linear, list]:
        torch.manual_seed(0)
        model = nn.Linear(6, 6)
        return model, Muon(lr=0.02, rest=AdamW(lr=0.01)).build(
            [("hidden." + n, p) for n, p in model.named_parameters()]
        )

    whole, optimizers = fresh()
    train(whole, optimizers, range(6))
    first, optimizers = fresh()
    train(first, optimizers, range(3))
    second, again = fresh()
    second.load_state_dict(first.state_dict())
    for new, old in zip(again, optimizers, strict=True):
        new.load_state_dict(old.state_dict())
    train(second, again, range(3, 6))
    assert torch.equal(whole.weight, second.weight)


def scored_with_kl(kl: float) -> Scored:
    empty = torch.zeros(1, 1)
    return Scored(
        (), Sequences.of([[0]], [[1]]), empty, (), empty, empty, 0.1, {"objective/kl": Mean(kl, 1.0)}
    )  # fmt: skip


def test_the_guard_goes_back_to_the_last_weights_within_the_budget():
    policy = nn.Linear(1, 1, bias=False)
    guard = KLGuard(KLBudget(limit=5.0), policy)
    for weight, kl in ((1.0, 0.0), (2.0, 4.9)):
        nn.init.constant_(policy.weight, weight)
        assert not guard.spent(scored_with_kl(kl))
    nn.init.constant_(policy.weight, 3.0)
    assert guard.spent(scored_with_kl(5.1))
    assert policy.weight.item() == 2.0 and guard.rolled_back


def test_a_guard_without_limit_keeps_no_copy():
    guard = KLGuard(KLBudget(), nn.Linear(1, 1))
    assert not guard.spent(scored_with_kl(1e9)) and not guard.kept


class Counter:
    def __init__(self) -> None:
        self.value = 0

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_state_file_restores_what_was_saved_and_counts_the_steps(tmp_path):
    counter = Counter()
    state = StateFile(tmp_path, {"counter": counter}, every_seconds=0)
    assert state.restore() == 0
    counter.value = 7
    state.after_step(3)
    other = Counter()
    assert StateFile(tmp_path, {"counter": other}).restore() == 3 and other.value == 7


def test_state_file_saves_when_due_and_not_before(tmp_path):
    now = [0.0]
    state = StateFile(tmp_path, {"counter": Counter()}, every_seconds=10, clock=lambda: now[0])
    state.after_step(1)
    assert not state.path.exists()
    now[0] = 10.0
    state.after_step(2)
    assert state.path.exists()


def test_a_state_of_other_parts_or_a_damaged_one_is_refused(tmp_path):
    StateFile(tmp_path, {"counter": Counter()}).save(1)
    with pytest.raises(ArtefactError, match="another set-up"):
        StateFile(tmp_path, {"counter": Counter(), "critic": Counter()}).restore()
    (tmp_path / "state.pt").write_bytes(b"half")
    with pytest.raises(ArtefactError, match="cannot be read"):
        StateFile(tmp_path, {"counter": Counter()}).restore()


def test_an_interrupted_save_leaves_the_last_whole_state(tmp_path):
    """A part that fails while it is being saved stands for a kill between two writes."""

    class Fragile(Counter):
        def state_dict(self):
            if self.value == 2:
                raise KeyboardInterrupt
            return super().state_dict()

    part = Fragile()
    state = StateFile(tmp_path, {"part": part})
    part.value = 1
    state.save(1)
    part.value = 2
    with pytest.raises(KeyboardInterrupt):
        state.save(2)
    again = Counter()
    assert StateFile(tmp_path, {"part": again}).restore() == 1 and again.value == 1
