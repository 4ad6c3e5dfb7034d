"""The handles that the loops and parts hold: what each can be asked, never how it does it.

Every class here is a protocol. One contract suite per protocol runs over every implementation.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

from torch import Tensor, nn

from assent.types import (
    ActorCriticOutputs,
    Batch,
    CombinedScores,
    LeashedOutputs,
    Loss,
    Mean,
    Request,
    Rollout,
    Sample,
    Sampling,
    Scored,
    ScoreEvents,
    Sequences,
    TokenOutputs,
)

State = dict[str, Any]
"""What `torch.save` can write and `torch.load(weights_only=True)` can read: tensors, numbers, text, lists, dicts."""

B = TypeVar("B", bound="ExperienceBatch")
S_out = TypeVar("S_out", bound=Scored, covariant=True)
S_in = TypeVar("S_in", bound=Scored, contravariant=True)
B_in = TypeVar("B_in", bound=Batch, contravariant=True)


@runtime_checkable
class Stateful(Protocol):
    """A part whose state is saved with the run and restored bit for bit."""

    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...


class Forward(Protocol):
    """The models of a learner, asked for what a loss needs. Temperature and padding are its business."""

    def logprobs(self, sequences: Sequences) -> Tensor:
        """The policy's log-probability of each response token, [B, T]."""
        ...

    def tokens(self, sequences: Sequences) -> TokenOutputs:
        """The same, with the entropy of each distribution."""
        ...

    def leashed(self, sequences: Sequences) -> LeashedOutputs:
        """`tokens`, with the exact KL(policy || reference) of each state over the whole vocabulary, differentiable in
        the policy alone: `per_token + kl_coef * outputs.kl_BT` is a KL term of a loss."""
        ...

    def values(self, sequences: Sequences) -> Tensor:
        """The critic's value of the state before each response token, [B, T]."""
        ...

    def cost_values(self, sequences: Sequences) -> Tensor:
        """The second critic's value of the same state, the cost to come, [B, T]."""
        ...

    def actor_critic(self, sequences: Sequences) -> ActorCriticOutputs:
        """Log-probabilities, entropies and the critic's values, in one forward where they share a trunk."""
        ...

    def scores(self, sequences: Sequences) -> Tensor:
        """The scalar model's score at the last token of each sequence, [B]."""
        ...

    def step_scores(self, sequences: Sequences, at_BT: Tensor) -> Tensor:
        """The scalar model's score at the named response tokens, which it has read, [B, T]; 0 elsewhere."""
        ...


class OfflineAlgorithm(Protocol[B_in]):
    """Batches of data to a loss: pretraining, SFT, reward models, direct alignment."""

    def loss(self, batch: B_in, forward: Forward) -> Loss: ...


@runtime_checkable
class WholeStep(Protocol):
    """An algorithm whose loss needs to know something of the whole optimiser step, which no micro-batch can know.

    Before any gradient the learner asks `first_pass` of every micro-batch, adds the answers over micro-batches and
    processes, and `complete`s each micro-batch with the sum: the loss is then the same under any split. What `carry`
    makes of the metrics of a finished step is kept with the learner's state and handed to the next.
    """

    def first_pass(self, part: Any, forward: Forward) -> Mapping[str, Mean]:
        """Totals and counts over one micro-batch, without gradient."""
        ...

    def complete(self, part: Any, measured: Mapping[str, Mean], carried: Mapping[str, Mean]) -> Batch:
        """A micro-batch with what its loss needs to know, from the whole step and from the steps before."""
        ...

    def carry(self, carried: Mapping[str, Mean], metrics: Mapping[str, Mean]) -> dict[str, Mean]:
        """What the next step is told, from what this one was told and what it found; over all processes."""
        ...


class ExperienceBatch(Batch, Protocol):
    """A batch that also says how it came about."""

    @property
    def metrics(self) -> Mapping[str, Mean]: ...


class OnlineAlgorithm(Protocol[S_in, B]):
    """Scored rollouts to experience to a loss.

    `epochs` passes are made over each experience, each cut at random into `minibatches` optimiser steps.
    `uses_critic` asks for scored rollouts with a critic's values, `uses_greedy` for ones with the score of a greedy
    response to their prompt; `smallest_group` is how many responses of one prompt it needs to learn from.
    """

    uses_critic: ClassVar[bool]
    uses_greedy: ClassVar[bool]
    smallest_group: ClassVar[int]

    @property
    def epochs(self) -> int: ...
    @property
    def minibatches(self) -> int: ...
    def experience(self, scored: S_in) -> B: ...
    def loss(self, batch: B, forward: Forward) -> Loss: ...
    def stops(self, metrics: Mapping[str, Mean]) -> bool:
        """Whether this update has gone far enough, judged by the metrics of its last optimiser step."""
        ...

    def at(self, step: int) -> Self:
        """The algorithm as it is in force at a step, for what changes over a run (critic warm-up)."""
        ...


class Engine(Protocol):
    """Samples responses. Tokens of a request depend on its prompt, seed and the weights, not on its neighbours."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Sample]:
        """One sample per request, in order."""
        ...

    def sync(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Take these weights; afterwards `fingerprint` proves which ones the engine samples from."""
        ...

    def fingerprint(self) -> str:
        """Digest of the weights that the next token will be sampled from."""
        ...


class Scorer(Protocol):
    """A judge of rollouts: reward model, rule, person."""

    @property
    def name(self) -> str: ...
    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        """One tuple of events per rollout, in order; an empty tuple means "no score"."""
        ...


@runtime_checkable
class Metered(Protocol):
    """A scorer whose answers cost something: calls, tokens, time."""

    def metrics(self) -> Mapping[str, Mean]:
        """What it spent since this was last asked."""
        ...


@runtime_checkable
class Itemised(Protocol):
    """A scorer that is made of others and can say what each of them said."""

    @property
    def name(self) -> str: ...
    @property
    def parts(self) -> Sequence[Scorer]: ...
    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]: ...
    def itemised(self, rollouts: Sequence[Rollout]) -> CombinedScores:
        """Its own events, the same as those of `score`, and its parts' scores, from one look at the rollouts."""
        ...


class Scoring(Stateful, Protocol):
    """Rollouts to `Scored`: scores, shaping, old and reference log-probabilities, values, KL coefficient."""

    def __call__(self, rollouts: Sequence[Rollout]) -> Scored: ...


class ScoringOf(Stateful, Protocol[S_out]):
    """A scoring that gives a known kind of `Scored`, for what wraps one and hands on the same."""

    def __call__(self, rollouts: Sequence[Rollout]) -> S_out: ...


class Follower(Stateful, Protocol):
    """A part that changes as the policy's weights do."""

    def follow(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """These are the weights of a version; one that has been seen before changes nothing."""
        ...


class Keep(Stateful, Protocol):
    """Takes scored samples: keeps the best, asks annotators, adds up an evaluation."""

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> None: ...


class Guard(Stateful, Protocol):
    """Ends a run that has gone too far."""

    def spent(self, scored: Scored) -> bool:
        """Whether to stop; the guard has then put the policy back where it should be."""
        ...


class Source(Stateful, Protocol):
    """Prompts through an engine: yields (step, rollouts) from where it stands, and passes new weights on."""

    def __iter__(self) -> Iterator[tuple[int, list[Rollout]]]: ...
    def __len__(self) -> int:
        """Steps in all."""
        ...

    def sync(self, weights: Mapping[str, Tensor], *, version: int) -> None: ...


class BatchSource(Stateful, Protocol):
    """Data through a tokenizer: yields (step, batch) from where it stands."""

    def __iter__(self) -> Iterator[tuple[int, Batch]]: ...
    def __len__(self) -> int:
        """Steps in all."""
        ...


class Learner(Stateful, Protocol):
    """Owns modules, reduction, gradients, clipping and the optimiser."""

    def step(self, batch: Batch, algorithm: OfflineAlgorithm) -> dict[str, Mean]:
        """One optimiser step on one batch."""
        ...

    def update(self, experience: Batch, algorithm: OnlineAlgorithm) -> dict[str, Mean]:
        """Epochs times minibatches optimiser steps on one experience."""
        ...

    def weights(self) -> Mapping[str, Tensor]:
        """The policy's weights, by name, as an engine takes them."""
        ...


class Processes(Protocol):
    """The group of equal learners."""

    @property
    def rank(self) -> int: ...
    @property
    def world(self) -> int: ...
    def sum_number(self, x: float) -> float: ...
    def sum_metrics(self, metrics: dict[str, Mean]) -> dict[str, Mean]: ...
    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by the sum over the group."""
        ...


class Tracker(Stateful, Protocol):
    """Takes metrics and shows progress."""

    def log(self, step: int, metrics: Mapping[str, Mean | float]) -> None:
        """Record one step; turns `Mean` into a number, once."""
        ...

    def progress(self, done: int, total: int) -> None:
        """Move the bar of the running stage."""
        ...


class StageTracker(Tracker, Protocol):
    """What a running stage is given: a tracker that also times the phases of its steps."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """See `Phase`."""
        ...


class Checkpoint(Protocol):
    """Saves every part whole, in one atomic file, and brings them all back."""

    def restore(self) -> int:
        """Load the newest state, if any; the number of steps it had finished, 0 for a fresh start."""
        ...

    def after_step(self, done: int) -> None:
        """Called after each finished step; saves when one is due."""
        ...


class Phase(Protocol):
    """Times the named phases of a step."""

    def __call__(self, name: str) -> AbstractContextManager[None]: ...
