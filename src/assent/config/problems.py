"""What is wrong with a configuration, and how it is said."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from assent.errors import ConfigError

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration: where, what, and what to do about it."""

    where: Location
    what: str
    fix: str
    line: int | None = None

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line else ""
        return f"{dotted(self.where) or 'the top level'}{line}: {self.what}; {self.fix}"


def dotted(where: Location) -> str:
    return ".".join(map(str, where))


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name most like `name`, or None when none is alike."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def suggestion(name: str, known: Collection[str]) -> str:
    """The second half of an error about an unknown name."""
    near = nearest(name, known)
    if near:
        return f"did you mean {near!r}?"
    return f"choose among {', '.join(sorted(known))}" if known else "nothing is known here; delete it"


_WHY = "a key that is misread or ignored would train something else than what was written"


def refuse(problems: Sequence[Problem], name: str) -> None:
    """Raise one `ConfigError` that lists every problem; return when there is none."""
    if not problems:
        return
    if len(problems) == 1:
        p = problems[0]
        line = f" (line {p.line})" if p.line else ""
        where = f"{dotted(p.where) or 'its top level'}{line}"
        raise ConfigError(f"{name} is not valid at {where}", got=p.what, why=_WHY, fix=p.fix)
    raise ConfigError(
        f"{name} has {len(problems)} problems",
        got="".join(f"\n    - {p}" for p in problems),
        why=_WHY,
        fix="mend them all; each line above says how",
    )
