"""Recipes: an ordered list of stages, read from YAML and checked whole before anything runs.

    name: quickstart
    seed: 0
    device: auto                    # where models run: auto, cpu, cuda, cuda:1
    precision: float32              # of matrix products: float32, or bfloat16 on a GPU
    parameters: {data: null}        # `assent run recipe.yaml data=PATH`
    stages:
      pretrain: {do: pretrain, documents: "${data}"}
      sft: {do: sft, model: pretrain, epochs: 3}

`do` names what is done; the other keys are the fields of that stage's spec. The table of what can be done is a value
that the composition root hands in, so nothing registers itself anywhere. `do: rounds` stands for several stages
several times over and is written out first (`assent.pipeline.rounds`); stages of another recipe are taken over before
that (`assent.pipeline.taken`).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from assent.config import (
    Frozen,
    Problem,
    Tree,
    dump_yaml,
    override,
    parse_yaml,
    plain,
    read_yaml,
    refuse,
    split_assignment,
    substitute,
    suggestion,
    validate,
)
from assent.pipeline.references import externals as externals_of
from assent.pipeline.references import references, split_references
from assent.pipeline.rounds import KIND as ROUNDS
from assent.pipeline.rounds import expand
from assent.pipeline.stage import Stage, StageSpec
from assent.pipeline.taken import take_stages


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Args:
        name: names the run's folder.
        seed: what every stage's seed is derived from.
        device: where its models run: `auto`, `cpu`, `cuda` or `cuda:N`; no part of what an artefact is.
        precision: of their matrix products, `float32` or `bfloat16`; part of what an artefact is.
        parameters: what `${...}` stood for.
        stages: the spec of each stage, in order.
        kinds: what each stage does.
        parents: the earlier stages that each stage refers to.
        externals: the paths and hub names that each stage refers to.
    """

    name: str
    seed: int
    device: str
    precision: str
    parameters: Mapping[str, Any]
    stages: Mapping[str, StageSpec]
    kinds: Mapping[str, str]
    parents: Mapping[str, tuple[str, ...]]
    externals: Mapping[str, tuple[str, ...]]

    def seed_of(self, stage: str) -> int:
        """The stage's own seed, or 31 bits of the sha256 of the recipe's seed and the stage's name.

        The name is in it so that adding a stage changes no other stage's randomness; 31 bits suit every generator.
        """
        own = self.stages[stage].seed
        if own is not None:
            return own
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{stage}".encode()).digest()[:4], "big") >> 1

    def config_of(self, stage: str) -> dict[str, Any]:
        """The stage's spec with every default spelt out, plain data."""
        return plain(self.stages[stage])

    def identified_by(self, stage: str) -> dict[str, Any]:
        """`config_of`, and the precision where it is not float32: it changes a result in its third digit, where another
        device changes it in its seventh, as another processor or version of torch does."""
        config = self.config_of(stage)
        return config if self.precision == "float32" else {**config, "precision": self.precision}

    def to_yaml(self) -> str:
        """The resolved recipe: every default spelt out, parameters filled in; reads back to the same artefacts."""
        stages = {name: {"do": self.kinds[name], **self.config_of(name)} for name in self.stages}
        return dump_yaml(
            {
                "name": self.name,
                "seed": self.seed,
                "device": self.device,
                "precision": self.precision,
                "stages": stages,
            }
        )


class _Header(Frozen):
    """The top level of a recipe."""

    name: str = ""
    seed: int = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    parameters: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    stages: dict[str, dict[str, Any]]


TOP = ("name", "seed", "device", "precision", "parameters", "stages")
"""Keys of a recipe."""

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)?")
"""A dot stands between a round and a stage of it."""


def load_recipe(path: Path | str, table: Mapping[str, Stage], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file; `overrides` are the `key=value` arguments after it.

    Raises:
        ConfigError: with every problem there is, each with its key, its line and what to do.
    """
    path = Path(path)
    return _build(take_stages(read_yaml(path), path.parent, (path.resolve(),)), table, overrides, path.stem)


def parse_recipe(text: str, table: Mapping[str, Stage], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from text; another recipe that it takes stages from is looked up in the working folder. Raises as
    `load_recipe` does."""
    return _build(take_stages(parse_yaml(text, "the recipe"), Path()), table, overrides, "recipe")


def _build(tree: Tree, table: Mapping[str, Stage], overrides: Sequence[str], stem: str) -> Recipe:
    tree, late = _override(tree, overrides)
    header, problems = validate(_Header, tree.data, tree)
    if header is None:
        refuse(problems, tree.name)
        raise AssertionError("a header that is not valid has problems")
    tree, problems = substitute(tree, "stages", header.parameters)
    if not header.stages:
        problems.append(Problem(("stages",), "there is no stage", "add one, as `sft: {do: sft, ...}`"))
    tree, wrong = expand(tree)
    problems += wrong
    tree = _override_rounds(tree, late)
    stages: dict[str, StageSpec] = {}
    parents: dict[str, tuple[str, ...]] = {}
    externals: dict[str, tuple[str, ...]] = {}
    for i, (name, entry) in enumerate(tree.data["stages"].items()):
        spec, wrong = _spec(name, entry, table, tree)
        problems += wrong
        if spec is None:
            continue
        names = list(tree.data["stages"])
        found = references(spec)
        parents[name], named, wrong = split_references(found, names[:i], names, ("stages", name))
        externals[name] = tuple(dict.fromkeys([*named, *externals_of(spec)]))
        problems += [Problem(p.where, p.what, p.fix, tree.line(p.where)) for p in wrong]
        stages[name] = spec
    refuse(_once(problems), tree.name)
    kinds = {name: entry["do"] for name, entry in tree.data["stages"].items()}
    return Recipe(
        header.name or stem,
        header.seed,
        header.device,
        header.precision,
        header.parameters,
        stages,
        kinds,
        parents,
        externals,
    )


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """A value that is unset is not also of the wrong type, and a line of a block of rounds is wrong once, not in every
    round: one problem per place, the first."""
    by_place: dict[Any, Problem] = {}
    for p in problems:
        by_place.setdefault(p.where, p)
    by_line: dict[Any, Problem] = {}
    for p in by_place.values():
        by_line.setdefault((p.line, p.where[2:], p.what) if p.line else p.where, p)
    return sorted(by_line.values(), key=lambda p: p.line or 0)


def _override(tree: Tree, overrides: Sequence[str]) -> tuple[Tree, list[str]]:
    """Apply `key=value`: a name without a dot that is a parameter sets it, anything else is a path into the recipe.

    Returns the tree, and what is for one round alone and must wait until the rounds are written out.
    """
    problems, late = [], []
    for text in overrides:
        key, value = split_assignment(text)
        declared, stages = (x if isinstance(x := tree.data.get(k), dict) else {} for k in ("parameters", "stages"))
        top, _, rest = key.partition(".")
        if key in declared:
            tree = override(tree, f"parameters.{key}", value)
        elif top == "stages" and _is_of_a_round(rest, stages):
            late.append(text)
        elif top == "stages" and not _begins_with_a_stage(rest, stages):
            stage = rest.partition(".")[0]
            problems.append(Problem((key,), f"there is no stage {stage!r}", suggestion(stage, stages)))
        elif top in TOP:
            tree = override(tree, key, value)
        else:
            fix = "begin the path with stages., as stages.sft.epochs=3"
            fix = fix if rest else suggestion(key, [*declared, "name", "seed", "device", "precision"])
            problems.append(Problem((key,), "it is neither a parameter nor a key of the recipe", fix))
    refuse(problems, "the command line")
    return tree, late


def _begins_with_a_stage(path: str, stages: Mapping[str, Any]) -> bool:
    """Whether a dotted path leads into a stage; the name of a stage of a round has a dot itself."""
    parts = path.split(".")
    return parts[0] in stages or ".".join(parts[:2]) in stages


def _is_of_a_round(path: str, stages: Mapping[str, Any]) -> bool:
    """Whether a dotted path begins like the name of a stage that a block of rounds is written out to."""
    block, _, number = path.partition(".")[0].rpartition("_")
    return number.isdigit() and isinstance(stages.get(block), dict) and stages[block].get("do") == ROUNDS


def _override_rounds(tree: Tree, overrides: Sequence[str]) -> Tree:
    """Apply what is for one round alone."""
    problems = []
    for text in overrides:
        key, value = split_assignment(text)
        path, stages = key.removeprefix("stages."), tree.data["stages"]
        if _begins_with_a_stage(path, stages):
            tree = override(tree, key, value)
        else:
            stage = ".".join(path.split(".")[:2])
            problems.append(Problem((key,), f"there is no stage {stage!r}", suggestion(stage, stages)))
    refuse(problems, "the command line")
    return tree


def _spec(
    name: str, entry: Mapping[str, Any], table: Mapping[str, Stage], tree: Tree
) -> tuple[StageSpec | None, list[Problem]]:
    """One stage's settings, or what is wrong with them."""
    where = ("stages", name)
    if not _STAGE_NAME.fullmatch(name):
        fix = "use small letters, digits, - and _, a letter first: it names a folder"
        return None, [Problem(where, "the stage's name cannot be used", fix, tree.line(where))]
    kind = entry.get("do")
    if not isinstance(kind, str) or kind not in table:
        what = "the key `do` is missing" if kind is None else f"there is nothing to do called {kind!r}"
        fix = suggestion(str(kind), table) if kind is not None else f"choose among {', '.join(sorted(table))}"
        return None, [Problem((*where, "do"), what, fix, tree.line((*where, "do")))]
    settings = {k: v for k, v in entry.items() if k != "do"}
    return validate(table[kind].spec, settings, tree, where)
