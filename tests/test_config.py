"""Configuration: what is refused, what is suggested, and that nothing is read as something else than was written."""

import dataclasses
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from assent.config import (
    Frozen,
    dump,
    dump_yaml,
    override,
    parse_value,
    parse_yaml,
    read_yaml,
    refuse,
    resolve,
    split_assignment,
    substitute,
    validate,
)
from assent.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012
    low: float = 0.2

    def __post_init__(self) -> None:
        if self.low < 0:
            raise ValueError(f"low must not be negative; got {self.low}; raise it")


@dataclasses.dataclass(frozen=True)
class Ppo:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012
    epochs: int = 4
    clips: tuple[Clip, ...] = ()


@dataclasses.dataclass(frozen=True)
class Grpo:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012
    group: int


class How(StrEnum):
    FAST = "fast"


class ByA(Frozen):
    name: Literal["a"]
    lr: float


class ByB(Frozen):
    name: Literal["b"]
    lrs: float


class Spec(Frozen):
    rate: float = 1e-5
    whiten: bool = True
    how: How = How.FAST
    algorithm: Ppo = Ppo()
    either: Ppo | Grpo | None = None
    named: str | Grpo | None = None
    where: Path | None = None
    lengths: tuple[int, ...] = (1,)
    told: Annotated[ByA | ByB, Field(discriminator="name")] | None = None
    by_name: dict[str, Clip] = {}  # noqa: RUF012


def problems_of(text: str) -> list[str]:
    tree = parse_yaml(text, "r.yaml")
    value, problems = validate(Spec, tree.data, tree)
    assert (value is None) == bool(problems)
    return [str(p) for p in problems]


def read(text: str) -> Spec:
    tree = parse_yaml(text, "r.yaml")
    value, problems = validate(Spec, tree.data, tree)
    assert not problems
    return value


@pytest.mark.parametrize(
    ("text", "where", "near"),
    [
        ("rat: 1", "rat (line 1)", "'rate'"),
        ("algorithm: {epohs: 3}", "algorithm.epohs", "'epochs'"),
        ("algorithm:\n  clips:\n    - {lwo: 1}", "algorithm.clips.0.lwo (line 3)", "'low'"),
        ("either: {epoch: 3}", "either.epoch", "'epochs'"),
        ("either: {group: 3, groop: 2}", "either.groop", "'group'"),
        ("told: {name: a, lrr: 1}", "told.lrr", "'lr'"),
        ("named: {grup: 3}", "named.grup", "'group'"),
        ("by_name: {x: {lowe: 1}}", "by_name.x.lowe", "'low'"),
    ],
)
def test_an_unknown_key_at_any_depth_is_refused_with_the_nearest_name(text: str, where: str, near: str) -> None:
    found = [p for p in problems_of(text) if "unknown key" in p]
    assert len(found) == 1
    assert found[0].startswith(where)
    assert f"did you mean {near}?" in found[0]


def test_a_slip_in_a_needed_key_is_one_problem() -> None:
    assert len(problems_of("told: {name: a, lrr: 1}")) == 1
    assert len(problems_of("told: {name: a}")) == 1
    assert len(problems_of("told: {name: a, zzz: 1}")) == 2
    assert "choose among lr, name" in problems_of("told: {name: a, lr: 1, zzz: 1}")[0]


def test_a_name_like_nothing_gets_the_list() -> None:
    assert "choose among clips, epochs" in problems_of("algorithm: {zzz: 1}")[0]


def test_every_problem_is_listed_at_once() -> None:
    text = "rat: 1\nwhiten: 1\nalgorithm: {epochs: x, clips: [{low: -1}]}\nlengths: ['1']\n"
    found = problems_of(text)
    assert len(found) == 5
    with pytest.raises(ConfigError) as caught:
        refuse(validate(Spec, parse_yaml(text, "r.yaml").data, parse_yaml(text, "r.yaml"))[1], "r.yaml")
    assert "5 problems" in caught.value.what
    for part in ("line 1", "line 2", "line 3", "line 4", "low must not be negative", "did you mean 'rate'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "text", ["whiten: 1", "whiten: 'true'", "rate: '1'", "lengths: [1.5]", "whiten: no", "how: slow"]
)
def test_nothing_is_read_as_something_else_than_was_written(text: str) -> None:
    assert len(problems_of(text)) == 1


def test_a_value_that_fits_no_arm_of_a_union_is_one_problem() -> None:
    found = problems_of("named: 3")
    assert len(found) == 1
    assert "valid string or" in found[0]


def test_values_are_read_as_their_types() -> None:
    spec = read(
        "rate: 1e-6\nhow: fast\nalgorithm: {epochs: 2, clips: [{low: 1}]}\neither: {group: 4}\nnamed: on\nwhere: a/b"
    )
    assert spec.rate == 1e-6
    assert spec.how is How.FAST
    assert spec.algorithm == Ppo(2, (Clip(1.0),))
    assert spec.either == Grpo(4)
    assert spec.named == "on"
    assert spec.where == Path("a/b")


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Spec().rate = 2.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("3", 3), ("-0.5", -0.5), ("5.", 5.0), ("true", True), ("no", "no"),
        ("2024-01-01", "2024-01-01"), ("010", 10), ("1:30", "1:30"), ("null", None), ("", None),
        ("[a, 1]", ["a", 1]), ("1_000", "1_000"),
        (".inf", math.inf), ("0x10", "0x10"),
    ],
)  # fmt: skip
def test_yaml_means_what_it_looks_like(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))
keys = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1)
data = st.dictionaries(keys, st.recursive(leaves, lambda x: st.lists(x) | st.dictionaries(keys, x), max_leaves=8))


@settings(max_examples=40, deadline=None)
@given(data)
@example({"08": None})
@example({"0": "\x85 \u2028 文字"})
@example({"a": "no", "b": "1e5", "c": "2024-01-01", "d": "<<", "e": "=", "f": "\ufeff"})
def test_what_is_dumped_reads_back_unchanged(written: dict) -> None:
    assert parse_yaml(dump_yaml(written), "x").data == written


def test_a_resolved_spec_reads_back_to_itself() -> None:
    spec = read("either: {group: 4}\nby_name: {x: {low: 1e-7}}\nwhere: a/b\nlengths: [3, 4]")
    assert read(dump(spec)) == spec
    assert "rate: " in dump(spec)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: 1\na: 2", "twice"),
        ("a: [1", "line"),
        ("- 1", "keys and values"),
        ("", "keys and values"),
        ("a:\n  b: 1\n  b: 2", "line 3"),
    ],
)
def test_broken_files_are_refused(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        parse_yaml(text, "r.yaml")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


def test_overrides_set_nested_keys_and_leave_the_rest() -> None:
    tree = parse_yaml("a:\n  b: 1\n  c: [{d: 1}, {d: 2}]\n", "r")
    assert override(tree, "a.b", 5).data == {"a": {"b": 5, "c": [{"d": 1}, {"d": 2}]}}
    assert override(tree, "a.c.1.d", 7).data["a"]["c"] == [{"d": 1}, {"d": 7}]
    assert override(tree, "x.y", 1).data["x"] == {"y": 1}
    assert tree.data["a"]["b"] == 1
    for key in ("a.b.z", "a.c.2.d", "a.c.x"):
        with pytest.raises(ConfigError, match="leads nowhere"):
            override(tree, key, 1)


def test_an_overridden_value_has_no_line_of_the_file() -> None:
    tree = override(parse_yaml("rate: 1\nwhiten: true\n", "r"), "rate", "x")
    _, problems = validate(Spec, tree.data, tree)
    assert problems[0].line is None


def test_assignments() -> None:
    assert split_assignment("a.b=[1, 2]") == ("a.b", [1, 2])
    assert split_assignment("a=b=c") == ("a", "b=c")
    for text in ("a", "=3", "a=[1"):
        with pytest.raises(ConfigError):
            split_assignment(text)


def test_parameters_fill_text_and_keep_their_type() -> None:
    tree = parse_yaml("s: {a: '${n}', b: 'x/${d}/${n}', c: ['${d}']}\nt: '${d}'\n", "r")
    filled, problems = substitute(tree, "s", {"n": 3, "d": "data"})
    assert not problems
    assert filled.data == {"s": {"a": 3, "b": "x/data/3", "c": ["data"]}, "t": "${d}"}


def test_parameters_unset_unknown_and_unused_are_refused() -> None:
    tree = parse_yaml("s:\n  a: ${data}\n  b: ${dta}\nparameters: {data: null, other: 1}\n", "r")
    _, problems = substitute(tree, "s", {"data": None, "other": 1})
    text = "\n".join(map(str, problems))
    assert len(problems) == 3
    assert "s.a (line 2): the parameter 'data' is used here but has no value; add data=VALUE" in text
    assert "did you mean 'data'" in text
    assert "parameters.other (line 4): no stage uses" in text


def test_resolve_finds_classes_and_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text("class Politeness: ...\n")
    (tmp_path / "my_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("my_rewards:Politeness").__name__ == "Politeness"
    for path, part in [
        ("my_rewards:Politenes", "did you mean 'Politeness'"),
        ("my_rewards.Politeness", "package.module:Name"),
        ("no_such_module_here:X", "no module 'no_such_module_here'"),
        ("my_broken:X", "ZeroDivisionError"),
    ]:
        with pytest.raises(ConfigError, match=part):
            resolve(path)


@dataclasses.dataclass(frozen=True)
class Square:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    name: Literal["square"] = "square"
    side: int = 1


@dataclasses.dataclass(frozen=True)
class Circle:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    name: Literal["circle"] = "circle"


class Drawn(Frozen):
    shape: Square | Circle = Square()
    frame: Annotated[Square | Circle, Field(discriminator="name")] | int = 3


@pytest.mark.parametrize("key", ["shape", "frame"])
def test_a_name_that_no_arm_has_is_one_problem_that_lists_them_all(key: str) -> None:
    found, problems = validate(Drawn, {key: {"name": "sqare"}}, parse_yaml("a: 1", "it"))
    assert found is None and len(problems) == 1
    assert "'square'" in str(problems[0]) and "'circle'" in str(problems[0])
