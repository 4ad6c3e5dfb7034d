"""Rounds: one block of a recipe that stands for its stages several times over, each time on what the time before left.

    round:
      do: rounds
      count: 3
      start: {policy: sft}
      stages:
        comparisons: {do: compare, policy: previous.policy, ...}
        reward: {do: reward_model, data: [{format: stage, stage: every.comparisons}], ...}
        ppo: {do: rl, policy: previous.policy, rewards: [{reward_model: this.reward}], ...}
        verdict: {do: evaluate, policy: this.ppo, baseline: previous.policy, ...}
        policy: {do: accept, candidate: this.ppo, incumbent: previous.policy, verdict: this.verdict}

It becomes the ordinary stages `round_1.comparisons` to `round_3.policy` before anything else is read, so that skipping,
resuming and lineage are those of any stage. Inside the block, X being one of its stages:

    this.X       of this round
    previous.X   of the round before; in the first round, what `start` says
    earlier.X    of every round before this one; the item of the list it stands in is repeated for each
    every.X      the same with this round

Outside, `round_last.X` and `round_every.X` stand for the last round's and all rounds'.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from assent.config import Frozen, Location, Problem, Tree, suggestion, validate
from assent.pipeline.references import looks_like_path

KIND = "rounds"
"""What stands after `do:`."""

_WORD = re.compile(r"([a-z][a-z0-9_-]*)\.([a-z][a-z0-9_-]*)")


class Rounds(Frozen):
    """A block of rounds.

    Args:
        count: how many rounds.
        start: what `previous.X` is in the first round, by X: an earlier stage, a path or a hub name.
        stages: of one round, in order.
    """

    count: int = Field(gt=0)
    start: dict[str, str] = Field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = Field(min_length=1)


@dataclass(frozen=True)
class _Word:
    """What a word before the dot stands for.

    Args:
        stages: what may stand after the dot.
        names: of each round it stands for, the prefix of the stage's name.
        many: it repeats the item of the list it stands in, so it may stand for none.
        start: the stage's name to what is meant where there is no such round.
    """

    stages: Collection[str]
    names: tuple[str, ...]
    many: bool = False
    start: Mapping[str, Any] = field(default_factory=dict)


_Scope = Mapping[str, _Word]


def expand(tree: Tree) -> tuple[Tree, list[Problem]]:
    """The recipe with its blocks of rounds written out, and what is wrong with them.

    Line numbers of what is written out are those of the block's own text.
    """
    out = _Writer(tree)
    outer: dict[str, _Word] = {}
    for name, entry in tree.data["stages"].items():
        where = ("stages", name)
        if entry.get("do") != KIND:
            out.stage(name, entry, where, outer)
            continue
        settings = {k: v for k, v in entry.items() if k != "do"}
        rounds, problems = validate(Rounds, settings, tree, where)
        out.problems += problems
        if rounds is not None:
            out.block(name, rounds, where, outer)
    data = {**tree.data, "stages": out.stages}
    return Tree(tree.name, data, {**tree.lines, **out.lines}), out.problems


class _Writer:
    """Writes stages out one after the other; keeps their lines and the problems met."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.stages: dict[str, Any] = {}
        self.lines: dict[Location, int] = {}
        self.problems: list[Problem] = []

    def block(self, name: str, rounds: Rounds, where: Location, outer: dict[str, _Word]) -> None:
        """Every round of a block; afterwards `outer` knows the words for them."""
        begin = {k: self._filled(v, (*where, "start", k), (), outer) for k, v in rounds.start.items()}
        prefixes = [f"{name}_{i + 1}" for i in range(rounds.count)]
        for i, prefix in enumerate(prefixes):
            words = {
                "this": _Word(rounds.stages, (prefix,)),
                "previous": _Word(rounds.stages, tuple(prefixes[i - 1 : i]), start=begin),
                "earlier": _Word(rounds.stages, tuple(prefixes[:i]), many=True),
                "every": _Word(rounds.stages, tuple(prefixes[: i + 1]), many=True),
            }
            for stage, entry in rounds.stages.items():
                self.stage(f"{prefix}.{stage}", entry, (*where, "stages", stage), {**outer, **words})
        outer[f"{name}_last"] = _Word(rounds.stages, (prefixes[-1],))
        outer[f"{name}_every"] = _Word(rounds.stages, tuple(prefixes), many=True)
        self._check_start(rounds, where)

    def stage(self, name: str, entry: Any, where: Location, scope: _Scope) -> None:
        """One stage under its final name."""
        if name in self.stages or (name != where[-1] and name in self.tree.data["stages"]):
            self._problem(where, f"a stage of the rounds would be called {name!r} like another", "rename one of them")
        self.stages[name] = self._filled(entry, where, ("stages", name), scope)

    def _check_start(self, rounds: Rounds, where: Location) -> None:
        """A start that no `previous.X` asks for changes nothing."""
        asked = {text.partition(".")[2] for text in _texts(rounds.stages) if text.startswith("previous.")}
        for stage in rounds.start.keys() - asked:
            fix = f"no stage of the round refers to previous.{stage}: delete it"
            self._problem((*where, "start", stage), "this start changes nothing", fix)

    def _filled(self, node: Any, source: Location, target: Location, scope: _Scope) -> Any:
        """A copy of `node` with every word replaced; `source` and `target` are where it stood and will stand."""
        line = self.tree.line(source)
        if target and line is not None:
            self.lines[target] = line
        if isinstance(node, dict):
            return {k: self._filled(v, (*source, k), (*target, k), scope) for k, v in node.items()}
        if isinstance(node, list):
            items: list[Any] = []
            for i, item in enumerate(node):
                for narrowed in self._repeats(item, (*source, i), scope):
                    items.append(self._filled(item, (*source, i), (*target, len(items)), narrowed))
            return items
        return self._named(node, source, scope) if isinstance(node, str) else node

    def _repeats(self, item: Any, where: Location, scope: _Scope) -> Iterator[_Scope]:
        """The scope of each copy of an item of a list: one, or one for each round that its word stands for."""
        found = [m for text in _texts(item, into_lists=False) if (m := _WORD.fullmatch(text)) and m[1] in scope]
        words = sorted({m[1] for m in found if scope[m[1]].many})
        if not words:
            yield scope
            return
        if len(words) > 1:
            fix = "one item of a list is repeated for the rounds of one word; use that word throughout, or two items"
            self._problem(where, f"{' and '.join(words)} stand in one item", fix)
            return
        word = scope[words[0]]
        for prefix in word.names:
            yield {**scope, words[0]: _Word(word.stages, (prefix,))}

    def _named(self, text: str, where: Location, scope: _Scope) -> Any:
        """The stage that a text means; any text that begins with none of the words means itself."""
        match = _WORD.fullmatch(text)
        if match is None or match[1] not in scope:
            return text
        word, stage = scope[match[1]], match[2]
        if stage not in word.stages:
            if not looks_like_path(text):
                what = f"there is no stage {stage!r} in the round that {match[1]!r} stands for"
                self._problem(where, what, suggestion(stage, word.stages))
            return text
        if word.many:
            what = f"{text!r} may stand for several stages"
            self._problem(where, what, f"put it into a list, as [{text}], or mean one: this.{stage}, previous.{stage}")
            return text
        if word.names:
            return f"{word.names[0]}.{stage}"
        if stage not in word.start:
            fix = f"say what it starts from: `start: {{{stage}: NAME}}` beside `count`"
            self._problem(where, f"in the first round there is no {text}", fix)
            return text
        return word.start[stage]

    def _problem(self, where: Location, what: str, fix: str) -> None:
        """Once: every round would say the same."""
        problem = Problem(where, what, fix, self.tree.line(where))
        if problem not in self.problems:
            self.problems.append(problem)


def _texts(node: Any, *, into_lists: bool = True) -> Iterator[str]:
    """Every text within plain data; of an item that is a list itself, only with `into_lists`."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _texts(value, into_lists=into_lists)
    elif isinstance(node, list) and into_lists:
        for value in node:
            yield from _texts(value)
