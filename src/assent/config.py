"""Configuration as a value: strict frozen models read from YAML, every problem of a file listed at once.

A recipe is read in four steps, each usable alone: `read_yaml` (text to a `Tree` that remembers its lines),
`override` (`stages.sft.epochs=3`), `substitute` (`${data}`), and `validate` (a tree's branch to a model). `validate`
returns problems instead of raising, so that the caller can show all of them; `refuse` raises what was found.

Models are read in pydantic's strict JSON mode: no text becomes a number and no number a bool, while lists become tuples
and names become enums. Unknown keys are refused at every depth with the nearest name; a stdlib dataclass does the
same when it declares `__pydantic_config__ = {"extra": "forbid"}`.
"""

import dataclasses
import difflib
import importlib
import json
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from assent.errors import ConfigError

Location = tuple[str | int, ...]
T = TypeVar("T")


class Frozen(BaseModel):
    """Base of every spec: cannot be changed after it is made, and knows its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


@dataclass(frozen=True, slots=True)
class External:
    """Marks a text field that names a file, a folder or a hub data set: `path: Annotated[str, External()]`.

    A path must exist before a run begins, and its contents are part of the artefact's id.
    """


# ------------------------------------------------------------------------------------------------ problems


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


# ------------------------------------------------------------------------------------------------ YAML


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


# ------------------------------------------------------------------------------------------------ overrides, parameters


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


# ------------------------------------------------------------------------------------------------ validation


def validate(model: type[T], data: Any, tree: Tree, where: Location = ()) -> tuple[T | None, list[Problem]]:
    """Read `data`, found at `where` in `tree`, as `model`: the value and no problem, or None and every problem."""
    try:
        return TypeAdapter(model).validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        found = [_Found(e["loc"], e["loc"], e["type"], e["msg"], e["input"]) for e in error.errors(include_url=False)]
        problems = [_problem(f, model, tree, where) for f in _pick_arms(found, data)]
        misspelt = {(*p.where[:-1], p.fix) for p in problems}
        return None, [p for p in problems if (*p.where[:-1], f"did you mean {p.where[-1]!r}?") not in misspelt]


@dataclass(frozen=True)
class _Found:
    """An error of pydantic: `full` is its location with the names of union arms in it, `loc` without."""

    full: Location
    loc: Location
    kind: str
    message: str
    value: Any


_UNKNOWN = frozenset({"extra_forbidden", "unexpected_keyword_argument"})


def _problem(found: _Found, model: Any, tree: Tree, where: Location) -> Problem:
    at = (*where, *found.loc)
    line = tree.line(at)
    if found.kind in _UNKNOWN:
        return Problem(at, "unknown key", suggestion(str(found.loc[-1]), _keys(model, found.full[:-1])), line)
    if found.kind in ("missing", "missing_argument"):
        return Problem(at, "this key is missing", "add it", line)
    if found.kind == "value_error":
        return Problem(at, found.message.removeprefix("Value error, "), "change the value as it says", line)
    got = repr(found.value)
    return Problem(at, f"{found.message}, got {got[:80]}", "give a value of that kind", line)


def _arm(loc: Location, kind: str, data: Any) -> int | None:
    """Index of the first part of `loc` that names a union's arm rather than a key of the data."""
    for i, part in enumerate(loc):
        if isinstance(data, dict) and part in data:
            data = data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif kind.startswith("missing") and i == len(loc) - 1:
            return None
        else:
            return i
    return None


def _pick_arms(found: Sequence[_Found], data: Any) -> list[_Found]:
    """Of a union, keep the errors of the arm that was probably meant: the one that the data fits best."""
    kept: list[_Found] = []
    unions: dict[Location, dict[str | int, list[_Found]]] = {}
    for f in found:
        i = _arm(f.loc, f.kind, data)
        if i is None:
            kept.append(f)
        else:
            without = dataclasses.replace(f, loc=f.loc[:i] + f.loc[i + 1 :])
            unions.setdefault(f.loc[:i], {}).setdefault(f.loc[i], []).append(without)
    for at, arms in unions.items():
        entered = {name: errors for name, errors in arms.items() if any(len(e.loc) > len(at) for e in errors)}
        if entered:
            kept += _pick_arms(min(entered.values(), key=len), data)
        else:
            every = [e for errors in arms.values() for e in errors]
            message = " or ".join(dict.fromkeys(e.message for e in every))
            kept.append(dataclasses.replace(every[0], message=message, kind="union"))
    return kept


def _keys(model: Any, loc: Location) -> list[str]:
    """The keys that the type of the value at `loc` knows."""
    here = list(_concrete(model))
    for part in loc:
        deeper = [t for kind in here for t in _step(kind, part)]
        here = deeper or [kind for kind in here if _is_arm(kind, part)] or here
    return sorted({name for kind in here for name in fields_of(kind)})


def _is_arm(kind: Any, name: str | int) -> bool:
    """Whether a union's arm goes by this name: its type's, or a value of the field that tells the arms apart."""
    return getattr(kind, "__name__", None) == name or any(name in typing.get_args(t) for t in fields_of(kind).values())


def _concrete(kind: Any) -> Iterator[Any]:
    """The types a value may have: annotations, aliases and unions opened."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        yield from _concrete(typing.get_args(kind)[0])
    elif origin in (typing.Union, types.UnionType):
        for arm in typing.get_args(kind):
            yield from _concrete(arm)
    else:
        yield kind


def fields_of(kind: Any) -> dict[str, Any]:
    """The fields of a model or dataclass with their types, `Annotated` kept; nothing for other types."""
    if not isinstance(kind, type) or not (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
        return {}
    hints = typing.get_type_hints(kind, include_extras=True)
    if issubclass(kind, BaseModel):
        return {name: hints[name] for name in kind.model_fields}
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}


def _step(kind: Any, part: str | int) -> list[Any]:
    """The types one key or index deeper."""
    fields = fields_of(kind)
    if part in fields:
        return list(_concrete(fields[str(part)]))
    arguments = [a for a in typing.get_args(kind) if a is not Ellipsis]
    if isinstance(part, int):
        return [t for a in arguments for t in _concrete(a)]
    return list(_concrete(arguments[1])) if len(arguments) == 2 and typing.get_origin(kind) is not tuple else []


# ------------------------------------------------------------------------------------------------ user classes


def resolve(path: str) -> Any:
    """The object named `package.module:Name`, such as an algorithm or a reward in a file of the user's own.

    Raises `ConfigError`: another form, a module that is not found or fails to import, or one without such a name.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name.isidentifier():
        raise _unresolved(path, "it is not of the form package.module:Name", "write for example my_rewards:Politeness")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        fix = "run from the folder that holds the file, or install the package"
        raise _unresolved(path, f"there is no module {error.name!r}", fix) from error
    except Exception as error:
        fix = f"run `python -c 'import {module_name}'` to see the whole error"
        raise _unresolved(path, f"importing {module_name!r} failed: {type(error).__name__}: {error}", fix) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise _unresolved(path, f"{module_name!r} has no {name!r}", suggestion(name, known)) from error


def _unresolved(path: str, got: str, fix: str) -> ConfigError:
    return ConfigError(f"{path!r} names nothing", got=got, why="the recipe asks for this class by its path", fix=fix)
