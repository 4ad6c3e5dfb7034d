"""Held-out data by prompt: the same prompt is never on both sides, and a prompt keeps its side as the data grows."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

from assent.errors import DataError
from assent.records import Comparison, Demonstration, Document, Judgement, LabelledSolution, PromptText, Task

Record = Document | Demonstration | Comparison | Judgement | Task | LabelledSolution
R = TypeVar("R", bound=Record)


def prompt_key(prompt: PromptText) -> str:
    """Identity of a prompt up to letter case and spacing; a plain prompt equals the one turn of a user."""
    turns = [("user", prompt)] if isinstance(prompt, str) else [(m.role, m.content) for m in prompt]
    words = "\x00".join(f"{role}\x01{' '.join(content.casefold().split())}" for role, content in turns)
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()


def record_key(record: Record) -> str:
    """The key of a record's prompt; of a document, its text's."""
    return prompt_key(record.text if isinstance(record, Document) else record.prompt)


def is_held_out(key: str, share: float, seed: int) -> bool:
    """Whether a prompt is held out: a hash of key and seed falls below the share, whatever else is in the data."""
    number = int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big")
    return number < share * 2.0**64


def hold_out(records: Sequence[R], share: float, seed: int) -> tuple[list[R], list[R]]:
    """Records to train on and records held out, each in their order.

    Args:
        share: of the distinct prompts, in [0, 1), on average: the sides are drawn prompt by prompt.
        seed: another seed holds out other prompts.

    Raises:
        DataError: the share is outside [0, 1), or it is above 0 and one side is empty.
    """
    if not 0 <= share < 1:
        raise DataError(
            "the held-out share must be in [0, 1)",
            got=share,
            why="it is the share of prompts kept from training",
            fix="write 0.1 for a tenth",
        )
    held = [is_held_out(record_key(r), share, seed) for r in records]
    train = [r for r, out in zip(records, held, strict=True) if not out]
    held_out = [r for r, out in zip(records, held, strict=True) if out]
    if share > 0 and not (train and held_out):
        prompts = len({record_key(r) for r in records})
        raise DataError(
            "holding out left one side empty",
            got=f"share {share} of {prompts} prompts: {len(train)} records to train on, {len(held_out)} held out",
            why="sides are drawn prompt by prompt, and so few prompts may all fall on one side",
            fix="give more prompts, a share nearer one half, or another seed",
        )
    return train, held_out


def overlap(a: Iterable[Record], b: Iterable[Record]) -> dict[str, Record]:
    """Prompts of `b` that `a` has too: their keys, each with the first record of `b` that has it."""
    known = {record_key(r) for r in a}
    shared: dict[str, Record] = {}
    for record in b:
        key = record_key(record)
        if key in known:
            shared.setdefault(key, record)
    return shared


def check_disjoint(a: Iterable[Record], b: Iterable[Record], *, names: tuple[str, str] = ("train", "held out")) -> None:
    """Refuse two sets that share a prompt.

    Raises:
        DataError: they do; it says how many prompts, and shows the first three.
    """
    shared = overlap(a, b)
    if not shared:
        return
    shown = "; ".join(_shown(r) for r in list(shared.values())[:3])
    raise DataError(
        f"{names[0]} and {names[1]} share prompts",
        got=f"{len(shared):,} prompts in both, up to letter case and spacing: {shown}",
        why="what was trained on cannot measure what was learned",
        fix=f"take them out of {names[0]}, or split one set with `held_out`, which never does this",
    )


def _shown(record: Record) -> str:
    prompt = record.text if isinstance(record, Document) else record.prompt
    words = " ".join((prompt if isinstance(prompt, str) else prompt[-1].content).split())
    return repr(words if len(words) <= 60 else words[:59] + "…")
