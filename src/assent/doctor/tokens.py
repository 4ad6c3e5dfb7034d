"""D8: one example for human eyes, and what can be counted of all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assent.doctor.report import Finding, refusal
from assent.types import Sequences

SHOWN = 20
"""Tokens decoded as running text at the head of the audit."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the audit needs of a tokenizer.

    Args:
        piece: one token as text.
        decode: many tokens as text, special ones included.
        begin_id: BOS; None where the family has none, or where it is also an end token.
        end_ids: tokens that end a response.
    """

    piece: Callable[[int], str]
    decode: Callable[[Sequence[int]], str]
    begin_id: int | None
    end_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Boundaries:
    """How many rows would be tokenised otherwise if prompt and response were one text."""

    differing: int
    total: int


@dataclass(frozen=True, slots=True)
class Audit:
    """Counts over a batch, and its table.

    Args:
        double_begin: rows that start with two BOS tokens.
        nothing: rows in which no response token is included.
        ended: rows whose response closes with an end token.
        end_in_loss: rows of `ended` in which that token is included.
        tokens: included response tokens.
        boundaries: see there.
        text: the table, plain text.
    """

    double_begin: int
    nothing: int
    ended: int
    end_in_loss: int
    tokens: int
    boundaries: Boundaries | None
    text: str


def audit(
    sequences: Sequences,
    vocabulary: Vocabulary,
    *,
    title: str,
    boundaries: Boundaries | None = None,
    scored_BT: Tensor | None = None,
) -> Audit:
    """Count, and show the row of middle length.

    Args:
        title: of the table, such as the stage's name.
        boundaries: see there; None where the prompt is no text.
        scored_BT: bool, response tokens that a score was given for.
    """
    ids, prompts = sequences.token_ids_BL, sequences.prompt_lengths_B
    rows, last = torch.arange(len(sequences)), sequences.lengths_B - 1
    ended = torch.isin(ids[rows, last], torch.tensor(vocabulary.end_ids, dtype=ids.dtype))
    included = sequences.mask_BT[rows, sequences.response_lengths_B - 1]
    begin = vocabulary.begin_id
    doubled = torch.zeros(len(sequences), dtype=torch.bool)
    if begin is not None:
        doubled = (ids[:, 0] == begin) & (ids[:, 1] == begin) & (sequences.lengths_B > 1)
    counts = {
        "double_begin": int(doubled.sum()),
        "nothing": int((~sequences.mask_BT.any(1)).sum()),
        "ended": int(ended.sum()),
        "end_in_loss": int((ended & included).sum()),
        "tokens": int(sequences.mask_BT.sum()),
    }
    row = int(sequences.lengths_B.argsort(stable=True)[len(sequences) // 2])
    begins = 0 if begin is None else int((ids[row, : int(prompts[row])] == begin).sum())
    head = [
        f"Token audit of the first batch: {title}",
        "",
        f"rows: {len(sequences)}; prompt tokens {int(prompts.min())} to {int(prompts.max())}; response tokens "
        f"{int(sequences.response_lengths_B.min())} to {int(sequences.response_lengths_B.max())}",
        f"response tokens in the loss: {counts['tokens']:,} of {int(sequences.response_lengths_B.sum()):,}",
        f"responses closed by an end token: {counts['ended']}; with it in the loss: {counts['end_in_loss']}",
        f"rows that start with two BOS tokens: {counts['double_begin']}",
        _boundary_line(boundaries),
        "",
        f"Row {row + 1} of {len(sequences)}, {begins} BOS in its prompt; its first {SHOWN} tokens as text:",
        repr(vocabulary.decode(ids[row, : min(SHOWN, int(last[row]) + 1)].tolist())),
        "",
    ]
    return Audit(
        **counts, boundaries=boundaries, text="\n".join([*head, *_table(sequences, row, vocabulary, scored_BT)]) + "\n"
    )


def _boundary_line(boundaries: Boundaries | None) -> str:
    if boundaries is None:
        return "boundary between prompt and response: not a text"
    return (
        f"rows that would be tokenised otherwise as one text: {boundaries.differing} of {boundaries.total} "
        "(the ids below are the record)"
    )


def _table(sequences: Sequences, row: int, vocabulary: Vocabulary, scored_BT: Tensor | None) -> list[str]:
    start, length = int(sequences.prompt_lengths_B[row]), int(sequences.lengths_B[row])
    lines = [f"{'place':>5}  {'id':>7}  {'part':<8}  {'in loss':<7}  {'marks':<10}  token"]
    for place, token in enumerate(sequences.token_ids_BL[row, :length].tolist()):
        t = place - start
        in_loss = t >= 0 and bool(sequences.mask_BT[row, t])
        marks = [
            *(["BOS"] if token == vocabulary.begin_id else []),
            *(["end"] if token in vocabulary.end_ids else []),
            *(["score"] if scored_BT is not None and t >= 0 and bool(scored_BT[row, t]) else []),
        ]
        part = "prompt" if t < 0 else "response"
        shown = "yes" if in_loss else ("-" if t < 0 else "masked")
        piece = repr(vocabulary.piece(token))
        lines.append(f"{place:>5}  {token:>7}  {part:<8}  {shown:<7}  {' '.join(marks):<10}  {piece}")
    return lines


def tokens_in_place(found: Audit, *, ends_expected: bool, ends_masked: bool = False) -> Finding:
    """Refuse what can only be wrong.

    Args:
        ends_expected: data that should close with end tokens: demonstrations and comparisons, not rollouts.
        ends_masked: the recipe leaves formatting tokens out of the loss, so that no end token may be in it.
    """
    if found.double_begin:
        raise refusal(
            "D8",
            got=f"{found.double_begin} rows start with two BOS tokens",
            why="the model never saw that, and generation will start with one",
            causes=(
                "the text or the chat template writes a BOS and the tokenizer adds another: remove one of them",
                "the text was decoded with special tokens and encoded again: keep the ids",
            ),
        )
    if found.nothing:
        raise refusal(
            "D8",
            got=f"{found.nothing} rows have no response token in the loss",
            why="they would be counted and teach nothing",
            causes=(
                "the chat template marks no assistant turn, so the mask is all zero",
                "the prompt fills the row and the response was cut off: raise the length, or leave such rows out",
            ),
        )
    if ends_masked:
        return _masked_ends(found)
    if found.end_in_loss < found.ended or (ends_expected and not found.ended):
        missing = found.ended - found.end_in_loss
        raise refusal(
            "D8",
            got=f"{missing} of {found.ended} end tokens are masked" if found.ended else "no response has an end token",
            why="a model that is never trained on its end token never learns to stop",
            causes=(
                "pad equals end, and padding was masked by token id: mask by length",
                "the end token is not appended to the responses, or the template closes the turn with another one",
                "responses are cut at the maximal length before their end: raise it",
            ),
        )
    merged = ""
    if found.boundaries is not None and found.boundaries.differing:
        merged = f"; {found.boundaries.differing} of {found.boundaries.total} rows tokenise otherwise as one text"
    detail = f"{found.tokens:,} tokens in the loss; {found.end_in_loss} end tokens among them{merged}"
    return Finding(float(found.ended - found.end_in_loss), 0.0, detail)


def _masked_ends(found: Audit) -> Finding:
    """As the recipe asks, end tokens are part of no log-probability."""
    if found.end_in_loss:
        raise refusal(
            "D8",
            got=f"{found.end_in_loss} of {found.ended} end tokens are in the loss, and the recipe masks formatting",
            why="a token that both responses of a pair share would be pushed up and down at once",
            causes=("the response was closed with another token than the template's: look at the token audit",),
        )
    detail = f"{found.tokens:,} tokens in the loss; {found.ended} end tokens masked with the formatting, as asked"
    return Finding(0.0, 0.0, detail)
