"""One-line mistakes that a person could make in an algorithm, with the tests that must catch them.

A test of the mathematics is named for each file: gradients and values against a definition, never the code restated.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slips:
    """The slips of one file of `assent.algorithms`.

    Args:
        tests: files, or tests within them, that the file must pass and every slip must fail.
        slips: what stands there, and what stands there instead; the first occurrence is replaced.
        survivors: slips that no test tells apart, with the reason.
    """

    tests: tuple[str, ...]
    slips: tuple[tuple[str, str], ...]
    survivors: tuple[tuple[str, str, str], ...] = ()


PAIRS = tuple(
    f"tests/oracle/test_pairs.py::{test}"
    for test in ("test_the_gradient_is_that_of_the_definition", "test_the_metrics_are_those_of_the_implicit_rewards")
)
REFERENCE = "*batch.sides(batch.ref_logprobs_B)"
SWAPPED = (REFERENCE, f"{REFERENCE}[::-1]")
UNPAIRED = tuple(
    f"tests/oracle/test_single_judgements.py::{test}"
    for test in (
        "test_kto_is_its_definition_with_one_baseline_for_the_step",
        "test_bco_is_its_definition_with_the_mean_of_the_steps_before",
        "test_the_loss_of_a_start_at_the_reference",
        "test_implicit_rewards_are_log_ratios_times_beta",
    )
)
SINGLE, GROUPS = "tests/oracle/test_enumeration.py", "tests/oracle/test_group_enumeration.py"
ONLINE = "tests/oracle/test_online_enumeration.py"


def online(*names: str) -> tuple[str, ...]:
    """Tests of that file by their names after `test_`, the quick ones first: a slip ends at the first that fails."""
    return tuple(f"{ONLINE}::test_{name}" for name in names)


LEASHES = (
    "in_the_reward_the_leash_is_that_of_the_sequence",
    "in_the_loss_every_leash_has_the_gradient_of_the_divergence",
)
CORRECTIONS = (
    "the_correction_weighs_each_token_s_loss_by_the_capped_ratio",
    "every_policy_gradient_takes_the_correction",
    "ppo_corrects_the_surrogate_and_leaves_the_critic_alone",
)
REINFORCE = (
    "reinforce_baseline_is_the_mean_of_the_others_of_the_batch",
    "reinforce_to_go_forgives_what_came_before",
    "reinforce_gradient_is_the_gradient_of_the_kl_regularised_objective",
)
REWARDS = "tests/oracle/test_reward_losses.py"

SLIPS: dict[str, Slips] = {
    "sft": Slips(
        (f"{SINGLE}::test_sft_gradient_is_the_gradient_of_the_cross_entropy", "tests/contracts"),
        (
            ("per_token = -forward", "per_token = forward"),
            ("Loss(per_token, mask,", "Loss(per_token, mask | True,"),
        ),
    ),
    "reward_model": Slips(
        (f"{SINGLE}::test_reward_model_gradient_is_the_gradient_of_instructgpt_loss", "tests/contracts", REWARDS),
        (
            ("scores[batch.better_P], scores[batch.worse_P]", "scores[batch.worse_P], scores[batch.better_P]"),
            ("margin=batch.margin_P", "margin=0.0"),
            ("+ self.regularisation * per_response", "- self.regularisation * per_response"),
            ("per_response(batch, scores.square())", "per_response(batch, scores)"),
        ),
    ),
    "_comparisons": Slips(
        (f"{SINGLE}::test_reward_model_gradient_is_the_gradient_of_instructgpt_loss", REWARDS),
        (
            ("values_B) / batch.counts_G", "values_B)"),
            ("index_add(0, group_B, values_B)", "index_add(0, 0 * group_B, values_B)"),
            ("/ pairs.clamp(min=1)", ""),
            ("index_add(0, batch.group_P, per_pair)", "index_add(0, 0 * batch.group_P, per_pair)"),
            ("reward.bradley_terry(better, worse)", "reward.bradley_terry(worse, better)"),
        ),
    ),
    "process_reward": Slips(
        ("tests/oracle/test_process_reward.py", "tests/contracts"),
        (
            ("forward.step_scores(batch.sequences, labelled)", "-forward.step_scores(batch.sequences, labelled)"),
            ("torch.where(labelled, batch.labels_BT, 0.0)", "torch.where(labelled, 1.0 - batch.labels_BT, 0.0)"),
            ("Loss(per_step, labelled,", "Loss(per_step, batch.sequences.mask_BT,"),
            ("(logits_BT > 0) ==", "(logits_BT < 0) =="),
            ("Mean.of(logits_BT.sigmoid(), labelled)", "Mean.of(logits_BT, labelled)"),
        ),
    ),
    "soft_reward_model": Slips(
        (REWARDS,),
        (
            ("soft_bradley_terry(better, worse, target_P)", "soft_bradley_terry(worse, better, target_P)"),
            ("soft_bradley_terry(better, worse, target_P)", "bradley_terry(better, worse)"),
            ("entr(target_P) +", "entr(target_P) -"),
        ),
    ),
    "plackett_luce": Slips(
        (REWARDS,),
        (
            ("(mask_GK.sum(-1) - 1)", "mask_GK.sum(-1)"),
            ("torch.where(batch.ranked_G,", "torch.where(~batch.ranked_G,"),
            ("plackett_luce_each(scores[row_GK],", "plackett_luce_each(-scores[row_GK],"),
            ("ranking_G, pairwise_G", "ranking_G, ranking_G"),
        ),
    ),
    "safety_reward_model": Slips(
        (REWARDS,),
        (
            ("step_cross_entropy(scores, safe_B)", "step_cross_entropy(scores, 1 - safe_B)"),
            ("+ self.coefficient * labelling_G", "+ labelling_G"),
            ("/ labels_G.clamp(min=1)", ""),
            ("+ self.regularisation * per_response", "+ per_response"),
            ("per_response(batch, scores.square())", "per_response(batch, scores.abs())"),
            ("margin=batch.margin_P", "margin=0.0"),
        ),
    ),
    "dpo": Slips(
        PAIRS,
        (
            ("beta=self.beta,", "beta=2 * self.beta,"),
            ("*batch.sides(policy_B), *batch.sides(ref_B)", "*batch.sides(ref_B), *batch.sides(policy_B)"),
            ("label_smoothing=self.label_smoothing", "label_smoothing=0.0"),
            ("nll_weight=self.nll_weight", "nll_weight=1.0"),
            ("self._measured(batch, batch.ref_logprobs_B)", "batch.ref_logprobs_B"),
            ("if self.length_normalised", "if not self.length_normalised"),
            ("self._measured(batch, log_ratios(batch, sums_B))", "log_ratios(batch, sums_B)"),
        ),
    ),
    "robust_dpo": Slips(
        PAIRS,
        (
            SWAPPED,
            ("flip_probability=self.flip_probability", "flip_probability=0.1"),
            ("return self.beta * log_ratios(batch, sums_B)", "return log_ratios(batch, sums_B)"),
        ),
    ),
    "hinge": Slips(
        PAIRS,
        (
            SWAPPED,
            ("label_smoothing=self.label_smoothing", "label_smoothing=0.0"),
            ("return self.beta * log_ratios(batch, sums_B)", "return log_ratios(batch, sums_B)"),
        ),
    ),
    "apo_zero": Slips(
        PAIRS,
        (
            SWAPPED,
            ("preference.apo_zero", "preference.apo_down"),
            ("return self.beta * log_ratios(batch, sums_B)", "return log_ratios(batch, sums_B)"),
        ),
    ),
    "apo_down": Slips(
        PAIRS,
        (
            SWAPPED,
            ("beta=self.beta,", "beta=0.1,"),
            ("return self.beta * log_ratios(batch, sums_B)", "return log_ratios(batch, sums_B)"),
        ),
    ),
    "ipo": Slips(
        PAIRS,
        (
            ("ref_B = per_token(batch, batch.ref_logprobs_B)", "ref_B = batch.ref_logprobs_B"),
            ("*batch.sides(per_token(batch, sums_B))", "*batch.sides(sums_B)"),
            ("self.beta * per_token(batch, log_ratios(batch, sums_B))", "self.beta * per_token(batch, sums_B)"),
        ),
    ),
    "simpo": Slips(
        PAIRS,
        (
            ("means_B = per_token(batch, sums_B)", "means_B = sums_B"),
            ("gamma=self.gamma", "gamma=0.0"),
            ("nll_weight=self.nll_weight", "nll_weight=0.0"),
            ("return self.beta * per_token", "return per_token"),
        ),
    ),
    "cpo": Slips(
        PAIRS,
        (
            ("beta=self.beta)", "beta=1.0)"),
            ("nll_weight=self.nll_weight", "nll_weight=0.0"),
            ("return self.beta * sums_of", "return sums_of"),
        ),
    ),
    "orpo": Slips(
        PAIRS,
        (
            ("means_B = per_token(batch, sums_B)", "means_B = sums_B / 2"),
            ("weight=self.weight", "weight=1.0"),
            ("return per_token(batch, sums_of(batch, forward))", "return sums_of(batch, forward)"),
        ),
    ),
    "_pairs": Slips(
        PAIRS,
        (
            ("forward.logprobs(sequences), 0.0).sum(1)", "forward.logprobs(sequences), 0.0).mean(1)"),
            ("sums_B / batch.sequences.mask_BT.sum(1)", "sums_B / (1 + batch.sequences.mask_BT.sum(1))"),
            ("return sums_B - batch.ref_logprobs_B", "return batch.ref_logprobs_B - sums_B"),
            ("per_pair - nll_weight", "per_pair + nll_weight"),
            ("chosen, _ = batch.sides(per_token", "_, chosen = batch.sides(per_token"),
            ("chosen, _ = batch.sides(per_token(batch, sums_B))", "chosen, _ = batch.sides(sums_B)"),
            ("chosen, rejected = batch.sides(rewards_B)", "rejected, chosen = batch.sides(rewards_B)"),
            ("likely, other = batch.sides(sums_B)", "other, likely = batch.sides(sums_B)"),
            ("Mean.of((chosen > rejected).float()", "Mean.of((chosen < rejected).float()"),
            ("chosen, rejected = batch.sides(log_ratios", "rejected, chosen = batch.sides(log_ratios"),
        ),
    ),
    "kto": Slips(
        UNPAIRED,
        (
            ("- part.mismatched_ref_logprobs_B", "- part.ref_logprobs_B"),
            ("sums_over(part.mismatched, forward)", "sums_over(part.sequences, forward)"),
            ("max(0.0, measured[BASELINE].value)", "measured[BASELINE].value - 0.1"),
            ("max(0.0, measured[BASELINE].value)", "0.0"),
            ("sums_B[batch.row_J],", "sums_B[batch.row_J.flip(0)],"),
            ("desirable_weight=self.desirable_weight", "desirable_weight=1.0"),
            ("undesirable_weight=self.undesirable_weight", "undesirable_weight=self.desirable_weight"),
            ("return self.beta * log_ratios(batch, sums_B)", "return log_ratios(batch, sums_B)"),
        ),
    ),
    "bco": Slips(
        UNPAIRED,
        (
            ("sum(kinds) / 2", "sum(kinds)"),
            ("for name in (DESIRABLE, UNDESIRABLE)]", "for name in (DESIRABLE, DESIRABLE)]"),
            ("return add_metrics(carried, seen)", "return seen"),
            ("            batch.baseline,\n", "            0.0,\n"),
            ("beta=self.beta,", "beta=1.0,"),
            ("return self.beta * log_ratios(batch, sums_B)", "return log_ratios(batch, sums_B)"),
        ),
    ),
    "_unpaired": Slips(
        UNPAIRED,
        (
            ("Mean.of(rewards_J, liked_J)", "Mean.of(rewards_J, ~liked_J)"),
            ("log_ratios(batch, sums_B)[row_J]", "sums_B[row_J]"),
            ("Mean.of(shift_J, liked_J)", "Mean.of(shift_J, ~liked_J)"),
        ),
    ),
    "ppo": Slips(
        (SINGLE, "tests/oracle/test_ppo_definition.py"),
        (
            ("kl_coef=scored.kl_coef", "kl_coef=0.0"),
            ("scored.old_logprobs_BT, scored.ref_logprobs_BT,", "scored.ref_logprobs_BT, scored.old_logprobs_BT,"),
            ("gamma=self.gamma, lam=self.lam", "gamma=self.gamma, lam=1.0"),
            ("gamma=self.gamma, lam=self.lam", "gamma=1.0, lam=self.lam"),
            ("advantages = masked.whiten(advantages, mask)", "targets = masked.whiten(targets, mask)"),
            ("masked.whiten(rewards, mask, shift_mean=False)", "masked.whiten(rewards, mask)"),
            ("log_ratio = outputs", "log_ratio = 2 * batch.old_logprobs_BT - outputs"),
            ("clip_low=self.clip_low", "clip_low=self.clip_high"),
            ("clip_high=self.clip_high", "clip_high=self.clip_low"),
            ("dual_clip=self.dual_clip", "dual_clip=None"),
            ("self.value_coef * value_loss - self.entropy_coef", "value_loss - self.entropy_coef"),
            ("- self.entropy_coef * outputs", "+ self.entropy_coef * outputs"),
            ("batch.returns_BT, clip=self.value_clip", "batch.returns_BT, clip=None"),
            ("batch.old_values_BT, batch.returns_BT", "batch.returns_BT, batch.old_values_BT"),
            ("if step < self.critic_warmup_steps", "if step <= self.critic_warmup_steps"),
            ("moved.value > limit", "moved.value < limit"),
            ("0.5 * log_ratio.detach().square()", "log_ratio.detach().square()"),
            ("(ratio < 1 - self.clip_low) |", "(ratio < 1 - self.clip_low) &"),
        ),
    ),
    "ppo_lagrangian": Slips(
        tuple(
            f"tests/oracle/test_lagrangian.py::{test}"
            for test in (
                "test_at_a_fixed_multiplier_the_gradient_is_that_of_the_lagrangian",
                "test_the_kl_keeps_its_weight_whatever_the_multiplier",
                "test_two_critics_learn_two_returns",
                "test_each_advantage_reads_its_own_critic",
                "test_a_token_that_other_weights_drew_is_corrected_in_reward_and_cost_alike",
            )
        ),
        (
            ("costs_BT = -returns", "costs_BT = returns"),
            ("            -scored.cost_events_BT,", "            scored.cost_events_BT,"),
            ("- weight * cost_advantages", "+ weight * cost_advantages"),
            ("/ (1.0 + weight)", ""),
            ("whiten_advantages=False, importance_cap=None)", "whiten_advantages=False)"),
            ("advantages * corrections", "advantages"),
            ("/ (1.0 + weight)", "/ weight"),
            ("costs_BT, scored.cost_values_BT, mask", "costs_BT, scored.values_BT, mask"),
            ("cost_returns_BT=cost_returns", "cost_returns_BT=of_reward.returns_BT"),
            ("self.ppo.value_coef * of_critic", "2 * self.ppo.value_coef * of_critic"),
            ("forward.cost_values(batch.sequences)", "forward.values(batch.sequences)"),
        ),
    ),
    "rloo": Slips(
        (GROUPS,),
        (
            ("rewards_of(scored, scored.kl_coef)", "rewards_of(scored, 0.0)"),
            (".sum(1)\n        advantages_B", ".mean(1)\n        advantages_B"),
            ("advantages.leave_one_out,", "advantages.group_relative,"),
            ("ConstantLength(1)", "ConstantLength(2)"),
            ("rewards_B, scored.groups_B", "rewards_B, 0 * scored.groups_B"),
        ),
    ),
    "grpo": Slips(
        (GROUPS, *online("each_variant_of_grpo_is_its_paper_s", *CORRECTIONS[:2], *LEASHES)),
        (
            ("scale_by_std=self.scale_by_std", "scale_by_std=True"),
            ("scale_by_std=self.scale_by_std", "scale_by_std=False"),
            (
                "clip_low=self.clip_low,\n            clip_high=self.clip_high",
                "clip_low=self.clip_high,\n            clip_high=self.clip_low",
            ),
            ("sequence_ratio=self.sequence_ratio", "sequence_ratio=not self.sequence_ratio"),
            ("            self.reduction,\n", "            SequenceMean(),\n"),
            ("importance_cap=self.importance_cap", "importance_cap=None"),
        ),
    ),
    "reinforce": Slips(
        online(*REINFORCE[:2], CORRECTIONS[1], REINFORCE[2]),
        (
            ("rewards_of(scored, scored.kl_coef)", "rewards_of(scored, 0.0)"),
            ("earned_BT - others_B", "earned_BT - 0.5 * others_B"),
            ("if self.baseline", "if not self.baseline"),
            ("if self.to_go", "if not self.to_go"),
            ("gamma=1.0, lam=1.0", "gamma=1.0, lam=0.0"),
            ("totals_B - advantages.leave_one_out(totals_B, batch_B)", "totals_B.mean().expand(len(totals_B))"),
            ("ConstantLength(1)", "ConstantLength(2)"),
            ("importance_cap=self.importance_cap", "importance_cap=None"),
        ),
    ),
    "remax": Slips(
        online(
            "a_prompt_without_a_greedy_score_is_left_out_and_counted",
            "the_baseline_is_shaped_as_the_scores_and_leaves_the_moments_alone",
            "remax_gradient_is_the_gradient_of_the_kl_regularised_objective",
            CORRECTIONS[1],
        ),
        (
            ("rewards_of(scored, scored.kl_coef)", "rewards_of(scored, 0.0)"),
            (".sum(1) - scored", ".mean(1) - scored"),
            ("ConstantLength(1)", "ConstantLength(2)"),
        ),
        (("- scored.baseline_B", "", "any baseline leaves the expected gradient as it is; this one is for the noise"),),
    ),
    "reinforce_pp": Slips(
        online("reinforce_pp_is_its_definition", CORRECTIONS[1]),
        (
            ("rewards_of(scored, scored.kl_coef)", "rewards_of(scored, 0.0)"),
            ("gamma=self.gamma", "gamma=1.0"),
            ("lam=1.0", "lam=0.9"),
            ("masked.whiten(earned_BT, mask)", "masked.whiten(earned_BT, mask, shift_mean=False)"),
            ("masked.whiten(earned_BT, mask)", "earned_BT"),
            ("clip_low=self.clip_low", "clip_low=self.clip_high"),
            ("importance_cap=self.importance_cap", "importance_cap=None"),
        ),
    ),
    "reinforce_pp_baseline": Slips(
        online(
            "reinforce_pp_with_baseline_is_its_definition",
            "reinforce_pp_with_baseline_leaves_lone_responses_out_of_the_scale",
            CORRECTIONS[1],
        ),
        (
            ("scale_by_std=False", "scale_by_std=True"),
            ("masked.whiten(centred_BT, compared)", "masked.whiten(centred_BT, scored.mask_BT)"),
            ("masked.whiten(centred_BT, compared)", "centred_BT"),
            ("kl_coef=in_loss", "kl_coef=in_reward"),
            ("importance_cap=self.importance_cap", "importance_cap=None"),
        ),
    ),
    "cispo": Slips(
        online("cispo_is_its_definition", "on_policy_cispo_is_grpo", *CORRECTIONS[:2], *LEASHES),
        (
            ("scale_by_std=self.scale_by_std", "scale_by_std=False"),
            ("clip_low=self.clip_low", "clip_low=self.clip_high"),
            ("clip_high=self.clip_high", "clip_high=self.clip_low"),
            ("log_ratio = outputs", "log_ratio = 2 * batch.old_logprobs_BT - outputs"),
            ("importance_cap=self.importance_cap", "importance_cap=None"),
        ),
    ),
    "online_dpo": Slips(
        online(
            "online_dpo_pairs_the_best_with_the_worst",
            "online_dpo_counts_ties_and_lone_responses",
            "at_the_optimum_soft_labels_stand_still",
            "online_dpo_gradient_over_every_pair_of_samples",
        ),
        (
            ("gap_P.sigmoid() if self.soft_labels", "gap_P.sigmoid() if not self.soft_labels"),
            ("best_G[kept_G], worst_G[kept_G]", "worst_G[kept_G], best_G[kept_G]"),
            ("batch.beta * log_ratios(batch, sums_B)", "log_ratios(batch, sums_B)"),
            ("batch.beta * log_ratios(batch, sums_B)", "batch.beta * sums_B"),
            ("ref_logprobs_BT[rows_P2, :t]", "old_logprobs_BT[rows_P2, :t]"),
            ("descending=True", "descending=False"),
            ("order[-1]", "order[1]"),
            ("groups_B == group", "groups_B >= group"),
            ("alone += 1", "alone += 0"),
        ),
    ),
    "leash": Slips(
        online(*LEASHES),
        (
            ("return kl_coef, 0.0", "return 0.0, kl_coef"),
            ("kl.k2_with_ratio(outputs.logprobs_BT, batch.old_logprobs_BT,", "kl.k2(outputs.logprobs_BT,"),
            ("kl.k3_with_ratio(outputs.logprobs_BT, batch.old_logprobs_BT,", "kl.k3(outputs.logprobs_BT,"),
            ("outputs.entropy_BT), outputs.kl_BT", "outputs.entropy_BT), outputs.kl_BT.detach()"),
        ),
    ),
    "_importance": Slips(
        online(*CORRECTIONS),
        (
            ("(old_BT, scored.sampler_logprobs_BT, cap=cap)", "(scored.sampler_logprobs_BT, old_BT, cap=cap)"),
            ("sampler_logprobs_BT, cap=cap)", "sampler_logprobs_BT, cap=2 * cap)"),
            ("weights_BT >= cap", "weights_BT > 1"),
        ),
    ),
    "_critic_free": Slips(
        (GROUPS, *online("each_variant_of_grpo_is_its_paper_s", *CORRECTIONS, *LEASHES, *REINFORCE)),
        (
            ("if not kl_coef:", "if kl_coef:"),
            ("rewards_of(scored, in_reward)", "rewards_of(scored, in_loss)"),
            ("kl_coef=in_loss", "kl_coef=in_reward"),
            ("scale_by_std=scale_by_std", "scale_by_std=not scale_by_std"),
            ("kl_coef=kl_coef\n    )\n\n\ndef among", "kl_coef=0.0\n    )\n\n\ndef among"),
            ("rewards_B[together_B], groups_B[together_B]", "rewards_B[together_B], 0 * groups_B[together_B]"),
            ("weights_BT * corrections_BT,", "weights_BT,"),
            ("weights_BT * corrections_BT,", "corrections_BT,"),
            ("log_ratio = outputs", "log_ratio = 2 * batch.old_logprobs_BT - outputs"),
            ("if sequence_ratio else log_ratio", "if not sequence_ratio else log_ratio"),
            ("clip_low=clip_low, clip_high=clip_high", "clip_low=clip_high, clip_high=clip_low"),
            ("per_token + batch.kl_coef * term_BT", "per_token - batch.kl_coef * term_BT"),
            ("per_token + batch.kl_coef * term_BT", "per_token + term_BT"),
            ("Loss(batch.weights_BT * per_token, batch.mask_BT, token", "Loss(per_token, batch.mask_BT, token"),
        ),
    ),
}  # fmt: skip
