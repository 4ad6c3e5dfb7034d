"""The carriers: `Prompt -> Rollout -> Scored -> Experience -> Loss`, frozen, checked when made.

Shape legend, used as suffixes everywhere:

* `_B` sequences, `_BL` every token of them (prompt and response, right-padded), `_BT` response tokens (right-padded),
  `_BTV` vocabulary, `_BTD` hidden size;
* `_K` completions of one prompt, `_P` judged pairs, `_M` members of an ensemble, `_S` steps of a solution.

A mask is bool and True means included. Lengths and masks are explicit: nothing is ever read off a token id, so the pad
token may equal the end-of-sequence token. Padding is the number 0 and means nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from assent.records import PromptText

# ------------------------------------------------------------------------------------------------ metrics that add


@dataclass(frozen=True, slots=True)
class Mean:
    """A metric as total and count, so that it adds over micro-batches, minibatches and processes.

    `value` is nan where nothing was counted.
    """

    total: float
    count: float

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None = None) -> "Mean":
        """Total and count of the included elements of `x`; every element when `mask` is None."""
        x = x.detach()
        if mask is None:
            return cls(x.double().sum().item(), float(x.numel()))
        return cls(torch.where(mask, x, torch.zeros_like(x)).double().sum().item(), mask.sum().item())

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else float("nan")


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations; adds exactly (Chan et al. 1979), so order hardly matters."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None = None) -> "Moments":
        kept = (x if mask is None else x[mask]).detach().double()
        if kept.numel() == 0:
            return cls()
        mean = kept.mean()
        return cls(float(kept.numel()), mean.item(), (kept - mean).square().sum().item())

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        if count == 0:
            return Moments()
        gap = other.mean - self.mean
        mean = self.mean + gap * other.count / count
        squares = self.squares + other.squares + gap * gap * self.count * other.count / count
        return Moments(count, mean, squares)

    @property
    def variance(self) -> float:
        """Biased variance (divided by the count); nan when empty."""
        return self.squares / self.count if self.count else float("nan")


def add_metrics(a: Mapping[str, Mean], b: Mapping[str, Mean]) -> dict[str, Mean]:
    """Key by key sum; a key of only one side is kept."""
    total = dict(a)
    for name, mean in b.items():
        total[name] = total[name] + mean if name in total else mean
    return total


# ------------------------------------------------------------------------------------------------ prompts and samples


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt ready for a policy.

    Args:
        id: the identity of the task; every sample of one prompt shares it.
        source: what was asked, as text or dialogue; scorers with another tokenizer re-render it.
        token_ids: the policy's tokens, at least one.
        kind: slice label, empty when unknown.
    """

    id: str
    source: PromptText
    token_ids: tuple[int, ...]
    kind: str = ""

    def __post_init__(self) -> None:
        if not self.token_ids:
            raise ValueError(
                f"a prompt needs at least one token; got none for {self.id!r}; give it text or a BOS token"
            )


@dataclass(frozen=True, slots=True)
class Sampling:
    """The distribution that is sampled from, which is also the one that is scored.

    Args:
        max_new_tokens: length budget of a response, its end token included.
        temperature: divides the logits of policy and reference alike, in sampling and in scoring; > 0.
        greedy: take the most probable token instead; `temperature` still scales the recorded log-probabilities.
        min_new_tokens: end tokens are impossible before this many tokens; the recorded log-probabilities are those of
            the distribution so restricted.
        stop_token_ids: a response ends with the first of these, which is kept as its last token.
    """

    max_new_tokens: int
    stop_token_ids: tuple[int, ...]
    temperature: float = 1.0
    greedy: bool = False
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be above 0; got {self.temperature}; for the most probable token use greedy"
            )
        if self.max_new_tokens < 1 or self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"lengths must satisfy 1 <= max and min <= max; got {self.min_new_tokens=}, {self.max_new_tokens=}"
            )


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to sample: the prompt's tokens and the seed of its own random stream."""

    token_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What an engine returns for one request.

    Args:
        token_ids: the response, with its end token when it `ended`.
        logprobs: log-probability of each token under the distribution it was drawn from.
        ended: the response closed with a stop token within its budget.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.logprobs) or not self.token_ids:
            raise ValueError(
                f"a sample needs one log-probability per token and at least one token; got "
                f"{len(self.token_ids)} tokens, {len(self.logprobs)} log-probabilities"
            )


@dataclass(frozen=True, slots=True)
class Rollout:
    """A prompt and one sampled response. Token ids are the record; `text` is derived and never re-encoded for a loss.

    Args:
        version: number of policy updates the engine's weights had seen.
    """

    prompt: Prompt
    token_ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    ended: bool
    text: str
    version: int


@dataclass(frozen=True, slots=True)
class ScoreEvent:
    """A judge's value at one response token (0 is the first). An outcome score sits on the last token."""

    index: int
    value: float


ScoreEvents = tuple[ScoreEvent, ...]
"""All events of one response; empty means "no score": the sample is dropped and counted."""


# ------------------------------------------------------------------------------------------------ batches of tokens


@dataclass(frozen=True)
class Sequences:
    """Prompts and responses as one right-padded block.

    Args:
        token_ids_BL: int64, prompt then response then padding.
        prompt_lengths_B: int64, at least 1.
        response_lengths_B: int64, at least 1.
        mask_BT: bool, which response tokens are included; False beyond the response, and in its holes (tool output).
    """

    token_ids_BL: Tensor
    prompt_lengths_B: Tensor
    response_lengths_B: Tensor
    mask_BT: Tensor

    def __post_init__(self) -> None:
        if self.mask_BT.dtype != torch.bool:
            raise ValueError(f"mask_BT must be bool; got {self.mask_BT.dtype}; True means included")
        if self.mask_BT.shape != (len(self.prompt_lengths_B), int(self.response_lengths_B.max())):
            raise ValueError(f"mask_BT must be [B, longest response]; got {tuple(self.mask_BT.shape)}")

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> "Sequences":
        """Pad B prompts and their B responses into a block; every response token is included.

        Raises:
            ValueError: the counts differ, or a prompt or a response is empty.
        """
        if len(prompts) != len(responses) or not prompts:
            raise ValueError(f"one response per prompt is needed; got {len(prompts)} and {len(responses)}")
        if not all(prompts) or not all(responses):
            raise ValueError(
                "an empty prompt or response cannot be trained on; drop the row or give it a BOS or end token"
            )
        prompt_lengths = torch.tensor([len(p) for p in prompts])
        response_lengths = torch.tensor([len(r) for r in responses])
        length = int((prompt_lengths + response_lengths).max())
        rows = [[*p, *r, *([0] * (length - len(p) - len(r)))] for p, r in zip(prompts, responses, strict=True)]
        mask = torch.arange(int(response_lengths.max())) < response_lengths[:, None]
        return cls(torch.tensor(rows), prompt_lengths, response_lengths, mask)

    @classmethod
    def of_rollouts(cls, rollouts: Sequence[Rollout]) -> "Sequences":
        return cls.of([r.prompt.token_ids for r in rollouts], [r.token_ids for r in rollouts])

    def __len__(self) -> int:
        return len(self.prompt_lengths_B)

    @property
    def lengths_B(self) -> Tensor:
        return self.prompt_lengths_B + self.response_lengths_B

    @property
    def response_positions_BT(self) -> Tensor:
        """Index into `token_ids_BL` of response token t; clamped into range where t is beyond the response."""
        t = torch.arange(self.mask_BT.shape[1], device=self.token_ids_BL.device)
        return (self.prompt_lengths_B[:, None] + t).clamp(max=self.token_ids_BL.shape[1] - 1)

    @property
    def response_ids_BT(self) -> Tensor:
        return self.token_ids_BL.gather(1, self.response_positions_BT)

    def positions(self) -> Tensor:
        """int64 [1, L]: 0, 1, 2, ...; padding is on the right, so a position does not depend on neighbours."""
        return torch.arange(self.token_ids_BL.shape[1], device=self.token_ids_BL.device)[None]

    def select(self, rows: Tensor) -> "Sequences":
        """The named rows, trimmed to their own longest sequence and response."""
        prompt, response = self.prompt_lengths_B[rows], self.response_lengths_B[rows]
        length, longest = int((prompt + response).max()), int(response.max())
        return Sequences(self.token_ids_BL[rows, :length], prompt, response, self.mask_BT[rows, :longest])

    def padded(self, columns: int, *, fill: int) -> Self:
        """The same with `columns` more slots on the right and `fill` in every slot that is padding."""
        ids = torch.nn.functional.pad(self.token_ids_BL, (0, columns))
        inside = torch.arange(ids.shape[1], device=ids.device) < self.lengths_B[:, None]
        return replace(self, token_ids_BL=torch.where(inside, ids, fill))

    def to(self, device: torch.device) -> Self:
        return type(self)(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True)
class PackedSequences(Sequences):
    """Rows of several documents, each of which sees itself alone.

    Args:
        positions_BL: int64, position of each token within its own document; where it falls, another document begins.
    """

    positions_BL: Tensor

    def positions(self) -> Tensor:
        return self.positions_BL

    def padded(self, columns: int, *, fill: int) -> "PackedSequences":
        # Padding counts on from the last column: a fall would begin a document.
        more = self.positions_BL[:, -1:] + 1 + torch.arange(columns, device=self.positions_BL.device)
        wider = replace(self, positions_BL=torch.cat([self.positions_BL, more], 1))
        return super(PackedSequences, wider).padded(columns, fill=fill)

    def select(self, rows: Tensor) -> "PackedSequences":
        kept = super().select(rows)
        positions = self.positions_BL[rows, : kept.token_ids_BL.shape[1]]
        return PackedSequences(
            kept.token_ids_BL, kept.prompt_lengths_B, kept.response_lengths_B, kept.mask_BT, positions
        )


@runtime_checkable
class Batch(Protocol):
    """What the learner can split, order by length, and reduce with one denominator."""

    def __len__(self) -> int:
        """Units that cannot be split: a sequence, or all completions of one prompt."""
        ...

    def select(self, rows: Tensor) -> Self:
        """The named units."""
        ...

    @property
    def costs(self) -> Tensor:
        """int64 [units]: tokens a forward pass of each unit reads, padding included in no one's favour."""
        ...

    @property
    def denominator(self) -> float:
        """What the summed loss of these units is divided by; adds over units, micro-batches and processes."""
        ...


@dataclass(frozen=True)
class TokenBatch:
    """Sequences whose included response tokens are the items of the loss: pretraining and SFT."""

    sequences: Sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def select(self, rows: Tensor) -> "TokenBatch":
        return TokenBatch(self.sequences.select(rows))

    @property
    def costs(self) -> Tensor:
        return self.sequences.lengths_B

    @property
    def denominator(self) -> float:
        return float(self.sequences.mask_BT.sum())


@dataclass(frozen=True)
class ComparisonBatch:
    """K completions of each prompt and their strictly ordered pairs; one prompt is one unit and one item of the loss.

    Args:
        sequences: all completions of all prompts, each once, a prompt's completions together.
        counts_G: int64, completions per prompt.
        better_P: int64, index into `sequences` of the preferred completion of a pair.
        worse_P: int64, the other one.
        group_P: int64, which prompt the pair belongs to, 0..G-1.
        margin_P: float, how far apart the two scores should be at least (Llama 2); 0 where nobody said.
    """

    sequences: Sequences
    counts_G: Tensor
    better_P: Tensor
    worse_P: Tensor
    group_P: Tensor
    margin_P: Tensor

    def __post_init__(self) -> None:
        if int(self.counts_G.sum()) != len(self.sequences):
            raise ValueError(
                f"counts must add up to the sequences; got {int(self.counts_G.sum())}, {len(self.sequences)}"
            )

    def __len__(self) -> int:
        return len(self.counts_G)

    def select(self, rows: Tensor) -> "ComparisonBatch":
        starts = self.counts_G.cumsum(0) - self.counts_G
        kept = torch.cat([torch.arange(int(starts[g]), int(starts[g] + self.counts_G[g])) for g in rows.tolist()])
        new_index = torch.full((len(self.sequences),), -1)
        new_index[kept] = torch.arange(len(kept))
        new_group = torch.full((len(self),), -1)
        new_group[rows] = torch.arange(len(rows))
        pairs = new_group[self.group_P] >= 0
        return ComparisonBatch(
            self.sequences.select(kept),
            self.counts_G[rows],
            new_index[self.better_P[pairs]],
            new_index[self.worse_P[pairs]],
            new_group[self.group_P[pairs]],
            self.margin_P[pairs],
        )

    @property
    def costs(self) -> Tensor:
        ends = self.counts_G.cumsum(0)
        total = torch.cat([torch.zeros(1, dtype=torch.int64), self.sequences.lengths_B.cumsum(0)])
        return total[ends] - total[ends - self.counts_G]

    @property
    def denominator(self) -> float:
        return float(len(self))


# ------------------------------------------------------------------------------------------------ scored and experience


@dataclass(frozen=True)
class NamedScores:
    """What one scorer said of each rollout, summed over its events, before any normalisation."""

    name: str
    scores_B: Tensor


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
        return torch.tensor([numbers.setdefault(r.prompt.id, len(numbers)) for r in self.rollouts])


@dataclass(frozen=True)
class CriticScored(Scored):
    """Scored rollouts with the critic's value before each response token."""

    values_BT: Tensor = field(default_factory=lambda: torch.empty(0))


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
        shape = self.sequences.mask_BT.shape
        for name in ("old_logprobs_BT", "advantages_BT", "old_values_BT", "returns_BT"):
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} must have the mask's shape {tuple(shape)}; got {tuple(getattr(self, name).shape)}"
                )
            kept = torch.where(self.sequences.mask_BT, getattr(self, name), 0.0)
            object.__setattr__(self, name, kept)

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
    def denominator(self) -> float:
        return float(self.mask_BT.sum())


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


# ------------------------------------------------------------------------------------------------ forward outputs


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


LossFunction = Callable[..., Loss]
"""`(batch, forward) -> Loss`: the `loss` method of an algorithm."""
