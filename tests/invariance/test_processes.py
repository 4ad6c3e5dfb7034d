"""One process against two gloo processes: the offline loop ends in the same weights and logs the same metrics."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from assent.algorithms.bco import BCO
from assent.algorithms.dpo import DPO
from assent.algorithms.kto import KTO
from assent.algorithms.reward_model import RewardModel
from assent.algorithms.sft import SFT
from assent.data.batches import ComparisonExample, TokenBatches, TokenExample
from assent.data.comparisons import ComparisonBatches
from assent.data.judged import (
    Compared,
    JudgedBatches,
    Pairs,
    Response,
    SingleJudgements,
    block,
    mismatched,
    mismatched_batch,
    pair_batch,
    row_ranges,
    rows_of,
    unpaired_batch,
)
from assent.dist import processes
from assent.evals.toy_world import TableForward, Tables
from assent.loops.offline import offline
from assent.records import Preference
from assent.train.learner import LocalLearner
from assent.train.schedule import Schedule


class Notes:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def log(self, step, metrics) -> None:
        self.rows.append({n: m.value for n, m in metrics.items()})

    def progress(self, done, total) -> None: ...


class NoCheckpoint:
    def restore(self) -> int:
        return 0

    def after_step(self, done) -> None: ...


def demonstrations(group) -> TokenBatches:
    """Responses of one or two tokens, so that ranks hold unequal numbers of them."""
    g = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 3, (22, 3), generator=g).tolist()
    examples = [TokenExample([r[0] % 2], r[1 : 2 + i % 2]) for i, r in enumerate(rows)]
    return TokenBatches(examples, batch_size=6, epochs=2, seed=1, shard=(group.rank, group.world))


def comparisons(group) -> ComparisonBatches:
    g = torch.Generator().manual_seed(2)
    examples = []
    for i in range(17):
        ids = torch.randint(0, 3, (2 + i % 2, 2), generator=g).tolist()
        pairs = [Preference(a, b) for a in range(len(ids)) for b in range(a + 1, len(ids))]
        examples.append(ComparisonExample([i % 2], ids, pairs))
    return ComparisonBatches(examples, batch_size=5, epochs=2, seed=1, shard=(group.rank, group.world))


def rankings() -> list[Compared]:
    """Two to four responses to each of 17 prompts, of which there are three."""
    g = torch.Generator().manual_seed(2)
    made = []
    for i in range(17):
        k = 2 + i % 3
        ids = torch.randperm(9, generator=g)[:k].tolist()
        responses = tuple(Response.whole([n // 3, n % 3][: 2 - i % 2]) for n in ids)
        pairs = tuple(Preference(a, b) for a in range(k) for b in range(a + 1, k))
        made.append(Compared((i % 2,), responses, pairs))
    return made


def known(rows) -> torch.Tensor:
    with torch.no_grad():
        sequences = block(rows)
        return torch.where(sequences.mask_BT, TableForward(Tables(2, 3, seed=7)).logprobs(sequences), 0.0).sum(1)


def judged(group, units, collate) -> JudgedBatches:
    return JudgedBatches(units, collate, batch_size=6, epochs=2, seed=1, shard=(group.rank, group.world))


def pairs(group) -> JudgedBatches:
    units = Pairs.of(rankings()).units
    return judged(group, units, lambda some: pair_batch(u := [units[i] for i in some], known(rows_of(u))))


def single(group) -> JudgedBatches:
    units = SingleJudgements.of(rankings()).units
    return judged(group, units, lambda some: unpaired_batch(u := [units[i] for i in some], known(rows_of(u))))


def with_mates(group) -> JudgedBatches:
    units = SingleJudgements.of(rankings()).units
    others, ranges = mismatched(units, seed=0), row_ranges(units)

    def collate(some):
        u, mates = [units[i] for i in some], [others[row] for i in some for row in ranges[i]]
        return mismatched_batch(u, known(rows_of(u)), mates, known(mates))

    return judged(group, units, collate)


KINDS = {
    "sft": (demonstrations, SFT()),
    "reward_model": (comparisons, RewardModel()),
    "dpo": (pairs, DPO(beta=0.4, nll_weight=0.2)),
    "kto": (with_mates, KTO(beta=0.4, undesirable_weight=0.8)),
    "bco": (single, BCO(beta=0.4)),
}


def train(kind: str, folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    group = processes.current()
    source, algorithm = KINDS[kind]
    tables = Tables(2, 3, seed=4)
    batches = source(group)
    learner = LocalLearner(
        TableForward(tables), {"policy": tables}, [torch.optim.Adam(tables.parameters(), lr=0.05)],
        schedule=Schedule("linear"), total_steps=len(batches), token_budget=9, seed=0, quarantine=folder,
        processes=group, max_grad_norm=0.3,
    )  # fmt: skip
    notes = Notes()
    offline(batches, algorithm, learner, notes, NoCheckpoint())
    torch.save({"weights": tables.state_dict(), "metrics": notes.rows}, out / f"{group.world}_{group.rank}.pt")


def worker(rank: int, kind: str, folder: Path, port: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train(kind, folder, folder)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(tmp_path: Path, kind: str, unused_port: int):
    train(kind, tmp_path, tmp_path)
    context = multiprocessing.get_context("fork")
    group = [context.Process(target=worker, args=(rank, kind, tmp_path, unused_port)) for rank in range(2)]
    for process in group:
        process.start()
    for process in group:
        process.join(120)
        assert process.exitcode == 0
    alone, first, second = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("1_0", "2_0", "2_1"))
    for name, weight in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-9, atol=1e-12)
        assert torch.equal(first["weights"][name], second["weights"][name])
    assert len(alone["metrics"]) == len(first["metrics"]) > 4
    baselines = [v for row in alone["metrics"] for name, v in row.items() if name.startswith("baseline/")]
    assert kind not in ("kto", "bco") or any(abs(b) > 1e-2 for b in baselines)
    for one, two in zip(alone["metrics"], first["metrics"], strict=True):
        assert one == pytest.approx(two, rel=1e-9)


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
