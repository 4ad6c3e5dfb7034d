"""A toy pipeline: stages that count, save after every step, and can be killed anywhere; as a script, a run."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from assent.config import External, Frozen
from assent.pipeline.artefact import write_text
from assent.pipeline.recipe import parse_recipe
from assent.pipeline.references import Reference
from assent.pipeline.run import run
from assent.pipeline.stage import Stage, StageContext, StageSpec


class CountSpec(StageSpec):
    start: Annotated[str, Reference()] | None = None
    steps: int = 5
    slow: float = 0.0


class Judge(Frozen):
    model: Annotated[str, Reference()]
    weight: float = 1.0


class JoinSpec(StageSpec):
    parts: tuple[Annotated[str, Reference()], ...]
    judges: dict[str, Judge] = Field(default_factory=dict)
    either: Judge | Annotated[str, Reference()] | None = None
    label: str = "x"
    data: Annotated[str, External()] = ""


def count(spec: CountSpec, context: StageContext) -> Mapping[str, float]:
    """A chain of numbers, each made from the last; one file per number, the state after every step."""
    saved = context.state / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else None
    if state is None:
        value = context.seed
        if spec.start is not None:
            value += json.loads((context.folder(spec.start) / "value.json").read_text())
        state = {"done": 0, "value": value}
    context.tracker.progress(state["done"], spec.steps)
    while state["done"] < spec.steps:
        time.sleep(spec.slow)
        state = {
            "done": state["done"] + 1,
            "value": (state["value"] * 6364136223846793005 + 1442695040888963407) % 2**61,
        }
        (context.out / f"{state['done']}.txt").write_text(str(state["value"]))
        write_text(saved, json.dumps(state))
        context.tracker.progress(state["done"], spec.steps)
    (context.out / "value.json").write_text(str(state["value"]))
    return {"value": float(state["value"]), "empty": float("nan")}


def join(spec: JoinSpec, context: StageContext) -> Mapping[str, float]:
    values = [json.loads((context.folder(p) / "value.json").read_text()) for p in spec.parts]
    (context.out / "value.json").write_text(str(sum(values)))
    return {"value": float(sum(values))}


TABLE = {
    "count": Stage("count", CountSpec, count, lambda spec: {"updates": spec.steps}),
    "join": Stage("join", JoinSpec, join, lambda spec: {"parts": len(spec.parts)}),
}

RECIPE = """
name: toy
seed: 7
stages:
  first: {do: count, steps: 6, slow: 0.01}
  second: {do: count, steps: 6, slow: 0.01, start: first}
  last: {do: join, parts: [first, second]}
"""


class NoTracker:
    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def progress(self, done: int, total: int) -> None: ...
    def state_dict(self) -> dict: return {}  # fmt: skip

    def load_state_dict(self, state: dict) -> None: ...


@dataclass
class Heard:
    """A console that remembers."""

    lines: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def stage(self, title: str, out: Path, board: Path) -> Iterator[NoTracker]:
        self.titles.append(title)
        yield NoTracker()


def main(folder: str, die_at: str) -> None:
    """Run the toy recipe; on the `die_at`-th call into the system from the pipeline, die as by `kill -9`."""
    left = int(die_at)

    def hook(event: str, _: tuple) -> None:
        nonlocal left
        if left and event in ("open", "os.rename", "os.mkdir", "os.remove", "shutil.rmtree", "os.rmdir", "fcntl.flock"):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    recipe = parse_recipe(RECIPE.replace("0.01", "0"), TABLE)
    sys.addaudithook(hook)
    run(recipe, TABLE, Path(folder), console=Heard())
    print(1 << 30 if not int(die_at) else int(die_at) - left)


if __name__ == "__main__":
    main(*sys.argv[1:])
