"""What direct alignment is trained and judged on: tokens, what the reference says of them, batches, held-out accuracy.

Two kinds, since some losses compare responses and others are told of each by itself; both from the same files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from assent.data import judged
from assent.data.judged import Called, Compared, JudgedBatches, Pairs, Response, Row, SingleJudgements, rows_of
from assent.data.splits import hold_out
from assent.data.tokenise import Budget
from assent.errors import DataError
from assent.evals.intervals import Estimate, share_estimate
from assent.evals.judged import correct
from assent.models.folders import CausalModel
from assent.models.formatting import content_mask
from assent.models.forward import ModelForward
from assent.models.tokenizer import encode_prompt
from assent.pipeline.stage import StageContext
from assent.records import Comparison, Judgement
from assent.stages.parts import HELD_OUT_SEED, Encoded, encoder, fitting, require_room, response_ids
from assent.types import Sequences, moved
from assent.types.micro_batches import micro_batches

LogprobsOf = Callable[[Sequence[Row]], Tensor]
"""What the reference says of responses: `[R]`, summed over included tokens, nats."""

ODDS = (1.0, 4 / 3)
"""KTO: where desirable_weight n_desirable / (undesirable_weight n_undesirable) should lie (TRL's documentation)."""


@dataclass(frozen=True)
class ReadRows:
    """Responses to measure an implicit reward on; the reference's log-probabilities are 0 where nothing reads them."""

    sequences: Sequences
    ref_logprobs_B: Tensor


class Material(Protocol):
    """Judged responses, ready to train on."""

    def batches(self, **order: Any) -> JudgedBatches[Any]:
        """In the order that these settings ask for."""
        ...

    def accuracy(self, algorithm: Any, forward: ModelForward, *, token_budget: int) -> Estimate:
        """Of the implicit reward, on held-out prompts."""
        ...

    @property
    def figures(self) -> Mapping[str, float]:
        """How much of what there is."""
        ...


@dataclass(frozen=True)
class PairMaterial:
    """Implements `Material` on pairs.

    Args:
        training, held: on prompts that differ.
        ref_R, held_ref_R: of their rows; None for losses without a reference.
    """

    training: Pairs
    held: Pairs
    ref_R: Tensor | None
    held_ref_R: Tensor | None

    def batches(self, **order: Any) -> JudgedBatches[Any]:
        units, ranges, ref_R = self.training.units, judged.row_ranges(self.training.units), self.ref_R

        def collate(chosen: list[int]) -> Any:
            rows = [row for i in chosen for row in ranges[i]]
            return judged.pair_batch([units[i] for i in chosen], None if ref_R is None else ref_R[rows])

        return JudgedBatches(units, collate, **order)

    def accuracy(self, algorithm: Any, forward: ModelForward, *, token_budget: int) -> Estimate:
        """Share of the pairs whose preferred response has the higher implicit reward, an equal one half."""
        units = self.held.units
        rewards_R = _rewards(algorithm, forward, rows_of(units), self.held_ref_R, token_budget).tolist()
        gaps = [
            (str(unit.prompt_ids), rewards_R[rows[a]] - rewards_R[rows[b]])
            for unit, rows in zip(units, judged.row_ranges(units), strict=True)
            for a, b in unit.pairs
        ]
        return share_estimate(correct(np.array([gap for _, gap in gaps])), [prompt for prompt, _ in gaps])

    @property
    def figures(self) -> Mapping[str, float]:
        return {
            "held_out_pairs": float(self.held.count),
            "training_pairs": float(self.training.count),
            "ties_left_out": float(self.training.left_out.ties),
            "identical_left_out": float(self.training.left_out.identical),
        }


@dataclass(frozen=True)
class UnpairedMaterial:
    """Implements `Material` on single responses.

    Args:
        training, held: on prompts that differ.
        ref_R, held_ref_R: of their rows.
        others: the mismatched rows of the training rows, and what the reference says of them; None where the loss
            needs none.
    """

    training: SingleJudgements
    held: SingleJudgements
    ref_R: Tensor
    held_ref_R: Tensor
    others: tuple[Sequence[Row], Tensor] | None

    def batches(self, **order: Any) -> JudgedBatches[Any]:
        units, ranges, others = self.training.units, judged.row_ranges(self.training.units), self.others

        def collate(chosen: list[int]) -> Any:
            some, rows = [units[i] for i in chosen], [row for i in chosen for row in ranges[i]]
            if others is None:
                return judged.unpaired_batch(some, self.ref_R[rows])
            mates, their_ref_R = others
            return judged.mismatched_batch(some, self.ref_R[rows], [mates[row] for row in rows], their_ref_R[rows])

        return JudgedBatches(units, collate, **order)

    def accuracy(self, algorithm: Any, forward: ModelForward, *, token_budget: int) -> Estimate:
        """Of a desirable response: the share of the undesirable ones that its implicit reward exceeds. Those to the
        same prompt where there are any, all others where there are none; an equal one counts half."""
        units = self.held.units
        rewards_R = _rewards(algorithm, forward, rows_of(units), self.held_ref_R, token_budget).numpy()
        good: list[tuple[str, float]] = []
        bad: dict[str, list[float]] = {}
        for unit, rows in zip(units, judged.row_ranges(units), strict=True):
            for i, desirable in unit.calls:
                reward = float(rewards_R[rows[i]])
                if desirable:
                    good.append((str(unit.prompt_ids), reward))
                else:
                    bad.setdefault(str(unit.prompt_ids), []).append(reward)
        everything = [reward for rewards in bad.values() for reward in rewards]
        if not good or not everything:
            return share_estimate([], [])
        shares = [float(correct(reward - np.array(bad.get(prompt, everything))).mean()) for prompt, reward in good]
        return share_estimate(np.array(shares), [prompt for prompt, _ in good])

    @property
    def figures(self) -> Mapping[str, float]:
        return {
            "held_out_judgements": float(self.held.desirable + self.held.undesirable),
            "training_desirable": float(self.training.desirable),
            "training_undesirable": float(self.training.undesirable),
            "ties_left_out": float(self.training.left_out.ties),
            "identical_left_out": float(self.training.left_out.identical),
        }


def _rewards(
    algorithm: Any, forward: ModelForward, rows: Sequence[Row], ref_R: Tensor | None, token_budget: int
) -> Tensor:
    """Implicit reward of every row, `[R]`, float64, without gradient."""
    costs = torch.tensor([len(prompt) + len(response.token_ids) for prompt, response in rows], dtype=torch.int64)
    rewards_R = torch.zeros(len(rows), dtype=torch.float64)
    with torch.no_grad():
        for some in micro_batches(costs, token_budget) if rows else []:
            sequences = judged.block([rows[i] for i in some.tolist()])
            known = torch.zeros(len(some)) if ref_R is None else ref_R[some]
            read = moved(ReadRows(sequences, known), forward.device)
            rewards_R[some] = algorithm.implicit_rewards(read, forward).double().cpu()
    return rewards_R


# ------------------------------------------------------------------------------------------------ from records


@dataclass(frozen=True)
class Tokenising:
    """How judged responses become tokens.

    Args:
        lengths: budget of a prompt with its responses, in tokens, and what becomes of one that is over it.
        held_out: share of the prompts kept to measure on.
        mask_formatting: leave out what the template and the end token add to a response.
    """

    lengths: Budget
    held_out: float
    mask_formatting: bool


@dataclass(frozen=True)
class Tokenised:
    """Records as tokens, on one side of the split."""

    comparisons: Sequence[Compared]
    called: Sequence[Called]


def tokenised(
    records: Sequence[Comparison | Judgement], tokenising: Tokenising, policy: CausalModel, context: StageContext
) -> tuple[Tokenised, Tokenised]:
    """To train on and held out; what is over the budget is said and left out."""
    encode = _encoder(policy)
    kept = fitting([encode(r) for r in records], tokenising.lengths, "judged prompts", policy.model, context)
    sides = hold_out([records[i] for i in kept], tokenising.held_out, HELD_OUT_SEED)

    def responses(record: Comparison | Judgement) -> tuple[Response, ...]:
        _, encoded = encode(record)
        texts = record.responses if isinstance(record, Comparison) else (record.response,)
        return tuple(
            Response(tuple(ids), content_mask(policy.tokenizer, record.prompt, text, ids))
            if tokenising.mask_formatting
            else Response.whole(ids)
            for text, ids in zip(texts, encoded, strict=True)
        )

    def side(some: Sequence[Comparison | Judgement]) -> Tokenised:
        compared = [
            Compared(tuple(encode(r)[0]), responses(r), r.preferences) for r in some if isinstance(r, Comparison)
        ]
        called = [Called(tuple(encode(r)[0]), responses(r)[0], r.desirable) for r in some if isinstance(r, Judgement)]
        return Tokenised(compared, called)

    training, held = sides
    return side(training), side(held)


def _encoder(policy: CausalModel) -> Callable[[Comparison | Judgement], Encoded]:
    encode_comparison = encoder(policy)

    def encode(record: Comparison | Judgement) -> Encoded:
        if isinstance(record, Comparison):
            return encode_comparison(record)
        ids = response_ids(policy.tokenizer, record.prompt, record.response, end=record.ended)
        return encode_prompt(policy.tokenizer, record.prompt), [ids]

    return encode


def pair_material(
    training: Tokenised, held: Tokenised, context: StageContext, reference: LogprobsOf | None
) -> Material:
    """For losses on pairs.

    Raises:
        DataError: a response was judged by itself.
    """
    alone = len(training.called) + len(held.called)
    if alone:
        raise DataError(
            "this algorithm compares two responses to one prompt, and some were judged each by itself",
            got=f"{alone:,} judgements of single responses",
            why="what was not compared has no order",
            fix="take kto or bco for such data, or data in which responses were compared",
        )
    pairs, held_pairs = Pairs.of(training.comparisons), Pairs.of(held.comparisons)
    context.say(f"training on {pairs}; {held_pairs.count:,} pairs held out")
    known = _known(pairs.units, held_pairs.units, reference)
    return PairMaterial(pairs, held_pairs, *known)


def unpaired_material(
    training: Tokenised,
    held: Tokenised,
    context: StageContext,
    reference: LogprobsOf,
    *,
    policy: CausalModel,
    uses_mismatched: bool,
) -> UnpairedMaterial:
    """For losses on single responses; of a comparison's pair the preferred one is desirable and the other is not.

    Raises:
        DataError: only one kind of judgement, or mismatched rows are needed and there is one prompt only.
        ContractError: a mismatched row is longer than the model can read.
    """
    judgements = SingleJudgements.of(training.comparisons, training.called)
    held_judgements = SingleJudgements.of(held.comparisons, held.called)
    context.say(f"training on {judgements}")
    if not (judgements.desirable and judgements.undesirable):
        raise DataError(
            "single judgements must be of both kinds",
            got=f"{judgements.desirable:,} desirable, {judgements.undesirable:,} undesirable",
            why="with one kind alone every response is pushed the same way",
            fix="add judgements of the other kind; good responses alone are demonstrations: use sft",
        )
    ref_R, held_ref_R = _known(judgements.units, held_judgements.units, reference)
    others = None
    if uses_mismatched:
        rows = judged.mismatched(judgements.units, seed=context.seed)
        require_room(policy.model, max(len(prompt) + len(response.token_ids) for prompt, response in rows))
        context.say("for the baseline, each prompt with a response to another one:")
        others = (rows, reference(rows))
    assert ref_R is not None and held_ref_R is not None
    return UnpairedMaterial(judgements, held_judgements, ref_R, held_ref_R, others)


def _known(
    training: Sequence[judged.Unit], held: Sequence[judged.Unit], reference: LogprobsOf | None
) -> tuple[Tensor | None, Tensor | None]:
    """What the reference says of both sides, asked at once: any algorithm on these responses asks the same."""
    if reference is None:
        return None, None
    rows = rows_of(training)
    known_R = reference([*rows, *rows_of(held)])
    return known_R[: len(rows)], known_R[len(rows) :]


def unbalanced(desirable: float, undesirable: float, desirable_weight: float, undesirable_weight: float) -> str | None:
    """What to say where the two kinds do not weigh alike; None where they do.

    Args:
        desirable, undesirable: judgements of each kind.
    """
    low, high = ODDS
    odds = desirable_weight * desirable / (undesirable_weight * undesirable) if undesirable_weight else float("inf")
    if low <= round(odds, 6) <= round(high, 6):
        return None
    if odds > high:
        ends = [desirable_weight * desirable / undesirable / x for x in (high, low)]
        cure = f"set undesirable_weight to between {ends[0]:.3g} and {ends[1]:.3g}"
    else:
        ends = [undesirable_weight * undesirable / desirable * x for x in (low, high)]
        cure = f"set desirable_weight to between {ends[0]:.3g} and {ends[1]:.3g}"
    return (
        f"warning: desirable judgements weigh {odds:.3g} times as much as undesirable ones ({desirable:,.0f} x "
        f"{desirable_weight:g} against {undesirable:,.0f} x {undesirable_weight:g}); KTO's authors keep this between 1 "
        f"and 4/3, since otherwise the policy learns which kind is common before it learns what is good. {cure}"
    )
