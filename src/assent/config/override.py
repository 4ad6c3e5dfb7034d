"""Overrides on the command line, and parameters."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from assent.config.problems import Location, Problem, dotted, suggestion
from assent.config.tree import Tree, parse_value
from assent.errors import ConfigError


def split_assignment(text: str) -> tuple[str, Any]:
    """`key=value` to the key and the value read as YAML. Raises `ConfigError` without `=`, or if it is not YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            "an argument after the recipe must read key=value",
            got=repr(text),
            why="it says which setting gets which value",
            fix="write for example stages.sft.epochs=3, or data=PATH for a parameter",
        )
    try:
        return key.strip(), parse_value(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"the value of {key.strip()} is not YAML",
            got=repr(value),
            why="values of overrides are read as YAML, so that 3, true, null and [a, b] mean what they mean in a file",
            fix=f"""quote it for YAML inside quotes for the shell: {key.strip()}='"{value}"'""",
        ) from error


def override(tree: Tree, key: str, value: Any) -> Tree:
    """The tree with the dotted `key` set; list items are named by their number.

    Raises:
        ConfigError: the key leads through a value that is neither a mapping nor a list.
    """
    where: list[str | int] = []

    def replace(node: Any, rest: list[str]) -> Any:
        if not rest:
            return value
        part = rest[0]
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise _bad_override(key, where, f"a list of {len(node)}", f"an item's number, 0 to {len(node) - 1}")
            where.append(int(part))
            return [replace(x, rest[1:]) if i == int(part) else x for i, x in enumerate(node)]
        if not (node is None or isinstance(node, dict)):
            raise _bad_override(key, where, repr(node), "nothing further; set the value itself")
        if node and (both := ".".join(rest[:2])) in node:  # the stages of a round have a dot in their names
            part, rest = both, rest[1:]
        where.append(part)
        return {**(node or {}), part: replace((node or {}).get(part), rest[1:])}

    data = replace(tree.data, key.split("."))
    gone = {at: line for at, line in tree.lines.items() if at[: len(where)] != tuple(where)}
    return Tree(tree.name, data, gone)


def _bad_override(key: str, where: Sequence[str | int], got: str, expected: str) -> ConfigError:
    return ConfigError(
        f"the override {key} leads nowhere",
        got=f"{dotted(tuple(where)) or 'the top level'} is {got}",
        why="an override that changes nothing would be ignored in silence",
        fix=f"after {dotted(tuple(where)) or 'the start'} write {expected}",
    )


_PARAMETER = re.compile(r"\$\{([^}]*)\}")


def substitute(tree: Tree, branch: str, parameters: Mapping[str, Any]) -> tuple[Tree, list[Problem]]:
    """Replace `${name}` in the text below the key `branch`; text that is nothing but `${name}` takes the value's type.

    Returns the new tree, and a problem for each parameter that is unknown, used but unset, or never used.
    """
    problems: list[Problem] = []
    used: set[str] = set()

    def value_of(name: str, where: Location) -> Any:
        used.add(name)
        if name not in parameters:
            fix = f"declare it under `parameters:`; {suggestion(name, parameters)}"
            problems.append(Problem(where, f"${{{name}}} is not a parameter", fix, tree.line(where)))
        elif parameters[name] is None:
            fix = f"add {name}=VALUE after the recipe on the command line"
            what = f"the parameter {name!r} is used here but has no value"
            problems.append(Problem(where, what, fix, tree.line(where)))
        return parameters.get(name)

    data = {k: _fill(v, (k,), value_of) if k == branch else v for k, v in tree.data.items()}
    for name in parameters:
        if name not in used:
            where = ("parameters", name)
            problems.append(Problem(where, "no stage uses this parameter", "delete it or use it", tree.line(where)))
    return Tree(tree.name, data, tree.lines), problems


def _fill(node: Any, where: Location, value_of: Callable[[str, Location], Any]) -> Any:
    if isinstance(node, dict):
        return {k: _fill(v, (*where, k), value_of) for k, v in node.items()}
    if isinstance(node, list):
        return [_fill(v, (*where, i), value_of) for i, v in enumerate(node)]
    if not isinstance(node, str):
        return node
    whole = _PARAMETER.fullmatch(node)
    if whole:
        return value_of(whole[1], where)
    return _PARAMETER.sub(lambda m: str(value_of(m[1], where)), node)
