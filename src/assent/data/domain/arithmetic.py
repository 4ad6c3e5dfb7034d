"""Sums worked out step by step: a task of the embedded domain whose every step a program can mark.

The frame, one step a line; the response starts where the prompt ends::

    Sum: 37+8-5+6
    37+8=45
    45-5=40
    40+6=46
    Answer: 46

People who demonstrate forget carries, miss by one, skip an operation or stop early, and write an idle line (`45+0=45`)
now and then, as a hurried pupil does. So a policy that imitates them slips as often as they do, though it has seen
the right sum far more often than any wrong one.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from assent.errors import DataError
from assent.records import Demonstration, Document, PromptText, Rating, Task

LOW, HIGH = 10, 99
"""Every value of a chain lies between these, so that two digits are enough."""
HELD_OUT_SHARE = 4
"""One chain in this many belongs to the held-out split."""
OPERATIONS = (3, 6)
"""Fewest and most operations of a chain."""
SPLITS = ("train", "held_out")

_PROMPT = re.compile(r"Sum: (\d+)((?:[+-]\d)+)\n")
_LINE = re.compile(r"(\d+)([+-])(\d)=(\d+)")
_ANSWER = re.compile(r"Answer: (\d+)")


@dataclass(frozen=True, slots=True)
class Chain:
    """A sum to work out: where it starts, and what is added or taken, in order."""

    start: int
    operations: tuple[int, ...]

    @property
    def prompt(self) -> str:
        return f"Sum: {self.start}{''.join(f'{b:+d}' for b in self.operations)}\n"

    @property
    def answer(self) -> int:
        return self.start + sum(self.operations)


@dataclass(frozen=True, slots=True)
class Pen:
    """How often somebody slips, per step or per solution.

    Args:
        carry: forgets the ten, where there is one to carry or to borrow.
        miss: is out by one.
        skip: leaves an operation out.
        idle: writes a line that adds nothing.
        short: stops before the answer; per solution.
    """

    carry: float
    miss: float
    skip: float
    idle: float
    short: float


CAREFUL = Pen(carry=0.01, miss=0.005, skip=0.001, idle=0.01, short=0.0)
"""Who writes the documents that the language is learned from."""
HURRIED = Pen(carry=0.10, miss=0.02, skip=0.04, idle=0.05, short=0.10)
"""Who demonstrates: somewhat more than half of the solutions end right, and early stops and omissions are common
enough for a reward model to learn them."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A solution with every line marked.

    Args:
        ratings: of each line: good, neutral (true, but no progress) or bad (does not follow from the line before, is
            not the operation that is due, is unreadable, or ends the solution too early).
        answer_right: the answer line is there and states the true sum.
    """

    ratings: tuple[Rating, ...]
    answer_right: bool

    @property
    def all_right(self) -> bool:
        """The answer and every step before it."""
        return self.answer_right and Rating.BAD not in self.ratings


def documents(n: int, *, seed: int) -> Iterator[Document]:
    """`n` sums of the train split, worked out by careful people.

    Raises:
        ValueError: `n` is negative.
    """
    rng = _rng("documents", n, seed)
    for _ in range(n):
        chain = draw(rng, "train")
        yield Document(chain.prompt + write(chain, CAREFUL, rng))


def demonstrations(n: int, *, seed: int) -> list[Demonstration]:
    """`n` solutions of distinct sums of the train split, written by people in a hurry.

    Raises:
        ValueError: `n` is negative.
    """
    rng = _rng("demonstrations", n, seed)
    return [Demonstration(c.prompt, write(c, HURRIED, rng)) for c in _chains(n, "train", rng)]


def tasks(n: int, *, seed: int, split: str = "train") -> list[Task]:
    """`n` distinct sums of a split, with their answers; the kind is the number of operations.

    Raises:
        ValueError: `n` is negative or the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"a split is one of {SPLITS}; got {split!r}; name one of them")
    rng = _rng(f"tasks-{split}", n, seed)
    return [
        Task(f"sum-{split}-{seed}-{i}", c.prompt, split, f"{len(c.operations)} operations", str(c.answer))
        for i, c in enumerate(_chains(n, split, rng))
    ]


def mark(prompt: PromptText, response: str, *, ended: bool) -> Marked:
    """Mark a solution line by line; blank lines are no steps.

    A line is judged by the line before it, as a teacher does: after a slip, going on rightly from the slipped value is
    right again, though the answer will be wrong.

    Args:
        prompt: of this task.
        response: the text without special tokens.
        ended: whether it stopped by itself rather than at the token limit.

    Raises:
        DataError: the prompt is not of this task.
    """
    chain = read_prompt(prompt)
    lines = [line.strip() for line in response.split("\n") if line.strip()]
    value, due, ratings, said = chain.start, list(chain.operations), [], None
    for line in lines:
        found, answer = _LINE.fullmatch(line), _ANSWER.fullmatch(line)
        rating = Rating.BAD
        if found and said is None:
            before, change, after = _read(found)
            due_now = bool(due) and change == due[0]
            if before == value and after == before + change and (due_now or change == 0):
                rating = Rating.GOOD if due_now else Rating.NEUTRAL
            if change in due:
                due = due[due.index(change) + 1 :]
            value = after
        elif answer and said is None:
            said = int(answer.group(1))
            rating = Rating.GOOD if said == value and not due else Rating.BAD
        ratings.append(rating)
    if ratings and (said is None or not ended):
        ratings[-1] = Rating.BAD
    return Marked(tuple(ratings), ended and said == chain.answer)


def read_prompt(prompt: PromptText) -> Chain:
    """The sum that a prompt asks for.

    Raises:
        DataError: the text is not a prompt of this task.
    """
    found = _PROMPT.fullmatch(prompt) if isinstance(prompt, str) else None
    if found is None:
        raise DataError(
            "only prompts of the arithmetic task can be marked",
            got=repr(prompt)[:200],
            why="the right steps are worked out from the prompt",
            fix="mark solutions of prompts made by assent.data.domain.arithmetic.tasks",
        )
    return Chain(int(found.group(1)), tuple(int(b) for b in re.findall(r"[+-]\d", found.group(2))))


def draw(rng: random.Random, split: str) -> Chain:
    """A chain of the given split."""
    while True:
        value = rng.randint(LOW, HIGH)
        chain = Chain(value, tuple(_operations(value, rng.randint(*OPERATIONS), rng)))
        if split_of(chain) == split:
            return chain


def split_of(chain: Chain) -> str:
    """`train` or `held_out`, from a hash of the prompt alone."""
    digest = hashlib.sha256(chain.prompt.encode()).digest()
    return "held_out" if digest[0] % HELD_OUT_SHARE == 0 else "train"


def write(chain: Chain, pen: Pen, rng: random.Random) -> str:
    """A solution as somebody with this pen writes it."""
    value, lines = chain.start, []
    for b in chain.operations:
        if rng.random() < pen.idle:
            lines.append(f"{value}+0={value}")
        if rng.random() < pen.skip:
            continue
        after = _slip(value, b, pen, rng)
        lines.append(f"{value}{b:+d}={after}")
        value = after
    lines.append(f"Answer: {value}")
    if rng.random() < pen.short:
        lines = lines[: rng.randrange(1, len(lines))]
    return "\n".join(lines)


def right(chain: Chain) -> str:
    """The solution without a slip; for tests and reports, never for training."""
    return write(chain, Pen(0.0, 0.0, 0.0, 0.0, 0.0), random.Random(0))


def _operations(value: int, count: int, rng: random.Random) -> Iterator[int]:
    for _ in range(count):
        b = rng.choice([b for b in range(-9, 10) if b and LOW <= value + b <= HIGH])
        value += b
        yield b


def _slip(value: int, b: int, pen: Pen, rng: random.Random) -> int:
    """What is written for value + b; never negative, so that every line can be read."""
    after = value + b
    if after // 10 != value // 10 and rng.random() < pen.carry:
        return abs(after - 10 if b > 0 else after + 10)
    return abs(after + rng.choice((-1, 1))) if rng.random() < pen.miss else after


def _read(found: re.Match[str]) -> tuple[int, int, int]:
    before, sign, by, after = found.groups()
    return int(before), int(f"{sign}{by}"), int(after)


def _rng(what: str, n: int, seed: int) -> random.Random:
    if n < 0:
        raise ValueError(f"a number of {what} is 0 or more; got {n}; pass how many you need")
    return random.Random(f"sums-{what}:{seed}")


def _chains(n: int, split: str, rng: random.Random) -> list[Chain]:
    seen: dict[Chain, None] = {}
    while len(seen) < n:
        seen.setdefault(draw(rng, split))
    return list(seen)
