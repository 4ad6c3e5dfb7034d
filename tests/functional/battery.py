"""Quick checks of each module, by hand numbers and by definition, that a planted slip must not survive.

Each takes the module itself, so that `test_mutations` can pass a copy with a slip in it.
"""

import math
from types import ModuleType

import pytest
import torch

INF, NAN = math.inf, math.nan


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def same(got, want):
    want = want if isinstance(want, torch.Tensor) else f64(want)
    assert tuple(got.shape) == tuple(want.shape)
    assert got.flatten().tolist() == pytest.approx(want.flatten().tolist(), abs=1e-9, nan_ok=True)


def slope(function, at):
    x = f64(at).requires_grad_()
    out = function(x)
    return torch.autograd.grad(out.sum(), x)[0] if out.requires_grad else torch.zeros_like(x)


def refuses(call):
    try:
        call()
    except ValueError as error:
        text = str(error)
        assert "got:" in text and "fix:" in text
        return
    except Exception as error:
        raise AssertionError("impossible input ran into another error than the one that teaches") from error
    raise AssertionError("impossible input was taken")


def masked(m: ModuleType) -> None:
    x, mask = f64([[1.0, NAN], [2.0, 6.0]]), torch.tensor([[True, False], [True, True]])
    same(m.masked_mean(x, mask), 3.0)
    assert m.masked_mean(x, torch.zeros_like(mask)).isnan()
    scale = math.sqrt(14 / 3 + 1e-8)
    same(m.whiten(x, mask), [[-2 / scale, 0.0], [-1 / scale, 3 / scale]])
    same(m.whiten(x, mask, shift_mean=False), [[3 - 2 / scale, 0.0], [3 - 1 / scale, 3 + 3 / scale]])
    same(m.whiten(f64([1e-4, -1e-4]), torch.tensor([True, True])), [2**-0.5, -(2**-0.5)])
    assert slope(lambda y: m.masked_mean(y, mask), x.tolist()).isfinite().all()
    assert slope(lambda y: m.whiten(y, mask).square(), x.tolist()).isfinite().all()
    assert m.masked_mean(torch.ones(2).half(), torch.tensor([True, True])).dtype == torch.float32
    refuses(lambda: m.masked_mean(x, mask.long()))


def logprobs(m: ModuleType) -> None:
    torch.manual_seed(0)
    logits = torch.log(f64([[1.0, 3.0, 4.0], [2.0, 2.0, 4.0], [1.0, 1.0, 0.0]]))
    tokens = torch.tensor([1, 2, 0])
    same(m.token_logprobs(logits, tokens), torch.log(f64([3 / 8, 1 / 2, 1 / 2])))
    same(m.token_logprobs(logits, tokens, temperature=0.5), torch.log(f64([9 / 26, 16 / 24, 1 / 2])))
    same(m.entropy(logits)[1:], [1.5 * math.log(2), math.log(2)])
    same(m.entropy(logits[2:] * 2 + f64([1.0, 0.0, 0.0]), temperature=2.0), m.entropy(f64([[0.5, 0.0, -INF]])))
    assert slope(m.entropy, logits.tolist()).isfinite().all()
    refuses(lambda: m.token_logprobs(logits, tokens - 1))
    refuses(lambda: m.token_logprobs(logits, tokens + 1))
    refuses(lambda: m.token_logprobs(logits, tokens, temperature=0.0))

    hidden, weight, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((7, 3), (4, 3), (4,)))
    tokens, up, up_entropy = torch.randint(4, (7,)), f64([0, 1, 2, 0, -1, 0.5, 0]), f64([0, 0, 0.3, 0, 1, 0, -1])
    table = (torch.nn.functional.linear(hidden, weight, bias) / 0.5).log_softmax(-1)
    want = table[torch.arange(7), tokens], -(table.exp() * table).sum(-1)
    want_grads = torch.autograd.grad(want, (hidden, weight, bias), (up, up_entropy), retain_graph=True)
    for chunk in (2, 7):
        kwargs = {"temperature": 0.5, "chunk": chunk, "bias_V": bias}
        both = m.linear_token_logprobs_and_entropy(hidden, weight, tokens, **kwargs)
        for one, other in zip(both, want, strict=True):
            same(one, other.detach())
        alone = m.linear_token_logprobs(hidden, weight, tokens, **kwargs)
        same(alone, want[0].detach())
        same(torch.autograd.grad(alone, hidden, up)[0], torch.autograd.grad(want[0], hidden, up, retain_graph=True)[0])
        for one, other in zip(
            torch.autograd.grad(both, (hidden, weight, bias), (up, up_entropy)), want_grads, strict=True
        ):
            same(one, other)
        dirty = hidden.detach().clone()
        dirty[[0, 3]] = NAN
        both = m.linear_token_logprobs_and_entropy(dirty.requires_grad_(), weight, tokens, **kwargs)
        loss = (torch.where(up != 0, both[0], 0.0) * up).sum()
        assert torch.autograd.grad(loss, weight)[0].isfinite().all()
    cut = torch.cat([bias.detach()[:3], f64([-INF])])
    both = m.linear_token_logprobs_and_entropy(hidden, weight, tokens.clamp(max=2), chunk=2, bias_V=cut)
    assert torch.autograd.grad(both[1].sum(), weight)[0].isfinite().all()
    refuses(lambda: m.linear_token_logprobs(hidden, weight, tokens, chunk=0))


def kl(m: ModuleType) -> None:
    one, other = f64([math.log(0.5), -30.0]), f64([math.log(0.25), 0.0])
    same(m.k1(one, other), [math.log(2), -30.0])
    same(m.k2(one, other), [math.log(2) ** 2 / 2, 450.0])
    same(m.k3(one, other), [math.log(2) - 0.5, math.exp(20) - 21])
    same(m.k2_with_ratio(one[:1], one[:1] - math.log(3), other[:1]), [3 * math.log(2) ** 2 / 2])
    same(slope(lambda x: m.k2_with_ratio(x, one[:1] - math.log(3), other[:1]), one[:1].tolist()), [3 * math.log(2)])
    assert not m.k2_with_ratio(one, one.clone().requires_grad_(), other).requires_grad
    same(m.k3_with_ratio(one[:1], one[:1] - math.log(3), other[:1]), [3 * (math.log(2) - 0.5)])
    assert not m.k3_with_ratio(one, one.clone().requires_grad_(), other).requires_grad
    p, q = f64([0.5, 0.5, 0.0]), f64([0.25, 0.5, 0.25])
    same(m.exact(p.log(), q.log()), 0.5 * math.log(2))
    same(m.exact(p.log(), f64([0.5, 0.25, 0.0]).log() + 3), math.log(math.sqrt(9 / 8)))
    assert slope(lambda x: m.exact(x, q.log()), [0.0, 0.0, -INF]).isfinite().all()
    assert m.k3(one.half(), other.half()).dtype == torch.float32
    eye, shift = torch.eye(3, dtype=torch.float64), f64([0.0, 0.0, math.log(2)])
    a, b = f64([[0.0, 0.0, 0.0], [1.0, 0.0, -1.0]]), f64([[math.log(2), 0.0, 0.0], [0.5, 0.0, -0.5]])
    for chunk in (1, None):
        same(m.linear_exact(a, eye, b, eye, temperature=2.0, chunk=chunk), m.exact(a / 2, b / 2))
        same(m.linear_exact(a, eye, b, eye, chunk=chunk, bias_V=shift), m.exact(a + shift, b))
        same(m.linear_exact(a, eye, b, eye, chunk=chunk, ref_bias_V=shift), m.exact(a, b + shift))
    still = b.clone().requires_grad_()
    assert not m.linear_exact(a, eye, still, eye, ref_bias_V=shift.clone().requires_grad_()).requires_grad
    assert not m.linear_exact(a, eye, b, eye.clone().requires_grad_()).requires_grad
    refuses(lambda: m.linear_exact(a, eye, b[:1], eye))
    refuses(lambda: m.linear_exact(a, eye, b, eye[:2]))
    refuses(lambda: m.linear_exact(a, eye, b, eye, temperature=0.0))


def returns(m: ModuleType) -> None:
    mask = torch.tensor([[True, True, False, True, False]])
    ref = f64([[-1.0, -1.0, NAN, -1.0, 0.0]])
    policy = f64([[-2.0, -1.0, 0.0, 0.0, NAN]]).requires_grad_()
    got = m.shape_rewards(f64([[0, 0.5, 9, 2, 9]]), policy, ref, mask, kl_coef=0.1)
    same(got, [[0.1, 0.5, 0.0, 1.9, 0.0]])
    assert not got.requires_grad
    rewards, values = f64([[1, 2, NAN, 3, NAN]]), f64([[4, 1, NAN, 2, 50.0]]).requires_grad_()
    # deltas at gamma .5: 1 + .5 - 4 = -2.5, 2 + 1 - 1 = 2, 3 - 2 = 1; lam .8 makes the decay .4
    advantages, to_go = m.gae(rewards, values, mask, gamma=0.5, lam=0.8)
    same(advantages, [[-2.5 + 0.4 * 2.4, 2.4, 0.0, 1.0, 0.0]])
    same(to_go, [[1.5 + 0.4 * 2.4, 3.4, 0.0, 3.0, 0.0]])
    assert not advantages.requires_grad and not to_go.requires_grad
    same(m.gae(rewards, values, mask)[0], [[-2 + 0.95 * (3 + 0.95), 3.95, 0.0, 1.0, 0.0]])
    refuses(lambda: m.gae(rewards, values, mask, gamma=1.01))
    refuses(lambda: m.gae(rewards, values, mask, lam=-0.01))
    refuses(lambda: m.shape_rewards(rewards, rewards, rewards, mask, kl_coef=-1.0))


def advantages(m: ModuleType) -> None:
    scores, group = f64([1.0, 4.0, 2.0, 8.0, 6.0, 0.1, 0.1, 0.1]), torch.tensor([7, 2, 7, 2, 7, 3, 3, 3])
    same(m.leave_one_out(scores, group), [-3.0, -4.0, -1.5, 4.0, 4.5, 0, 0, 0])
    raw = [-2.0, -2.0, -1.0, 2.0, 3.0, 0, 0, 0]
    same(m.group_relative(scores, group, scale_by_std=False), raw)
    scale = f64([7, 8, 7, 8, 7, 1, 1, 1]).sqrt() + 1e-4
    same(m.group_relative(scores, group), f64(raw) / scale)
    equal = torch.full((8,), 0.1), torch.zeros(8, dtype=torch.int64)
    assert (m.group_relative(*equal) == 0).all() and (m.leave_one_out(*equal) == 0).all()
    assert not m.leave_one_out(scores.clone().requires_grad_(), group).requires_grad
    refuses(lambda: m.group_relative(scores[:2], group[:2]))
    assert m.in_company(torch.tensor([7, 2, 7, 3])).tolist() == [True, False, True, False]
    refuses(lambda: m.in_company(torch.tensor([7, 2, 3])))
    mixed = f64([1.0, 0.5, 1.0, 2.0, 9.0, 3.0]), torch.tensor([7, 2, 7, 3, 2, 3])
    assert m.no_signal(*mixed).tolist() == [False, False, True]
    assert m.no_signal(mixed[0][:3], mixed[1][:3]).tolist() == [True, True]


def ratio(m: ModuleType) -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    same(m.sequence_log_ratio(f64([[0.2, NAN, -0.6], [NAN, 1.0, 1.0]]), mask), [[-0.2], [0.0]])
    old, sampler = f64([0.2, 0.6, 0.9, 1e-30]).log().requires_grad_(), f64([0.4, 0.5, 0.1, 1.0]).log()
    got = m.truncated_importance_weights(old, sampler, cap=2.0)
    same(got, [0.5, 1.2, 2.0, math.exp(-20)])
    assert not got.requires_grad
    refuses(lambda: m.truncated_importance_weights(old, sampler, cap=0.0))


def policy(m: ModuleType) -> None:
    log_ratio = f64([1.0, 1.1, 1.6, 0.5, 1.0, 1.6, 0.5, 9.0]).log().tolist()
    a = f64([2.0, 2, 2, 2, -2, -2, -2, -2])
    clip = {"clip_low": 0.2, "clip_high": 0.3}
    same(m.clipped_surrogate(f64(log_ratio), a, **clip), [-2.0, -2.2, -2.6, -1.0, 2.0, 3.2, 1.6, 18.0])
    same(slope(lambda x: m.clipped_surrogate(x, a, **clip), log_ratio), [-2.0, -2.2, 0, -1.0, 2.0, 3.2, 0, 18.0])
    same(m.clipped_surrogate(f64(log_ratio), a, dual_clip=3.0), [-2.0, -2.2, -2.4, -1.0, 2.0, 3.2, 1.6, 6.0])
    same(m.clipped_surrogate(f64([200.0]), f64([-1.0])), [math.exp(20)])
    same(m.cispo(f64(log_ratio), f64([-1.5] * 8), a, **clip), 1.5 * a * f64([1, 1.1, 1.3, 0.8, 1, 1.3, 0.8, 1.3]))
    carried = slope(lambda x: m.cispo(x, x - 1, a, **clip), log_ratio)
    same(carried, -a * f64([1, 1.1, 1.3, 0.8, 1, 1.3, 0.8, 1.3]))
    same(m.policy_gradient(f64([-1.5, -2.0]), f64([2.0, -1.0])), [3.0, -2.0])
    refuses(lambda: m.clipped_surrogate(a, a, clip_low=-0.1))
    refuses(lambda: m.clipped_surrogate(a, a, dual_clip=1.0))


def value(m: ModuleType) -> None:
    values, old, target = f64([1.1, 1.9, 0.5, 3.0]), f64([1.0] * 4), f64([2.0] * 4)
    same(m.clipped_value_loss(values, old, target), [0.405, 0.32, 1.125, 0.5])
    same(slope(lambda v: m.clipped_value_loss(v, old, target), values.tolist()), [-0.9, 0.0, -1.5, 1.0])
    same(m.clipped_value_loss(values, old, target, clip=None), [0.405, 0.005, 1.125, 0.5])
    mask = torch.tensor([True, True, True, False])
    returns = f64([1.0, 2.0, 4.0, NAN])
    same(m.explained_variance(f64([6.0, 7.0, 9.0, 0.0]), returns, mask), 1.0)
    same(m.explained_variance(-returns, returns, mask), -3.0)
    same(m.explained_variance(f64([1.0, 2.0, 1.0, 0.0]), returns, mask), 1 - 2 / (14 / 9))
    assert m.explained_variance(returns, f64([0.1] * 4), mask).isnan()


def preference(m: ModuleType) -> None:
    four, beta = [f64([x]) for x in (-2.0, -6.0, -3.0, -5.5)], 0.4  # h_w = 1, h_l = -.5
    won, lost, gap = 0.4, -0.2, 0.6

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    right, wrong = -math.log(sigmoid(gap)), -math.log(sigmoid(-gap))
    same(m.dpo(*four, beta=beta), [right])
    same(m.dpo(*four, beta=beta, label_smoothing=0.1), [0.9 * right + 0.1 * wrong])
    same(m.robust_dpo(*four, beta=beta, flip_probability=0.1), [(0.9 * right - 0.1 * wrong) / 0.8])
    same(m.ipo(*four, beta=beta), [(1.5 - 1.25) ** 2])
    same(m.hinge(*four, beta=beta), [0.4])
    same(m.hinge(*four, beta=beta, label_smoothing=0.1), [0.9 * 0.4 + 0.1 * 1.6])
    up, down = sigmoid(won), sigmoid(lost)
    same(m.apo_zero(*four, beta=beta), [1 - up + down])
    same(m.apo_zero(*four, beta=beta, label_smoothing=0.1), [0.9 * (1 - up + down) + 0.1 * (1 - down + up)])
    same(m.apo_down(*four, beta=beta), [up + 1 - sigmoid(gap)])
    swapped = down + 1 - sigmoid(-gap)
    same(m.apo_down(*four, beta=beta, label_smoothing=0.1), [0.9 * (up + 1 - sigmoid(gap)) + 0.1 * swapped])

    h, flags = f64([1.0, 1.0]), torch.tensor([True, False])
    weights = {"desirable_weight": 1.5, "undesirable_weight": 2.0}
    want = [1.5 * (1 - sigmoid(0.2)), 2.0 * (1 - sigmoid(-0.2))]
    same(m.kto(h, f64([0.0, 0.0]), flags, 0.5, beta=beta, **weights), want)
    want = [1 - sigmoid(0.4), 1 - sigmoid(-0.4)]
    same(m.kto(h, f64([0.0, 0.0]), flags, -9.0, beta=beta), want)
    assert not m.kto(h, h, flags, f64(0.3).requires_grad_(), beta=beta).requires_grad

    want = [-math.log(sigmoid(0.4 - 0.3)), -math.log(sigmoid(0.3 - 0.4))]
    same(m.bco(h, f64([0.0, 0.0]), flags, 0.3, beta=beta), want)
    assert not m.bco(h, h, flags, f64(0.3).requires_grad_(), beta=beta).requires_grad
    same(m.cpo(f64([-2.0]), f64([-3.5]), beta=beta), [-math.log(sigmoid(0.6))])
    refuses(lambda: m.cpo(h, h, beta=0.0))
    refuses(lambda: m.bco(h, h, flags, f64([0.1, 0.2]), beta=beta))

    same(m.simpo(f64([-0.5]), f64([-1.5]), beta=2.0, gamma=0.5), [math.log1p(math.exp(-1.5))])
    odds = [math.exp(x) / (1 - math.exp(x)) for x in (-0.3, -1.1)]
    same(m.orpo(f64([-0.3]), f64([-1.1]), weight=0.7), [0.3 - 0.7 * math.log(sigmoid(math.log(odds[0] / odds[1])))])
    certain = m.orpo(torch.tensor([-1.0]), torch.tensor([-1e-6]), weight=1.0).item()
    assert certain == pytest.approx(1 + math.log1p(1e6 * (math.e - 1)), rel=1e-5)
    for edge in (0.0, -300.0):
        assert slope(lambda x: m.orpo(x, f64([-1.0]), weight=1.0), [edge]).isfinite().all()
    refuses(lambda: m.dpo(*four, beta=beta, label_smoothing=0.5))
    refuses(lambda: m.robust_dpo(*four, beta=beta, flip_probability=0.5))
    refuses(lambda: m.dpo(*four, beta=0.0))


def reward(m: ModuleType) -> None:
    def cost(x):
        return math.log1p(math.exp(-x))

    same(m.bradley_terry(f64([2.0]), f64([1.0]), margin=0.5), [cost(0.5)])
    scores = f64([0.5, 2.0, -1.0, 0.0])
    pairs = [-1.5, 1.0 + 0.5, 0.5, 3.0, 2.0]  # ranks 2 1 3 3: 1 beats 0, 2, 3 and 0 beats 2, 3
    pairs[0] = 1.5
    same(m.k_wise(scores, torch.tensor([2, 1, 3, 3])), sum(cost(x) for x in pairs) / 5)
    tied = torch.tensor([1, 1, 1, 1])
    same(m.k_wise(scores, tied), 0.0)
    assert (slope(lambda s: m.k_wise(s, tied), scores.tolist()) == 0).all()
    e = [math.exp(x) for x in (2.0, 0.5, 0.0, -1.0)]
    chance = e[0] / sum(e) * e[1] / sum(e[1:]) * e[2] / sum(e[2:])
    same(m.plackett_luce(scores, torch.tensor([2, 1, 4, 3])), -math.log(chance))
    padded = f64([[0.5, 2.0, -1.0, 0.0], [NAN, 2.0, NAN, 1.0], [0.0, 0.0, 0.0, NAN]])
    places = torch.tensor([[2, 1, 4, 3], [9, 2, 9, 1], [3, 3, 1, 1]])  # what is no completion may hold anything
    inside = torch.tensor([[True] * 4, [False, True, False, True], [True, False, False, False]])
    same(m.plackett_luce_each(padded, places, inside), [-math.log(chance), cost(-1.0), 0.0])
    assert slope(lambda s: m.plackett_luce_each(s, places, inside), padded.tolist()).isfinite().all()
    refuses(lambda: m.plackett_luce_each(padded, torch.tensor([[1, 1, 2, 3]] * 3), inside))
    same(m.soft_bradley_terry(f64([2.0]), f64([1.0]), f64([0.7])), [0.7 * cost(1.0) + 0.3 * cost(-1.0)])
    same(m.step_cross_entropy(f64([2.0]), f64([0.2])), [0.2 * cost(2.0) + 0.8 * cost(-2.0)])
    same(m.centering(f64([1.0]), f64([3.0])), [16.0])
    refuses(lambda: m.plackett_luce(scores, torch.tensor([2, 1, 3, 3])))
    refuses(lambda: m.k_wise(scores[:1], tied[:1]))
    refuses(lambda: m.soft_bradley_terry(f64([2.0]), f64([1.0]), f64([1.2])))


def process(m: ModuleType) -> None:
    logits = f64([0.0, math.log(3.0), math.log(1 / 3), math.log(3.0)])  # probabilities 1/2, 3/4, 1/4, 3/4
    same(m.log_product(logits), math.log(9 / 128))
    same(m.minimum(logits), 0.25)
    same(m.running_product(logits), [1 / 2, 3 / 8, 3 / 32, 9 / 128])
    same(m.running_minimum(logits), [1 / 2, 1 / 2, 1 / 4, 1 / 4])
    same(m.differences(f64([0.5, 0.75, 0.25])), [0.5, 0.25, -0.5])
    assert m.log_product(torch.full((2000,), -1.0)).isfinite() and m.log_product(torch.tensor([0.0]).half()).dtype == (
        torch.float32
    )
    for function in (m.log_product, m.minimum, m.running_product, m.running_minimum, m.differences):
        refuses(lambda f=function: f(f64([])))
        refuses(lambda f=function: f(f64([[1.0]])))


def combine(m: ModuleType) -> None:
    safe, helpful = f64([0.149, 0.15, 0.9, 0.0]), f64([0.7, 0.7, 0.2, 0.5])
    got = m.llama2_gate(safe, helpful, torch.tensor([False, False, True, True]))
    same(got.sigmoid(), [0.149, 0.7, 0.9, 1e-6])
    scores = f64([[1.0, 4.0], [3.0, 4.0], [5.0, -2.0]])
    same(m.ensemble_mean(scores), [3.0, 2.0])
    same(m.worst_case(scores), [1.0, -2.0])
    same(m.uncertainty_weighted(scores, coefficient=0.5), [1.0, -4.0])
    same(m.uncertainty_weighted(scores[:1], coefficient=0.5), [1.0, 4.0])
    refuses(lambda: m.worst_case(scores[:0]))


def length(m: ModuleType) -> None:
    same(m.soft_overlong(torch.tensor([0, 24, 26, 32, 40]), longest=32, cache=8), [0.0, 0.0, -0.25, -1.0, -1.0])
    refuses(lambda: m.soft_overlong(torch.tensor([3]), longest=8, cache=8))
    refuses(lambda: m.soft_overlong(torch.tensor([-3]), longest=8, cache=2))


def control(m: ModuleType) -> None:
    for observed, factor in ((60.0, 1.01024), (6.6, 1.00512), (0.0, 0.98976)):
        got = m.adaptive_kl(0.15, observed, target=6.0, horizon=10000, episodes=512)
        assert got == pytest.approx(0.15 * factor, rel=1e-12)
    refuses(lambda: m.adaptive_kl(0.15, 1.0, target=6.0, horizon=0, episodes=512))
    refuses(lambda: m.adaptive_kl(0.15, 1.0, target=6.0, horizon=100, episodes=500))


def selection(m: ModuleType) -> None:
    assert m.best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)
    gold, proxy = f64([5.0, 1.0, 3.0, 7.0]), f64([2.0, 1.0, 2.0, 0.0])  # the two best tie: 4 each
    same(m.best_of_n_expected(gold, proxy, 2), (5 * 4.0 + 1 * 1.0) / 6)
    same(m.best_of_n_expected(gold, proxy, 1), 4.0)
    same(m.best_of_n_expected(gold, f64([1.0, 2.0, 3.0, 4.0]), 3), (3 * 7.0 + 3.0) / 4)
    refuses(lambda: m.best_of_n_expected(gold, proxy, 5))
    refuses(lambda: m.best_of_n_expected(gold, proxy * NAN, 2))
    refuses(lambda: m.best_of_n_kl(0))
