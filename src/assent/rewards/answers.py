r"""Where in a response its final answer stands.

Each place is a value that a recipe writes by its own key: `{after: "####"}`, `{tag: answer}`, `{boxed: true}`,
`{pattern: "= (\\d+)"}`, `{whole: true}`. Finding is `text -> answer`, None where there is none.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import regex

SEARCH_SECONDS = 1.0
"""Longest search for a pattern: some patterns take for ever on texts that a policy is bound to find."""

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Whole:
    """The response as it is, without the space around it."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    whole: Literal[True] = True

    def find(self, text: str) -> str | None:
        return text.strip() or None


@dataclass(frozen=True, slots=True)
class After:
    """The rest of the line after the last `after`, as `####` in GSM8K (Cobbe et al., 2110.14168)."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    after: str

    def __post_init__(self) -> None:
        if not self.after:
            raise ValueError("an empty mark stands everywhere; name the mark that the answer follows")

    def find(self, text: str) -> str | None:
        _, found, rest = text.rpartition(self.after)
        return (rest.strip().split("\n")[0].strip() or None) if found else None


@dataclass(frozen=True, slots=True)
class Tagged:
    """What the last `<tag>...</tag>` holds, as `<answer>` in DeepSeek-R1 (2501.12948)."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    tag: str

    def find(self, text: str) -> str | None:
        before, closed, _ = text.rpartition(f"</{self.tag}>")
        _, opened, inside = before.rpartition(f"<{self.tag}>")
        return (inside.strip() or None) if closed and opened else None


@dataclass(frozen=True, slots=True)
class Boxed:
    r"""What the last `\boxed{...}` holds, its inner braces kept, as in MATH (Hendrycks et al., 2103.03874)."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    boxed: Literal[True]

    def find(self, text: str) -> str | None:
        _, found, rest = text.rpartition("\\boxed{")
        depth = 1
        for at, letter in enumerate(rest if found else ""):
            depth += (letter == "{") - (letter == "}")
            if depth == 0:
                return rest[:at].strip() or None
        return None


@dataclass(frozen=True, slots=True)
class Matched:
    """The last match of a regular expression: its first group, or all of it where it has none.

    Raises:
        ValueError: the pattern is not a regular expression.
        TimeoutError: from `find`, after `SEARCH_SECONDS`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    pattern: str

    def __post_init__(self) -> None:
        compiled(self.pattern)

    def find(self, text: str) -> str | None:
        matches = list(compiled(self.pattern).finditer(text, timeout=SEARCH_SECONDS))
        if not matches:
            return None
        said = matches[-1].group(1) if matches[-1].re.groups else matches[-1].group()
        return (said or "").strip() or None


AnswerPlace = After | Tagged | Boxed | Matched | Whole


def compiled(pattern: str) -> regex.Pattern:
    """The pattern, ready; `regex` keeps what it has compiled.

    Raises:
        ValueError: it is not a regular expression.
    """
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}; mend it") from error
