"""The worlds whose optimum is known, and how they are trained on."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from assent.dist.processes import Alone
from assent.evals import toy_world as toy
from assent.protocols import OfflineAlgorithm, State
from assent.train.learner import LocalLearner
from assent.train.schedule import Schedule
from assent.types import Batch

PROMPTS, VOCABULARY, SAMPLES, KL_COEF = 2, 3, 128, 0.5
TOLERANCE = 0.02
"""Largest total variation that counts as arrived: sampled learning leaves noise of about half of it."""

SEQUENCE_OPTIMUM = "ref * exp(reward / beta) / Z"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table: `distance` is a total variation, 0 to 1, or the largest error of a score difference."""

    algorithm: str
    optimum: str
    start: float
    distance: float
    tolerance: float

    @property
    def arrived(self) -> bool:
        return self.distance <= self.tolerance < self.start


def world() -> tuple[toy.Tables, toy.Tables, Tensor]:
    policy, reference = toy.Tables(PROMPTS, VOCABULARY, seed=1), toy.Tables(PROMPTS, VOCABULARY, seed=2)
    generator = torch.Generator().manual_seed(3)
    return policy, reference, torch.randn(PROMPTS, VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64)


def learner_of(tables: toy.Tables, *, lr: float, steps: int, floor: float) -> LocalLearner:
    return LocalLearner(
        toy.TableForward(tables),
        {"policy": tables},
        [torch.optim.Adam(tables.parameters(), lr=lr)],
        schedule=Schedule("linear", floor=floor),
        total_steps=steps,
        token_budget=10**6,
        seed=0,
        quarantine=Path(tempfile.gettempdir()) / "assent-verify",
        processes=Alone(),
        max_grad_norm=float("inf"),
    )


def fit(tables: toy.Tables, batch: Batch, algorithm: OfflineAlgorithm, *, steps: int) -> None:
    learner = learner_of(tables, lr=0.05, steps=steps, floor=0.01)
    for _ in range(steps):
        learner.step(batch, algorithm)


class Quiet:
    """A tracker for a run that nobody watches."""

    def log(self, step: int, metrics: object) -> None: ...
    def progress(self, done: int, total: int) -> None: ...
    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None: ...


class Once:
    """A checkpoint for a run of seconds."""

    def restore(self) -> int:
        return 0

    def after_step(self, done: int) -> None: ...
