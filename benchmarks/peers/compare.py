"""Assent and its peers side by side on the same work, one after the other on the same core.

    python benchmarks/peers/compare.py --sizes S --only SFT --pairs 5

Both workers are started, pinned to the same core, and take turns: one warm-up each, then A B A B. A ratio belongs to
one pair of turns. The machine may be shared, so two ratios are given, of wall time and of the processes' own CPU time;
while others compete for the core the second is the one to read. Where both sides run the same algorithm on the same
batches, the losses of the first 10 steps must agree, or no ratio is given. Where it samples, no two runs have the same
batches: `--given` has both sides learn from given responses, and compares what comes of that. Results are added to
`benchmarks/results/peers.json`.
"""

import argparse
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from limits import limits_of, seconds_at_limit
from table import CASES, GIVEN, Case
from written import write

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
SAME_STEPS, TOLERANCE = 10, 5e-4
"""Losses of so many first steps may differ by at most so much of max(1, loss): rounding, which training enlarges."""
PATIENCE = 600.0


class Worker:
    """One side, waiting between its turns."""

    def __init__(self, python: Path, script: str, work: str, folder: Path, cores: str, threads: int) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        environment["PYTHONPATH"] = str(ROOT / "src") if script == "ours.py" else ""
        command = ["taskset", "-c", cores, str(python), str(HERE / script), work, str(folder)]
        self.errors = (folder / f"{script}.{work}.log").open("w")
        self.process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment,
        )  # fmt: skip
        self.name = f"{script} {work}"

    def turn(self) -> dict:
        """One piece of work.

        Raises:
            RuntimeError: the worker died or was too slow; its log says why.
        """

        def late(*_: object) -> None:
            raise TimeoutError

        assert self.process.stdin is not None and self.process.stdout is not None
        signal.signal(signal.SIGALRM, late)
        signal.alarm(int(PATIENCE))
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except (TimeoutError, BrokenPipeError):
            line = ""
        signal.alarm(0)
        if not line:
            raise RuntimeError(f"{self.name} gave no answer; see {self.errors.name}")
        answer: dict = json.loads(line)
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


def turns_of(case: Case, folder: Path, options: argparse.Namespace) -> tuple[list[dict], list[dict], list[float]]:
    """Answers of both sides and the load of the machine before each pair; the first answers are warm-up."""
    cores = str(options.core) if options.threads == 1 else f"0-{os.cpu_count() - 1}"
    workers: list[Worker] = []
    sides: tuple[list[dict], list[dict]] = ([], [])
    loads = []
    least = SAME_STEPS * case.figures if case.same else 0
    try:
        for python, script, work in (
            (options.ours, "ours.py", case.ours),
            (options.peers / case.peer / "bin" / "python", "theirs.py", case.theirs),
        ):
            workers.append(Worker(python, script, work, folder, cores, options.threads))
        pair = 0
        while pair <= options.pairs or len(sides[1][0]["losses"]) * pair < least:
            loads.append(os.getloadavg()[0])
            for worker, answers in zip(workers, sides, strict=True):
                answers.append(worker.turn())
            pair += 1
    finally:
        for worker in workers:
            worker.end()
    return (*sides, loads)


def largest_gap(ours: list[dict], theirs: list[dict]) -> float:
    """Largest difference of the first losses, as a part of max(1, loss)."""
    a, b = ([loss for answer in side for loss in answer["losses"]][:SAME_STEPS] for side in (ours, theirs))
    if len(a) < SAME_STEPS or len(b) < SAME_STEPS:
        return float("inf")
    return max(abs(x - y) / max(1.0, abs(y)) for x, y in zip(a, b, strict=True))


def largest_parts(ours: list[dict], theirs: list[dict], figures: int) -> list[float]:
    """Of each figure of the first steps, the largest difference as a part of the largest value."""
    a, b = ([x for answer in side for x in answer["losses"]][: SAME_STEPS * figures] for side in (ours, theirs))
    if min(len(a), len(b)) < SAME_STEPS * figures:
        return [float("inf")] * figures
    columns = [(a[i::figures], b[i::figures]) for i in range(figures)]
    return [max(abs(x - y) for x, y in zip(u, v, strict=True)) / max(map(abs, v)) for u, v in columns]


def agreement(case: Case, size: str, family: str, options: argparse.Namespace) -> dict:
    """How far the two sides are apart after the same steps on given responses."""
    code, folder = code_version(), built(case, size, family, options)
    once = argparse.Namespace(**{**vars(options), "pairs": 0})
    ours, theirs, _ = turns_of(Case(**{**vars(case), "same": True}), folder, once)
    return {
        "case": case.name, "size": size, "family": family, "steps": SAME_STEPS,
        "parts": largest_parts(ours, theirs, case.figures), "date": datetime.date.today().isoformat(),
        "versions": versions(options.peers / case.peer / "bin" / "python"), "code": code,
    }  # fmt: skip


def summary(ratios: list[float]) -> dict:
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "each": ratios}


def measured(case: Case, size: str, family: str, folder: Path, options: argparse.Namespace) -> dict:
    code = code_version()  # of what the workers are about to load, not of what stands there when they end
    ours, theirs, loads = turns_of(case, folder, options)
    row: dict = {
        "case": case.name, "size": size, "family": family, "threads": options.threads, "pairs": len(ours) - 1,
        "date": datetime.date.today().isoformat(), "load": statistics.median(loads), "nice": os.nice(0),
        "versions": versions(options.peers / case.peer / "bin" / "python"), "code": code,
    }  # fmt: skip
    if case.same:
        row["largest_loss_gap"] = largest_gap(ours, theirs)
        if not row["largest_loss_gap"] <= TOLERANCE:
            row["refused"] = f"the losses of the first {SAME_STEPS} steps differ by {row['largest_loss_gap']:.2g}"
            return row
    pairs = list(zip(ours[1:], theirs[1:], strict=True))
    for clock in ("wall", "cpu"):
        row[f"ratio_{clock}"] = summary([(a["units"] / a[clock]) / (b["units"] / b[clock]) for a, b in pairs])
    row["memory_mb"] = [ours[-1]["peak_mb"], theirs[-1]["peak_mb"]]
    row["before_mb"] = [ours[-1]["before_mb"], theirs[-1]["before_mb"]]
    row["memory_ratio"] = ours[-1]["peak_mb"] / theirs[-1]["peak_mb"]
    limit = limits_of(options.ours, options.threads, options.core)
    row["limits"] = limit
    for side, answers in (("ours", ours), ("theirs", theirs)):
        row[side] = {"rate_cpu": statistics.median(a["units"] / a["cpu"] for a in answers[1:])}
        row[side]["rate_wall"] = statistics.median(a["units"] / a["wall"] for a in answers[1:])
        for extra in ("slots", "length"):
            if answers[-1].get(extra):
                row[side][extra] = statistics.median(a[extra] for a in answers[1:])
        # The other side's turn is of the same rows, so that the same tokens were useful.
        if case.same and "slots" in answers[-1]:
            shares = [a["useful"] / b["slots"] for a, b in zip(ours[1:], answers[1:], strict=True)]
            row[side]["useful_share"] = statistics.median(shares)
        at_limit = seconds_at_limit(case, size, family, folder, answers[1:], limit)
        if at_limit is not None:
            row[side]["share_of_limit"] = at_limit / statistics.median(a["cpu"] for a in answers[1:])
    return row


def versions(python: Path) -> dict[str, str]:
    ask = "import json,importlib.metadata as m;print(json.dumps({n:m.version(n) for n in %r}))"
    names = ["trl", "transformers", "torch", "accelerate"]
    return dict(json.loads(subprocess.check_output([str(python), "-c", ask % (names,)], text=True)))


def code_version() -> str:
    return subprocess.check_output(["git", "describe", "--always", "--dirty"], text=True, cwd=ROOT).strip()


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def remember(row: dict, results: Path) -> None:
    """Add a row in place of an older one of the same measurement, and write the page again."""
    every = read(results)
    others = [r for r in every["rows"] if _same_as(r) != _same_as(row)]
    every = {**every, "machine": machine(), "python": platform.python_version(), "rows": [*others, row]}
    results.write_text(json.dumps(every, indent=1) + "\n")
    write(every, results.with_suffix(".md"))


def read(results: Path) -> dict:
    every: dict = json.loads(results.read_text()) if results.exists() else {"rows": []}
    return every


def remember_agreement(row: dict, results: Path) -> None:
    every = read(results)
    which = ("case", "size", "family")
    others = [r for r in every.get("given", []) if any(r[k] != row[k] for k in which)]
    every = {"machine": machine(), "python": platform.python_version(), **every, "given": [*others, row]}
    results.write_text(json.dumps(every, indent=1) + "\n")
    write(every, results.with_suffix(".md"))


def _same_as(row: dict) -> tuple:
    return (*(row[k] for k in ("case", "size", "family", "threads")), row["versions"]["trl"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers", help="folder of the other sides' environments")
    parser.add_argument("--work", type=Path, default=ROOT / ".peers" / "work", help="where the common work is kept")
    parser.add_argument("--ours", type=Path, default=Path(sys.executable))
    parser.add_argument("--sizes", nargs="+", default=["S"], choices=("S", "M"))
    parser.add_argument("--families", nargs="+", default=["gpt2"], choices=("gpt2", "llama"))
    parser.add_argument("--only", nargs="+", help="rows whose names begin so")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--peer", help="measure against this environment instead of the row's own")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--given", action="store_true", help="compare learning from given responses; no time")
    options = parser.parse_args()
    if options.given:
        for case, families in GIVEN:
            for family in families:
                row = agreement(case, "S", family, options)
                remember_agreement(row, options.results)
                print(f"{row['case']}, S {family}: apart by {', '.join(f'{p:.1g}' for p in row['parts'])}", flush=True)
        return
    for size in options.sizes:
        for family in options.families:
            for case in CASES:
                if options.only and not any(case.name.startswith(o) for o in options.only):
                    continue
                row = one(case, size, family, options)
                remember(row, options.results)
                print(said(row), flush=True)


def built(case: Case, size: str, family: str, options: argparse.Namespace) -> Path:
    """The folder of the common work, made if it is not there."""
    folder: Path = options.work / f"{size}-{family}{'-256' if case.long_prompts else ''}"
    prompt = ["--prompt", "256", "256"] if case.long_prompts else []
    build = [options.ours, HERE / "workload.py", folder, "--size", size, "--family", family, *prompt]
    subprocess.run([str(part) for part in build], check=True)
    return folder


def one(case: Case, size: str, family: str, options: argparse.Namespace) -> dict:
    if options.peer:
        case = Case(**{**vars(case), "peer": options.peer})
    folder = built(case, size, family, options)
    try:
        return measured(case, size, family, folder, options)
    except RuntimeError as error:
        return {
            "case": case.name, "size": size, "family": family, "threads": options.threads, "failed": str(error),
            "date": datetime.date.today().isoformat(),
            "versions": versions(options.peers / case.peer / "bin" / "python"), "code": code_version(),
        }  # fmt: skip


def said(row: dict) -> str:
    head = f"{row['case']} {row['size']} {row['family']}, {row['threads']} thread(s), TRL {row['versions']['trl']}: "
    if "ratio_cpu" not in row:
        return head + row.get("refused", row.get("failed", ""))
    cpu, wall = row["ratio_cpu"], row["ratio_wall"]
    return head + (
        f"{cpu['median']:.2f} by CPU time ({cpu['low']:.2f} to {cpu['high']:.2f}), {wall['median']:.2f} by wall; "
        f"memory {row['memory_ratio']:.2f}; load {row['load']:.1f}; ours {row['ours']}; theirs {row['theirs']}"
    )


if __name__ == "__main__":
    main()
