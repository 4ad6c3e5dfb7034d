"""Run a recipe: skip what exists, resume what is unfinished, lose nothing.

The folder of a run:

    resolved.yaml          the recipe with every default spelt out
    run.json               stage -> folder of its artefact, for this recipe
    sft-1a2b3c4d/          a finished artefact; those of other settings stay beside it
    .work/sft-1a2b3c4d/    an unfinished one: out/ becomes the artefact, state/ is what it resumes from
    .cache/                what stages share because it is dear to compute; may be deleted
    .lock                  held by the process that runs

An artefact's id is known before it is made, so a killed run finds its own work again and nobody else's.
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from assent.config import suggestion
from assent.errors import ArtefactError, ConfigError
from assent.pipeline.artefact import (
    Artefact,
    Identity,
    code_version,
    differences,
    fingerprint,
    load,
    seal,
    why,
    write_text,
)
from assent.pipeline.ranks import Alone, Ranks, follow
from assent.pipeline.recipe import Recipe
from assent.pipeline.references import looks_like_path
from assent.pipeline.stage import Stage, StageContext

if TYPE_CHECKING:
    from assent.protocols import StageTracker


class Console(Protocol):
    """Where a run tells people what it does."""

    def say(self, text: str) -> None:
        """Show one line or block of text."""
        ...

    def stage(self, title: str, out: Path, board: Path) -> "AbstractContextManager[StageTracker]":
        """The tracker of one running stage.

        Args:
            title: such as `sft (2/7)`.
            out: where its metrics go; they become part of the artefact.
            board: a folder for copies of them, such as TensorBoard's, which do not.
        """
        ...


@dataclass(frozen=True)
class Planned:
    """One stage with everything that is known before it runs."""

    name: str
    identity: Identity

    @property
    def label(self) -> str:
        """The name of its folder."""
        return f"{self.name}-{self.identity.id[:8]}"


# ------------------------------------------------------------------------------------------------ the plan


def plan(recipe: Recipe, folder: Path, *, remember: bool = True) -> dict[str, Planned]:
    """What each stage's artefact will be.

    Args:
        remember: keep digests of what lies outside, for the next time.

    Raises:
        ConfigError: an external path does not exist; all of them are named, before anything runs.
    """
    missing = [f"{s}: {x}" for s, names in recipe.externals.items() for x in names if _is_missing(x)]
    if missing:
        raise ConfigError(
            "the recipe refers to paths that do not exist",
            got=", ".join(missing),
            why="the stage would fail, after the stages before it have run",
            fix=f"mend the paths; they are relative to {Path.cwd()}",
        )
    known = _read_json(folder / ".fingerprints.json")
    planned: dict[str, Planned] = {}
    for name in recipe.stages:
        config = recipe.config_of(name)
        identity = Identity(
            kind=recipe.kinds[name],
            config=recipe.identified_by(name),
            parents={parent: planned[parent].identity.id for parent in recipe.parents[name]},
            code_version=code_version(),
            seed=recipe.seed_of(name),
            externals={x: _external(x, known) for x in (*recipe.externals[name], *_unmarked(config))},
        )
        planned[name] = Planned(name, identity)
    if known and remember:
        write_text(folder / ".fingerprints.json", json.dumps(known))
    return planned


def _is_missing(name: str) -> bool:
    return looks_like_path(name) and not _exists(name)


def _exists(name: str) -> bool:
    """Whether a text is a path to something; texts too long to be one, or of an unknown user's home, are not."""
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError):
        return False


_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _unmarked(config: Any) -> list[str]:
    """External things anywhere in a config that no field declares: existing paths, and a user's own classes.

    A class is named as `package.module:Name` of a module outside this package; a path has a `/` or an ending, since a
    bare word that happens to be a folder here is more likely just a word.
    """
    if isinstance(config, dict):
        return [name for value in config.values() for name in _unmarked(value)]
    if isinstance(config, list):
        return [name for value in config for name in _unmarked(value)]
    if not isinstance(config, str):
        return []
    is_path = ("/" in config or looks_like_path(config)) and any(c.isalnum() for c in config) and _exists(config)
    return [config] if is_path or _source_of(config) else []


def _source_of(name: str) -> Path | None:
    """The file of the module that a `package.module:Name` path names."""
    if not _DOTTED.fullmatch(name):
        return None
    module = name.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    inside = module.partition(".")[0] == "assent"
    return Path(spec.origin) if spec and spec.has_location and spec.origin and not inside else None


def _external(name: str, known: dict[str, str]) -> str:
    """What identifies something outside: the contents of a path or of a user's module; of a hub name only the name."""
    path = _source_of(name) or (Path(name).expanduser() if _exists(name) else None)
    return f"name:{name}" if path is None else fingerprint(path, known)


def _chosen(recipe: Recipe, only: Sequence[str] | None, until: str | None) -> list[str]:
    """The stages to run, in order."""
    names = list(recipe.stages)
    for name in [*(only or ()), *([until] if until else [])]:
        if name not in names:
            raise ConfigError(
                f"there is no stage {name!r} in the recipe {recipe.name!r}",
                got=name,
                why="only its own stages can be chosen",
                fix=suggestion(name, names),
            )
    if until:
        names = names[: names.index(until) + 1]
    return [name for name in names if not only or name in only]


# ------------------------------------------------------------------------------------------------ the run


def run(
    recipe: Recipe,
    table: Mapping[str, Stage],
    folder: Path,
    *,
    only: Sequence[str] | None = None,
    until: str | None = None,
    console: Console,
    ranks: Ranks | None = None,
) -> dict[str, Artefact]:
    """Bring a recipe's artefacts into being.

    Args:
        table: what can be done, by the name after `do:`.
        folder: of the run; made when absent.
        only: run these stages alone; what they need must exist.
        until: run up to and including this stage.
        ranks: the processes that do it together; this one alone when None.

    Returns:
        the artefact of every stage that is finished now, in the recipe's order.

    Raises:
        ConfigError: an unknown stage, or an external path that does not exist.
        ArtefactError: another process runs in this folder, an input is missing or damaged, or an external file changed
            while it was read.
    """
    only = (only,) if isinstance(only, str) else only
    chosen = _chosen(recipe, only, until)
    folder.mkdir(parents=True, exist_ok=True)
    ranks = ranks or Alone()
    with _lock(folder) if ranks.rank == 0 else contextlib.nullcontext():
        if ranks.rank == 0:
            plan(recipe, folder)
            write_text(folder / "resolved.yaml", recipe.to_yaml())
        ranks.wait()
        planned = plan(recipe, folder, remember=False)
        before = read_run(folder)
        done = {n: load(folder / p.label, verify=False) for n, p in planned.items() if (folder / p.label).exists()}
        whole: set[str] = set()
        for name in chosen:
            p = planned[name]
            if name in done:
                shutil.rmtree(folder / ".work" / p.label, ignore_errors=True)
                console.say(f"{name}: done before, in {done[name].folder}")
                continue
            _say_why(p, before.get(name), folder, console)
            inputs = _inputs(p, done, whole)
            title = f"{name} ({list(planned).index(name) + 1}/{len(planned)})"
            done[name] = _make(recipe, table, p, inputs, folder, title, console, ranks)
            if ranks.rank == 0:
                _write_run(folder, recipe, planned, done)
        if ranks.rank == 0:
            _write_run(folder, recipe, planned, done)
    return {name: done[name] for name in planned if name in done}


def _make(
    recipe: Recipe,
    table: Mapping[str, Stage],
    p: Planned,
    inputs: Mapping[str, Artefact],
    folder: Path,
    title: str,
    console: Console,
    ranks: Ranks,
) -> Artefact:
    """Run one stage to its end and seal what it wrote, or what the first process wrote."""
    work = folder / ".work" / p.label
    out, state = follow(work, ranks)
    with console.stage(title, out, folder / "boards" / p.label) as tracker:
        context = StageContext(
            p.name,
            p.identity.seed,
            inputs,
            out,
            state,
            tracker,
            console.say,
            folder / ".cache",
            device=recipe.device,
            precision=recipe.precision,
        )
        metrics = table[p.identity.kind].run(recipe.stages[p.name], context)
    ranks.wait()
    if ranks.rank != 0:
        ranks.wait()
        return load(folder / p.label, verify=False)
    _refuse_changed(p)
    more = {**context.environment, **({} if recipe.precision == "float32" else {"precision": recipe.precision})}
    made = seal(out, folder / p.label, name=p.name, identity=p.identity, metrics=metrics, more=more)
    shutil.rmtree(work)
    ranks.wait()
    return made


def _refuse_changed(p: Planned) -> None:
    """External files are read again, because the id promises what the stage was made from."""
    changed = differences(p.identity.externals, {x: _external(x, {}) for x in p.identity.externals})
    if changed:
        raise ArtefactError(
            f"what the stage {p.name} reads was changed while it ran",
            got=", ".join(line.partition(":")[0] for line in changed),
            why="the artefact would claim to be made from something else than it was",
            fix="run it again; it starts over with the new contents",
        )


def _inputs(p: Planned, done: Mapping[str, Artefact], whole: set[str]) -> dict[str, Artefact]:
    """The artefacts a stage builds on, each verified once per run; `whole` remembers which were."""
    inputs = {}
    for parent in p.identity.parents:
        if parent not in done:
            raise ArtefactError(
                f"the stage {p.name!r} needs {parent!r}, which has not been run with these settings",
                got=f"no artefact with the id {p.identity.parents[parent][:8]}",
                why="a stage is built on exactly the artefacts its recipe names",
                fix=f"run the recipe with --until {p.name}, or run {parent!r} first",
            )
        if parent not in whole:
            load(done[parent].folder, verify=True)
            whole.add(parent)
        inputs[parent] = done[parent]
    return inputs


def _say_why(p: Planned, before: Artefact | None, folder: Path, console: Console) -> None:
    """Say whether a stage is resumed, or made anew although it was made before, and why."""
    if (folder / ".work" / p.label).exists():
        console.say(f"{p.name}: continued where it was interrupted")
    elif before is not None:
        now = Artefact(folder, p.identity.id, name=p.name, environment={}, metrics={}, files={}, **vars(p.identity))
        reasons = why(before, now)
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        console.say(f"{p.name}: made anew, {before.folder.name} is kept; {'; '.join(reasons[:3])}{more}")


# ------------------------------------------------------------------------------------------------ files of a run


def read_run(folder: Path) -> dict[str, Artefact]:
    """The finished artefacts of the recipe that last ran here, in its order; empty when none did.

    Raises:
        ArtefactError: an artefact is missing or not whole; sizes are compared, contents are not.
    """
    stages = _read_json(folder / "run.json").get("stages", {})
    return {name: load(folder / where, verify=False) for name, where in stages.items() if (folder / where).exists()}


def _write_run(folder: Path, recipe: Recipe, planned: Mapping[str, Planned], done: Mapping[str, Artefact]) -> None:
    stages = {name: p.label for name, p in planned.items() if name in done}
    write_text(folder / "run.json", json.dumps({"name": recipe.name, "stages": stages}, indent=1) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ArtefactError(
            f"{path} is not JSON",
            got=error,
            why="it says what the run has finished",
            fix="delete it; a run writes it anew",
        ) from error


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The system lets go of it when its process dies, so there is no stale lock to clear.

    Raises:
        ArtefactError: a living process holds it.
    """
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ArtefactError(
                f"another run works in {folder}",
                got=f"process {file.read().strip() or 'unknown'}",
                why="two runs in one folder would mix their states",
                fix="wait for it, stop it, or choose another folder with --folder",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
