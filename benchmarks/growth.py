"""How time and memory grow with the work: response length, vocabulary, completions of a prompt, prompts, reward models.

    python benchmarks/growth.py

Each point is a process of its own, one thread: processor seconds of the work alone (best of three), and by how much it
raised the peak memory of a process that had loaded everything and done the smallest piece. Writes
`benchmarks/results/growth.{md,json,svg}`; the growth of the last doubling is 2 where cost is linear and 4 where it is
quadratic. Attention is quadratic in length by its definition; nothing else should be.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from assent.algorithms.reward_model import RewardModel
from assent.algorithms.sft import SFT
from assent.evals.charts import Series, line_chart
from assent.evals.svg import standalone
from assent.models.forward import ModelForward, ScalarModel, in_blocks
from assent.models.prepare import reader_of
from assent.rewards.model import RewardModelScorer, same_tokens
from assent.rollout.native import NativeEngine
from assent.types import ComparisonBatch, Prompt, Request, Rollout, Sampling, Sequences, TokenBatch

RESULTS = Path(__file__).resolve().parent / "results"
Work = Callable[[], object]


def model_of(vocabulary: int = 2048, positions: int = 4096):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=vocabulary,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config)
    reader_of(model)
    return model


def scalar_of() -> ScalarModel:
    from transformers import AutoModelForSequenceClassification

    config = model_of().config
    config.num_labels = 1
    config.pad_token_id = 0
    return ScalarModel(AutoModelForSequenceClassification.from_config(config))


def rows(count: int, prompt: int, response: int, *, same: int = 1) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts, each `same` times over, and as many responses."""
    g = torch.Generator().manual_seed(0)
    prompts = torch.randint(2, 2000, (count // same, prompt), generator=g).tolist()
    return [p for p in prompts for _ in range(same)], torch.randint(2, 2000, (count, response), generator=g).tolist()


def training(model, sequences: Sequences) -> Work:
    forward = ModelForward(policy=model)

    def work() -> None:
        SFT().loss(TokenBatch(sequences), forward).sum().backward()
        model.zero_grad()

    return work


def response_length(n: int) -> Work:
    """One training step on 4 responses of n tokens."""
    return training(model_of(), Sequences.of(*rows(4, 16, n)))


def vocabulary(n: int) -> Work:
    """One training step on 8 x 128 tokens with a vocabulary of n."""
    return training(model_of(vocabulary=n), Sequences.of(*rows(8, 16, 128)))


def completions(n: int) -> Work:
    """One step of a reward model on 4 prompts of 64 tokens with n completions of 48 each, all pairs."""
    scalar = scalar_of()
    forward = ModelForward(scalar=scalar)
    pairs = [(g * n + i, g * n + j, g) for g in range(4) for i in range(n) for j in range(i + 1, n)]
    better, worse, group = (torch.tensor(c) for c in zip(*pairs, strict=True))
    sequences = Sequences.of(*rows(4 * n, 64, 48, same=n))
    batch = ComparisonBatch(sequences, torch.full((4,), n), better, worse, group, torch.zeros(len(pairs)))

    def work() -> None:
        RewardModel().loss(batch, forward).sum().backward()
        scalar.zero_grad()

    return work


def prompts(n: int) -> Work:
    """Rollouts of n prompts, 32 tokens each, in 64 slots."""
    engine = NativeEngine(model_of(), slots=64)
    asked = [Request(tuple(p), i) for i, p in enumerate(rows(n, 24, 1)[0])]
    return lambda: engine.generate(asked, Sampling(32, ()))


def reward_models(n: int) -> Work:
    """Scores of 128 rollouts by n reward models."""
    models = [scalar_of() for _ in range(n)]
    asked, answered = rows(128, 24, 32)
    some = [
        Rollout(Prompt(str(i), "x", tuple(p)), tuple(r), (0.0,) * len(r), True, "x", 0)
        for i, (p, r) in enumerate(zip(asked, answered, strict=True))
    ]
    scorers = [
        RewardModelScorer(str(k), same_tokens, lambda s, m=m: in_blocks(lambda b: (m.last_scores(b),), s)[0])
        for k, m in enumerate(models)
    ]
    return lambda: [scorer.score(some) for scorer in scorers]


AXES: dict[str, tuple[Callable[[int], Work], tuple[int, ...], str]] = {
    "response length": (response_length, (64, 128, 256, 512, 1024, 2048), "tokens"),
    "vocabulary": (vocabulary, (2048, 8192, 32768, 131072), "tokens"),
    "completions": (completions, (2, 4, 8, 16), "of a prompt"),
    "prompts": (prompts, (64, 128, 256, 512), "of a step"),
    "reward models": (reward_models, (1, 2, 4, 8), "in one sum"),
}


def measure(axis: str, n: int) -> dict[str, float]:
    """In this process: processor seconds, and megabytes above what the smallest work had taken."""
    torch.set_num_threads(1)
    make, points, _ = AXES[axis]
    make(points[0])()
    work = make(n)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = []
    for _ in range(3):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"n": n, "seconds": min(took), "megabytes": (after - before) / 1024}


def in_own_process(axis: str, n: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--axis", axis, "--n", str(n)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def page(found: dict[str, list[dict[str, float]]]) -> str:
    lines = [
        "# Cost as the work grows",
        "",
        f"`python benchmarks/growth.py`, {datetime.date.today()}, {platform.machine()}, one thread, torch "
        f"{torch.__version__}. Llama of 2 layers of 96. Seconds are processor time, best of three; megabytes what "
        "the work added to the peak. Attention is quadratic in length by its definition; nothing else may be.",
        "",
    ]
    for axis, points in found.items():
        make, _, unit = AXES[axis]
        sizes = [f"{p['n']:.0f}" for p in points]
        growth = points[-1]["seconds"] / points[-2]["seconds"]
        larger = points[-1]["n"] / points[-2]["n"]
        seconds = " | ".join(f"{p['seconds']:.3f}" for p in points)
        memory = " | ".join(f"{p['megabytes']:.0f}" for p in points)
        lines += [
            f"**{axis}** ({unit}). {make.__doc__}",
            "",
            f"| | {' | '.join(sizes)} | last step |",
            "|---" * (len(points) + 2) + "|",
            f"| seconds | {seconds} | {growth:.2f} times for {larger:.0f} times |",
            f"| megabytes | {memory} | |",
            "",
        ]
    return "\n".join([*lines, "![seconds, relative to the smallest](growth.svg)", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--axis", choices=AXES)
    parser.add_argument("--n", type=int)
    options = parser.parse_args()
    if options.axis:
        print(json.dumps(measure(options.axis, options.n)))
        return
    found = {axis: [in_own_process(axis, n) for n in points] for axis, (_, points, _) in AXES.items()}
    tones = ("policy", "gold", "proxy", "loss", "baseline")
    series = [
        Series(
            axis,
            tuple(p["n"] / points[0]["n"] for p in points),
            tuple(p["seconds"] / points[0]["seconds"] for p in points),
            tone,
        )
        for (axis, points), tone in zip(found.items(), tones, strict=True)
    ]
    chart = line_chart(
        series, x_label="size, relative to the smallest", y_label="seconds, relative", description="growth", width=640
    )
    (RESULTS / "growth.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "growth.md").write_text(page(found))
    (RESULTS / "growth.svg").write_text(standalone(chart))
    print(page(found))


if __name__ == "__main__":
    main()
