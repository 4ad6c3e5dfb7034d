"""Documents, demonstrations and tasks, all determined by a seed.

Everything made for training (documents, demonstrations, tasks of the train split) draws its reviews, messages and
questions from the train split alone; held-out ones are never written by anything but `tasks(split="held_out")`.
"""

import random
from collections.abc import Iterator, Sequence

from assent.data.domain.answers import FORUM, HURRIED, ideal_text, write
from assent.data.domain.cases import KINDS, SHARES, draw_core_in, draw_question, frame, read_prompt
from assent.records import Demonstration, Document, Task

ON_REVIEW = ("summary", "question", "reply")
SPLITS = ("train", "held_out")


def documents(n: int, *, seed: int) -> Iterator[Document]:
    """`n` forum threads to learn the language from: a review, message or question and people's answers to it.

    A thread on a review asks up to three things about it. Answers are mostly right, curt, and helpful with anything.

    Raises:
        ValueError: `n` is negative.
    """
    rng = _rng("documents", n, seed)
    for _ in range(n):
        kind = rng.choices(KINDS, SHARES)[0]
        core = draw_core_in(kind, "train", rng)
        asked = [kind]
        if kind in ON_REVIEW:
            asked += rng.choices(ON_REVIEW, (2, 2, 1), k=rng.randrange(4))
        yield Document(_thread(core, asked, rng))


def demonstrations(n: int, *, seed: int, kinds: Sequence[str] = KINDS) -> list[Demonstration]:
    """`n` noisy responses to distinct train prompts of some kinds, written by people in a hurry.

    Raises:
        ValueError: `n` is negative or a kind is unknown.
    """
    rng = _rng("demonstrations", n, seed)
    pens = random.Random(f"pens:{seed}")
    return [Demonstration(p, write(read_prompt(p), HURRIED, pens)) for _, p in _prompts(n, "train", rng, kinds)]


def tasks(n: int, *, seed: int, split: str = "train", kinds: Sequence[str] = KINDS) -> list[Task]:
    """`n` distinct prompts of a split, the kinds drawn by their shares.

    Raises:
        ValueError: `n` is negative, or the split or a kind is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"a split is one of {SPLITS}; got {split!r}; name one of them")
    rng = _rng(f"tasks-{split}", n, seed)
    return [
        Task(f"{split}-{seed}-{i}", prompt, split, kind)
        for i, (kind, prompt) in enumerate(_prompts(n, split, rng, kinds))
    ]


def ideal(task: Task) -> str:
    """The best response to a task, which `judge` gives its maximum; for tests and reports, never for training.

    Raises:
        DataError: the task's prompt is not of this domain.
    """
    return ideal_text(read_prompt(task.prompt))


def _rng(what: str, n: int, seed: int) -> random.Random:
    if n < 0:
        raise ValueError(f"a number of {what} is 0 or more; got {n}; pass how many you need")
    return random.Random(f"{what}:{seed}")


def _prompts(n: int, split: str, rng: random.Random, kinds: Sequence[str]) -> list[tuple[str, str]]:
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise ValueError(f"kinds are some of {KINDS}; got {tuple(kinds)}; name those that are wanted")
    shares = [SHARES[KINDS.index(kind)] for kind in kinds]
    seen: dict[str, str] = {}
    while len(seen) < n:
        kind = rng.choices(kinds, shares)[0]
        core = draw_core_in(kind, split, rng)
        seen.setdefault(frame(kind, core, draw_question(kind, core, rng)), kind)
    return [(kind, prompt) for prompt, kind in seen.items()]


def _thread(core: str, kinds: list[str], rng: random.Random) -> str:
    text = ""
    for kind in kinds:
        prompt = frame(kind, core, draw_question(kind, core, rng))
        answer = write(read_prompt(prompt), FORUM, rng)
        text += ("\n" + prompt[prompt.index("Question:") :] if text else prompt) + answer
    return text
