"""Sums worked out step by step: a task of the embedded domain whose every step a program can mark.

The frame, one step a line; the response starts where the prompt ends::

    Sum: 3+4-5+6
    3+4=7
    7-5=2
    2+6=8
    Answer: 8

Every value is a digit, so that a small model learns to add in a minute and what is hard is to get a long chain right.
People who demonstrate miss by one, leave an operation out, answer or stop too early, and write an idle line (`7+0=7`)
now and then, as a hurried pupil does; a policy that imitates them slips as often as they do. The documents that the
language is learned from are by careful people, who notice when they slip and take it back before they go on::

    3+4=8
    no
    3+4=7

So a model that has read them has met wrong lines and what a wrong line is, as one that has read the web has.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from assent.errors import DataError
from assent.records import Demonstration, Document, PromptText, Rating, Task

LOW, HIGH = 0, 9
"""Every value of a chain lies between these, so that one digit is enough."""
HELD_OUT_SHARE = 4
"""One chain in this many belongs to the held-out split."""
OPERATIONS = (5, 8)
"""Fewest and most operations of a chain in documents and demonstrations, and of a task unless it is asked otherwise."""
FEWEST_OPERATIONS = 4
"""Shorter chains are too few: 10 * 9**n of n operations, of both splits."""
SPLITS = ("train", "held_out")
TAKEN_BACK = "no"
"""The line by which the one before it is taken back."""

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
        miss: is out by one.
        skip: leaves an operation out and does the next one.
        early: answers though operations are left.
        idle: writes a line that adds nothing.
        short: stops before the answer; per solution.
        notices: whether the first three are noticed and taken back.
    """

    miss: float
    skip: float
    early: float
    idle: float
    short: float
    notices: bool = False


CAREFUL = Pen(miss=0.10, skip=0.03, early=0.02, idle=0.01, short=0.0, notices=True)
"""Who writes the documents that the language is learned from."""
HURRIED = Pen(miss=0.07, skip=0.01, early=0.005, idle=0.03, short=0.02)
"""Who demonstrates: somewhat more than half of the solutions end right."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A solution with every line marked.

    Args:
        ratings: of each line: good, neutral (true, but no progress) or bad (does not follow from the line before, is
            not the operation that is due, is unreadable, takes something back, or ends the solution too early).
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


def tasks(n: int, *, seed: int, split: str = "train", operations: tuple[int, int] = OPERATIONS) -> list[Task]:
    """`n` distinct sums of a split, with their answers; the kind is the number of operations.

    Args:
        operations: fewest and most of a sum; more than `OPERATIONS`: longer sums than anybody demonstrated.

    Raises:
        ValueError: `n` is negative, the split is unknown, or no chain has so many operations.
    """
    if not FEWEST_OPERATIONS <= operations[0] <= operations[1]:
        raise ValueError(f"operations are the fewest, {FEWEST_OPERATIONS} or more, and the most; got {operations}")
    if split not in SPLITS:
        raise ValueError(f"a split is one of {SPLITS}; got {split!r}; name one of them")
    rng = _rng(f"tasks-{split}", n, seed)
    return [
        Task(f"sum-{split}-{seed}-{i}", c.prompt, split, f"{len(c.operations)} operations", str(c.answer))
        for i, c in enumerate(_chains(n, split, rng, operations))
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


def draw(rng: random.Random, split: str, operations: tuple[int, int] = OPERATIONS) -> Chain:
    """A chain of the given split with so many operations, fewest and most."""
    while True:
        value = rng.randint(LOW, HIGH)
        chain = Chain(value, tuple(_operations(value, rng.randint(*operations), rng)))
        if split_of(chain) == split:
            return chain


def split_of(chain: Chain) -> str:
    """`train` or `held_out`, from a hash of the prompt alone."""
    digest = hashlib.sha256(chain.prompt.encode()).digest()
    return "held_out" if digest[0] % HELD_OUT_SHARE == 0 else "train"


def write(chain: Chain, pen: Pen, rng: random.Random) -> str:
    """A solution as somebody with this pen writes it."""
    value, due, lines = chain.start, chain.operations, []
    while due:
        if rng.random() < pen.idle:
            lines.append(f"{value}+0={value}")
        written = _step(value, due[0])
        slip = _slip(value, due, pen, rng)
        if slip is not None and pen.notices:
            lines += [slip.line, TAKEN_BACK]
        elif slip is not None:
            written = slip
        lines.append(written.line)
        value, due = written.value, due[written.done :]
    if not lines[-1].startswith("Answer"):
        lines.append(f"Answer: {value}")
    if len(lines) > 1 and rng.random() < pen.short:
        lines = lines[: rng.randrange(1, len(lines))]
    return "\n".join(lines)


def right(chain: Chain) -> str:
    """The solution without a slip; for tests and reports, never for training."""
    return write(chain, Pen(miss=0, skip=0, early=0, idle=0, short=0), random.Random(0))


def _operations(value: int, count: int, rng: random.Random) -> Iterator[int]:
    for _ in range(count):
        b = rng.choice([b for b in range(-9, 10) if b and LOW <= value + b <= HIGH])
        value += b
        yield b


@dataclass(frozen=True, slots=True)
class _Step:
    """A line, the value it leads to, and how many operations are then no longer due."""

    line: str
    value: int
    done: int


def _step(value: int, b: int, wrong: int = 0, done: int = 1) -> _Step:
    """value + b, out by `wrong`; never negative, so that every line can be read."""
    after = abs(value + b + wrong)
    return _Step(f"{value}{b:+d}={after}", after, done)


def _slip(value: int, due: tuple[int, ...], pen: Pen, rng: random.Random) -> _Step | None:
    """What is written instead of the step that is due; None: that step."""
    draw = rng.random()
    if draw < pen.miss:
        return _step(value, due[0], wrong=rng.choice((-1, 1)))
    if draw < pen.miss + pen.skip and len(due) > 1 and due[1] != due[0]:
        return _step(value, due[1], done=2)
    if pen.miss + pen.skip <= draw < pen.miss + pen.skip + pen.early:
        return _Step(f"Answer: {value}", value, len(due))
    return None


def _read(found: re.Match[str]) -> tuple[int, int, int]:
    before, sign, by, after = found.groups()
    return int(before), int(f"{sign}{by}"), int(after)


def _rng(what: str, n: int, seed: int) -> random.Random:
    if n < 0:
        raise ValueError(f"a number of {what} is 0 or more; got {n}; pass how many you need")
    return random.Random(f"sums-{what}:{seed}")


def _chains(n: int, split: str, rng: random.Random, operations: tuple[int, int] = OPERATIONS) -> list[Chain]:
    seen: dict[Chain, None] = {}
    while len(seen) < n:
        seen.setdefault(draw(rng, split, operations))
    return list(seen)
