"""Does the quickstart learn? The whole pipeline over several seeds, on prompts that no setting was chosen on.

    python benchmarks/quickstart_learns.py --seeds 0 1 2 3 4

Settings were chosen on seeds 100-102. Each seed trains its own tokenizer, models, annotators' answers and reward model,
and is judged on its own fresh held-out prompts. Writes `benchmarks/results/quickstart_learns.{md,json,svg}`: win rates
by the hidden gold judgement with a 95 % t interval over seeds, correctness by kind of task apart from manners, the
reward model beside its ceiling, best-of-n at the KL that PPO spent, and proxy and gold over KL with the default KL
coefficient and with none.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from assent.data import domain
from assent.evals.charts import Series, line_chart
from assent.evals.intervals import Estimate, mean_interval
from assent.evals.overoptimisation import (
    BestOfN,
    CurvePoint,
    Overoptimisation,
    best_of_n_points,
    gold_at_equal_kl,
    overoptimisation,
    stretches,
)
from assent.evals.plain import to_json
from assent.evals.svg import standalone
from assent.models.folders import load_causal, load_scalar
from assent.models.forward import in_blocks
from assent.stages.generation import sample_responses
from assent.stages.parts import MODEL, Generation
from assent.stages.scorers import gold_of
from assent.types import Sequences

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TARGETS = {"sampled": 0.75, "greedy": 0.75}
NO_LEASH = ("stages.ppo.kl.coefficient=0", "stages.ppo.steps=80", "stages.ppo.optimization.schedule.floor=1.0")
"""The same run with the leash off, twice as long and without annealing, so that it goes as far as it can."""

BEST_OF, BEST_OF_PROMPTS = (1, 2, 4, 8, 16, 32, 64, 128), 200

ONE_AT_A_TIME = threading.Lock()
"""transformers does not load two models in two threads of one process."""

Row = dict[str, Any]


def run_recipe(folder: Path, seed: int, *overrides: str, until: str | None = None) -> None:
    """One run in a process of its own, one thread; its output goes to a log beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "assent", "run", str(ROOT / "recipes/quickstart.yaml"), f"seed={seed}", *overrides]
    command += ["--folder", str(folder)] + (["--until", until] if until else [])
    with (folder / "log.txt").open("a") as log:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=ROOT)


def read(folder: Path, stage: str, name: str) -> Any:
    """A JSON or JSON-lines file of a stage's artefact in the run that last ended in this folder."""
    where = json.loads((folder / "run.json").read_text())["stages"][stage]
    text = (folder / where / name).read_text()
    return [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)


def measure(base: Path, seed: int, leashless: bool) -> Row:
    """Everything the table needs of one seed."""
    folder = base / f"seed{seed}"
    run_recipe(folder, seed)
    results, card = read(folder, "verdict", "results.json"), read(folder, "reward", "card.json")
    with ONE_AT_A_TIME:
        best = best_of_n(folder, seed)
    row: Row = {
        "seed": seed,
        "win": {name: rate_of(w) for name, w in results["win_rates"].items()},
        "models": results["models"],
        "correctness": results["correctness"],
        "kl": results["kl"],
        "best_of_n_at_equal_kl": gold_at_equal_kl(best, results["kl"]),
        "accuracy": card["accuracy"]["value"],
        "ceiling": card["gold"]["votes"]["value"],
        "accuracy_against_gold": card["gold"]["accuracy"]["value"],
        "curve": curve(folder).to_json(),
        "best_of_n": [to_json(b) for b in best],
    }
    if leashless:
        run_recipe(folder, seed, *NO_LEASH, until="ppo")
        row["curve_no_leash"] = curve(folder).to_json()
    return row


def best_of_n(folder: Path, seed: int) -> tuple[BestOfN, ...]:
    """What choosing among n samples of the SFT model by the same reward model gives, up to the KL that PPO spends."""
    stages = json.loads((folder / "run.json").read_text())["stages"]
    sft = load_causal(folder / stages["sft"] / MODEL)
    scalar = load_scalar(folder / stages["reward"] / MODEL).scalar
    tasks = domain.tasks(BEST_OF_PROMPTS, seed=10_000 + seed, split="held_out")
    rollouts = sample_responses(sft, tasks, Generation(max_new_tokens=32), seed=seed, samples=max(BEST_OF))
    (proxy,) = in_blocks(lambda s: (scalar.last_scores(s),), Sequences.of_rollouts(rollouts))
    shape = (len(tasks), max(BEST_OF))
    gold = np.array([gold_of(r) for r in rollouts]).reshape(shape)
    return best_of_n_points(proxy.numpy().reshape(shape), gold, BEST_OF)


def rate_of(w: Mapping[str, Any]) -> float:
    return (w["win"] + 0.5 * w["tie"]) / (w["win"] + w["tie"] + w["loss"])


def curve(folder: Path) -> Overoptimisation:
    rows = read(folder, "ppo", "metrics.jsonl")
    points = [CurvePoint(r["step"], r["objective/kl"], r["score/reward"], r["score/gold"]) for r in rows]
    return overoptimisation(stretches(points))


def shown(values: Sequence[float]) -> str:
    """Mean and 95 % t interval over seeds."""
    e: Estimate = mean_interval(values)
    assert e.value is not None and e.interval is not None
    return f"{e.value:.3f} [{e.interval.low:.3f}, {e.interval.high:.3f}]"


def table(rows: Sequence[Row]) -> str:
    """The committed page."""
    lines = [
        "# Does the quickstart learn?",
        "",
        f"`python benchmarks/quickstart_learns.py --seeds {' '.join(str(r['seed']) for r in rows)}`, "
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, one thread per run, "
        f"Python {platform.python_version()}. Mean and 95 % t interval over {len(rows)} seeds; ties count half.",
        "",
        "| win rate by gold | mean [95 %] | per seed | target for the lower bound | met |",
        "|---|---|---|---|---|",
    ]
    for name in rows[0]["win"]:
        values = [r["win"][name] for r in rows]
        low = mean_interval(values).interval
        target = TARGETS.get(name)
        met = "" if target is None or low is None else ("yes" if low.low > target else "**no**")
        each = ", ".join(f"{v:.3f}" for v in values)
        lines.append(f"| {name} | {shown(values)} | {each} | {target or ''} | {met} |")
    lines += ["", *_models(rows), "", *_correctness(rows), "", *_rest(rows)]
    return "\n".join(lines) + "\n"


def _models(rows: Sequence[Row]) -> list[str]:
    lines = ["| | gold | proxy | length, tokens | ended |", "|---|---|---|---|---|"]
    for model in rows[0]["models"]:
        cells = [shown([r["models"][model][c] for r in rows]) for c in ("judge", "proxy", "length", "ended")]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def _correctness(rows: Sequence[Row]) -> list[str]:
    """Content apart from manners: -1 wrong, 0 evasive, 1 right; the difference is paired by seed."""
    models = list(rows[0]["correctness"])
    lines = [f"| correctness | {' | '.join(models)} | policy greedy − baseline greedy | worse? |"]
    lines.append("|---" * (len(models) + 3) + "|")
    for kind in sorted({k for r in rows for k in r["correctness"][models[0]]}):
        cells = [shown([r["correctness"][m][kind]["mean"] for r in rows]) for m in models]
        gaps = [
            r["correctness"]["policy greedy"][kind]["mean"] - r["correctness"]["baseline greedy"][kind]["mean"]
            for r in rows
        ]
        high = mean_interval(gaps).interval
        worse = "**yes**" if high is not None and high.high < 0 else "no"
        lines.append(f"| {kind} | {' | '.join(cells)} | {shown(gaps)} | {worse} |")
    return lines


def _rest(rows: Sequence[Row]) -> list[str]:
    equal = [r["best_of_n_at_equal_kl"] for r in rows if r["best_of_n_at_equal_kl"] is not None]
    best = shown(equal) if len(equal) > 1 else "beyond the largest n measured"
    lines = [
        "| | mean [95 %] |",
        "|---|---|",
        f"| reward model, held-out accuracy on annotators' votes | {shown([r['accuracy'] for r in rows])} |",
        f"| ceiling: how often the votes agree with gold | {shown([r['ceiling'] for r in rows])} |",
        f"| reward model against gold, same pairs | {shown([r['accuracy_against_gold'] for r in rows])} |",
        f"| KL spent, nats per response | {shown([r['kl'] for r in rows])} |",
        f"| gold of PPO, sampled | {shown([r['models']['policy sampled']['judge'] for r in rows])} |",
        f"| gold of best-of-n at the same KL ({len(equal)} of {len(rows)} seeds within n ≤ {max(BEST_OF)}) | {best} |",
        "",
    ]
    for name, key in (("default KL coefficient", "curve"), ("KL coefficient 0", "curve_no_leash")):
        found = [r[key]["finding"] for r in rows if key in r]
        if found:
            flagged = sum(f["overoptimised"] for f in found)
            lines.append(
                f"**{name}**: over-optimised in {flagged} of {len(found)} seeds. First seed: {found[0]['text']}"
            )
            lines.append("")
    lines.append("![proxy and gold over KL](quickstart_learns.svg)")
    return lines


def picture(row: Row) -> str:
    """Proxy and gold over KL of one seed, on one pair of axes, with and without the leash."""
    curves = {"": row["curve"], ", no leash": row.get("curve_no_leash")}
    series = []
    for suffix, data in curves.items():
        if data is None:
            continue
        points = Overoptimisation.from_json(data).points
        kl = tuple(p.kl for p in points)
        dashed = bool(suffix)
        series.append(Series(f"proxy{suffix}", kl, tuple(p.proxy for p in points), "proxy", dashed=dashed))
        series.append(Series(f"gold{suffix}", kl, tuple(p.gold for p in points), "gold", dashed=dashed))
    return standalone(
        line_chart(
            series,
            x_label="KL to the reference, nats per sequence",
            y_label="mean score",
            description="proxy and gold over KL",
            width=640,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "quickstart_learns")
    parser.add_argument("--parallel", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--leashless", type=int, default=1, help="seeds that also run without KL penalty")
    parser.add_argument("--out", type=Path, default=RESULTS / "quickstart_learns")
    options = parser.parse_args()
    without = set(options.seeds[: options.leashless])
    with ThreadPoolExecutor(options.parallel) as pool:
        rows = list(pool.map(lambda s: measure(options.folder, s, s in without), options.seeds))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table(rows))
    options.out.with_suffix(".svg").write_text(picture(rows[0]))
    print(table(rows))


if __name__ == "__main__":
    main()
