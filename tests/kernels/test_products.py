"""Products in C: what torch gives, to the last bit whatever stands beside a row, and torch itself where they are not
for it."""

import copy
import io
import logging
import pickle

import pytest
import torch
from tests.rollout.rollout_models import make
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from assent.functional.logprobs import linear_token_logprobs_and_entropy
from assent.kernels import build, products
from assent.kernels.products import Panels, linear, product
from assent.models.prepare import prepare
from assent.rollout.decoders import projections_of
from assent.rollout.native import NativeEngine
from assent.types import Request, Sampling

SHAPES = [
    (1, 32, 32),
    (5, 17, 16),
    (2, 33, 47),
    (13, 256, 64),
    (14, 257, 65),
    (15, 40, 95),
    (32, 160, 640),
    (300, 64, 1030),
]
SHAPES += [(29, 700, 33), (9, 32, 70_001)]


@pytest.fixture
def compiled(monkeypatch):
    monkeypatch.delenv("ASSENT_COMPILE", raising=False)
    kept = products.multiply
    kept.cache_clear()
    yield kept() or pytest.skip("products are torch's on this machine: no AMD processor since Zen 5, or no compiler")
    kept.cache_clear()


@pytest.fixture
def torch_s_own(monkeypatch):
    """Call it, and products are torch's."""
    return lambda: monkeypatch.setattr(products, "multiply", lambda: None)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def off_by(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("left", ["rows", "columns", "every other", "a window"])
@pytest.mark.parametrize("right", ["rows", "columns", "panels", "a window"])
@pytest.mark.parametrize("threads", [1, 2])
def test_products_are_those_of_float64(shape, left, right, threads, compiled):
    rows, depth, columns = shape
    a, b, bias = drawn(rows, depth), drawn(depth, columns, seed=1), drawn(columns, seed=2)
    expected, before = torch.addmm(bias.double(), a.double(), b.double()), torch.get_num_threads()
    views = {
        "rows": lambda x: x,
        "columns": lambda x: x.t().contiguous().t(),
        "every other": lambda x: torch.stack([x, x + 1], -1)[..., 0],
        "a window": lambda x: F.pad(x, (3, 2, 1, 4), value=torch.nan)[1:-4, 3:-2],
        "panels": Panels.of,
    }
    torch.set_num_threads(threads)
    try:
        found = product(views[left](a), views[right](b), bias)
        without = product(views[left](a), views[right](b))
        wide = torch.full((rows, columns + 5), torch.nan)
        wide[:, 2:-3] = bias
        if right != "panels":
            products.add_product(wide[:, 2:-3], views[left](a), views[right](b))
    finally:
        torch.set_num_threads(before)
    assert found.is_contiguous() and off_by(found, expected) < products.GAP
    assert off_by(without, expected - bias) < products.GAP
    assert wide[:, :2].isnan().all() and wide[:, -3:].isnan().all()
    if right != "panels":
        assert off_by(wide[:, 2:-3], expected) < products.GAP


def test_a_row_is_the_same_to_the_last_bit_whatever_stands_beside_it(compiled):
    x, weight, bias = drawn(200, 300), drawn(300, 100, seed=1), drawn(100, seed=2)
    together = product(x, weight, bias)
    for some in (slice(0, 1), slice(3, 17), slice(100, 200), slice(7, 8)):
        assert torch.equal(product(x[some], weight, bias), together[some])
        assert torch.equal(product(x[some], Panels.of(weight), bias), together[some])
        assert torch.equal(product(x[some].t().contiguous().t(), weight.t().contiguous().t(), bias), together[some])


def test_what_is_not_a_number_stays_in_its_row_and_column(compiled):
    a, b = drawn(20, 40), drawn(40, 50, seed=1)
    a[3, 5], b[7, 9] = torch.nan, torch.inf
    found = product(a, b)
    assert found[3].isnan().all() and not found[:, 9].isfinite().any()
    found[3], found[:, 9] = 0, 0
    assert found.isfinite().all()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("moving", ["xwb", "x", "wb", "w", "xb"])
def test_gradients_are_those_of_torch(transposed, moving, compiled):
    x, b = drawn(4, 21, 48), drawn(96, seed=2)
    w = drawn(48, 96, seed=1).t() if transposed else drawn(96, 48, seed=1)
    pull = drawn(4, 21, 96, seed=3)

    def gradients(function, kind):
        leaves = [t.to(kind).detach().requires_grad_(n in moving) for n, t in zip("xwb", (x, w, b), strict=True)]
        function(*leaves).backward(pull.to(kind))
        return [t.grad for t in leaves if t.requires_grad]

    for ours, theirs in zip(gradients(linear, torch.float32), gradients(F.linear, torch.float64), strict=True):
        assert ours.shape == theirs.shape and off_by(ours, theirs) < 1e-5


def test_the_backward_pass_keeps_what_it_needs_and_no_more(compiled):
    x, w, kept = drawn(64, 48).requires_grad_(), drawn(96, 48, seed=1), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.shape), t)[1], lambda t: t):
        linear(x, w)
        linear(x.detach(), w.requires_grad_())
    assert kept == [w.shape, x.shape]


def test_a_weight_that_changes_under_the_gradient_is_refused(compiled):
    x, w = drawn(8, 48).requires_grad_(), drawn(96, 48, seed=1)
    y = linear(x, w)
    w.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


class Wrapped(torch.Tensor):
    """As a sharded or quantised tensor would be: it has no memory of its own to read."""


@pytest.mark.parametrize(
    ("x", "w"),
    [
        (drawn(8, 64).double(), drawn(64, 64).double()),
        (drawn(8, 64).bfloat16(), drawn(64, 64).bfloat16()),
        (drawn(8, 64), drawn(1, 64)),
        (drawn(0, 64), drawn(64, 64)),
        (drawn(8, 64), drawn(64, 64).as_subclass(Wrapped)),
        (drawn(8, 64).to("meta"), drawn(64, 64).to("meta")),
    ],
    ids=["float64", "bfloat16", "one column", "no row", "another kind of tensor", "no memory"],
)
def test_what_it_is_not_for_is_torch_s_own(x, w, compiled, monkeypatch):
    monkeypatch.setattr(products.Multiply, "__call__", lambda *_, **__: pytest.fail("was called"))
    found, expected = linear(x, w), F.linear(x, w)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert found.device.type == "meta" or torch.equal(found, expected)


def test_a_product_carries_no_gradient_and_takes_any_bias(compiled, torch_s_own):
    x, w, bias = drawn(8, 64).requires_grad_(), drawn(64, 96), drawn(96, 2)[:, 0]
    ours = product(x, w, bias)
    torch_s_own()
    theirs = product(x, w, bias)
    assert not ours.requires_grad and not theirs.requires_grad
    assert off_by(ours, theirs) < products.GAP


def test_autocast_is_followed(compiled):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(drawn(8, 64), drawn(64, 64)).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_who_follows_torch_s_operations_sees_the_products(compiled):
    x, w = drawn(8, 64), drawn(96, 64)
    with FlopCounterMode(display=False) as counter:
        linear(x, w)
    assert counter.get_total_flops() == 2 * 8 * 64 * 96
    traced = torch.jit.trace(lambda x: linear(x, w), (x,))
    assert torch.equal(traced(x + 1), F.linear(x + 1, w))


ZEN_5 = {"vendor_id": "AuthenticAMD", "cpu family": "26", "flags": "avx2 avx512f"}


@pytest.mark.parametrize(
    "told", [ZEN_5 | {"vendor_id": "GenuineIntel"}, ZEN_5 | {"cpu family": "25"}, ZEN_5 | {"flags": "avx2"}, {}]
)
def test_another_processor_keeps_to_torch(told, monkeypatch):
    monkeypatch.setattr(build, "processor", lambda: told)
    products.multiply.cache_clear()
    assert products.multiply() is None
    products.multiply.cache_clear()


@pytest.mark.parametrize(
    ("x", "w", "bias"),
    [((8, 64), (96, 63), 96), ((8, 64), (96, 64), 95), ((8, 63), (64, 64), 64)],
    ids=["too shallow a weight", "too short a bias", "too narrow an input"],
)
def test_what_does_not_fit_is_refused_and_not_read_past_its_end(x, w, bias, compiled):
    x, w, bias = drawn(*x), drawn(*w), drawn(bias)
    with pytest.raises(RuntimeError):
        linear(x, w, bias)
    with pytest.raises(RuntimeError):
        product(x, w.t(), bias)
    with pytest.raises(RuntimeError):
        products.add_product(torch.zeros(8, 90), x, w.t())


@pytest.mark.parametrize(
    ("slip", "by", "said"),
    [
        ("k ? 1 : keep", "keep", "differs from it"),
        ("y[j + 8], 0xdd)", "y[j + 8], 0x88)", "differs from it"),
        ("k < depth; k++) {\n        __m512 left", "k + 1 < depth; k++) {\n        __m512 left", "differs from it"),
        ("void multiply(", "void multiply(nonsense,", "could not be compiled"),
    ],
)
def test_a_wrong_or_broken_library_is_not_used(slip, by, said, compiled, tmp_path, monkeypatch, caplog):
    text = products.SOURCE.read_text()
    assert slip in text
    (tmp_path / "multiply.c").write_text(text.replace(slip, by))
    monkeypatch.setattr(products, "SOURCE", tmp_path / "multiply.c")
    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path / "cache"))
    products.multiply.cache_clear()
    with caplog.at_level(logging.INFO):
        assert products.multiply() is None
    assert said in caplog.text


def test_the_environment_turns_it_off(monkeypatch):
    monkeypatch.setenv("ASSENT_COMPILE", "0")
    products.multiply.cache_clear()
    assert products.multiply() is None
    products.multiply.cache_clear()


# ------------------------------------------------------------------------------------------------------------- models


def wide(family: str) -> nn.Module:
    """Wide enough that every projection is multiplied here."""
    model = make(family, 47, hidden=64)
    prepare(model)
    return model


def loss_and_gradients(model: nn.Module) -> list[torch.Tensor]:
    ids = torch.randint(4, 40, (3, 17), generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_a_model_s_loss_and_gradients_stay(family, compiled, torch_s_own):
    model = wide(family)
    ours = loss_and_gradients(model)
    torch_s_own()
    for a, b in zip(ours, loss_and_gradients(model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copied_model_reads_its_own_weights(copied, compiled):
    model = wide("gpt2")
    other = copied(model)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    ids = torch.arange(4, 20)[None]
    assert model(ids).logits.abs().max() == 0 and other(ids).logits.abs().max() > 0


def test_a_model_is_saved_as_it_was(compiled):
    model, plain = wide("gpt2"), make("gpt2", 47, hidden=64)
    assert [type(m) for m in model.modules() if isinstance(m, nn.Linear)] == [nn.Linear]
    assert list(model.state_dict()) == list(plain.state_dict())
    torch.save(model.state_dict(), io.BytesIO())


@pytest.mark.parametrize("tempered", [1.0, 0.7])
def test_the_head_s_logprobs_and_gradients_stay(tempered, compiled, torch_s_own):
    hidden, weight, tokens = drawn(50, 40), drawn(90, 40, seed=1), torch.arange(50)

    def run(chunk):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        logprobs, entropy = linear_token_logprobs_and_entropy(h, w, tokens, temperature=tempered, chunk=chunk)
        (logprobs.square().sum() + entropy.sum()).backward()
        return logprobs.detach(), entropy.detach(), h.grad, w.grad

    ours = [run(chunk) for chunk in (None, 16)]
    torch_s_own()
    for found in ours:
        for a, b in zip(found, run(None), strict=True):
            assert off_by(a, b) < 1e-5


REQUESTS = [Request(tuple((7 * i + j) % 25 + 4 for j in range(1 + i % 9)), seed=i) for i in range(11)]
SAMPLING = Sampling(max_new_tokens=10, stop_token_ids=(3,))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_weights_that_change_between_two_calls_are_the_ones_sampled_from(family, compiled, torch_s_own):
    model = wide(family)
    engine = NativeEngine(model, slots=4)
    engine.generate(REQUESTS, SAMPLING)
    with torch.no_grad():
        for p in model.parameters():
            p.data = p + 0.3 * drawn(*p.shape, seed=5)
    ours = engine.generate(REQUESTS, SAMPLING)
    assert engine.path == "lean"
    torch_s_own()
    theirs = NativeEngine(model, slots=4).generate(REQUESTS, SAMPLING)
    assert [s.token_ids for s in ours] == [s.token_ids for s in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_no_copy_of_the_weights_outlives_a_call(compiled, monkeypatch):
    engine = NativeEngine(wide("gpt2"), slots=4)
    projections = projections_of(engine._decoder)
    seen = []
    lay_out = type(projections[0]).lay_out
    monkeypatch.setattr(type(projections[0]), "lay_out", lambda self: (lay_out(self), seen.append(self.panels))[0])
    engine.generate(REQUESTS, SAMPLING)
    assert len(seen) == len(projections) and all(isinstance(p, Panels) for p in seen)
    assert all(p.panels is None for p in projections)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_a_sample_is_the_same_to_the_last_bit_whatever_else_is_in_the_batch(family, compiled):
    """Prompts of 1 to 33 tokens, so that some are read beside others in one prefill, and some alone."""
    requests = [Request(tuple((7 * i + j) % 25 + 4 for j in range(1 + 3 * i)), seed=i) for i in range(12)]
    model = wide(family)
    together = NativeEngine(model, slots=12).generate(requests, SAMPLING)
    few = NativeEngine(model, slots=3).generate(requests[::-1], SAMPLING)[::-1]
    alone = [NativeEngine(model, slots=1).generate([r], SAMPLING)[0] for r in requests]
    assert together == few == alone
