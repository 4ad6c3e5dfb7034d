"""Hot paths against a plain way of doing the same work, in one process, in turn: ratios, never seconds.

`ratios.json` holds what was measured when the path was last changed on purpose, and `python tests/speed/test_guard.py`
measures it anew. A path fails here when it has lost a third of its lead. Processor time of one thread, median of
alternating pairs: other work on the machine slows both sides. `flops.json` holds the multiplications of a training
step, `calls.json` the torch operations of sampling; they are the same everywhere, so that a hundredth more fails.
"""

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig, LlamaConfig

from assent.algorithms.reward_model import RewardModel
from assent.algorithms.sft import SFT
from assent.functional.logprobs import linear_token_logprobs
from assent.kernels import products
from assent.models.forward import ModelForward, ScalarModel
from assent.models.prepare import reader_of
from assent.rollout.native import NativeEngine
from assent.types import ComparisonBatch, Request, Sampling, Sequences, TokenBatch

KEPT = Path(__file__).with_name("ratios.json")
COUNTED = Path(__file__).with_name("flops.json")
CALLED = Path(__file__).with_name("calls.json")
LOSS = 2 / 3
"""Of the kept ratio: what two runs differ by on a busy machine is a tenth of it."""

PAIRS = 5
Side = Callable[[], object]


def config() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=8,
        vocab_size=768,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )


def causal():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config())
    reader_of(model)
    return model


def ragged(count: int, prompt: int, longest: int, *, same: int = 1) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts, each `same` times over, and responses of 4 to `longest` tokens."""
    g = torch.Generator().manual_seed(0)
    asked = torch.randint(2, 768, (count // same, prompt), generator=g).tolist()
    lengths = torch.randint(4, longest + 1, (count,), generator=g).tolist()
    return [p for p in asked for _ in range(same)], [torch.randint(2, 768, (n,), generator=g).tolist() for n in lengths]


def rollouts() -> tuple[Side, Side]:
    """Useful tokens: 32 slots refilled for 96 prompts, against transformers' generate 32 at a time, which waits."""
    model, (prompts, _) = causal(), ragged(96, 20, 4)
    engine = NativeEngine(model, slots=32)
    sampling = GenerationConfig(max_new_tokens=32, min_new_tokens=32, do_sample=True, top_k=0, pad_token_id=1)

    def plain() -> None:
        for start in range(0, 96, 32):
            ids = torch.tensor(prompts[start : start + 32])
            model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=sampling)

    asked = [Request(tuple(p), i) for i, p in enumerate(prompts)]
    return plain, lambda: engine.generate(asked, Sampling(32, ()))


def training() -> tuple[Side, Side]:
    """A step of fine-tuning, against the model's own loss on the padded block."""
    model, sequences = causal(), Sequences.of(*ragged(24, 24, 48))
    ids = sequences.token_ids_BL
    at = torch.arange(ids.shape[1])
    ours = (at >= sequences.prompt_lengths_B[:, None]) & (at < sequences.lengths_B[:, None])
    labels, inside = torch.where(ours, ids, -100), (at < sequences.lengths_B[:, None]).long()
    forward = ModelForward(policy=model)

    def plain() -> None:
        model(input_ids=ids, attention_mask=inside, labels=labels, use_cache=False).loss.backward()
        model.zero_grad()

    def step() -> None:
        SFT().loss(TokenBatch(sequences), forward).sum().backward()
        model.zero_grad()

    return plain, step


def shared_prompts() -> tuple[Side, Side]:
    """A reward model's step on four completions of a prompt, against the same with the prompt read four times."""
    settings = config()
    settings.num_labels = 1
    torch.manual_seed(0)
    scalar = ScalarModel(AutoModelForSequenceClassification.from_config(settings))
    forward = ModelForward(scalar=scalar)
    pairs = torch.tensor([(4 * g + i, 4 * g + j, g) for g in range(6) for i in range(4) for j in range(i + 1, 4)])
    sequences = Sequences.of(*ragged(24, 48, 40, same=4))
    counts, margin = torch.full((6,), 4), torch.zeros(len(pairs))
    batch = ComparisonBatch(sequences, counts, pairs[:, 0], pairs[:, 1], pairs[:, 2], margin)

    def step(shares: bool) -> None:
        vars(scalar.model)["assent_ragged"] = shares
        RewardModel().loss(batch, forward).sum().backward()
        scalar.zero_grad()

    return lambda: step(False), lambda: step(True)


PATHS: dict[str, Callable[[], tuple[Side, Side]]] = {f.__name__: f for f in (rollouts, training, shared_prompts)}


@contextmanager
def torch_s_products() -> Iterator[None]:
    """What is counted and compared is then the same on every processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "multiply", lambda: None)
        yield


@pytest.mark.parametrize("name", ["training", "shared_prompts"])
def test_a_training_step_multiplies_no_more_than_it_did(name):
    """The head on every position, a padded block, a prompt read for each response: a clock may miss each of them."""
    kept = json.loads(COUNTED.read_text())[name]
    assert flops(name) <= 1.01 * kept


def seconds(side: Side) -> float:
    start = time.process_time()
    side()
    return time.process_time() - start


def ratio(name: str) -> float:
    """How many times as fast as the plain way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain, ours = PATHS[name]()
        with torch_s_products():
            plain(), ours()
            return statistics.median(seconds(plain) / seconds(ours) for _ in range(PAIRS))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", PATHS)
def test_a_hot_path_keeps_its_lead(name):
    kept = json.loads(KEPT.read_text())[name]
    found = max(ratio(name), ratio(name))
    assert found > LOSS * kept, f"{found:.2f} times the plain way; it was {kept:.2f}"


def test_products_in_c_are_worth_having():
    """Where they are used; 1.8 to 2.2 times as fast when they came."""
    if products.multiply() is None:
        pytest.skip("products are torch's on this machine")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x, weight = torch.randn(1500, 160), torch.randn(640, 160)

        def many(product: Callable[..., torch.Tensor]) -> Side:
            return lambda: [product(x, weight.t()) for _ in range(20)]

        plain, ours = many(torch.mm), many(products.product)
        plain(), ours()
        found = statistics.median(seconds(plain) / seconds(ours) for _ in range(2 * PAIRS))
    finally:
        torch.set_num_threads(threads)
    assert found > LOSS * 1.8


def flops(name: str) -> int:
    """Of the matrix products of one step, which no machine and no neighbour changes."""
    _, ours = PATHS[name]()
    with torch_s_products(), FlopCounterMode(display=False) as counter:
        ours()
    return counter.get_total_flops()


class Calls(TorchDispatchMode):
    """Counts torch operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def calls() -> int:
    """Of the rollouts above, their prefill included: what a small model's decode step is bound by."""
    _, ours = rollouts()
    ours()
    with torch_s_products(), Calls() as counter:
        ours()
    return counter.count


def test_sampling_calls_torch_no_more_than_it_did():
    """A lost compiled attention, a step too many, a draw in more pieces: at these sizes a clock misses each of them."""
    if not any(shutil.which(c) for c in ("cc", "gcc", "clang")):
        pytest.skip("there is no C compiler, and without compiled attention more operations are called")
    kept = json.loads(CALLED.read_text())["rollouts"]
    assert calls() <= 1.01 * kept


def test_what_the_head_keeps_for_its_gradient_does_not_grow_with_vocabulary_times_length():
    """Bytes saved by autograd, which do not depend on the machine: the inputs, once one chunk does not hold it all."""

    def saved(positions: int, vocabulary: int) -> int:
        kept: list[int] = []
        hidden = torch.randn(positions, 16, requires_grad=True)
        weight = torch.randn(vocabulary, 16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.nbytes), t)[1], lambda t: t):
            linear_token_logprobs(hidden, weight, torch.randint(vocabulary, (positions,)))
        return sum(kept) - weight.nbytes

    few, many = saved(2048, 4096), saved(2048, 16384)
    assert few == many < 2048 * 16 * 4 * 2
    assert saved(4096, 4096) < 2.1 * few


if __name__ == "__main__":
    measured = {name: round(ratio(name), 2) for name in PATHS}
    counted = {name: flops(name) for name in ("training", "shared_prompts")}
    called = {"rollouts": calls()}
    if "--write" in sys.argv:
        CALLED.write_text(json.dumps(called, indent=1) + "\n")
        KEPT.write_text(json.dumps(measured, indent=1) + "\n")
        COUNTED.write_text(json.dumps(counted, indent=1) + "\n")
    print(measured, counted, called)
