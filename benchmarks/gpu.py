"""Rollouts and training on a GPU, against TRL with transformers' generation: 0.5B parameters, random weights.

    python benchmarks/gpu.py                  # needs a GPU; writes benchmarks/results/gpu.md
    python benchmarks/gpu.py --tiny --device cpu     # a model of nothing, to see that all of this runs

Both sides get one model, one number type (weights float32, products bfloat16 on a GPU), the same prompts, the same rows
of the same lengths; no response ends before its budget, so that tokens are tokens. What the machine can do is measured
first: the share of memory bandwidth is least bytes of decoding (weights once per step, keys and values of every token
seen) over bytes copied per second; MFU is FLOPs of the matrix products and of attention, forward and twice backward,
over those of one large product. TRL's rows need `pip install trl` beside Assent; without it the training row of TRL
stays empty, as does one whose side fails; the others are kept. Status 2 where there is no GPU to measure, 1 where
Assent has no figure.
"""

import argparse
import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast, Qwen2Config

from assent.algorithms.sft import SFT
from assent.dist.processes import Alone
from assent.models.forward import ModelForward
from assent.models.placement import Placement, place
from assent.models.prepare import reader_of
from assent.rollout.native import NativeEngine
from assent.train.learner import LocalLearner
from assent.train.optimizers import AdamW
from assent.train.schedule import Schedule
from assent.types import Request, Sampling, Sequences, TokenBatch

RESULTS = Path(__file__).parent / "results" / "gpu.md"
TIMES = 5


@dataclass(frozen=True)
class Work:
    """What is measured.

    Args:
        shape: arguments of Qwen2's config.
        prompts, prompt_tokens, new_tokens, slots: of the rollouts.
        rows, row_tokens, budget: of one training step, and tokens of a micro-batch.
        product, copied: side of the matrix product, and floats copied, that the machine is measured by.
    """

    shape: dict[str, Any]
    prompts: int
    prompt_tokens: int
    new_tokens: int
    slots: int
    rows: int
    row_tokens: int
    budget: int
    product: int
    copied: int


WHOLE = Work(
    dict(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
    ),
    prompts=256, prompt_tokens=256, new_tokens=512, slots=128, rows=32, row_tokens=1024, budget=8192,
    product=8192, copied=2**28,
)  # fmt: skip
TINY = Work(
    dict(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
    ),
    prompts=6, prompt_tokens=8, new_tokens=12, slots=4, rows=6, row_tokens=16, budget=48, product=64, copied=2**16,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One measurement: tokens per second, the median of several, and the share of what the machine can do."""

    work: str
    side: str
    tokens_s: float
    low: float
    high: float
    share: float
    memory_gb: float


# ------------------------------------------------------------------------------------------------ the machine


def seconds(run: Callable[[], object], device: torch.device, times: int = TIMES) -> list[float]:
    """Of each call after a first one that is not counted."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    found = []
    for _ in range(times):
        wait()
        start = time.perf_counter()
        run()
        wait()
        found.append(time.perf_counter() - start)
    return found


def limits(work: Work, place_: Placement) -> tuple[float, float]:
    """FLOPs per second of one large product in the number type, and bytes read and written per second by a copy."""
    device, dtype = place_.device, place_.products
    a, b = (torch.randn(work.product, work.product, device=device, dtype=dtype) for _ in "ab")
    source = torch.empty(work.copied, device=device)
    target = torch.empty_like(source)
    flops = 2 * work.product**3 / min(seconds(lambda: a @ b, device, 10))
    return flops, 2 * 4 * work.copied / min(seconds(lambda: target.copy_(source), device, 10))


def matrices(work: Work) -> int:
    """Weights that a token is multiplied by, the head's included."""
    s = work.shape
    dim = s["hidden_size"] // s["num_attention_heads"]
    attention = 2 * s["hidden_size"] ** 2 + 2 * s["hidden_size"] * dim * s["num_key_value_heads"]
    each = attention + 3 * s["hidden_size"] * s["intermediate_size"]
    return int(s["num_hidden_layers"] * each + s["vocab_size"] * s["hidden_size"])


def decoding_bytes(work: Work, width: int) -> float:
    """The least that decoding all responses reads, prefill left out: `width` bytes a number."""
    s = work.shape
    steps = work.new_tokens * -(-work.prompts // work.slots)
    kept = 2 * s["num_hidden_layers"] * s["num_key_value_heads"] * s["hidden_size"] // s["num_attention_heads"]
    seen = work.prompts * sum(work.prompt_tokens + t for t in range(work.new_tokens))
    return float(width * (steps * matrices(work) + seen * kept))


def training_flops(work: Work) -> float:
    """Of one step, forward and backward; attention sees half of its square."""
    s, tokens = work.shape, work.rows * work.row_tokens
    attention = s["num_hidden_layers"] * 6 * work.row_tokens * s["hidden_size"]
    return float(tokens * (6 * matrices(work) + attention))


# ------------------------------------------------------------------------------------------------ both sides


def model_of(work: Work, placement: Placement) -> nn.Module:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen2Config(**work.shape, eos_token_id=0, bos_token_id=0, pad_token_id=0))
    return model.to(placement.device)


def prompts_of(work: Work) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, work.shape["vocab_size"], (work.prompts, work.prompt_tokens), generator=generator)


def rollouts_ours(work: Work, placement: Placement) -> list[float]:
    engine = NativeEngine(model_of(work, placement), slots=work.slots, dtype=placement.products)
    requests = [Request(tuple(ids), i) for i, ids in enumerate(prompts_of(work).tolist())]
    sampling = Sampling(work.new_tokens, ())
    if engine.path != "lean":
        raise SystemExit(f"the engine took the generic path: {engine.reason}")
    return seconds(lambda: engine.generate(requests, sampling), placement.device)


def rollouts_theirs(work: Work, placement: Placement) -> list[float]:
    """As TRL generates where it has no vLLM: `generate` of transformers, `slots` prompts at a time."""
    model = model_of(work, placement).to(placement.products).eval()
    settings = GenerationConfig(
        max_new_tokens=work.new_tokens, min_new_tokens=work.new_tokens, do_sample=True, top_k=0, top_p=1.0,
        temperature=1.0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    parts = prompts_of(work).to(placement.device).split(work.slots)

    @torch.no_grad()
    def run() -> None:
        for ids in parts:
            model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)

    return seconds(run, placement.device)


def rows_of(work: Work) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(1, work.shape["vocab_size"], (work.rows, work.row_tokens), generator=generator)


def training_ours(work: Work, placement: Placement) -> list[float]:
    model = model_of(work, placement)
    reader_of(model)
    place(model, placement)
    roles = {"policy": model}
    learner = LocalLearner(
        ModelForward(policy=model),
        roles,
        AdamW(lr=1e-5).build((f"policy.{n}", p) for n, p in model.named_parameters()),
        schedule=Schedule(),
        total_steps=100,
        token_budget=work.budget,
        seed=0,
        quarantine=Path("quarantine"),
        processes=Alone(),
    )
    rows = rows_of(work).tolist()
    batch = TokenBatch(Sequences.of([r[:1] for r in rows], [r[1:] for r in rows]))
    return seconds(lambda: learner.step(batch, SFT()), placement.device)


def words() -> PreTrainedTokenizerFast:
    """A tokenizer, which TRL asks for though the rows are tokens; it would look for the model's own by name."""
    raw = Tokenizer(WordLevel({"<end>": 0, "<unk>": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")


def training_theirs(work: Work, placement: Placement) -> list[float] | None:
    """TRL's SFTTrainer in the same number types; None where it is not installed."""
    try:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer
    except ImportError:
        print("TRL is not installed", flush=True)
        return None
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.stamps: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if placement.device.type == "cuda":
                torch.cuda.synchronize(placement.device)
            self.stamps.append(time.perf_counter())

    at_once = max(1, work.budget // work.row_tokens)
    config = SFTConfig(
        output_dir="trl-out", per_device_train_batch_size=at_once, gradient_accumulation_steps=work.rows // at_once,
        learning_rate=1e-5, bf16=placement.products == torch.bfloat16, gradient_checkpointing=False, max_length=None,
        packing=False, max_steps=TIMES + 1, save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=1000,
        use_cpu=placement.device.type == "cpu",
    )  # fmt: skip
    data = Dataset.from_list([{"input_ids": r} for r in rows_of(work).tolist()])
    clock = Clock()
    trainer = SFTTrainer(
        model=model_of(work, placement), args=config, train_dataset=data, processing_class=words(), callbacks=[clock]
    )  # fmt: skip
    trainer.train()
    return [b - a for a, b in zip(clock.stamps, clock.stamps[1:], strict=False)]


# ------------------------------------------------------------------------------------------------ the table


def measured(work: Work, placement: Placement) -> list[Row]:
    flops, bandwidth = limits(work, placement)
    print(f"one product: {flops / 1e12:.3g} TFLOP/s; a copy: {bandwidth / 1e9:.4g} GB/s", flush=True)
    width = torch.finfo(placement.products).bits // 8
    sides: list[tuple[str, str, Callable[[Work, Placement], list[float] | None], int, float]] = [
        ("rollouts", "Assent", rollouts_ours, work.prompts * work.new_tokens, decoding_bytes(work, width) / bandwidth),
        ("rollouts", "transformers", rollouts_theirs, work.prompts * work.new_tokens,
         decoding_bytes(work, width) / bandwidth),
        ("training", "Assent", training_ours, work.rows * work.row_tokens, training_flops(work) / flops),
        ("training", "TRL", training_theirs, work.rows * work.row_tokens, training_flops(work) / flops),
    ]  # fmt: skip
    rows = []
    for name, side, run, tokens, least in sides:
        gc.collect()  # what the side before still holds by a cycle is no part of this side's memory
        if placement.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(placement.device)
        try:
            found = run(work, placement)
        except Exception as error:  # the other rows took minutes on a machine that may be gone tomorrow
            print(f"{name}, {side}: failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            found = None
        if found is None:
            print(f"{name}, {side}: no figure", flush=True)
            continue
        peak = torch.cuda.max_memory_allocated(placement.device) / 1e9 if placement.device.type == "cuda" else 0.0
        middle = statistics.median(found)
        rows.append(Row(name, side, tokens / middle, tokens / max(found), tokens / min(found), least / middle, peak))
        print(line(rows[-1]), flush=True)
    return rows


def line(row: Row) -> str:
    spread = f"{row.low:,.0f} to {row.high:,.0f}"
    return f"| {row.work} | {row.side} | {row.tokens_s:,.0f} | {spread} | {row.share:.1%} | {row.memory_gb:.1f} |"


def table(rows: list[Row], machine: str, work: Work) -> str:
    head = [
        f"{machine}; Python {platform.python_version()}, torch {torch.__version__}; {time.strftime('%d %b %Y')}.",
        f"Model of {matrices(work) / 1e6:,.1f} M weights in its matrices. Rollouts: {work.prompts} prompts of "
        f"{work.prompt_tokens} tokens, {work.new_tokens} new ones each, {work.slots} at once. Training: AdamW on "
        f"{work.rows} rows of {work.row_tokens} tokens. Medians of {TIMES}.",
        "",
        "| work | side | tokens/s | spread | share of the limit | GB |",
        "|---|---|---|---|---|---|",
    ]
    ratios = []
    for name in dict.fromkeys(r.work for r in rows):
        both = [r for r in rows if r.work == name]
        if len(both) == 2:
            ratios.append(f"{name}: {both[0].tokens_s / both[1].tokens_s:.2f} times {both[1].side}")
    return "\n".join([*head, *map(line, rows), "", *ratios]) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu with --tiny")
    parser.add_argument("--tiny", action="store_true", help="a model of nothing, to see that it runs")
    parser.add_argument("--out", type=Path, default=None, help=f"where the table goes; {RESULTS.name} of a whole run")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("benchmarks/gpu.py: there is no GPU here that torch can use, so nothing was measured", file=sys.stderr)
        return 2
    work = TINY if options.tiny else WHOLE
    on_gpu = options.device.startswith("cuda")
    device = torch.device(options.device if ":" in options.device or not on_gpu else "cuda:0")
    placement = Placement(device, torch.bfloat16 if on_gpu else torch.float32)
    machine = torch.cuda.get_device_name(device) if on_gpu else f"CPU ({platform.machine()})"
    rows = measured(work, placement)
    text = table(rows, machine, work)
    out = options.out or (None if options.tiny else RESULTS)
    if out is not None:
        out.write_text("# On a GPU\n\n" + text, encoding="utf-8")
    print(text)
    return 0 if any(row.side == "Assent" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
