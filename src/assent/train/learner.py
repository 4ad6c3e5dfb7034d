"""The learner: modules, reduction, gradients, clipping, optimiser. Nothing else divides a loss."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assent.errors import ContractError, NonFiniteError
from assent.protocols import BatchSource, Forward, OfflineAlgorithm, OnlineAlgorithm, Processes, State, WholeStep
from assent.train.schedule import Schedule
from assent.types import Batch, Loss, Mean, SharedPrompts, add_metrics, moved
from assent.types.micro_batches import cut_evenly, micro_batches


@dataclass(frozen=True)
class Stream:
    """One batch under one algorithm: its loss, divided by its own denominator and weighted, is added to the step.

    Several streams make one optimiser step: PPO-ptx adds pretraining text to an experience.
    """

    batch: Batch
    algorithm: OfflineAlgorithm
    coefficient: float = 1.0


@dataclass(frozen=True)
class Mixture:
    """Data mixed into every optimiser step of an update (InstructGPT's PPO-ptx).

    Args:
        source: where the batches come from; must not run dry.
        algorithm: their loss.
        coefficient: multiplies their mean loss; 27.8 in InstructGPT, in its normalisation (tune by gradient norm).
    """

    source: BatchSource
    algorithm: OfflineAlgorithm
    coefficient: float


class LocalLearner:
    """A learner in this process, or one of several equal ones that add up their gradients.

    The loss of a step is the sum over all items of all micro-batches and processes, divided once by the global
    denominator; so micro-batch size, padding and process count cannot change a gradient or a metric.

    Args:
        forward: the models as a loss sees them.
        roles: the modules to train, by role; `policy` is what `weights` returns. Gradients are clipped role by role,
            since a critic's gradient says nothing about the policy's scale.
        optimizers: already built on the parameters of `roles`.
        schedule: factor on every learning rate.
        total_steps: optimiser steps of the whole run, which the schedule spans.
        token_budget: tokens of one micro-batch, padding included: memory and speed, never results.
        max_grad_norm: per role; 1.0 as in Llama 2.
        seed: of the minibatch shuffles.
        quarantine: folder that receives the batch of a non-finite loss or gradient.
        processes: the group this learner belongs to.
        mixture: data mixed into every step of `update`.
    """

    def __init__(
        self,
        forward: Forward,
        roles: Mapping[str, nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        schedule: Schedule,
        total_steps: int,
        token_budget: int,
        seed: int,
        quarantine: Path,
        processes: Processes,
        max_grad_norm: float = 1.0,
        mixture: Mixture | None = None,
    ) -> None:
        self.forward, self.roles, self.optimizers = forward, nn.ModuleDict(dict(roles)), list(optimizers)
        self.schedule, self.total_steps, self.token_budget = schedule, total_steps, token_budget
        self.quarantine, self.processes, self.max_grad_norm = quarantine, processes, max_grad_norm
        self.mixture, self._mixed = mixture, None if mixture is None else iter(mixture.source)
        self.steps_done = 0
        self.carried: dict[str, Mean] = {}
        self.generator = torch.Generator().manual_seed(seed)
        self.peaks = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    @property
    def device(self) -> torch.device:
        """Where the models are, and where each micro-batch is moved to as it is read."""
        return next(self.roles.parameters()).device

    # ------------------------------------------------------------------------------------------------ the two verbs

    def step(self, batch: Batch, algorithm: OfflineAlgorithm) -> dict[str, Mean]:
        """One optimiser step on one batch; returns the metrics of its items."""
        return self._step([Stream(batch, algorithm)])

    def update(self, experience: Batch, algorithm: OnlineAlgorithm) -> dict[str, Mean]:
        """`epochs` passes over an experience, each cut at random into `minibatches` optimiser steps.

        Ends early when the algorithm says so (its KL limit for one update).
        """
        total: dict[str, Mean] = {}
        for _ in range(algorithm.epochs):
            order = torch.randperm(len(experience), generator=self.generator)
            for rows in cut_evenly(order, algorithm.minibatches):
                streams = [Stream(experience.select(rows), algorithm), *self._next_mixture()]
                metrics = self._step(streams)
                total = add_metrics(total, metrics)
                if algorithm.stops(metrics):
                    return total
        return total

    def _next_mixture(self) -> Iterator[Stream]:
        if self.mixture is not None and self._mixed is not None:
            _, batch = next(self._mixed)
            yield Stream(batch, self.mixture.algorithm, self.mixture.coefficient)

    def gradients(
        self, batch: Batch, algorithm: OfflineAlgorithm, *, token_budget: int | None = None
    ) -> dict[str, Tensor]:
        """The gradient that a step on this batch would take, by name, unclipped; nothing is moved and nothing is kept.

        Args:
            token_budget: of the micro-batches; the learner's own when None. It must not change the gradient.
        """
        self._backward([Stream(batch, algorithm)], token_budget or self.token_budget)
        found = {n: p.grad for n, p in self.roles.named_parameters() if p.grad is not None}
        self.roles.zero_grad(set_to_none=True)
        return found

    # ------------------------------------------------------------------------------------------------ one step

    def _step(self, streams: Sequence[Stream]) -> dict[str, Mean]:
        metrics = self._backward(streams, self.token_budget)
        norms = self._clip(streams)
        factor = self.schedule.factor(self.steps_done, self.total_steps)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            optimizer.step()
        self.steps_done += 1
        metrics = self.processes.sum_metrics(metrics)
        for stream in streams:
            if isinstance(stream.algorithm, WholeStep):
                self.carried = stream.algorithm.carry(self.carried, metrics)
        return metrics | norms | {"lr": Mean(self.optimizers[0].param_groups[0]["lr"], 1.0)}

    def _backward(self, streams: Sequence[Stream], token_budget: int) -> dict[str, Mean]:
        """Fresh gradients of the sum of the streams, over all processes."""
        self.roles.zero_grad(set_to_none=True)
        metrics: dict[str, Mean] = {}
        for stream in streams:
            metrics = add_metrics(metrics, self._accumulate(stream, token_budget))
        self.processes.sum_gradients(list(self.roles.parameters()))
        return metrics

    def _accumulate(self, stream: Stream, token_budget: int) -> dict[str, Mean]:
        denominator = self.processes.sum_number(stream.batch.denominator)
        if denominator <= 0:
            raise ContractError(
                "a batch has nothing to train on",
                got=f"{len(stream.batch)} units, all of them masked",
                why="the mean over no item is undefined, and a zero gradient would look like success",
                fix="look at the token audit of the first batch: the mask must include response tokens",
            )
        split = micro_batches(stream.batch.costs, token_budget, _together(stream.batch))
        complete = self._completion(stream, split)
        metrics: dict[str, Mean] = {}
        for rows in split:
            part = complete(moved(stream.batch.select(rows), self.device))
            loss = stream.algorithm.loss(part, self.forward)
            total = loss.sum()
            if not torch.isfinite(total):
                raise self._refuse(part, "loss", _first_bad_item(loss))
            (total * (stream.coefficient / denominator)).backward()
            metrics = add_metrics(metrics, loss.metrics)
        return metrics

    def _completion(self, stream: Stream, split: Sequence[Tensor]) -> Callable[[Batch], Batch]:
        """What makes a micro-batch ready for its loss: nothing, but for an algorithm that must know the whole step."""
        algorithm = stream.algorithm
        if not isinstance(algorithm, WholeStep):
            return lambda part: part
        measured: dict[str, Mean] = {}
        with torch.no_grad():
            for rows in split:
                found = algorithm.first_pass(moved(stream.batch.select(rows), self.device), self.forward)
                measured = add_metrics(measured, found)
        whole = self.processes.sum_metrics(measured)
        return lambda part: algorithm.complete(part, whole, self.carried)

    def _clip(self, streams: Sequence[Stream]) -> dict[str, Mean]:
        norms = {}
        for role, module in self.roles.items():
            parameters = [p for p in module.parameters() if p.grad is not None]
            # The norm is looked at before anything is scaled by it: a nan factor would spoil the good tensors too.
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if not torch.isfinite(norm):
                bad = [n for n, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
                raise self._refuse(streams[0].batch, "gradient", f"{role}.{bad[0] if bad else 'norm'}")
            nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, norm)
            norms["grad_norm" if role == "policy" else f"grad_norm/{role}"] = Mean(norm.item(), 1.0)
        return norms

    def _refuse(self, batch: Batch, kind: str, where: str) -> NonFiniteError:
        self.quarantine.mkdir(parents=True, exist_ok=True)
        path = self.quarantine / f"non_finite_step_{self.steps_done}.pt"
        torch.save(_as_state(moved(batch, torch.device("cpu"))), path)
        bad = next((n for n, p in self.roles.named_parameters() if not p.isfinite().all()), None)
        return NonFiniteError(
            f"a {kind} is not finite at optimiser step {self.steps_done}",
            got=f"first bad tensor: {'weight ' + bad if bad else where}; the batch is kept in {path}",
            why="the optimiser step was not taken, so the weights are those of the step before",
            fix="look at the kept batch; lower the learning rate or clip the scores if weights are blowing up",
        )

    # ------------------------------------------------------------------------------------------------ weights, state

    def weights(self) -> Mapping[str, Tensor]:
        """The policy's tensors themselves, not copies."""
        return dict(self.roles["policy"].named_parameters())

    def state_dict(self) -> State:
        return {
            "roles": self.roles.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "steps_done": self.steps_done,
            "carried": {name: [mean.total, mean.count] for name, mean in self.carried.items()},
            "generator": self.generator.get_state(),
            "mixture": {} if self.mixture is None else self.mixture.source.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.roles.load_state_dict(state["roles"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps_done = state["steps_done"]
        self.carried = {name: Mean(*both) for name, both in state["carried"].items()}
        self.generator.set_state(state["generator"])
        if self.mixture is not None:
            self.mixture.source.load_state_dict(state["mixture"])
            self._mixed = iter(self.mixture.source)


def _together(batch: Batch) -> Tensor | None:
    return batch.prompts if isinstance(batch, SharedPrompts) else None


def _first_bad_item(loss: Loss) -> str:
    bad = (loss.mask & ~loss.per_item.isfinite()).nonzero()
    return f"item {bad[0].tolist()} of the loss" if len(bad) else "the sum of the loss"


def _as_state(batch: Any) -> Any:
    """Dataclasses as dicts of tensors, so that the kept batch opens anywhere."""
    if is_dataclass(batch) and not isinstance(batch, type):
        return {f.name: _as_state(getattr(batch, f.name)) for f in fields(batch)}
    return batch if isinstance(batch, Tensor | int | float | str) else repr(batch)
