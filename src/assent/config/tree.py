"""YAML read so that it means what it says, with the line of every key."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter

from assent.config.problems import Location, Problem, refuse
from assent.errors import ConfigError


@dataclass(frozen=True)
class Tree:
    """Plain data read from a file, with the line of each key.

    Args:
        name: what to call it in errors, usually the path.
        data: mappings, lists, text, numbers, bools and None.
        lines: location of a value to the line its key is on, 1 being the first.
    """

    name: str
    data: dict[str, Any]
    lines: Mapping[Location, int] = field(default_factory=dict)

    def line(self, where: Location) -> int | None:
        """The line of `where`, or of its nearest enclosing key."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where)


class _Loader(yaml.SafeLoader):
    """YAML's core schema: `1e-5` is a number, and `no`, `on` and dates are text."""


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_YAML = "tag:yaml.org,2002:"
_BREAKS = re.compile(r"[\x85\u2028\u2029\ufeff]")  # line breaks to YAML, which only quotes keep
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)
for _reader in (_Loader, _Dumper):
    _reader.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _SCALARS:
        _reader.add_implicit_resolver(_YAML + _tag, re.compile(rf"^(?:{_pattern})\Z"), list(_first))
_Dumper.add_representer(str, lambda d, s: d.represent_scalar(_YAML + "str", s, style='"' if _BREAKS.search(s) else ""))
_Loader.add_constructor(_YAML + "int", lambda loader, node: int(node.value))


def parse_value(text: str) -> Any:
    """One YAML value, as in `key=value` on the command line."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> Tree:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, is not a mapping, or says a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read", got=error.strerror or error, why="it is the recipe", fix="check the path"
        ) from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Tree:
    """Read a YAML mapping from text; `name` is what errors call it. Raises as `read_yaml` does."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        lines, problems = _lines(root)
        data = loader.construct_document(root) if root is not None and not problems else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(
            f"{name} is not YAML",
            got=at + str(getattr(error, "problem", None) or error),
            why="nothing of it can be understood",
            fix="mend the line; indentation, colons and quotes are the usual causes",
        ) from error
    finally:
        loader.dispose()
    refuse(problems, name)
    if not isinstance(data, dict):
        raise ConfigError(
            f"{name} must hold keys and values",
            got=type(data).__name__,
            why="it is a mapping",
            fix="write `key: value`",
        )
    return Tree(name, data, lines)


def _lines(root: yaml.Node | None) -> tuple[dict[Location, int], list[Problem]]:
    """The line of every key and item, and the keys that are said twice."""
    lines: dict[Location, int] = {}
    problems: list[Problem] = []

    def walk(node: yaml.Node | None, where: Location) -> None:
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                lines[(*where, i)] = item.start_mark.line + 1
                walk(item, (*where, i))
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                at, line = (*where, str(key.value)), key.start_mark.line + 1
                if key.value in seen:
                    problems.append(Problem(at, "the key is there twice", "keep one of the two", line))
                seen.add(key.value)
                lines[at] = line
                walk(value, at)

    walk(root, ())
    return lines, problems


def dump_yaml(data: Any) -> str:
    """Plain data as YAML that `parse_yaml` reads back unchanged."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def plain(model: Any) -> Any:
    """A model or dataclass as plain data."""
    return TypeAdapter(type(model)).dump_python(model, mode="json")


def dump(model: BaseModel) -> str:
    """The model with every default spelt out, as YAML."""
    return dump_yaml(plain(model))
