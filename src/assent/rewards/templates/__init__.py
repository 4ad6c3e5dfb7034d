"""What a judge is asked, in words: Jinja templates beside this file, or one's own."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from assent.errors import ConfigError

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Question:
    """A template. Texts are shown with the filter `quoted`, which begins each of their lines with "> ", so that no
    response can pass for the question around it.

    Args:
        name: of a template beside this file, without its ending, or the path of one's own.

    Raises:
        ConfigError: on first use, where there is no such file, or it is not a template.
    """

    name: str

    @cached_property
    def text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except OSError as error:
            shipped = ", ".join(sorted(p.stem for p in HERE.glob("*.jinja")))
            raise ConfigError(
                "the template cannot be read",
                got=f"{self.name}: {error}",
                why="a judge would not know what it is asked",
                fix=f"name one of {shipped}, or the path of a file",
            ) from error

    @property
    def path(self) -> Path:
        shipped = HERE / f"{self.name}.jinja"
        return shipped if "/" not in self.name and shipped.exists() else Path(self.name).expanduser()

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def ask(self, **values: str) -> str:
        """The question with its blanks filled in.

        Raises:
            ConfigError: the template is not one, or has a blank that nothing fills.
        """
        import jinja2

        try:
            return str(self._template.render(**values)).strip()
        except jinja2.TemplateError as error:
            raise _wrong(self.name, error, f"blanks are {', '.join(sorted(values))}") from error

    @cached_property
    def _template(self) -> Any:
        import jinja2

        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=False)
        environment.filters["quoted"] = quoted
        try:
            return environment.from_string(self.text)
        except jinja2.TemplateError as error:
            raise _wrong(self.name, error, "mend the file") from error


def quoted(text: str) -> str:
    """Every line begun with "> ", whatever ends a line."""
    return "\n".join(f"> {line}" for line in text.splitlines() or [""])


def _wrong(name: str, error: Exception, fix: str) -> ConfigError:
    return ConfigError(
        "the template cannot be used",
        got=f"{name}: {type(error).__name__}: {error}",
        why="a judge that is asked something else judges something else",
        fix=fix,
    )
