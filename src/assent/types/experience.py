"""From scores to a loss, and what a forward pass gives on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assent.types.batches import Sequences
from assent.types.metrics import Mean
from assent.types.rollouts import Rollout, ScoreEvents


@dataclass(frozen=True)
class NamedScores:
    """What one scorer said of each rollout, summed over its events, before any normalisation."""

    name: str
    scores_B: Tensor


@dataclass(frozen=True)
class CombinedScores:
    """What a scorer made of others says of each rollout.

    Args:
        events: its own verdict, one tuple per rollout; empty means "no score".
        parts: what each of the others said, raw; nan where it gave no score.
        metrics: of how they were combined.
    """

    events: Sequence[ScoreEvents]
    parts: tuple[NamedScores, ...]
    metrics: Mapping[str, Mean]


@dataclass(frozen=True)
class Scored:
    """Rollouts with everything that is known before an algorithm looks at them.

    Args:
        score_events_BT: the scores the policy will be trained on, after normalisation, clipping and penalties, each on
            the token it was given for.
        scores: what each scorer said, untouched.
        old_logprobs_BT: the learner's own log-probabilities before the update.
        ref_logprobs_BT: the reference's, at the same temperature.
        kl_coef: the KL coefficient in force for this batch, in score units per nat.
        metrics: of the rollouts and scores.
    """

    rollouts: tuple[Rollout, ...]
    sequences: Sequences
    score_events_BT: Tensor
    scores: tuple[NamedScores, ...]
    old_logprobs_BT: Tensor
    ref_logprobs_BT: Tensor
    kl_coef: float
    metrics: Mapping[str, Mean] = field(default_factory=dict)

    @property
    def mask_BT(self) -> Tensor:
        return self.sequences.mask_BT

    @property
    def groups_B(self) -> Tensor:
        """int64: the samples of one prompt share a number."""
        numbers: dict[str, int] = {}
        return torch.tensor(
            [numbers.setdefault(r.prompt.id, len(numbers)) for r in self.rollouts], device=self.mask_BT.device
        )

    @property
    def sampler_logprobs_BT(self) -> Tensor:
        """Log-probability of each token under the distribution that the engine drew it from; 0 where masked."""
        return sampler_logprobs(self.rollouts, self.mask_BT).to(self.old_logprobs_BT.dtype)


def sampler_logprobs(rollouts: Sequence[Rollout], mask_BT: Tensor) -> Tensor:
    """What the engine said of the tokens it drew, `[B, T]` in double precision; 0 where masked."""
    sampled_BT = torch.zeros(mask_BT.shape, dtype=torch.float64)
    for row, rollout in enumerate(rollouts):
        sampled_BT[row, : len(rollout.token_ids)] = torch.tensor(rollout.sampler_logprobs, dtype=torch.float64)
    return torch.where(mask_BT, sampled_BT.to(mask_BT.device), 0.0)


@dataclass(frozen=True)
class BaselinedScored(Scored):
    """Scored rollouts with the score of the policy's most probable response to the same prompt, shaped like theirs."""

    baseline_B: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True)
class CriticScored(Scored):
    """Scored rollouts with the critic's value before each response token."""

    values_BT: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True)
class CostScored(CriticScored):
    """Scored rollouts of a constrained objective: what each response costs, and how much cost weighs.

    Args:
        cost_events_BT: the cost, above 0 where it is too much, on the token it was given for.
        cost_values_BT: the second critic's value, the cost to come, before each response token.
        multiplier: lambda of the Lagrangian in force for this batch, reward units per cost unit.
    """

    cost_events_BT: Tensor = field(default_factory=lambda: torch.empty(0))
    cost_values_BT: Tensor = field(default_factory=lambda: torch.empty(0))
    multiplier: float = 0.0


@dataclass(frozen=True)
class Experience:
    """What an actor-critic update trains on; one sequence is one unit, one included token one item of the loss.

    Masked places of its tensors are 0, whatever was there: a nan times a zero gradient would be a nan gradient.
    """

    sequences: Sequences
    old_logprobs_BT: Tensor
    advantages_BT: Tensor
    old_values_BT: Tensor
    returns_BT: Tensor
    metrics: Mapping[str, Mean] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _zero_where_masked(self, ("old_logprobs_BT", "advantages_BT", "old_values_BT", "returns_BT"))

    def __len__(self) -> int:
        return len(self.sequences)

    def select(self, rows: Tensor) -> "Experience":
        sequences = self.sequences.select(rows)
        t = sequences.mask_BT.shape[1]
        return Experience(
            sequences,
            self.old_logprobs_BT[rows, :t],
            self.advantages_BT[rows, :t],
            self.old_values_BT[rows, :t],
            self.returns_BT[rows, :t],
        )

    @property
    def mask_BT(self) -> Tensor:
        return self.sequences.mask_BT

    @property
    def costs(self) -> Tensor:
        return self.sequences.lengths_B

    @property
    def prompts(self) -> Tensor:
        return self.sequences.distinct_prompts()[1]

    @property
    def denominator(self) -> float:
        return float(self.mask_BT.sum())


@dataclass(frozen=True)
class ConstrainedExperience(Experience):
    """`Experience` with what the second critic trains on; its advantages are those of the Lagrangian."""

    old_cost_values_BT: Tensor = field(default_factory=lambda: torch.empty(0))
    cost_returns_BT: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        _zero_where_masked(self, ("old_cost_values_BT", "cost_returns_BT"))

    def select(self, rows: Tensor) -> "ConstrainedExperience":
        kept = super().select(rows)
        t = kept.mask_BT.shape[1]
        return ConstrainedExperience(
            kept.sequences,
            kept.old_logprobs_BT,
            kept.advantages_BT,
            kept.old_values_BT,
            kept.returns_BT,
            old_cost_values_BT=self.old_cost_values_BT[rows, :t],
            cost_returns_BT=self.cost_returns_BT[rows, :t],
        )


@dataclass(frozen=True)
class PolicyExperience:
    """What an update without a critic trains on; one sequence is one unit, one included token one item of the loss.

    Args:
        old_logprobs_BT: the learner's log-probabilities before the update.
        ref_logprobs_BT: the reference's.
        advantages_BT: constants, computed over whole groups before anything is split.
        weights_BT: of each token in the sum of the loss, as from a `Reduction`.
        units_B: what each sequence adds to the denominator, as from the same.
        kl_coef: of a KL term in the loss; 0 where the KL is in the advantages.
        metrics: of the experience.

    Masked places of its tensors are 0, as in `Experience`.
    """

    sequences: Sequences
    old_logprobs_BT: Tensor
    ref_logprobs_BT: Tensor
    advantages_BT: Tensor
    weights_BT: Tensor
    units_B: Tensor
    kl_coef: float
    metrics: Mapping[str, Mean] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _zero_where_masked(self, ("old_logprobs_BT", "ref_logprobs_BT", "advantages_BT", "weights_BT"))
        if self.units_B.shape != (len(self.sequences),):
            raise ValueError(f"units_B must have one number per sequence; got {tuple(self.units_B.shape)}")

    def __len__(self) -> int:
        return len(self.sequences)

    def select(self, rows: Tensor) -> "PolicyExperience":
        sequences = self.sequences.select(rows)
        t = sequences.mask_BT.shape[1]
        return PolicyExperience(
            sequences,
            self.old_logprobs_BT[rows, :t],
            self.ref_logprobs_BT[rows, :t],
            self.advantages_BT[rows, :t],
            self.weights_BT[rows, :t],
            self.units_B[rows],
            self.kl_coef,
        )

    @property
    def mask_BT(self) -> Tensor:
        return self.sequences.mask_BT

    @property
    def costs(self) -> Tensor:
        return self.sequences.lengths_B

    @property
    def prompts(self) -> Tensor:
        return self.sequences.distinct_prompts()[1]

    @property
    def denominator(self) -> float:
        return float(self.units_B.double().sum())


def _zero_where_masked(experience: Experience | PolicyExperience, names: Sequence[str]) -> None:
    """Check that the named tensors are [B, T], and put 0 at their masked places."""
    mask = experience.sequences.mask_BT
    for name in names:
        given = getattr(experience, name)
        if given.shape != mask.shape:
            raise ValueError(f"{name} must have the mask's shape {tuple(mask.shape)}; got {tuple(given.shape)}")
        object.__setattr__(experience, name, torch.where(mask, given, 0.0))


@dataclass(frozen=True)
class Loss:
    """A loss per item, reduced by nobody but the learner.

    Args:
        per_item: differentiable, any shape.
        mask: bool, same shape; items outside it are ignored even when they are nan.
        metrics: detached totals and counts over the same items.
    """

    per_item: Tensor
    mask: Tensor
    metrics: Mapping[str, Mean] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.per_item.shape != self.mask.shape or self.mask.dtype != torch.bool:
            raise ValueError(
                f"per_item and a bool mask must share a shape; got {tuple(self.per_item.shape)}, "
                f"{tuple(self.mask.shape)} {self.mask.dtype}"
            )

    def sum(self) -> Tensor:
        return torch.where(self.mask, self.per_item, torch.zeros_like(self.per_item)).sum()


@dataclass(frozen=True)
class TokenOutputs:
    """Log-probability of each response token and entropy of the distribution it came from; 0 where masked."""

    logprobs_BT: Tensor
    entropy_BT: Tensor


@dataclass(frozen=True)
class ActorCriticOutputs:
    """`TokenOutputs` and the value of the state before each response token; 0 where masked."""

    logprobs_BT: Tensor
    entropy_BT: Tensor
    values_BT: Tensor


@dataclass(frozen=True)
class LeashedOutputs:
    """`TokenOutputs` and KL(policy || reference) of the state before each response token, exact, in nats; 0 where
    masked."""

    logprobs_BT: Tensor
    entropy_BT: Tensor
    kl_BT: Tensor
