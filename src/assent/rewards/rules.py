"""Rules: what a program can tell of a response without a model. Each is a value that scores one rollout.

A response without an answer is wrong; a prompt without a reference answer is refused, since every response to it would
be. Rules run in this process: all of them end (see `SEARCH_SECONDS`), but mathematics, which runs in a worker.
"""

import json
from dataclasses import dataclass

from assent.errors import DataError
from assent.rewards.answers import SEARCH_SECONDS, AnswerPlace, compiled
from assent.rewards.function import Said
from assent.types import NoScore, Rollout


@dataclass(frozen=True)
class ExactAnswer:
    """Whether the response's answer is the reference answer, letter by letter, but for runs of spaces.

    Args:
        place: where the answer stands.
        ignore_case: small and capital letters are the same.
        right, wrong: the scores.
    """

    place: AnswerPlace
    ignore_case: bool
    right: float
    wrong: float

    def __call__(self, rollout: Rollout) -> Said:
        reference = reference_answer(rollout)
        try:
            found = self.place.find(rollout.text)
        except TimeoutError:
            return NoScore("timeout")
        return self.right if found is not None and self._plain(found) == self._plain(reference) else self.wrong

    def _plain(self, answer: str) -> str:
        joined = " ".join(answer.split())
        return joined.casefold() if self.ignore_case else joined


@dataclass(frozen=True)
class Pattern:
    """Whether a regular expression is found in the response, or matches all of it without the space around.

    Args:
        pattern: of the `regex` library.
        whole: it must match the response from end to end.
        right, wrong: the scores.
    """

    pattern: str
    whole: bool
    right: float
    wrong: float

    def __call__(self, rollout: Rollout) -> Said:
        expression = compiled(self.pattern)
        try:
            if self.whole:
                found = expression.fullmatch(rollout.text.strip(), timeout=SEARCH_SECONDS)
            else:
                found = expression.search(rollout.text, timeout=SEARCH_SECONDS)
        except TimeoutError:
            return NoScore("timeout")
        return self.wrong if found is None else self.right


@dataclass(frozen=True)
class Tags:
    """Whether the response is these tags, each once, none empty, in this order, with nothing but space outside them:
    the format reward of DeepSeek-R1 (2501.12948, section 2.2.2) with `think` and `answer`.

    Args:
        tags: names without brackets, at least one.
        right, wrong: the scores.
    """

    tags: tuple[str, ...]
    right: float
    wrong: float

    def __call__(self, rollout: Rollout) -> Said:
        rest = rollout.text.strip()
        for tag in self.tags:
            opening, closing = f"<{tag}>", f"</{tag}>"
            inside, closed, after = rest.removeprefix(opening).partition(closing)
            if not rest.startswith(opening) or not closed or not inside.strip() or opening in inside:
                return self.wrong
            rest = after.lstrip()
        return self.wrong if rest else self.right


@dataclass(frozen=True)
class JsonObject:
    """Whether the response, or the place in it, is one JSON object with these keys, others being allowed.

    Args:
        place: where it stands.
        keys: that it must have.
        right, wrong: the scores.
    """

    place: AnswerPlace
    keys: tuple[str, ...]
    right: float
    wrong: float

    def __call__(self, rollout: Rollout) -> Said:
        try:
            value = json.loads(self.place.find(rollout.text) or "")
        except TimeoutError:
            return NoScore("timeout")
        except (ValueError, RecursionError):
            return self.wrong
        return self.right if isinstance(value, dict) and set(self.keys) <= set(value) else self.wrong


def reference_answer(rollout: Rollout) -> str:
    """The answer that the prompt brought along.

    Raises:
        DataError: it brought none.
    """
    if rollout.prompt.answer:
        return rollout.prompt.answer
    raise DataError(
        "a prompt has no reference answer",
        got=f"prompt {rollout.prompt.id!r}",
        why="the rule compares the response's answer with it, and would call every response wrong",
        fix="name its column in the tasks (answer: COLUMN, and answer_after: '####' where a solution precedes it)",
    )
