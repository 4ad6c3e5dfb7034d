"""Decode attention in C: what torch gives, whatever stands beside it, and torch itself where it cannot be had."""

import logging
import multiprocessing
import shutil

import pytest
import torch
from tests.rollout.rollout_models import make

from assent.errors import NonFiniteError
from assent.kernels import attend as compiled
from assent.kernels import build
from assent.rollout.native import NativeEngine
from assent.types import Request, Sampling

COMPILER = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


@pytest.fixture(autouse=True)
def _anew(monkeypatch):
    """Each test decides for itself whether the function is there."""
    monkeypatch.delenv("ASSENT_COMPILE", raising=False)
    compiled.attend.cache_clear()
    yield
    compiled.attend.cache_clear()


def generate(model, requests, *, slots=5, **sampling):
    settings = Sampling(max_new_tokens=12, stop_token_ids=(3,), **sampling)
    return NativeEngine(model, slots=slots).generate(requests, settings)


def requests(count: int) -> list[Request]:
    """Prompts of 1 to 9 tokens."""
    return [Request(tuple((7 * i + j) % 25 + 4 for j in range(1 + i % 9)), seed=i) for i in range(count)]


@needs_compiler
@pytest.mark.parametrize("family", ["gpt2", "llama", "llama3", "qwen3"])
@pytest.mark.parametrize("threads", [1, 3])
def test_samples_are_those_of_torch_operations(family, threads, monkeypatch):
    model, before = make(family), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert compiled.attend() is not None
        ours = generate(model, requests(17))
        compiled.attend.cache_clear()
        monkeypatch.setenv("ASSENT_COMPILE", "0")
        assert compiled.attend() is None
        theirs = generate(model, requests(17))
    finally:
        torch.set_num_threads(before)
    assert [s.token_ids for s in ours] == [s.token_ids for s in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


@needs_compiler
def test_a_row_is_bit_for_bit_the_same_whatever_stands_beside_it():
    attend = compiled.attend()
    generator = torch.Generator().manual_seed(3)
    rows, heads, kv_heads, dim, length = 7, 4, 2, 24, 53
    q, k, v = (torch.randn(rows, n, dim, generator=generator) for n in (heads, kv_heads, kv_heads))
    keys, values = (torch.randn(rows, kv_heads, *s, generator=generator) for s in ((dim, length), (length, dim)))
    positions = torch.tensor([0, 1, 17, 8, 52, 31, 7])
    together = attend(q, k, v, (keys.clone(), values.clone()), positions, 0.2)
    for row in range(rows):
        one = slice(row, row + 1)
        alone = attend(q[one], k[one], v[one], (keys[one].clone(), values[one].clone()), positions[one], 0.2)
        assert torch.equal(alone, together[one])


@needs_compiler
def test_it_reads_nothing_beyond_a_slot_s_own_end_and_writes_only_there():
    attend = compiled.attend()
    q = k = v = torch.ones(1, 1, 8)
    keys, values = torch.full((2, 1, 8, 6), torch.nan), torch.full((2, 1, 6, 8), torch.nan)
    keys[0, :, :, :2], values[0, :, :2] = 0.5, 2.0
    out = attend(q, k, v, (keys, values), torch.tensor([2]), 1.0)
    assert torch.isfinite(out).all()
    weight = torch.softmax(torch.tensor([4.0, 4.0, 8.0]), 0)[2]
    assert torch.allclose(out, 2.0 - weight, atol=1e-6)
    assert torch.equal(keys[0, 0, :, 2], torch.ones(8)) and torch.equal(values[0, 0, 2], torch.ones(8))
    assert keys[0, :, :, 3:].isnan().all() and values[0, :, 3:].isnan().all() and keys[1].isnan().all()


@needs_compiler
def test_another_default_number_type_is_not_written_into():
    attend, generator = compiled.attend(), torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(3, 2, 8, generator=generator) for _ in "qkv")
    positions, layer = torch.tensor([0, 2, 1]), (torch.zeros(3, 2, 8, 5), torch.zeros(3, 2, 5, 8))
    expected = attend(q, k, v, layer, positions, 0.3)
    torch.set_default_dtype(torch.float64)
    try:
        found = attend(q, k, v, layer, positions, 0.3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@needs_compiler
def test_weights_that_are_not_numbers_are_still_told():
    model = make("gpt2")
    with torch.no_grad():
        model.transformer.h[0].attn.c_attn.weight[0, 0] = torch.nan
    engine = NativeEngine(make("gpt2"), slots=2)
    engine.sync(dict(model.named_parameters()), version=1)
    with pytest.raises(NonFiniteError):
        engine.generate(requests(3), Sampling(max_new_tokens=4, stop_token_ids=(3,)))


def test_without_a_compiler_decoding_keeps_to_torch(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    with caplog.at_level(logging.INFO):
        assert compiled.attend() is None
    assert "could not be compiled" in caplog.text
    assert len(generate(make("gpt2"), requests(3))) == 3


@needs_compiler
def test_a_compiler_may_be_named_with_its_arguments(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", f"{COMPILER} -g0")
    assert compiled.attend() is not None
    monkeypatch.setenv("CC", COMPILER)
    compiled.attend.cache_clear()
    assert compiled.attend() is not None
    assert len(list((tmp_path / "compiled").glob("attend-*.so"))) == 2


@needs_compiler
@pytest.mark.parametrize(
    ("slip", "by", "said"),
    [
        ("at + 1, dim", "at, dim", "differs from them"),
        ("k[row * k_stride + head * dim + d]", "v[row * v_stride + head * dim + d]", "differs from them"),
        ("const float weight = scores[t] * share;", "const float weight = scores[t];", "differs from them"),
        ("void attend(", "void attend(nonsense,", "could not be compiled"),
    ],
)
def test_a_wrong_or_broken_library_is_not_used(slip, by, said, tmp_path, monkeypatch, caplog):
    text = compiled.SOURCE.read_text()
    assert slip in text
    (tmp_path / "attend.c").write_text(text.replace(slip, by, 1))
    monkeypatch.setattr(compiled, "SOURCE", tmp_path / "attend.c")
    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path / "cache"))
    with caplog.at_level(logging.INFO):
        assert compiled.attend() is None
    assert said in caplog.text


def _compile(folder, results):
    results.put(compiled._gap(compiled.Attend(compiled._function(build.load(compiled.SOURCE)))) < compiled.GAP)


@needs_compiler
def test_processes_that_compile_at_the_same_time_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_compile, args=(tmp_path, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert all(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert [p.suffix for p in (tmp_path / "compiled").iterdir()] == [".so"]
