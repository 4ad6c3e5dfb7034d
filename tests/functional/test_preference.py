"""Preference losses: by hand, reduced to one another, and against float64 autograd of the definition."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from assent.functional import preference as pref

BETA = 0.3
PAIR_LOSSES = [pref.dpo, pref.hinge, pref.apo_zero, pref.apo_down]
numbers = st.floats(-40, 0)
quadruples = st.tuples(numbers, numbers, numbers, numbers)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def tensors(*values):
    return [torch.tensor([v], dtype=torch.float64) for v in values]


def draw(count, size=6):
    return [-5 * torch.rand(size, dtype=torch.float64) for _ in range(count)]


@settings(max_examples=60, deadline=None)
@given(quadruples, st.sampled_from([0.1, 0.5]), st.sampled_from([0.0, 0.1, 0.4]))
def test_definitions_in_plain_numbers(four, beta, e):
    w, x, rw, rx = four
    won, lost = beta * (w - rw), beta * (x - rx)
    args = tensors(*four)
    gap = won - lost

    def mixed(loss):  # smoothing: the pair as labelled and the pair swapped
        return (1 - e) * loss(won, lost) + e * loss(lost, won)

    definitions = {
        pref.dpo: lambda a, b: math.log1p(math.exp(b - a)),
        pref.hinge: lambda a, b: max(0.0, 1 - (a - b)),
        pref.apo_zero: lambda a, b: 1 - sigmoid(a) + sigmoid(b),
        pref.apo_down: lambda a, b: sigmoid(a) + 1 - sigmoid(a - b),
    }
    for function, loss in definitions.items():
        assert function(*args, beta=beta, label_smoothing=e).item() == pytest.approx(mixed(loss), abs=1e-9)
    robust = ((1 - e) * math.log1p(math.exp(-gap)) - e * math.log1p(math.exp(gap))) / (1 - 2 * e)
    assert pref.robust_dpo(*args, beta=beta, flip_probability=e).item() == pytest.approx(robust, abs=1e-9)
    ipo = (gap / beta - 1 / (2 * beta)) ** 2
    assert pref.ipo(*args, beta=beta).item() == pytest.approx(ipo, abs=1e-9)


def test_dpo_by_hand():
    # h_w = 1, h_l = -1, beta D = .2
    got = pref.dpo(*tensors(-2, -6, -3, -5), beta=0.1)
    assert got.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.2))))
    assert pref.dpo(*tensors(-2, -6, -2, -6), beta=0.1).item() == pytest.approx(math.log(2))


def test_dpo_gradient_is_that_of_the_paper():
    chosen, rejected, ref_chosen, ref_rejected = draw(4)
    chosen.requires_grad_()
    rejected.requires_grad_()
    gap = (chosen - ref_chosen) - (rejected - ref_rejected)
    want = BETA * torch.sigmoid(-BETA * gap)
    loss = pref.dpo(chosen, rejected, ref_chosen, ref_rejected, beta=BETA)
    for_chosen, for_rejected = torch.autograd.grad(loss.sum(), (chosen, rejected))
    torch.testing.assert_close(for_chosen, -want, atol=1e-12, rtol=0)
    torch.testing.assert_close(for_rejected, want, atol=1e-12, rtol=0)


def test_dpo_is_cross_entropy_to_the_smoothed_label():
    four = draw(4)
    gap = BETA * ((four[0] - four[2]) - (four[1] - four[3]))
    want = binary_cross_entropy_with_logits(gap, torch.full_like(gap, 0.8), reduction="none")
    torch.testing.assert_close(pref.dpo(*four, beta=BETA, label_smoothing=0.2), want, atol=1e-12, rtol=0)


@pytest.mark.parametrize("e", [0.05, 0.2, 0.45])
def test_robust_dpo_is_unbiased_under_flips(e):
    w, x, rw, rx = draw(4)
    kept = pref.robust_dpo(w, x, rw, rx, beta=BETA, flip_probability=e)
    flipped = pref.robust_dpo(x, w, rx, rw, beta=BETA, flip_probability=e)
    torch.testing.assert_close((1 - e) * kept + e * flipped, pref.dpo(w, x, rw, rx, beta=BETA), atol=1e-12, rtol=0)


def test_no_flips_is_dpo():
    four = draw(4)
    want = pref.dpo(*four, beta=BETA)
    torch.testing.assert_close(pref.robust_dpo(*four, beta=BETA, flip_probability=0.0), want, atol=1e-12, rtol=0)
    torch.testing.assert_close(pref.dpo(*four, beta=BETA, label_smoothing=0.0), want, atol=0, rtol=0)


def test_dpo_at_the_optimum_of_the_kl_objective_equals_bradley_terry():
    """pi* = ref exp(r / beta) / Z makes beta D the difference of rewards."""
    rewards, ref = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64).log_softmax(-1)
    best = (ref + rewards / BETA).log_softmax(-1)
    got = pref.dpo(best[:1], best[1:2], ref[:1], ref[1:2], beta=BETA)
    assert got.item() == pytest.approx(math.log1p(math.exp(rewards[1] - rewards[0])), abs=1e-12)


def test_ipo_stops_pulling_at_its_margin():
    chosen = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    loss = pref.ipo(chosen, *tensors(-6.0, -1.0, -1.0), beta=0.1)  # D = 5 = 1 / (2 * .1)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    loss.backward()
    assert chosen.grad.item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("function", PAIR_LOSSES)
def test_directions(function):
    chosen, rejected = (x.requires_grad_() for x in tensors(-3.0, -2.5))
    loss = function(chosen, rejected, *tensors(-3.0, -2.5), beta=0.5)
    up, down = torch.autograd.grad(loss, (chosen, rejected))
    assert down > 0  # every one pushes the rejected response down
    assert up < 0 if function is not pref.apo_down else up == 0  # apo_down at h = 0: .25 beta down, .25 beta up


def test_apo_down_pushes_a_likely_chosen_response_down():
    chosen = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    pref.apo_down(chosen, *tensors(-9.0, 0.0, 0.0), beta=1.0).backward()
    assert chosen.grad > 0


# --- kto ------------------------------------------------------------------------------------------------------------


def test_kto_by_hand():
    logprobs, ref = torch.tensor([-1.0, -4.0]).double(), torch.tensor([-3.0, -3.0]).double()
    got = pref.kto(
        logprobs, ref, torch.tensor([True, False]), 0.5, beta=0.2, desirable_weight=1.5, undesirable_weight=2.0
    )
    want = [1.5 * (1 - sigmoid(0.2 * (2 - 0.5))), 2.0 * (1 - sigmoid(0.2 * (0.5 + 1)))]
    assert got.tolist() == pytest.approx(want, abs=1e-12)


def test_kto_baseline_is_a_constant_and_never_negative():
    logprobs, ref = (x.requires_grad_() for x in draw(2))
    desirable = torch.tensor([True, False] * 3)
    baseline = torch.tensor(0.7, requires_grad=True, dtype=torch.float64)
    loss = pref.kto(logprobs, ref, desirable, baseline, beta=BETA)
    assert torch.autograd.grad(loss.sum(), baseline, allow_unused=True, retain_graph=True)[0] is None
    below = pref.kto(logprobs, ref, desirable, -3.0, beta=BETA)
    assert torch.equal(below, pref.kto(logprobs, ref, desirable, 0.0, beta=BETA))
    assert not torch.equal(below, loss)
    slope = torch.autograd.grad(loss.sum(), logprobs)[0]
    assert (slope[desirable] < 0).all() and (slope[~desirable] > 0).all()


def test_kto_keeps_float64_with_a_plain_number():
    one = torch.zeros(1, dtype=torch.float64)
    got = pref.kto(one, one, torch.tensor([True]), 0.1, beta=1.0)
    assert got.item() == pytest.approx(1 - sigmoid(-0.1), abs=1e-15)


def test_bco_by_hand_and_as_cross_entropy():
    logprobs, ref = torch.tensor([-1.0, -4.0]).double(), torch.tensor([-3.0, -3.0]).double()
    flags = torch.tensor([True, False])
    got = pref.bco(logprobs, ref, flags, 0.3, beta=0.2)
    want = [-math.log(sigmoid(0.2 * 2 - 0.3)), -math.log(sigmoid(0.3 - 0.2 * -1))]
    assert got.tolist() == pytest.approx(want, abs=1e-12)
    logits = 0.2 * (logprobs - ref) - 0.3
    want = binary_cross_entropy_with_logits(logits, flags.double(), reduction="none")
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)


def test_bco_bounds_dpo_from_above_whatever_the_shift():
    """Theorem of the paper: -log s(a - d) - log s(d - b) >= -log s(a - b)."""
    w, x, rw, rx = draw(4)
    for shift in (-1.0, 0.0, 2.5):
        up = pref.bco(w, rw, torch.ones(6, dtype=torch.bool), shift, beta=BETA)
        down = pref.bco(x, rx, torch.zeros(6, dtype=torch.bool), shift, beta=BETA)
        assert (up + down >= pref.dpo(w, x, rw, rx, beta=BETA)).all()


def test_bco_shift_is_a_constant():
    logprobs, ref = draw(2)
    shift = torch.tensor(0.7, requires_grad=True, dtype=torch.float64)
    flags = torch.tensor([True, False] * 3)
    assert not pref.bco(logprobs, ref, flags, shift, beta=BETA).requires_grad
    with pytest.raises(ValueError, match="reward_shift is one number"):
        pref.bco(logprobs, ref, flags, logprobs, beta=BETA)


# --- without a reference --------------------------------------------------------------------------------------------


def test_simpo_by_hand_and_as_dpo():
    got = pref.simpo(*tensors(-0.5, -1.5), beta=2.0, gamma=0.5)
    assert got.item() == pytest.approx(math.log1p(math.exp(-1.5)))
    chosen, rejected = draw(2)
    zero = torch.zeros_like(chosen)
    want = pref.dpo(chosen, rejected, zero, zero, beta=2.0)
    torch.testing.assert_close(pref.simpo(chosen, rejected, beta=2.0, gamma=0.0), want, atol=1e-12, rtol=0)


def test_cpo_is_dpo_with_a_uniform_reference():
    chosen, rejected = draw(2)
    uniform = torch.full_like(chosen, -3.0)
    want = pref.dpo(chosen, rejected, uniform, uniform, beta=BETA)
    torch.testing.assert_close(pref.cpo(chosen, rejected, beta=BETA), want, atol=1e-12, rtol=0)
    assert pref.cpo(*tensors(-2.0, -3.5), beta=0.4).item() == pytest.approx(math.log1p(math.exp(-0.6)))


@settings(max_examples=60, deadline=None)
@given(st.floats(-8, -1e-3), st.floats(-8, -1e-3), st.sampled_from([0.0, 0.1, 1.0]))
def test_orpo_definition_in_plain_numbers(w, x, weight):
    odds = [math.exp(lp) / (1 - math.exp(lp)) for lp in (w, x)]
    want = -w - weight * math.log(sigmoid(math.log(odds[0] / odds[1])))
    assert pref.orpo(*tensors(w, x), weight=weight).item() == pytest.approx(want, abs=1e-8)


@pytest.mark.parametrize("edge", [0.0, -1e-9, -1e-4, -200.0, -1e4])
def test_orpo_is_finite_at_both_ends(edge):
    for order in ((edge, -1.0), (-1.0, edge)):
        pair = [torch.tensor([x], requires_grad=True) for x in order]
        loss = pref.orpo(*pair, weight=1.0)
        loss.backward()
        assert loss.isfinite().all() and all(x.grad.isfinite().all() for x in pair)


def test_orpo_odds_are_exact_near_certainty():
    # p = exp(-1e-6): 1 - p = 1e-6 up to 5e-13; naive float32 log(1 - exp(x)) is off by several percent there
    chosen, rejected = torch.tensor([-1e-6]), torch.tensor([-1e-6])
    assert pref.orpo(chosen, rejected, weight=1.0).item() == pytest.approx(math.log(2), abs=1e-5)
    got = pref.orpo(torch.tensor([-1.0]), chosen, weight=1.0).item() - 1.0
    want = math.log1p(1e6 * (math.e - 1))  # odds(rejected) = 1e6, odds(chosen) = 1 / (e - 1)
    assert got == pytest.approx(want, rel=1e-5)


# --- all --------------------------------------------------------------------------------------------------------------

ALL = {
    "dpo": lambda f: pref.dpo(*f, beta=BETA, label_smoothing=0.1),
    "robust_dpo": lambda f: pref.robust_dpo(*f, beta=BETA, flip_probability=0.1),
    "ipo": lambda f: pref.ipo(*f, beta=BETA),
    "hinge": lambda f: pref.hinge(*f, beta=BETA),
    "apo_zero": lambda f: pref.apo_zero(*f, beta=BETA),
    "apo_down": lambda f: pref.apo_down(*f, beta=BETA),
    "kto": lambda f: pref.kto(f[0], f[1], torch.arange(len(f[0])) % 2 == 0, 0.2, beta=BETA),
    "bco": lambda f: pref.bco(f[0], f[1], torch.arange(len(f[0])) % 2 == 0, 0.2, beta=BETA),
    "cpo": lambda f: pref.cpo(f[0], f[1], beta=BETA),
    "simpo": lambda f: pref.simpo(f[0], f[1], beta=BETA, gamma=0.3),
    "orpo": lambda f: pref.orpo(f[0], f[1], weight=0.4),
}


@pytest.mark.parametrize("name", ALL)
def test_every_loss(name):
    torch.manual_seed(3)
    four = [x.requires_grad_() for x in draw(4)]
    loss = ALL[name](four)
    assert loss.shape == (6,) and loss.dtype == torch.float64  # un-reduced, float64 kept
    assert torch.autograd.gradcheck(lambda *f: ALL[name](f), four)
    order = [4, 2, 0] if name in ("kto", "bco") else [4, 0, 3]
    torch.testing.assert_close(ALL[name]([x[order] for x in four])[0], loss[4], atol=0, rtol=0)
    assert ALL[name]([x.detach().bfloat16() for x in four]).dtype == torch.float32
    with pytest.raises(ValueError, match=r"one shape\n  got: .*\n  fix: "):
        ALL[name]([four[0], four[1][:3], *four[2:]])


def test_signatures_are_the_design():
    for function in (pref.dpo, pref.hinge, pref.apo_zero, pref.apo_down):
        assert list(inspect.signature(function).parameters) == [
            "chosen",
            "rejected",
            "ref_chosen",
            "ref_rejected",
            "beta",
            "label_smoothing",
        ]


@pytest.mark.parametrize("function", PAIR_LOSSES)
@pytest.mark.parametrize("smoothing", [-0.1, 0.5, 0.7, float("nan")])
def test_label_smoothing_is_below_one_half(function, smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing is outside \[0, 0.5\)\n  got: .*\n  fix: "):
        function(*draw(4), beta=0.1, label_smoothing=smoothing)


def test_numbers_out_of_range():
    four, flags = draw(4), torch.ones(6, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"flip_probability is outside \[0, 0.5\)"):
        pref.robust_dpo(*four, beta=0.1, flip_probability=0.5)
    for beta in (0.0, -1.0, float("nan")):
        for call in (
            lambda b: pref.dpo(*four, beta=b),
            lambda b: pref.ipo(*four, beta=b),
            lambda b: pref.simpo(*four[:2], beta=b, gamma=0.1),
            lambda b: pref.kto(*four[:2], flags, 0.0, beta=b),
            lambda b: pref.bco(*four[:2], flags, 0.0, beta=b),
            lambda b: pref.cpo(*four[:2], beta=b),
        ):
            with pytest.raises(ValueError, match=r"beta is outside \(0, inf\)"):
                call(beta)
    with pytest.raises(ValueError, match="gamma is outside"):
        pref.simpo(*four[:2], beta=0.1, gamma=-0.1)
    with pytest.raises(ValueError, match="weight is outside"):
        pref.orpo(*four[:2], weight=-0.1)
    with pytest.raises(ValueError, match="desirable_weight is outside"):
        pref.kto(*four[:2], flags, 0.0, beta=0.1, desirable_weight=-1.0)
    with pytest.raises(ValueError, match="undesirable_weight is outside"):
        pref.kto(*four[:2], flags, 0.0, beta=0.1, undesirable_weight=-1.0)
    with pytest.raises(ValueError, match="desirable_B must be a bool"):
        pref.kto(*four[:2], flags.float(), 0.0, beta=0.1)
    with pytest.raises(ValueError, match="kl_baseline is one number"):
        pref.kto(*four[:2], flags, four[0], beta=0.1)
