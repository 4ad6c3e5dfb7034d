"""What is sampled against what should be: exact enumeration, the plain definition, and the random streams."""

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from rollout_models import make

from assent.rollout.draw import NUCLEUS, Draw, inverse_cdf, kept_tokens
from assent.rollout.eager import EagerEngine
from assent.rollout.native import NativeEngine
from assent.rollout.randomness import derive_seed, uniforms
from assent.types import Request, Sampling

DRAWS = 4000


def enumerate_two_tokens(model, prompt, sampling):
    """Probability of every response of at most two tokens, from the model's forward and the definition of Sampling."""

    def following(ids, t):
        with torch.no_grad():
            logits = model.eval()(torch.tensor([ids]), use_cache=False).logits[0, -1].double() / sampling.temperature
        allowed = [v for v in range(len(logits)) if t >= sampling.min_new_tokens or v not in sampling.stop_token_ids]
        allowed = sorted(allowed, key=lambda v: -logits[v])[: sampling.top_k or None]
        below = [math.exp(logits[v]) for v in allowed]
        needed = [sum(below[:i]) < sampling.top_p * sum(below) for i in range(len(allowed))]
        allowed = [v for v, needs in zip(allowed, needed, strict=True) if needs]
        total = sum(math.exp(logits[v]) for v in allowed)
        return {v: math.exp(logits[v]) / total for v in allowed}

    exact = {}
    for first, p in following(prompt, 0).items():
        if first in sampling.stop_token_ids:
            exact[(first,)] = p
        else:
            exact |= {(first, second): p * q for second, q in following([*prompt, first], 1).items()}
    return exact


def chi_square_tail(statistic, freedom):
    """P(chi-square > statistic), by the regularised incomplete gamma function."""
    return float(torch.special.gammaincc(torch.tensor(freedom / 2.0), torch.tensor(statistic / 2.0)))


@pytest.mark.parametrize("family", ["eager", "gpt2", "llama", "neox"])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(2, (0,)),
        Sampling(2, (0, 2), temperature=2.5, min_new_tokens=1),
        Sampling(2, (), temperature=0.8),
        Sampling(2, (0,), top_k=3),
        Sampling(2, (), top_p=0.7, temperature=2.0),
        Sampling(2, (1,), top_k=3, top_p=0.8),
    ],
)
def test_first_two_tokens_follow_the_exact_distribution(family, sampling):
    model = make("llama" if family == "eager" else family, vocabulary=4, seed=3)
    with torch.no_grad():  # flat enough that every cell is met
        model.get_output_embeddings().weight.mul_(0.3)
    engine = EagerEngine(model) if family == "eager" else NativeEngine(model, slots=64)
    draws = DRAWS // 8 if family == "eager" else DRAWS
    exact = enumerate_two_tokens(model, [1, 3], sampling)
    assert sum(exact.values()) == pytest.approx(1)
    samples = engine.generate([Request((1, 3), derive_seed(7, k)) for k in range(draws)], sampling)
    seen = Counter(s.token_ids for s in samples)
    assert set(seen) <= set(exact)
    cells = [(seen[tokens], draws * p) for tokens, p in exact.items()]
    assert min(expected for _, expected in cells) > 5
    statistic = sum((observed - expected) ** 2 / expected for observed, expected in cells)
    assert chi_square_tail(statistic, len(cells) - 1) > 1e-3


def test_the_chi_square_test_can_fail():
    assert chi_square_tail(3.84, 1) == pytest.approx(0.05, abs=1e-3)
    model = make("llama", vocabulary=4, seed=3)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.3)
    exact = enumerate_two_tokens(model, [1, 3], Sampling(2, (0,), temperature=2.5))
    samples = NativeEngine(model).generate(
        [Request((1, 3), derive_seed(7, k)) for k in range(DRAWS)], Sampling(2, (0,))
    )
    seen = Counter(s.token_ids for s in samples)
    statistic = sum((seen[tokens] - DRAWS * p) ** 2 / (DRAWS * p) for tokens, p in exact.items())
    assert chi_square_tail(statistic, len(exact) - 1) < 1e-3


@pytest.mark.parametrize("width", [5, 511, 512, 513, 1024, 1500])
def test_two_level_search_is_the_plain_one(width):
    generator = torch.Generator().manual_seed(width)
    p = torch.softmax(3 * torch.randn(400, width, generator=generator), -1)
    u = torch.rand(400, 1, generator=generator) * (1 - 2**-22)
    cumulative = p.double().cumsum(-1)
    target = u * cumulative[:, -1:]
    got = inverse_cdf(p, u)
    above = cumulative.gather(1, got)
    below = above - p.gather(1, got)
    assert bool((above > target - 1e-6).all() and (below <= target + 1e-6).all())
    assert (got == torch.searchsorted(cumulative, target, right=True)).double().mean() > 0.99


@pytest.mark.parametrize("width", [4, 600])
def test_impossible_tokens_are_never_drawn_even_at_the_edges_of_the_uniform(width):
    p = torch.zeros(3, width)
    p[0, width - 2], p[1, 1], p[2, width // 2] = 1.0, 1.0, 1e-30
    for u in (0.0, 0.5, float(1 - 2**-22)):
        got = inverse_cdf(p, torch.full((3, 1), u))
        assert got[:, 0].tolist() == [width - 2, 1, width // 2]


def test_all_stop_tokens_are_impossible_before_the_minimum():
    sampling = Sampling(5, (0, 2), min_new_tokens=2)
    draw = Draw.of(sampling, 4, torch.device("cpu"))
    logits = torch.tensor([[9.0, 0.0, 9.0, 0.0]] * 2)
    tokens, logprobs, _ = draw(logits, torch.tensor([0.1, 0.1]), torch.tensor([True, False]))
    assert tokens.tolist() == [1, 0]
    assert logprobs[0].item() == pytest.approx(math.log(0.5))
    assert logprobs[1].item() == pytest.approx(-math.log(2 + 2 * math.exp(-9)), abs=1e-6)


def test_a_vocabulary_wide_enough_for_blocks_gives_the_oracles_tokens():
    model = make("llama", vocabulary=700)
    requests = [Request((5, 600, 9), derive_seed(k)) for k in range(40)]
    sampling = Sampling(4, (1,), temperature=0.7)
    got, expected = (e.generate(requests, sampling) for e in (NativeEngine(model), EagerEngine(model)))
    assert [s.token_ids for s in got] == [s.token_ids for s in expected]


def test_a_flat_nucleus_wider_than_the_first_look_is_kept_whole():
    logits = torch.randn(3, 30_000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.1], [1.0], [6.0]])
    kept = kept_tokens(logits.clone(), 0, 0.9)
    p = torch.softmax(logits.double(), -1)
    for row in range(3):
        share, smallest = float(p[row, kept[row]].sum()), float(p[row, kept[row]].min())
        assert share >= 0.9 - 1e-5 and share - smallest < 0.9 + 1e-5
        assert smallest >= float(p[row, ~kept[row]].max())
    assert kept.sum(1)[0] > NUCLEUS * 64 and kept.sum(1)[2] < NUCLEUS * 8


def test_equally_probable_tokens_are_kept_together():
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]])
    for top_k, top_p in ((2, 1.0), (0, 0.4)):
        assert kept_tokens(logits, top_k, top_p).tolist() == [[False, True, True, True, False]]


def test_streams_are_uniform_independent_and_fixed_for_ever():
    numbers = uniforms([derive_seed(0, k) for k in range(300)], 200)
    assert numbers.dtype == torch.float32 and float(numbers.min()) >= 0 and float(numbers.max()) < 1
    counts = torch.histc(numbers, 50, 0, 1)
    expected = numbers.numel() / 50
    assert chi_square_tail(float(((counts - expected) ** 2 / expected).sum()), 49) > 1e-3
    for a, b in ((numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])):  # along a stream, across streams
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 4 / math.sqrt(a.numel())
    assert torch.equal(uniforms([5, -1], 9)[:, :4], uniforms([5, 2**64 - 1], 4))
    first = uniforms([1, 2], 3)
    # SplitMix64 in Python integers: the streams must be the same on every machine, now and later.
    assert first.flatten().tolist() == pytest.approx([_reference(s, t) for s in (1, 2) for t in range(3)], abs=1e-6)


def _reference(seed, t):
    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    return (mix((mix((seed + golden) % 2**64) + (t + 1) * golden) % 2**64) >> 40) / 2**24


def test_neighbouring_seeds_do_not_give_shifted_streams():
    streams = uniforms(range(50), 60)
    rows = [set(row.tolist()) for row in streams]
    assert max(len(a & b) for a, b in pairwise(rows)) <= 1


def test_derived_seeds_depend_on_every_part_and_their_order():
    seeds = [derive_seed(*p) for p in ((1, 2), (2, 1), (1, "2"), (12,), (1, 2, 0), ("a", "b"), ("ab",), ("b", "a"))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    assert derive_seed("order", 3) == derive_seed("order", 3)
