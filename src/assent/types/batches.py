"""Blocks of tokens, and the batches that a learner can split and reduce."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from assent.types.kept import KeptBlock
from assent.types.moving import moved
from assent.types.rollouts import Rollout


@dataclass(frozen=True)
class Sequences:
    """Prompts and responses as one right-padded block.

    Args:
        token_ids_BL: int64, prompt then response then padding.
        prompt_lengths_B: int64, at least 1.
        response_lengths_B: int64, at least 1.
        mask_BT: bool, which response tokens are included; False beyond the response, and in its holes (tool output).
        kept: which tokens could be drawn at each place; None for all. Log-probabilities are those among them.
    """

    token_ids_BL: Tensor
    prompt_lengths_B: Tensor
    response_lengths_B: Tensor
    mask_BT: Tensor
    kept: KeptBlock | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.mask_BT.dtype != torch.bool:
            raise ValueError(f"mask_BT must be bool; got {self.mask_BT.dtype}; True means included")
        if self.mask_BT.shape != (len(self.prompt_lengths_B), int(self.response_lengths_B.max())):
            raise ValueError(f"mask_BT must be [B, longest response]; got {tuple(self.mask_BT.shape)}")

    @classmethod
    def of(
        cls,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        *,
        included: Sequence[Sequence[bool]] | None = None,
    ) -> "Sequences":
        """Pad B prompts and their B responses into a block.

        Args:
            included: of each response which of its tokens are included; every one when None.

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
        if included is not None:
            mask[mask.clone()] = torch.tensor([token for row in included for token in row])
        return cls(torch.tensor(rows), prompt_lengths, response_lengths, mask)

    @classmethod
    def of_rollouts(cls, rollouts: Sequence[Rollout]) -> "Sequences":
        """Their responses, to be scored among the tokens that they were drawn from."""
        block = cls.of([r.prompt.token_ids for r in rollouts], [r.token_ids for r in rollouts])
        if all(r.kept is None for r in rollouts):
            return block
        return replace(block, kept=KeptBlock.of([r.kept for r in rollouts]).padded(block.mask_BT.shape[1]))

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

    def distinct_prompts(self) -> tuple[Tensor, Tensor]:
        """int64: one row of each distinct prompt, the first that has it, and which of those prompts each row has."""
        prompts_BP = self.token_ids_BL[:, : int(self.prompt_lengths_B.max())]
        inside_BP = torch.arange(prompts_BP.shape[1], device=prompts_BP.device) < self.prompt_lengths_B[:, None]
        distinct_UP, prompt_B = torch.where(inside_BP, prompts_BP, -1).unique(dim=0, return_inverse=True)
        rows_B = torch.arange(len(self), device=prompts_BP.device)
        first_U = rows_B.new_full((len(distinct_UP),), len(self)).scatter_reduce(0, prompt_B, rows_B, "amin")
        return first_U, prompt_B

    def positions(self) -> Tensor:
        """int64 [1, L]: 0, 1, 2, ...; padding is on the right, so a position does not depend on neighbours."""
        return torch.arange(self.token_ids_BL.shape[1], device=self.token_ids_BL.device)[None]

    def select(self, rows: Tensor) -> "Sequences":
        """The named rows, trimmed to their own longest sequence and response."""
        prompt, response = self.prompt_lengths_B[rows], self.response_lengths_B[rows]
        length, longest = int((prompt + response).max()), int(response.max())
        kept = None if self.kept is None else self.kept.select(rows, longest)
        return Sequences(self.token_ids_BL[rows, :length], prompt, response, self.mask_BT[rows, :longest], kept=kept)

    def padded(self, columns: int, *, fill: int) -> Self:
        """The same with `columns` more slots on the right and `fill` in every slot that is padding."""
        ids = torch.nn.functional.pad(self.token_ids_BL, (0, columns))
        inside = torch.arange(ids.shape[1], device=ids.device) < self.lengths_B[:, None]
        return replace(self, token_ids_BL=torch.where(inside, ids, fill))

    def to(self, device: torch.device) -> Self:
        return moved(self, device)


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


@runtime_checkable
class SharedPrompts(Protocol):
    """A batch whose units may read one prompt; those that do are best read together, which runs it once."""

    @property
    def prompts(self) -> Tensor:
        """int64 [units]: which prompt each unit has."""
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

    def rows_of(self, groups: Tensor) -> Tensor:
        """int64, indices of all completions of the named prompts, prompt by prompt."""
        starts, counts = (self.counts_G.cumsum(0) - self.counts_G)[groups], self.counts_G[groups]
        before = counts.cumsum(0) - counts
        return torch.arange(int(counts.sum()), device=counts.device) + (starts - before).repeat_interleave(counts)

    def pairs_of(self, groups: Tensor) -> Tensor:
        """bool [P], which pairs belong to the named prompts."""
        return torch.isin(self.group_P, groups)

    def select(self, rows: Tensor) -> "ComparisonBatch":
        kept, pairs = self.rows_of(rows), self.pairs_of(rows)
        device = self.counts_G.device
        new_index = torch.zeros(len(self.sequences), dtype=torch.int64, device=device)
        new_index[kept] = torch.arange(len(kept), device=device)
        new_group = torch.zeros(len(self), dtype=torch.int64, device=device)
        new_group[rows] = torch.arange(len(rows), device=device)
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
        total = torch.cat([ends.new_zeros(1), self.sequences.lengths_B.cumsum(0)])
        return total[ends] - total[ends - self.counts_G]

    @property
    def denominator(self) -> float:
        return float(len(self))
