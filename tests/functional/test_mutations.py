"""Planted slips: each is a one-line mistake that a person could make, and the battery must catch every one.

No survivors are known. What cannot be told apart on a CPU was not planted: the GPU's chunk budget.
"""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

import assent.functional
from tests.functional import battery

FOLDER = Path(assent.functional.__file__).parent
MODULES = assent.functional.__all__

SLIPS = [
    # masked
    ("masked", "torch.where(mask, x, 0.0).sum()", "(x * mask).sum()"),
    ("masked", "/ mask.sum()", "/ mask.numel()"),
    ("masked", "/ mask.sum()", "/ mask.sum().clamp(min=1)"),
    ("masked", "/ count + WHITEN_EPSILON", "/ (count - 1) + WHITEN_EPSILON"),
    ("masked", "+ WHITEN_EPSILON", ""),
    ("masked", ".rsqrt()", ".reciprocal()"),
    ("masked", "centred = torch.where(mask, included - mean, 0.0)", "centred = included - mean"),
    ("masked", "scaled if shift_mean else", "scaled if not shift_mean else"),
    ("masked", "torch.where(mask, scaled + mean, 0.0)", "scaled + mean"),
    ("masked", "    x = as_float(x)\n", ""),
    # logprobs
    ("logprobs", "logits / temperature", "logits * temperature"),
    ("logprobs", "return -F.cross_entropy", "return F.cross_entropy"),
    ("logprobs", "torch.where(impossible, 0.0, logprobs_NV)", "logprobs_NV"),
    ("logprobs", "lowest < 0 or highest >= vocabulary", "lowest < 0"),
    ("logprobs", "lowest < 0 or highest >= vocabulary", "highest >= vocabulary"),
    ("logprobs", "grad_C / -temperature", "-grad_C"),
    ("logprobs", "mul_(-1.0 / temperature)", "mul_(-1.0)"),
    ("logprobs", "mul_(-1.0 / temperature)", "mul_(1.0 / temperature)"),
    ("logprobs", "(grad_C / temperature)[:, None])", "grad_C[:, None])"),
    ("logprobs", ".add_(entropy_C[:, None])", ""),
    ("logprobs", ".clamp(min=NO_LOGPROB)", ".clone()"),
    ("logprobs", "moving_N = moving_N | (grad_entropy_N != 0)", "pass"),
    ("logprobs", "moving_N = grad_N != 0", "moving_N = grad_N == grad_N"),
    ("logprobs", "logprobs_CV = kept_NV[rows_C]", "logprobs_CV = kept_NV[: len(rows_C)]"),
    (
        "logprobs",
        "grad_weight_VD.addmm_(narrow_CV.t(), hidden_CD)",
        "grad_weight_VD.copy_(narrow_CV.t() @ hidden_CD)",
    ),
    ("logprobs", "grad_bias_V += slope_CV.sum(0)", "grad_bias_V += slope_CV.mean(0)"),
    # kl
    ("kl", "return _log_ratio(logprobs, ref_logprobs)", "return _log_ratio(ref_logprobs, logprobs)"),
    ("kl", "0.5 * _log_ratio", "_log_ratio"),
    ("kl", "torch.expm1(-log_ratio) + log_ratio", "torch.expm1(log_ratio) - log_ratio"),
    ("kl", "clamp_log_ratio(_log_ratio(logprobs, ref_logprobs))", "_log_ratio(logprobs, ref_logprobs)"),
    ("kl", "ratio * k3(", "k3("),
    ("kl", "ratio * k2(", "k2("),
    ("kl", "_log_ratio(logprobs.detach(), old_logprobs.detach())", "_log_ratio(logprobs, old_logprobs.detach())"),
    ("kl", "_log_ratio(logprobs.detach(), old_logprobs.detach())", "_log_ratio(logprobs.detach(), old_logprobs)"),
    ("kl", "_log_ratio(logprobs, old_logprobs.detach())", "_log_ratio(logprobs, old_logprobs)"),
    ("kl", "logprobs_BTV.exp() * difference_BTV", "ref_logprobs_BTV.exp() * difference_BTV"),
    ("kl", "torch.where(impossible, 0.0, logprobs_BTV - ref_logprobs_BTV)", "logprobs_BTV - ref_logprobs_BTV"),
    ("kl", "as_float(logprobs) - as_float(ref_logprobs)", "logprobs - ref_logprobs"),
    ("kl", "exact(logits_CV, ref_logits_CV)", "exact(ref_logits_CV, logits_CV)"),
    ("kl", "F.linear(hidden_CD, weight_VD, bias_V)) / temperature", "F.linear(hidden_CD, weight_VD, bias_V))"),
    (
        "kl",
        "F.linear(ref_hidden_CE, ref_weight_VE, ref_bias_V)) / temperature",
        "F.linear(ref_hidden_CE, ref_weight_VE, ref_bias_V))",
    ),
    ("kl", "F.linear(hidden_CD, weight_VD, bias_V)", "F.linear(hidden_CD, weight_VD)"),
    ("kl", "F.linear(ref_hidden_CE, ref_weight_VE, ref_bias_V)", "F.linear(ref_hidden_CE, ref_weight_VE)"),
    ("kl", "ref_hidden_BTE.detach()", "ref_hidden_BTE"),
    ("kl", "ref_weight_VE.detach(), None if", "ref_weight_VE, None if"),
    ("kl", "None if ref_bias_V is None else ref_bias_V.detach()", "ref_bias_V"),
    # returns
    ("returns", "- penalty_BT, 0.0)", "+ penalty_BT, 0.0)"),
    ("returns", "kl.k1(", "kl.k3("),
    ("returns", "kl.k1(logprobs_BT.detach(),", "kl.k1(logprobs_BT,"),
    (
        "returns",
        "values_BT = torch.where(mask_BT, as_float(values_BT.detach()), 0.0)",
        "values_BT = as_float(values_BT)",
    ),
    ("returns", "gamma * _next_included(values_BT, mask_BT)", "_next_included(values_BT, mask_BT)"),
    (
        "returns",
        "_next_included(values_BT, mask_BT)",
        "torch.cat([values_BT[:, 1:], 0 * values_BT[:, :1]], 1)",
    ),
    ("returns", "masked_fill(mask_BT, gamma * lam)", "masked_fill(mask_BT, lam)"),
    ("returns", "torch.ones_like(deltas_BT).masked_fill(", "torch.zeros_like(deltas_BT).masked_fill("),
    ("returns", "advantages_BT = torch.where(mask_BT, carried_BT, 0.0)", "advantages_BT = carried_BT"),
    ("returns", "advantages_BT + values_BT\n", "advantages_BT + rewards_BT\n"),
    ("returns", "gamma: float = 1.0, lam: float = 0.95", "gamma: float = 0.99, lam: float = 0.95"),
    ("returns", "gamma: float = 1.0, lam: float = 0.95", "gamma: float = 1.0, lam: float = 1.0"),
    # advantages
    ("advantages", "size_G[index_B] > 1", "size_G[index_B] > 0"),
    ("advantages", "if not bool(together_B.any())", "if False"),
    ("advantages", '"amax"', '"amin"'),
    ("advantages", "/ (size_B - 1)\n    return centred_B /", "/ size_B\n    return centred_B /"),
    ("advantages", "(variance_B.sqrt() + STD_EPSILON)", "(variance_B + STD_EPSILON).sqrt()"),
    ("advantages", "STD_EPSILON = 1e-4", "STD_EPSILON = 1e-6"),
    ("advantages", "- scores_B) / (size_B - 1)", "- scores_B) / size_B"),
    ("advantages", "_sum_per_group(scores_B, group_B) - scores_B)", "_sum_per_group(scores_B, group_B))"),
    ("advantages", "torch.where(constant_B, 0.0, scores_B - others_B)", "scores_B - others_B"),
    ("advantages", "size_G < 2).any()", "size_G < 1).any()"),
    ("advantages", "as_float(scores_B.detach())", "as_float(scores_B)"),
    # ratio
    ("ratio", ".sum(1, keepdim=True) / mask_BT", ".sum(1, keepdim=True) * 1.0 if True else mask_BT"),
    ("ratio", ".clamp(min=1)", ""),
    (
        "ratio",
        "as_float(old_logprobs.detach()) - as_float(sampler_logprobs.detach())",
        "as_float(sampler_logprobs.detach()) - as_float(old_logprobs.detach())",
    ),
    ("ratio", ".exp().clamp(max=cap)", ".exp().clamp(min=cap)"),
    ("ratio", "old_logprobs.detach()", "old_logprobs"),
    ("ratio", "clamp_log_ratio(log_ratio).exp()", "log_ratio.exp()"),
    # policy
    ("policy", "torch.maximum(-", "torch.minimum(-"),
    (
        "policy",
        "ratio_BT.clamp(1.0 - clip_low, 1.0 + clip_high)\n    loss",
        "ratio_BT.clamp(1.0 - clip_high, 1.0 + clip_low)\n    loss",
    ),
    ("policy", "torch.where(advantages_BT < 0, torch.minimum", "torch.where(advantages_BT > 0, torch.minimum"),
    (
        "policy",
        "torch.minimum(loss_BT, -advantages_BT * dual_clip)",
        "torch.maximum(loss_BT, -advantages_BT * dual_clip)",
    ),
    ("policy", "clamp_log_ratio(as_float(log_ratio_BT)).exp()", "as_float(log_ratio_BT).exp()"),
    ("policy", "as_float(log_ratio_BT.detach())", "as_float(log_ratio_BT)"),
    ("policy", "return -weight_BT * as_float(advantages_BT)", "return weight_BT * as_float(advantages_BT)"),
    ("policy", "return -as_float(advantages_BT)", "return as_float(advantages_BT)"),
    # value
    ("value", "return 0.5 * torch.maximum", "return torch.maximum"),
    ("value", "torch.maximum(", "torch.minimum("),
    ("value", "clamp(old_values_BT - clip, old_values_BT + clip)", "clamp(returns_BT - clip, returns_BT + clip)"),
    ("value", "1.0 - errors_N.var(correction=0)", "errors_N.var(correction=0)"),
    ("value", "1.0 - errors_N.var(correction=0)", "1.0 - errors_N.square().mean()"),
    ("value", "/ returns_N.var(correction=0)", "/ returns_N.var(correction=1)"),
    ("value", "errors_N = returns_N - as_float", "errors_N = returns_N + as_float"),
    # preference
    (
        "preference",
        "as_float(rejected) - as_float(ref_rejected))\n    return won",
        "as_float(rejected))\n    return won",
    ),
    ("preference", "beta * (as_float(rejected)", "(as_float(rejected)"),
    ("preference", "return 1.0 - label_smoothing, label_smoothing", "return label_smoothing, 1.0 - label_smoothing"),
    ("preference", "(flipped * F.logsigmoid(lost - won) - kept", "(-flipped * F.logsigmoid(lost - won) - kept"),
    ("preference", "/ (kept - flipped)", "/ kept"),
    ("preference", "- 0.5 / beta", "- 1.0 / beta"),
    ("preference", "kept * F.relu(1.0 - (won - lost))", "kept * F.relu(-(won - lost))"),
    ("preference", "kept * (won.neg().sigmoid() + lost.sigmoid())", "kept * (won.neg().sigmoid() - lost.sigmoid())"),
    ("preference", "straight = won.sigmoid()", "straight = won.neg().sigmoid()"),
    ("preference", "swapped = lost.sigmoid()", "swapped = won.sigmoid()"),
    ("preference", ".clamp(min=0.0)", ""),
    ("preference", "desirable_weight * gain_B.neg().sigmoid()", "desirable_weight * gain_B.sigmoid()"),
    ("preference", "undesirable_weight * gain_B.sigmoid())", "desirable_weight * gain_B.sigmoid())"),
    ("preference", "device=like.device).detach()", "device=like.device)"),
    ("preference", "beta * h_B - _constant(", "beta * h_B + _constant("),
    ("preference", "beta * h_B - _constant(", "h_B - _constant("),
    (
        "preference",
        "F.logsigmoid(logits_B), F.logsigmoid(-logits_B)",
        "F.logsigmoid(-logits_B), F.logsigmoid(logits_B)",
    ),
    (
        "preference",
        "return -F.logsigmoid(beta * (as_float(chosen) - as_float(rejected)))",
        "return -F.logsigmoid(as_float(chosen) - as_float(rejected))",
    ),
    ("preference", "if constant.numel() != 1:", "if constant.numel() == 0:"),
    ("preference", "as_float(rejected)) - gamma)", "as_float(rejected)) + gamma)"),
    (
        "preference",
        "beta * (as_float(chosen) - as_float(rejected)) - gamma",
        "beta * (as_float(chosen) - as_float(rejected) - gamma)",
    ),
    ("preference", "return -chosen - weight", "return -weight"),
    ("preference", "F.logsigmoid(_log_odds(chosen) - _log_odds(rejected))", "F.logsigmoid(chosen - rejected)"),
    ("preference", "logprobs = logprobs.clamp(max=CERTAIN)", "logprobs = logprobs + 0.0"),
    ("preference", "near_one, near_zero)", "near_zero, near_one)"),
    (
        "preference",
        '"flip_probability", flip_probability, low=0.0, high=0.5, open_high=True',
        '"flip_probability", flip_probability, low=0.0, high=0.5',
    ),
    # process
    ("process", "F.logsigmoid(as_float(logits_S)).sum()", "F.logsigmoid(as_float(logits_S)).mean()"),
    ("process", "F.logsigmoid(as_float(logits_S)).sum()", "as_float(logits_S).sigmoid().prod().log()"),
    ("process", "sigmoid().min()", "min()"),
    ("process", "sigmoid().min()", "sigmoid().max()"),
    ("process", "cumsum(0).exp()", "cumsum(0)"),
    ("process", "cumsum(0).exp()", "flip(0).cumsum(0).flip(0).exp()"),
    ("process", "cummin(0).values", "cummax(0).values"),
    ("process", "new_zeros(1)", "new_ones(1)"),
    ("process", "if x_S.numel() == 0:", "if x_S.numel() < 0:"),
    # reward
    ("reward", "as_float(rejected_B) - margin", "as_float(rejected_B) + margin"),
    ("reward", "ranks_K[:, None] < ranks_K[None, :]", "ranks_K[:, None] > ranks_K[None, :]"),
    ("reward", "ranks_K[:, None] < ranks_K[None, :]", "ranks_K[:, None] <= ranks_K[None, :]"),
    (
        "reward",
        "loss_KK.sum() / better_KK.sum()",
        "loss_KK.sum() / better_KK.shape[0] ** 2 if True else better_KK.sum()",
    ),
    ("reward", "loss_KK = torch.where(better_KK, -F.logsigmoid(gap_KK), 0.0)", "loss_KK = -F.logsigmoid(gap_KK)"),
    ("reward", ".clamp(min=1)", ""),
    ("reward", "sort(dim=-1, descending=True)", "sort(dim=-1)"),
    ("reward", "torch.where(mask_GK, ranks_GK, 0).sort(", "ranks_GK.sort("),
    ("reward", "as_float(scores_GK).gather(-1, order_GK), 0.0)", "as_float(scores_GK), 0.0)"),
    ("reward", "torch.where(inside_GK, as_float(scores_GK)", "torch.where(mask_GK, as_float(scores_GK)"),
    ("reward", "worst_first_GK.logcumsumexp(-1) - worst_first_GK, 0.0)", "worst_first_GK.logcumsumexp(-1), 0.0)"),
    ("reward", "worst_first_GK, 0.0).sum(-1)", "worst_first_GK, 0.0).mean(-1)"),
    ("reward", "worst_first_GK, 0.0).sum(-1)", "worst_first_GK, 1.0).sum(-1)"),
    ("reward", "& inside_GK[:, 1:]).any(-1)", "& inside_GK[:, 1:]).all(-1)"),
    ("reward", "(1.0 - target) * F.logsigmoid(-logits)", "(1.0 - target) * F.logsigmoid(logits)"),
    (
        "reward",
        "(as_float(chosen_B) + as_float(rejected_B)).square()",
        "(as_float(chosen_B) - as_float(rejected_B)).square()",
    ),
    # combine
    ("combine", "is_safety_prompt_B | (safety_B < threshold)", "is_safety_prompt_B & (safety_B < threshold)"),
    ("combine", "safety_B < threshold", "safety_B <= threshold"),
    ("combine", ".clamp(EDGE, 1.0 - EDGE)", ""),
    ("combine", ".amin(0)", ".amax(0)"),
    ("combine", "- coefficient * scores_MB.var(0, correction=1)", "- coefficient * scores_MB.std(0, correction=1)"),
    ("combine", "correction=1", "correction=0"),
    ("combine", "- coefficient * scores_MB.var", "+ coefficient * scores_MB.var"),
    # length
    ("length", "(longest - cache)) / cache", "longest) / cache"),
    ("length", ".clamp(0.0, 1.0)", ".clamp(0.0)"),
    ("length", ".clamp(0.0, 1.0)", ".clamp(max=1.0)"),
    ("length", "return -(", "return ("),
    # control
    ("control", "MAX_ERROR = 0.2", "MAX_ERROR = 0.1"),
    ("control", "observed_kl / target - 1.0", "target / observed_kl - 1.0 if observed_kl else -1.0"),
    ("control", "1.0 + error * episodes", "1.0 - error * episodes"),
    ("control", "max(observed_kl / target - 1.0, -MAX_ERROR)", "observed_kl / target - 1.0"),
    # selection
    ("selection", "math.log(n) - (n - 1) / n", "math.log(n) - (n - 1)"),
    ("selection", "(place - n).clamp(min=0.0) / place", "(place - n + 1).clamp(min=0.0) / place"),
    ("selection", "size_L.cumsum(0)", "(size_L.cumsum(0) - 1)"),
    ("selection", ", gold_N.double()) / size_L", ", gold_N.double())"),
    ("selection", "if n > total:", "if n > total + 1:"),
]


def bare(source: str) -> str:
    """The code without its comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [x for x in body if not (isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant))]
    return ast.dump(tree)


def mutant(name: str, old: str, new: str) -> ModuleType:
    """A copy of the module with the first `old` replaced by `new`, under its own name but not registered."""
    path = FOLDER / f"{name}.py"
    source = path.read_text()
    assert old in source, f"the slip no longer fits {name}.py; write it anew for the code as it is"
    slipped = source.replace(old, new, 1)
    assert bare(slipped) != bare(source), "the slip fell into a docstring or a comment; name more of the line"
    module = ModuleType(f"assent.functional.{name}")
    module.__file__ = str(path)
    exec(compile(slipped, f"{path} with a slip", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("name", MODULES)
def test_the_battery_accepts_the_code(name):
    getattr(battery, name)(importlib.import_module(f"assent.functional.{name}"))


@pytest.mark.parametrize(("name", "old", "new"), SLIPS)
def test_the_battery_catches(name, old, new):
    # Only a failed check counts: a slip that merely crashes with another error would prove nothing about the checks.
    with pytest.raises(AssertionError):
        getattr(battery, name)(mutant(name, old, new))


def test_every_module_has_its_share():
    assert {name for name, *_ in SLIPS} == set(MODULES)
    assert len(set(SLIPS)) == len(SLIPS) > 100
