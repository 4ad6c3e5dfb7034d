"""What the machine can do, and how long the work would take at that: least FLOPs over matmul speed, least bytes over
memory speed. Least means: each distinct prompt read once, no padding, the head on trained positions alone. Matmul speed
is the best of torch's own, oneDNN's and ours: on an AMD processor with AVX-512 torch's own takes half of it."""

import json
import subprocess
from pathlib import Path

from table import Case
from workload import ROWS as ALL_ROWS
from workload import SIZES

PROBE = """
import json, sys, time, torch
from assent.kernels.products import product
torch.set_num_threads(int(sys.argv[1]))
def best(f, n):
    found = []
    for _ in range(n):
        t = time.process_time(); f(); found.append(time.process_time() - t)
    return min(found)
a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
x = torch.randn(2**25)
def dnn():
    torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
each = [2 * 1024**3 / best(f, 15) / 1e9 for f in (lambda: a @ b, dnn, lambda: product(a, b))]
print(json.dumps({"gflops": max(each), "gflops_of_torch": each[0], "gb_s": 4 * 2**25 / best(lambda: x.sum(), 8) / 1e9}))
"""


def limits_of(python: Path, threads: int, core: int) -> dict[str, float]:
    """fp32 matmul of 1024 and reading of 128 MB, best of several, by CPU time on the measured core."""
    pin = ["taskset", "-c", str(core)] if threads == 1 else []
    answer = subprocess.check_output([*pin, str(python), "-c", PROBE, str(threads)], text=True)
    return dict(json.loads(answer))


def weights_of(size: str, family: str) -> tuple[int, int]:
    """Weights of the trunk's matrices, and of the head."""
    layers, width, _, vocabulary = SIZES[size]
    inner = width * 8 // 3 // 16 * 16
    each = 12 * width**2 if family == "gpt2" else 4 * width**2 + 3 * width * inner
    return layers * each, vocabulary * width


def seconds_at_limit(
    case: Case, size: str, family: str, folder: Path, answers: list[dict], limit: dict[str, float]
) -> float | None:
    """CPU seconds of one answer's work at the machine's limit.

    Attention is left out (at these lengths below a tenth of the matrices); a decoding step reads all weights once for
    its rows and multiplies them; the larger of the two counts.
    """
    trunk, head = weights_of(size, family)
    rows = json.loads((folder / "rows.json").read_text())
    prompt = sum(len(r["prompt"]) for r in rows) / ALL_ROWS
    answer = sum(len(a) for r in rows for a in r["responses"]) / ALL_ROWS / 4
    speed, units = limit["gflops"] * 1e9, answers[0]["units"]
    forward = 2 * (trunk * (prompt + answer) + head * answer)
    if case.name == "SFT":
        return 3 * forward / (prompt + answer) * units / speed
    if case.name.startswith("reward"):
        k = 4 if case.ours.endswith("k_wise") else 2
        return 3 * 2 * trunk * (prompt + k * answer) * units / (k * (k - 1) // 2) / speed
    if case.name.startswith("DPO"):
        passes = 3 if case.ours.endswith("precomputed") else 4
        return passes * 2 * (trunk * (prompt + 2 * answer) + head * 2 * answer) * units / speed
    if case.name.startswith("rollouts"):
        tokens = sum(a["units"] for a in answers) / len(answers)
        return _decoding(tokens, 32, trunk + head, speed, limit)
    if not all("length" in a for a in answers):
        return None
    answer = sum(a["length"] for a in answers) / len(answers)
    if case.name.startswith("GRPO"):
        # Reference forward, then one pass forward and backward; a prompt serves eight, and the sampler says the rest.
        passes = 4 * 2 * (trunk * (prompt / 8 + answer) + head * answer) * units / speed
        return passes + _decoding(units * answer, 32, trunk + head, speed, limit)
    reads = 1 + 4 * 3  # reference, four epochs of forward and backward; what the sampler said is not computed again
    critics = 2 * (1 + 1 + 4 * 3) * trunk * (prompt + answer)  # judge, values, four epochs
    critic = 2 * trunk * (prompt + answer) if case.ours == "ppo_shared" else critics
    policy = reads * 2 * (trunk * (prompt + answer) + head * answer)
    return (policy + critic) * units / speed + _decoding(units * answer, 64, trunk + head, speed, limit)


def _decoding(tokens: float, slots: int, weights: int, speed: float, limit: dict[str, float]) -> float:
    return max(tokens * 2 * weights / speed, tokens / slots * 4 * weights / (limit["gb_s"] * 1e9))
