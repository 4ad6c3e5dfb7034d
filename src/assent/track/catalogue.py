"""Every metric there is: its unit, its meaning, where it is healthy, and what to do when it is not.

An undeclared name is refused when it is logged, so that a figure nobody can read is never recorded. `docs/metrics.md`
is this file as a page: `python -m assent.track.catalogue > docs/metrics.md`.

Healthy ranges are for language models under the defaults of this package. They are where to begin to look, not
laws: where a range comes from a source it is named, otherwise it is our own experience, and a metric without a range
has none because its size depends on the data.
"""

import difflib
import functools
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from assent.errors import ContractError


@dataclass(frozen=True, slots=True)
class Range:
    """Healthy values, both ends included; None is no bound on that side."""

    low: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool:
        """nan is not healthy."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return low <= value <= high

    def __str__(self) -> str:
        if self.low is None:
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Metric:
    """One declared metric.

    Args:
        name: as logged. A name that ends in `/<...>` declares a family: anything may stand there.
        unit: of the number.
        meaning: what is averaged over what.
        healthy: where it should be, or None where no range holds in general.
        advice: what to do outside the range, or how to read it where there is none.
        label: short name in the terminal's line; empty keeps it out of the line.
    """

    name: str
    unit: str
    meaning: str
    healthy: Range | None
    advice: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Metrics that belong together, under one heading of the page."""

    title: str
    about: str
    metrics: tuple[Metric, ...]


_TRAINING = Section(
    "Every stage that trains",
    "",
    (
        Metric("lr", "per step", "learning rate of the first optimiser at this step", None, "It follows the schedule."),
        Metric(
            "grad_norm", "norm", "norm of the policy's gradient before clipping; in a reward model, of that model",
            None,
            "Far above the clipping norm at every step means that clipping sets the step size: lower the learning "
            "rate. A single spike is what clipping is for.",
        ),
        Metric(
            "grad_norm/<role>", "norm", "the same for another role, such as `grad_norm/critic`", None,
            "Read it as `grad_norm`; a critic's is large in the first steps.",
        ),
        Metric("tokens", "tokens", "tokens of the loss trained on since the stage began", None, "It only counts."),
        Metric("epoch", "passes", "passes over the data or prompts, so far", None, "It only counts."),
    ),
)  # fmt: skip

_OFFLINE = Section(
    "Pretraining and SFT",
    "The loss is a progress signal here; a validation loss that rises while the loss falls is over-fitting.",
    (
        Metric(
            "loss/tokens", "nats per token", "mean negative log-likelihood of the tokens trained on", None,
            "Compare it with the logarithm of the vocabulary's size, where it begins from scratch. If it does not "
            "fall, look at the learning rate first and at the token audit second.",
            "loss",
        ),
        Metric(
            "validation/loss", "nats per token", "the same on data that is not trained on", None,
            "When it rises, more epochs hurt the likelihood. InstructGPT trained on and chose by reward-model score: "
            "set `judge` to do the same.",
            "val",
        ),
        Metric(
            "validation/score", "score", "mean score of the judge on responses sampled for validation prompts", None,
            "Higher is better; it chooses the epoch when a judge is set.",
            "judged",
        ),
    ),
)  # fmt: skip

_REWARD_MODEL = Section(
    "Reward model",
    "",
    (
        Metric(
            "loss/pairs", "nats per pair", "mean over prompts of the mean loss over the prompt's ordered pairs",
            Range(high=0.75),
            "ln 2 = 0.693 is guessing. Above it, the model is sure and wrong: lower the learning rate and check which "
            "response is the preferred one in the data.",
            "loss",
        ),
        Metric(
            "pairs/accuracy", "share", "ordered pairs in which the preferred response scores higher; a tie counts half",
            Range(0.5, 0.95),
            "Below 0.5 the labels are inverted or the score is read at the wrong token. Above 0.95 on human data is "
            "memorised or leaked: annotators agree with each other in about 73 % (InstructGPT).",
            "acc",
        ),
        Metric(
            "pairs/margin", "score", "mean of the preferred score minus the other", Range(low=0.0),
            "It grows in training. Below 0 for long: as accuracy below 0.5.",
        ),
    ),
)  # fmt: skip

_ALIGN = Section(
    "Direct alignment",
    "The implicit reward of a response is beta times its log-ratio to the reference (DPO; per token in IPO), or its "
    "log-probability per token (SimPO times beta, ORPO).",
    (
        Metric(
            "loss/preference", "nats", "mean loss of the pairs; squared nats per token in IPO", None,
            "DPO starts at ln 2 = 0.693 where the reference is the start. Towards 0 within one pass the pairs are "
            "memorised: fewer epochs, a lower learning rate, or label_smoothing.",
            "pair loss",
        ),
        Metric(
            "implicit_reward/accuracy", "share",
            "pairs whose preferred response has the higher implicit reward; equal counts half", Range(0.45, 0.95),
            "A policy that starts at its reference starts at 0.5. Below 0.45 look which response the data calls "
            "preferred; above 0.95 on people's comparisons is memorised: look at the held-out accuracy.",
            "implicit acc",
        ),
        Metric(
            "implicit_reward/margin", "reward", "mean implicit reward, preferred minus other", None,
            "It grows. Growing while the samples get worse is over-optimisation: a larger beta, or stop earlier.",
            "margin",
        ),
        Metric(
            "implicit_reward/chosen", "reward", "mean implicit reward of the preferred responses", None,
            "Read it with `logprobs/chosen_shift`.",
        ),
        Metric(
            "implicit_reward/rejected", "reward", "mean implicit reward of the other responses", None,
            "It falls below that of the preferred ones.",
        ),
        Metric(
            "logprobs/chosen", "nats per response", "mean log-probability of the preferred responses under the policy",
            None,
            "Where it falls while the margin grows, the probability goes to responses that are in no pair (likelihood "
            "displacement).",
        ),
        Metric(
            "logprobs/rejected", "nats per response", "the same of the other responses", None,
            "It may fall; far below the preferred ones' it says that the policy is pushed away more than drawn.",
        ),
        Metric(
            "logprobs/chosen_shift", "nats per response",
            "mean log-probability of the preferred responses under the policy minus that under the reference",
            Range(low=-5.0),
            "Likelihood displacement: what people preferred has become e^5 times less likely than it was, and "
            "responses that nobody judged more likely. Set nll_weight (1 in iterative RPO), raise beta, lower the "
            "learning rate, and check that the pairs were sampled from the reference.",
            "shift",
        ),
        Metric(
            "logprobs/rejected_shift", "nats per response", "the same of the other responses", None,
            "It falls below `logprobs/chosen_shift`; the difference times beta is the margin.",
        ),
    ),
)  # fmt: skip

_OBJECTIVE = Section(
    "Online: what is maximised",
    "The board to watch. The losses of PPO are not progress signals: a falling policy loss says nothing about the "
    "policy being better.",
    (
        Metric(
            "objective/scores", "score",
            "mean over responses of the score the policy is trained on, after normalisation, clipping and penalties",
            None,
            "It should rise and level off. If it rises while the held-out judge falls, the reward model is being "
            "exploited: raise the KL coefficient, stop earlier, or improve the reward model.",
            "score",
        ),
        Metric(
            "objective/kl", "nats per sequence",
            "mean over responses of the summed log-probability of policy minus reference (k1)",
            Range(-0.5, 50.0),
            "Below -0.5 the tokens were not sampled from the policy that scores them: compare temperature, end tokens "
            "and `sampler/gap_*`. Above 50 the policy has left the reference: raise the KL coefficient or lower the "
            "learning rate. Long responses have more of it.",
            "KL",
        ),
        Metric(
            "kl/k3", "nats per sequence",
            "the same divergence by an estimator that is never negative (exp(-x) - 1 + x of each token's log-ratio x)",
            None,
            "It should be near `objective/kl`; when the two part, the estimate rests on a few improbable tokens.",
        ),
        Metric(
            "kl/coefficient", "score per nat", "the KL coefficient in force for this batch", None,
            "Constant when fixed. An adaptive one that only grows cannot hold its target: lower the learning rate.",
            "beta",
        ),
        Metric(
            "objective/non_score_reward", "score", "mean over responses of minus the KL coefficient times their KL",
            None,
            "It is what the leash costs. When it outweighs the score, the coefficient is too high for this score's "
            "scale.",
        ),
        Metric(
            "objective/rlhf_reward", "score", "`objective/scores` plus `objective/non_score_reward`: what is maximised",
            None,
            "If this falls for long, training is unstable: lower the learning rate or take fewer epochs per batch.",
        ),
        Metric(
            "objective/entropy", "nats per sequence",
            "mean over responses of the summed -log-probability of the sample",
            None,
            "A fall towards 0 means that the policy says the same thing every time: raise the entropy bonus or the KL "
            "coefficient.",
        ),
        Metric(
            "score/<name>", "score", "mean of what one scorer said, before normalisation, clipping and penalties", None,
            "Watch each: a sum can rise while one of its parts falls.",
        ),
        Metric("episode", "responses", "responses trained on since the stage began", None, "It only counts."),
    ),
)  # fmt: skip

_ROLLOUTS = Section(
    "Online: the responses",
    "",
    (
        Metric(
            "response/length", "tokens", "mean length of a response, its end token included", None,
            "Growth without better judgements is length bias of the reward model: see its card, and use the length "
            "penalty.",
            "length",
        ),
        Metric(
            "response/ended", "share", "responses that closed with an end token within their budget", Range(low=0.8),
            "Below it, many are cut off: raise `max_new_tokens`, check that SFT trained the end token, or use the "
            "penalty for a missing end.",
            "ended",
        ),
        Metric("val/num_eos_tokens", "responses", "the same as a count; TRL's name", None, "Read `response/ended`."),
        Metric(
            "response/unscored", "responses", "responses that a scorer gave no score; they are dropped",
            Range(high=0.0),
            "Find out why the scorer refuses them: the policy learns nothing from these.",
        ),
        Metric(
            "sampler/gap_p50", "nats",
            "median over tokens of |sampler's - learner's log-probability| before the update",
            Range(high=0.01),
            "Two programs compute the same number here. In float32 it is about 1e-6; in bfloat16 up to 1e-2. More is a "
            "difference in weights, temperature, positions or padding.",
        ),
        Metric(
            "sampler/gap_p95", "nats", "its 95th percentile", Range(high=0.1), "As `sampler/gap_p50`.",
        ),
        Metric(
            "sampler/gap_max", "nats", "its maximum", Range(high=1.0),
            "As `sampler/gap_p50`. A large maximum over a small median is a few tokens: look at ends of responses "
            "first.",
        ),
    ),
)  # fmt: skip

_REWARD = Section(
    "Online: shaping of the score",
    "",
    (
        Metric(
            "reward/normaliser_mean", "score", "running mean of the raw score, subtracted from it", None,
            "It follows the policy's improvement; that is its purpose.",
        ),
        Metric(
            "reward/normaliser_std", "score", "running standard deviation of the raw score, which it is divided by",
            Range(low=1e-3),
            "Near 0 every response has the same score and division blows up noise: check the scorer.",
        ),
        Metric(
            "reward/length_penalty", "score", "mean of what length took from the score", None,
            "Compare it with the spread of the score: a larger penalty rules it.",
        ),
        Metric(
            "reward/missing_end_penalty", "score", "mean of what missing ends took from the score", None,
            "It goes to 0 as `response/ended` goes to 1.",
        ),
    ),
)  # fmt: skip

_UPDATE = Section(
    "Online: the update",
    "Means over all minibatches of all epochs of one batch of rollouts.",
    (
        Metric(
            "policy/approxkl_avg", "nats per token", "half the mean squared log-ratio of new to old policy",
            Range(high=0.1),
            "How far one update moves. Above it, steps are too large: lower the learning rate or the epochs.",
        ),
        Metric(
            "policy/clipfrac_avg", "share", "tokens whose ratio is outside the clip range", Range(high=0.3),
            "Above it most of the gradient is thrown away: lower the learning rate or the epochs. Always 0 with more "
            "than one epoch means that steps are very small.",
            "clip",
        ),
        Metric(
            "policy/entropy_avg", "nats per token", "entropy of the policy's distribution at each response token", None,
            "A fall towards 0 is collapse: raise the entropy bonus or the KL coefficient.",
        ),
        Metric("loss/policy_avg", "advantage", "clipped surrogate per token", None, "Not a progress signal."),
        Metric(
            "loss/value_avg", "squared reward", "clipped value loss per token, with its half", None,
            "Not comparable between runs; read `value/explained_variance`.",
        ),
        Metric(
            "val/ratio", "ratio", "mean probability ratio of new to old policy", Range(0.9, 1.1),
            "It is 1 in expectation. Away from it, log-probabilities are not computed as they were for the old policy.",
        ),
        Metric(
            "val/ratio_var", "squared ratio", "mean squared distance of that ratio from 1", Range(high=0.5),
            "As `policy/approxkl_avg`, more sensitive to single tokens.",
        ),
        Metric(
            "val/clipfrac_avg", "share", "tokens whose value moved outside the value clip range", Range(high=0.5),
            "High for long: returns are larger than the clip range, so the critic cannot follow; widen it or normalise "
            "the score.",
        ),
        Metric(
            "value/explained_variance", "share", "1 - Var(returns - values) / Var(returns), before the update",
            Range(low=0.0),
            "Below 0 the critic is worse than a constant: give it warm-up steps or a higher learning rate. 1 is "
            "perfect.",
            "EV",
        ),
        Metric(
            "advantage/mean", "reward", "mean advantage before whitening", None,
            "Around 0 once the critic is good; its sign says whether the critic under- or overestimates.",
        ),
        Metric(
            "advantage/std", "reward", "standard deviation of the advantage before whitening", None,
            "Near 0 there is nothing to learn from: all responses are equally good, or the score is constant.",
        ),
        Metric(
            "group/no_signal", "share",
            "prompts whose responses all have the same score, or only one response left, in algorithms that compare "
            "them",
            Range(high=0.5),
            "Their scores teach nothing. Above it most of the batch is wasted: take prompts that are neither always "
            "solved nor never, sample more responses to each, or give a score with more grades.",
            "idle",
        ),
        Metric(
            "ptx/loss", "nats per token", "loss on pretraining data mixed into the update", None,
            "A rise is what the mix is there to prevent: raise its coefficient.",
        ),
    ),
)  # fmt: skip

_USERS = Section(
    "Your own",
    "",
    (
        Metric(
            "user/<name>", "yours", "whatever your own algorithm, scorer or stage reports under this prefix", None,
            "Names without this prefix must be declared in `assent.track.catalogue`.",
        ),
    ),
)  # fmt: skip

SECTIONS = (_OBJECTIVE, _ROLLOUTS, _REWARD, _UPDATE, _OFFLINE, _REWARD_MODEL, _ALIGN, _TRAINING, _USERS)

METRICS: dict[str, Metric] = {m.name: m for section in SECTIONS for m in section.metrics}


@functools.cache
def lookup(name: str) -> Metric:
    """The declaration of a metric, or of the family it belongs to.

    Raises:
        ContractError: nothing declares it.
    """
    family = f"{name.partition('/')[0]}/<"
    for declared, metric in METRICS.items():
        if declared == name or (declared.startswith(family) and len(name) > len(family) - 1):
            return metric
    near = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.5)
    raise ContractError(
        f"the metric {name!r} is not declared",
        got=name,
        why="a figure without unit and meaning cannot be read, and a misspelt one hides the one that was meant",
        fix=(f"did you mean {near[0]!r}? " if near else "") + "A figure of your own is logged as user/NAME",
    )


def page(sections: Iterable[Section] = SECTIONS) -> str:
    """The catalogue as Markdown."""
    lines = [
        "# Metrics",
        "",
        "<!-- Generated by `python -m assent.track.catalogue > docs/metrics.md`; edit the catalogue, not this page. "
        "-->",
        "",
        "Every stage writes `metrics.jsonl` into its artefact: one JSON object per step, keys sorted, `null` where a",
        "figure is not a number. Times are in `timing.jsonl`, so that two runs of one recipe have the same metrics, "
        "byte",
        "for byte. Healthy ranges are where to begin to look, not laws.",
    ]
    for section in sections:
        lines += ["", f"## {section.title}", ""]
        lines += [section.about, ""] if section.about else []
        lines += ["| metric | unit | meaning | healthy | outside it, or how to read it |", "|---|---|---|---|---|"]
        for m in section.metrics:
            cells = (f"`{m.name}`", m.unit, m.meaning, str(m.healthy or "—"), m.advice)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
