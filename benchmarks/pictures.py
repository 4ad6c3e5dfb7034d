"""The first picture of the README, drawn from the files of one real run of the quickstart.

    python benchmarks/pictures.py runs/quickstart

Writes `docs/images/verdict.svg`: win rates with intervals, and the control. `docs/images/source.json` keeps what was
drawn: code version, seed and the figures themselves, so that a reader can tell which run a picture shows.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from assent.evals.plain import from_json
from assent.evals.report.content import Contest
from assent.evals.report.figures import win_figure
from assent.evals.svg import standalone
from assent.evals.win_rate import WinRate

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
NAMES = {
    "sampled": "PPO against SFT, both sampled",
    "greedy": "PPO against SFT, both greedy",
    "sampled against the baseline's greedy": "PPO sampled against SFT greedy",
    "control: baseline against itself": "control: SFT against itself",
}


def stage_folder(run: Path, kind: str) -> Path:
    """The artefact of the run's stage of this kind."""
    stages = json.loads((run / "run.json").read_text())["stages"]
    recipe = yaml.safe_load((run / "resolved.yaml").read_text())["stages"]
    return run / next(folder for name, folder in stages.items() if recipe[name]["do"] == kind)


def verdict_picture(results: dict[str, Any]) -> str:
    contests = [
        Contest(NAMES[n], results.get("judge", "the judge"), from_json(WinRate, r))
        for n, r in results["win_rates"].items()
    ]
    return standalone(win_figure(contests))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    verdict = stage_folder(run, "evaluate")
    results = json.loads((verdict / "results.json").read_text())
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / "verdict.svg"
    path.write_text(verdict_picture(results), encoding="utf-8")
    print(f"wrote {path}")
    manifest = json.loads((verdict / "manifest.json").read_text())
    seed = yaml.safe_load((run / "resolved.yaml").read_text())["seed"]
    figures = {k: results[k] for k in ("judge", "win_rates", "kl", "models") if k in results}
    source = {"code_version": manifest["code_version"], "seed": seed, **figures}
    (IMAGES / "source.json").write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
