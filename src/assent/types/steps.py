"""Where the steps of a response end, as token indices: read off the sampled tokens, which are never encoded again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assent.types.batches import Sequences

Decode = Callable[[Sequence[int]], str]
"""Token ids to text, special tokens left out."""

INCOMPLETE = "\ufffd"
"""What a decoder writes for a character of which it has seen only some of the bytes."""


@dataclass(frozen=True)
class Delimited:
    """Steps that a delimiter separates.

    A token that contains the delimiter, or completes one that began in the token before, ends its step, whatever else
    is in it. A step needs visible text: blank lines go on into the step that follows, so nothing is gained by writing
    them. The last step reaches to the end of the response, its end token included. So every response has at least
    one step, and its steps take up every token, once.

    Args:
        decode: of the tokenizer that the tokens are of.
        text: the delimiter; a newline in PRM800K and Math-Shepherd.

    Raises:
        ValueError: the delimiter is empty.
    """

    decode: Decode
    text: str = "\n"
    _pieces: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("a delimiter needs text; got ''; use a newline")

    def ends(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """Index of the last token of each step, in order; the last one is that of the response.

        Raises:
            ValueError: there is no token.
        """
        if not token_ids:
            raise ValueError("a response needs at least one token; got none; drop it")
        ends: list[int] = []
        start = 0  # of the text that is looked through for a delimiter
        for t, token in enumerate(token_ids):
            if not self._may_complete(token):
                continue
            if self.text in self.decode(token_ids[start : t + 1]):
                first = ends[-1] + 1 if ends else 0
                start = t + 1
                if self.decode(token_ids[first : t + 1]).replace(self.text, "").strip():
                    ends.append(t)
        first = ends[-1] + 1 if ends else 0
        if ends and not self.decode(token_ids[first:]).strip():
            ends.pop()  # nothing but an end token or a blank line is left: it belongs to the last step
        return (*ends, len(token_ids) - 1)

    def _may_complete(self, token: int) -> bool:
        """A delimiter is complete only with its last character, which may come byte by byte."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self.decode([token])
        return self.text[-1] in piece or INCOMPLETE in piece


def texts_of(token_ids: Sequence[int], ends: Sequence[int], decode: Decode) -> tuple[str, ...]:
    """The text of each step; joined together they are the text of the response.

    A character whose bytes fall to both sides of a boundary goes to the step in which it is complete.

    Args:
        ends: index of the last token of each step, ascending.
    """
    whole = decode(token_ids)
    cuts = [_shared(decode(token_ids[: end + 1]), whole) for end in ends[:-1]] + [len(whole)]
    return tuple(whole[a:b] for a, b in zip([0, *cuts], cuts, strict=False))


def ends_by_text(token_ids: Sequence[int], steps: Sequence[str], decode: Decode) -> tuple[int, ...]:
    """The last token of each step whose text is known: for tokens of another tokenizer, and for steps from a file.

    A token that holds the end of a step ends it, whatever else is in it. Two steps that end in one token get the same
    index: nothing between them can be read. The last step reaches to the end of the response.

    Args:
        token_ids: of the whole response, end token included.
        steps: texts that join to the response.

    Raises:
        ValueError: the tokens do not decode to the steps.
    """
    whole = "".join(steps)
    found = decode(token_ids)
    if found != whole:
        place = _shared(found, whole)
        raise ValueError(
            f"the tokens must decode to the steps; got {found[place : place + 40]!r} for "
            f"{whole[place : place + 40]!r} after {place} equal characters; use a tokenizer that keeps text"
        )
    ends: list[int] = []
    reached = 0
    for step in steps[:-1]:
        reached += len(step)
        low, high = ends[-1] if ends else 0, len(token_ids) - 1
        while low < high:  # the text of a beginning grows with it
            middle = (low + high) // 2
            if _shared(decode(token_ids[: middle + 1]), whole) >= reached:
                high = middle
            else:
                low = middle + 1
        ends.append(low)
    return (*ends, len(token_ids) - 1)


def _shared(part: str, whole: str) -> int:
    """Characters that a decoded beginning has right; one that is incomplete does not count."""
    return next((i for i, (a, b) in enumerate(zip(part, whole, strict=False)) if a != b), min(len(part), len(whole)))


@dataclass(frozen=True)
class StepBatch:
    """Solutions whose labelled steps are the items of the loss; one solution is one unit.

    Args:
        sequences: prompts and whole solutions.
        labelled_BT: bool, True at the last token of every step that has a label.
        labels_BT: in [0, 1] there; 0 elsewhere, where nothing reads it.
    """

    sequences: Sequences
    labelled_BT: Tensor
    labels_BT: Tensor

    def __post_init__(self) -> None:
        mask = self.sequences.mask_BT
        if self.labelled_BT.dtype != torch.bool or not self.labelled_BT.shape == self.labels_BT.shape == mask.shape:
            raise ValueError(
                f"a bool labelled_BT and labels_BT must have the mask's shape {tuple(mask.shape)}; got "
                f"{tuple(self.labelled_BT.shape)} {self.labelled_BT.dtype}, {tuple(self.labels_BT.shape)}"
            )
        if bool((self.labelled_BT & ~mask).any()):
            raise ValueError("a label stands on a token that is not included; got one; mend the index of its step")

    def __len__(self) -> int:
        return len(self.sequences)

    def select(self, rows: Tensor) -> "StepBatch":
        sequences = self.sequences.select(rows)
        t = sequences.mask_BT.shape[1]
        return StepBatch(sequences, self.labelled_BT[rows, :t], self.labels_BT[rows, :t])

    @property
    def costs(self) -> Tensor:
        return self.sequences.lengths_B

    @property
    def denominator(self) -> float:
        return float(self.labelled_BT.sum())
