"""Every method on the embedded domain: the same text, SFT model and comparisons, several seeds.

    python benchmarks/methods.py --seeds 10 11 12

Within a seed all methods run in one folder, so that what they share is one artefact: the SFT model, the comparisons
(the labels, equal for all) and, for those that use one, the reward model. Settings were chosen on seeds above 99.
Writes `benchmarks/results/methods.{md,json,svg}`: win rate against SFT by the hidden gold judgement, correctness apart
from manners, KL, length and seconds, with 95 % t intervals over seeds, and where each method stands between KL and win.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assent.evals.intervals import mean_interval
from assent.evals.svg import LINE, Scale, element, hover, number, picture, standalone, text, ticks
from assent.pipeline.recipe import load_recipe
from assent.stages import TABLE

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHARED = ("base", "sft", "comparisons", "reward")
"""Stages that the methods have in common; their seconds are not a method's own."""


@dataclass(frozen=True)
class Method:
    """A method and the recipe that runs it.

    Args:
        name: of the recipe's file.
        shown: in the table.
        overrides: `key=value`, as on the command line.
    """

    name: str
    shown: str
    overrides: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return " ".join((self.name, *self.overrides))


def like_grpo(shown: str, algorithm: str) -> Method:
    """GRPO's recipe with another algorithm: the same reward model, leash and four responses to a prompt."""
    return Method("grpo", shown, (f"stages.grpo.algorithm={algorithm}",))


METHODS = (
    Method("quickstart", "PPO"),
    Method("reinforce", "REINFORCE"),
    Method("rloo", "RLOO"),
    Method("reinforce_pp", "REINFORCE++"),
    like_grpo("REINFORCE++ with baseline", "{name: reinforce_pp_baseline, minibatches: 4}"),
    Method("remax", "ReMax"),
    Method("grpo", "GRPO, not divided by the deviation"),
    like_grpo("GRPO", "{name: grpo, minibatches: 4}"),
    like_grpo(
        "Dr. GRPO",
        "{name: grpo, minibatches: 4, scale_by_std: false, reduction: {name: constant, tokens: 32}}",
    ),
    like_grpo("DAPO's loss", "{name: grpo, minibatches: 4, clip_high: 0.28, reduction: {name: token}}"),
    like_grpo("GSPO", "{name: grpo, minibatches: 4, sequence_ratio: true, clip_low: 3.0e-4, clip_high: 4.0e-4}"),
    like_grpo("CISPO", "{name: cispo, minibatches: 4}"),
    Method("online_dpo", "online DPO, soft labels"),
    Method("raft", "RAFT, two rounds"),
    Method("dpo", "DPO"),
    Method("dpo", "cDPO", ("stages.dpo.algorithm.label_smoothing=0.1",)),
    Method("robust_dpo", "robust DPO"),
    Method("ipo", "IPO"),
    Method("kto", "KTO"),
    Method("orpo", "ORPO"),
    Method("simpo", "SimPO"),
    Method("cpo", "CPO"),
    Method("bco", "BCO"),
    Method("apo_zero", "APO-zero"),
    Method("apo_down", "APO-down"),
    Method("hinge", "hinge"),
)
"""The online ones all hold the same reward model and KL coefficient, also those whose papers have none: their reward is
a rule, which needs no leash; a learned one does."""


def run(method: Method, folder: Path, seed: int) -> dict[str, Any]:
    """One method of one seed, in a process of its own with one thread; its figures."""
    path = ROOT / "recipes" / f"{method.name}.yaml"
    command = [sys.executable, "-m", "assent", "run", str(path), f"seed={seed}", *method.overrides]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        command += ["--folder", str(folder), "--until", "verdict"]
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=ROOT)
    stages = json.loads((folder / "run.json").read_text())["stages"]
    results = json.loads((folder / stages["verdict"] / "results.json").read_text())
    own = [s for s in load_recipe(path, TABLE, [*method.overrides]).stages if s not in (*SHARED, "verdict", "report")]
    right = {m: results["correctness"][m]["all"]["mean"] for m in results["correctness"]}
    return {
        "win": {name: rate_of(w) for name, w in results["win_rates"].items()},
        "kl": results["kl"],
        "gold": results["models"]["policy sampled"]["judge"],
        "length": results["models"]["policy sampled"]["length"],
        "correct": right["policy greedy"],
        "lost": sorted({kind for kinds in results["lost"].values() for kind in kinds}),
        "baseline": {
            "gold": results["models"]["baseline sampled"]["judge"],
            "length": results["models"]["baseline sampled"]["length"],
            "correct": right["baseline greedy"],
        },
        "seconds": sum(seconds_of(folder / stages[s]) for s in own),
    }


def seconds_of(artefact: Path) -> float:
    """Of the steps of a stage that trains; 0 for one that does not."""
    path = artefact / "timing.jsonl"
    return sum(json.loads(row)["seconds"] for row in path.read_text().splitlines()) if path.exists() else 0.0


def rate_of(w: Mapping[str, Any]) -> float:
    return (w["win"] + 0.5 * w["tie"]) / (w["win"] + w["tie"] + w["loss"])


def of_seed(base: Path, seed: int, methods: Sequence[Method]) -> dict[str, Any]:
    """All methods of a seed one after the other; one that fails is said, and the others go on."""
    found: dict[str, Any] = {}
    for method in methods:
        try:
            found[method.key] = run(method, base / f"seed{seed}", seed)
            print(f"seed {seed}: {method.shown}: sampled {found[method.key]['win']['sampled']:.3f}", flush=True)
        except subprocess.CalledProcessError:
            print(f"seed {seed}: {method.shown} FAILED, see {base / f'seed{seed}' / 'log.txt'}", flush=True)
    return found


# ------------------------------------------------------------------------------------------------ the page

FARTHEST = 20.0
"""Nats; a policy further away has left every language that anybody compared."""

COLUMNS = ("sampled", "greedy", "sampled against the baseline's greedy")


def shown(values: Sequence[float], digits: int = 3) -> str:
    """Mean and 95 % t interval over seeds; one seed has no interval."""
    e = mean_interval(values)
    assert e.value is not None
    between = f" [{e.interval.low:.{digits}f}, {e.interval.high:.{digits}f}]" if e.interval else ""
    return f"{e.value:.{digits}f}{between}"


def table(seeds: Sequence[int], rows: Mapping[int, Mapping[str, Any]], methods: Sequence[Method]) -> str:
    """The committed page."""
    lines = [
        "# Every method on the same comparisons",
        "",
        f"`python benchmarks/methods.py --seeds {' '.join(map(str, seeds))}`, {datetime.date.today()}, "
        f"{platform.machine()}, {os.cpu_count()} cores, one thread per run, Python {platform.python_version()}. Mean "
        f"and 95 % t interval over {len(seeds)} seeds, not cut at 1; ties count half; against the SFT model, judged by "
        "the hidden gold of 400 held-out prompts. Seconds: the method's own training steps, beside another run.",
        "",
        "Lost: kinds of prompt that the verdict names as lost to SFT, sampled or greedily, and on how many seeds.",
        "",
        "| # | method | sampled | greedy | sampled against greedy SFT | correctness, greedy | KL, nats | length "
        "| lost | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    base = [next(iter(rows[s].values()))["baseline"] for s in seeds if rows[s]]
    right, length = shown([b["correct"] for b in base]), shown([b["length"] for b in base], 1)
    lines.append(f"| | SFT itself | .5 | .5 | | {right} | 0 | {length} | | |")
    for i, method in enumerate(methods, 1):
        of = [rows[s][method.key] for s in seeds if method.key in rows[s]]
        if not of:
            lines.append(f"| {i} | {method.shown} | did not run | | | | | | | |")
            continue
        cells = [shown([r["win"][c] for r in of]) for c in COLUMNS]
        cells += [shown([r["correct"] for r in of]), shown([r["kl"] for r in of], 2)]
        cells += [shown([r["length"] for r in of], 1), lost(of), f"{sum(r['seconds'] for r in of) / len(of):.0f}"]
        seeds_run = "" if len(of) == len(seeds) else f" ({len(of)} seeds)"
        lines.append(f"| {i} | {method.shown}{seeds_run} | {' | '.join(cells)} |")
    lines += ["", "![win rate over KL](methods.svg)", ""]
    return "\n".join(lines)


def lost(rows: Sequence[Mapping[str, Any]]) -> str:
    """Kinds of prompt lost, sampled or greedily, with the number of seeds."""
    kinds = Counter(kind for row in rows for kind in row["lost"])
    return ", ".join(f"`{kind}` {n}" for kind, n in sorted(kinds.items())) or "none"


def frontier(seeds: Sequence[int], rows: Mapping[int, Mapping[str, Any]], methods: Sequence[Method]) -> str:
    """Win rate over KL: a numbered dot a method, its interval of the win rate as a whisker; what has left the chart is
    named in a corner."""
    width, height = 720, 420
    placed = []
    for i, method in enumerate(methods, 1):
        of = [rows[s][method.key] for s in seeds if method.key in rows[s]]
        if of:
            win = mean_interval([r["win"]["sampled"] for r in of])
            placed.append((i, method.shown, sum(r["kl"] for r in of) / len(of), win))
    gone = [f"{i} at {kl:.0f} nats" for i, _, kl, _ in placed if kl > FARTHEST]
    placed = [row for row in placed if row[2] <= FARTHEST]
    y_ticks, x_ticks = ticks(0.5, 1.0, 5), ticks(0.0, max(kl for _, _, kl, _ in placed))
    across, up = Scale(x_ticks[0], x_ticks[-1], 44, width - 14), Scale(0.5, 1.0, height - 34, LINE + 10)
    parts = [text(0, 11, "win rate against SFT, sampled"), text(width - 14, height - 4, "KL, nats", anchor="end")]
    parts.append(text(width - 14, 11, "beyond: " + ", ".join(gone) if gone else "", anchor="end"))
    for y in y_ticks:
        parts.append(element("line", x1=40, y1=up(y), x2=width - 14, y2=up(y), class_="rule"))
        parts.append(text(34, up(y) + 4, number(y), anchor="end"))
    parts += [text(across(x), height - 34 + LINE, number(x), anchor="middle") for x in x_ticks]
    for i, name, kl, win in placed:
        x = across(kl)
        if win.interval:
            low, high = max(0.5, win.interval.low), min(1.0, win.interval.high)
            parts.append(element("line", x1=x, y1=up(low), x2=x, y2=up(high), class_="rule"))
        label = hover(f"{name}: {win.value:.3f} at {kl:.2f} nats")
        parts.append(element("circle", label, cx=x, cy=up(max(0.5, win.value or 0.5)), r=4, class_="hollow policy"))
        parts.append(text(x + 6, up(max(0.5, win.value or 0.5)) - 4, str(i), tone="strong"))
    return standalone(picture(width, height, parts, description="win rate over KL, one dot a method"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--only", nargs="*", default=None, help="names of recipes")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "methods")
    parser.add_argument("--parallel", type=int, default=2, help="seeds at once, one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS / "methods")
    options = parser.parse_args()
    methods = [m for m in METHODS if options.only is None or m.name in options.only]
    with ThreadPoolExecutor(options.parallel) as pool:
        rows = dict(
            zip(options.seeds, pool.map(lambda s: of_seed(options.folder, s, methods), options.seeds), strict=True)
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table(options.seeds, rows, methods))
    options.out.with_suffix(".svg").write_text(frontier(options.seeds, rows, methods))
    print(table(options.seeds, rows, methods))


if __name__ == "__main__":
    main()
