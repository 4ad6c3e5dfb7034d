"""Metrics of reinforcement learning: objective, rollouts, reward, update."""

from assent.track.catalogue.declare import Metric, Range, Section

OBJECTIVE = Section(
    "Online: what is maximised",
    "The board to watch. The losses of PPO are not progress signals: a falling policy loss says nothing about the "
    "policy being better.",
    (
        Metric(
            "objective/scores", "score",
            "mean over responses of the score the policy is trained on, after normalisation, clipping and penalties",
            None,
            "It should rise and level off. If it rises while the held-out judge falls, the reward model is being "
            "exploited: raise the KL coefficient, stop earlier, or improve the reward model. Of scores whitened over "
            "each batch it is 0 by construction: look at `score/NAME`, as it was given.",
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
            "kl/first", "nats per sequence",
            "where the reference moves: the divergence from the first one, as `objective/kl` is that from the present "
            "one",
            Range(high=100.0),
            "It is how far the run has gone in all, which a moving reference does not bound: lower the rate, reset "
            "less often, or set `budget`, which counts from here.",
            "KL first",
        ),
        Metric(
            "kl/reference_age", "updates", "updates of the policy since the reference last moved", None,
            "It climbs to `every` - 1 and falls to 0; KL and reward jump where it falls.",
        ),
        Metric(
            "kl/exact", "nats per sequence",
            "mean over responses of the summed KL of each of their states over the whole vocabulary (exact_kl)", None,
            "The same expectation as `objective/kl` with less noise. Apart for long: as for `objective/kl` below -0.5.",
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
        Metric("episode", "responses", "responses trained on since the stage began", None, "It only counts."),
    ),
)  # fmt: skip

ROLLOUTS = Section(
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
            "unscored/<reason>", "responses",
            "the same by reason, counted for each scorer: `declined` (it said so), `raised`, `timeout`, `died`, "
            "`not_a_number`, `not_finite`, `unreachable`, `unreadable`, `refused`",
            Range(high=0.0),
            "`raised` is shown once with its traceback; more than a few of `timeout` or `died` want another function, "
            "more seconds, or fewer workers.",
        ),
        Metric(
            "response/overlong_filtered", "responses",
            "responses that were cut off by their budget and are not trained on (overlong filtering)", None,
            "It goes to 0 as `response/ended` goes to 1; most of a batch lost for long is a budget that is too small.",
        ),
        Metric(
            "sampling/kept", "share", "prompts asked for whose responses differ in score (dynamic sampling)",
            Range(low=0.2),
            "Below it a step samples five times what it trains on: take prompts that are neither always solved nor "
            "never, or sample more responses to each.",
            "kept",
        ),
        Metric(
            "sampling/asked", "responses", "responses sampled for this step, those left out included", None,
            "It is what dynamic sampling costs.",
        ),
        Metric(
            "sampling/filled", "share",
            "groups of this step that teach nothing and only fill it up, after the last try", Range(high=0.2),
            "The prompts are used up for this policy: read `sampling/kept`.",
        ),
        Metric(
            "sampler/lag", "updates", "mean over responses of the updates since the weights that sampled them", None,
            "0, or the setting `lag` after the first steps; `sampler/gap_*` then holds the policy's own movement too.",
        ),
        Metric(
            "greedy/score", "score",
            "mean over the prompts of the shaped score of the policy's most probable response: the baseline of ReMax",
            None,
            "Above `objective/scores`, sampling costs quality; far below it, the most probable response is degenerate.",
        ),
        Metric(
            "greedy/unscored", "responses",
            "responses dropped because a scorer gave the greedy response to their prompt no score",
            Range(high=0.0),
            "Find out why the scorer refuses those.",
        ),
        Metric(
            "sampler/gap_p50", "nats",
            "median over tokens of |sampler's - learner's log-probability| before the update; of one response in eight "
            "where `sampler/taken` is above 0, of all else",
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
        Metric(
            "sampler/taken", "share",
            "tokens whose log-probability before the update is the sampler's own, since those that were read by both "
            "agree to rounding",
            None,
            "About 7/8 in float32; 0 in half precision, with `lag` and where the sampled distribution is restricted. "
            "At 0 each step reads its rollouts once more.",
        ),
    ),
)  # fmt: skip

REWARD = Section(
    "Online: shaping of the score",
    "",
    (
        Metric(
            "reward/normaliser_mean", "score", "running mean of the weighted sum of scores, subtracted from it", None,
            "It follows the policy's improvement; that is its purpose.",
        ),
        Metric(
            "reward/normaliser_std", "score", "running standard deviation of the sum, which it is divided by",
            Range(low=1e-3),
            "Near 0 every response has the same score and division blows up noise: check the scorer.",
        ),
        Metric(
            "reward/length_penalty", "score", "mean of what length took from the score", None,
            "Compare it with the spread of the score: a larger penalty rules it.",
        ),
        Metric(
            "reward/overlong_penalty", "score", "mean of what the soft overlong penalty (DAPO) took from the score",
            None,
            "It goes to 0 as responses end before longest - cache; when it does not, raise the limit.",
        ),
        Metric(
            "reward/missing_end_penalty", "score", "mean of what missing ends took from the score", None,
            "It goes to 0 as `response/ended` goes to 1.",
        ),
    ),
)  # fmt: skip

UPDATE = Section(
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
            "loss/kl_avg", "nats per token",
            "the KL term of the loss per token, before its coefficient, in algorithms that put the KL into the loss",
            None,
            "k3 and exact estimate the divergence from the reference; of k2 only the gradient means something.",
        ),
        Metric(
            "importance/mean", "ratio",
            "mean weight of a token in the correction for what sampled it: learner's over sampler's probability, "
            "capped",
            Range(0.9, 1.1),
            "It is 1 in expectation, less what the cap takes. Away from it engine and learner are different policies: "
            "see `sampler/gap_*`.",
        ),
        Metric(
            "importance/capped", "share", "tokens whose weight in that correction is at its cap", Range(high=0.05),
            "Above it the correction is mostly the cap: the samples are too old, or the engine computes something "
            "else.",
        ),
        Metric(
            "pair/score_gap", "score", "mean over the pairs of online DPO of best minus worst score", None,
            "As it nears 0 the order of a pair is noise of the scorer; with soft labels it says how sure the labels "
            "are.",
        ),
        Metric(
            "ptx/loss", "nats per token", "loss on pretraining data mixed into the update", None,
            "A rise is what the mix is there to prevent: raise its coefficient.",
        ),
    ),
)  # fmt: skip
