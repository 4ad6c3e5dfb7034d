"""`from:` in a recipe: stages of another recipe, taken as they stand, so that what two recipes share is written once.

    from: {recipe: quickstart.yaml, stages: [base, sft, comparisons, reward], change: {comparisons.samples: 8}}

The stages are put before the recipe's own, in the order of the list; `change` sets dotted keys in them. Parameters that
they use come with them; a value that the recipe itself declares goes first.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from assent.config import Frozen, Problem, Tree, override, read_yaml, refuse, suggestion, validate

KEY = "from"


class Taken(Frozen):
    """What is taken from where.

    Args:
        recipe: the other recipe's file; a relative path is looked up beside this recipe.
        stages: names, in the order in which they are to run.
        change: dotted keys within those stages, and their new values.
    """

    recipe: str
    stages: list[str] = Field(min_length=1)
    change: dict[str, Any] = Field(default_factory=dict)


def take_stages(tree: Tree, folder: Path, above: tuple[Path, ...] = ()) -> Tree:
    """The tree with the stages in the place of `from`; unchanged where there is none.

    Args:
        folder: where a relative path begins.
        above: the recipes that led here, which must not come again.

    Raises:
        ConfigError: the other recipe cannot be read, lacks a stage, leads back here, or shares a stage's name.
    """
    if KEY not in tree.data:
        return tree
    taken, problems = validate(Taken, tree.data[KEY], tree, (KEY,))
    refuse(problems, tree.name)
    assert taken is not None
    path = (folder / taken.recipe).resolve()
    if path in above:
        refuse(
            [_problem(tree, "recipe", f"{taken.recipe} leads back to itself", "take the stages from one side")],
            tree.name,
        )
    other = take_stages(read_yaml(path), path.parent, (*above, path))
    stages, own = _mapping(other, "stages"), _mapping(tree, "stages")
    for name in taken.stages:
        if name not in stages:
            problems.append(_problem(tree, "stages", f"{taken.recipe} has no stage {name!r}", suggestion(name, stages)))
        elif name in own:
            fix = "rename it here, or leave it out of the list and keep this one"
            problems.append(_problem(tree, "stages", f"the stage {name!r} is there twice", fix))
    kept = {name: stages[name] for name in taken.stages if name in stages}
    for key in taken.change:
        if key.partition(".")[0] not in kept or "." not in key:
            fix = "begin with the name of a taken stage, as sft.epochs"
            problems.append(_problem(tree, "change", f"{key!r} leads into no stage that is taken", fix))
    refuse(problems, tree.name)
    changed = Tree(other.name, {"stages": kept})
    for key, value in taken.change.items():
        changed = override(changed, f"stages.{key}", value)
    used = {k: v for k, v in _mapping(other, "parameters").items() if f"${{{k}}}" in str(changed.data)}
    data = {k: v for k, v in tree.data.items() if k != KEY}
    if used or "parameters" in data:
        data["parameters"] = {**used, **_mapping(tree, "parameters")}
    data["stages"] = {**changed.data["stages"], **own}
    return Tree(tree.name, data, tree.lines)


def _mapping(tree: Tree, key: str) -> Mapping[str, Any]:
    found = tree.data.get(key)
    return found if isinstance(found, dict) else {}


def _problem(tree: Tree, key: str, what: str, fix: str) -> Problem:
    return Problem((KEY, key), what, fix, tree.line((KEY, key)))
