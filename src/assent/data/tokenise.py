"""Records to token ids, under length budgets that never cut: what is over-long is refused, or dropped and counted.

How text becomes tokens (template, BOS, end token) is the caller's: two functions are handed in.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from assent.config import Frozen
from assent.data.batches import ComparisonExample, TokenExample
from assent.errors import DataError
from assent.records import Comparison, Demonstration, Document, PromptText, Task
from assent.types import Prompt

EncodePrompt = Callable[[PromptText], Sequence[int]]
"""A prompt to the tokens that stand before the response, BOS and template included."""

EncodeResponse = Callable[[str], Sequence[int]]
"""A response to its tokens, end token included."""


class Budget(Frozen):
    """How long a prompt and a response may be.

    Args:
        prompt_tokens, response_tokens: at most this many; null for no limit.
        over_long: `refuse` the data set, or `drop` the record that has one over-long part, whole, and count it.
    """

    prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    response_tokens: Annotated[int, Field(ge=1)] | None = None
    over_long: Literal["refuse", "drop"] = "refuse"


@dataclass(frozen=True, slots=True)
class OverLong:
    """A record that is over budget.

    Args:
        index: which one, from 0.
        part: `prompt` or `response`.
        tokens: how many it has.
        budget: how many it may have.
    """

    index: int
    part: str
    tokens: int
    budget: int


@dataclass(frozen=True, slots=True)
class TokenReport:
    """What tokenising kept.

    Args:
        kind: what was tokenised, in the plural.
        total: records looked at.
        dropped: those over budget, all of them.
        prompt_tokens: of the kept records, in all.
        response_tokens: likewise.
    """

    kind: str
    total: int
    dropped: tuple[OverLong, ...]
    prompt_tokens: int
    response_tokens: int

    def __str__(self) -> str:
        kept = self.total - len(self.dropped)
        line = (
            f"tokenised {kept:,} {self.kind}: {self.prompt_tokens:,} prompt tokens, "
            f"{self.response_tokens:,} response tokens; dropped {len(self.dropped):,} of {self.total:,}, cut none"
        )
        return line + (f" ({_summed_up(self.dropped)})" if self.dropped else "")


def _summed_up(found: Sequence[OverLong]) -> str:
    """How many of which part, and the longest of them."""
    parts = []
    for part in ("prompt", "response"):
        mine = [o for o in found if o.part == part]
        if mine:
            longest = max(o.tokens for o in mine)
            parts.append(f"{len(mine):,} for a {part} over {mine[0].budget:,} tokens, the longest {longest:,}")
    return ", ".join(parts)


def tokenise_documents(documents: Iterable[Document], encode: EncodeResponse) -> list[Sequence[int]]:
    """Documents for `PackedBatches`, which has no budget because it packs; here `encode` adds no end token."""
    return [encode(d.text) for d in documents]


def tokenise_demonstrations(
    demonstrations: Sequence[Demonstration], prompt: EncodePrompt, response: EncodeResponse, budget: Budget
) -> tuple[list[TokenExample], TokenReport]:
    """Demonstrations for `TokenBatches`.

    Raises:
        DataError: one is over budget and `over_long` is `refuse`, all are, or an encoding is empty.
    """
    encoded = [(prompt(d.prompt), [response(d.response)]) for d in demonstrations]
    kept, report = within(encoded, budget, "demonstrations")
    return [TokenExample(p, r) for p, (r,) in (encoded[i] for i in kept)], report


def tokenise_comparisons(
    comparisons: Sequence[Comparison], prompt: EncodePrompt, response: EncodeResponse, budget: Budget
) -> tuple[list[ComparisonExample], TokenReport]:
    """Comparisons for `ComparisonBatches`; one over-long response makes the whole comparison over-long.

    Raises:
        DataError: one is over budget and `over_long` is `refuse`, all are, or an encoding is empty.
    """
    encoded = [(prompt(c.prompt), [response(r) for r in c.responses]) for c in comparisons]
    kept, report = within(encoded, budget, "comparisons")
    return [ComparisonExample(*encoded[i], comparisons[i].preferences) for i in kept], report


def tokenise_tasks(tasks: Sequence[Task], prompt: EncodePrompt, budget: Budget) -> tuple[list[Prompt], TokenReport]:
    """Tasks to the prompts that an engine takes; only the prompt's budget matters.

    Raises:
        DataError: one is over budget and `over_long` is `refuse`, or all are.
        ValueError: an encoding is empty.
    """
    encoded: list[tuple[Sequence[int], list[Sequence[int]]]] = [(prompt(t.prompt), []) for t in tasks]
    kept, report = within(encoded, budget, "prompts")
    chosen = [(tasks[i], tuple(encoded[i][0])) for i in kept]
    return [Prompt(t.id, t.prompt, ids, t.kind, t.answer) for t, ids in chosen], report


def within(
    encoded: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]], budget: Budget, kind: str
) -> tuple[list[int], TokenReport]:
    """Which records are within budget, by index, and the report.

    Args:
        encoded: of each record the tokens of its prompt, and of every response to it.
        budget: how long they may be.
        kind: what they are, in the plural.

    Raises:
        DataError: one is over budget and `over_long` is `refuse`, or all are.
    """
    found = [over for i, item in enumerate(encoded) for over in _over(i, *item, budget)]
    if found and (budget.over_long == "refuse" or len(found) == len(encoded)):
        raise DataError(
            f"{len(found):,} of {len(encoded):,} {kind} are over-long",
            got=f"{_summed_up(found)}; the first is number {found[0].index} (from 0)",
            why="cutting text changes what is learned: a response loses its end, a prompt its question",
            fix="raise the budget, shorten the texts, or set over_long: drop, which counts what it drops",
        )
    dropped = {over.index for over in found}
    kept = [i for i in range(len(encoded)) if i not in dropped]
    prompt_tokens = sum(len(encoded[i][0]) for i in kept)
    response_tokens = sum(len(r) for i in kept for r in encoded[i][1])
    return kept, TokenReport(kind, len(encoded), tuple(found), prompt_tokens, response_tokens)


def _over(index: int, prompt: Sequence[int], responses: Sequence[Sequence[int]], budget: Budget) -> Iterator[OverLong]:
    """The first part of a record that is over budget, if any."""
    longest = max((len(r) for r in responses), default=0)
    if budget.prompt_tokens is not None and len(prompt) > budget.prompt_tokens:
        yield OverLong(index, "prompt", len(prompt), budget.prompt_tokens)
    elif budget.response_tokens is not None and longest > budget.response_tokens:
        yield OverLong(index, "response", longest, budget.response_tokens)
