"""What the algorithms without a critic share: rewards, advantages of groups, the experience, and what is logged."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from assent.algorithms._importance import importance
from assent.algorithms.leash import Leash
from assent.functional import advantages, policy, ratio, returns
from assent.protocols import Forward
from assent.types import Loss, Mean, PolicyExperience, Reduction, Scored, TokenOutputs


def rewards_of(scored: Scored, kl_coef: float) -> Tensor:
    """Scores, less the KL penalty k1 of each token, `[B, T]`; what the reference says is not read at coefficient 0."""
    if not kl_coef:
        return torch.where(scored.mask_BT, scored.score_events_BT, 0.0).to(scored.old_logprobs_BT.dtype)
    return returns.shape_rewards(
        scored.score_events_BT, scored.old_logprobs_BT, scored.ref_logprobs_BT, scored.mask_BT, kl_coef=kl_coef
    )


def among_others(compare: Callable[[Tensor, Tensor], Tensor], rewards_B: Tensor, groups_B: Tensor) -> Tensor:
    """Advantages of whole groups, `[B]`; 0 for a response alone of its prompt.

    Args:
        compare: rewards and groups to advantages, where every group has two members.

    Raises:
        ValueError: every response is alone of its prompt.
    """
    together_B = advantages.in_company(groups_B)
    advantages_B = torch.zeros_like(rewards_B)
    advantages_B[together_B] = compare(rewards_B[together_B], groups_B[together_B])
    return advantages_B


def advantage_metrics(advantages_BT: Tensor, mask: Tensor | None = None) -> dict[str, Mean]:
    """Mean and deviation of what is included; of every element when `mask` is None."""
    included = advantages_BT if mask is None else advantages_BT[mask]
    return {
        "advantage/mean": Mean.of(advantages_BT, mask),
        "advantage/std": Mean(included.std(correction=0).item(), 1.0),
    }


def no_signal(scored: Scored) -> dict[str, Mean]:
    """Share of the prompts whose responses all have one score, by which comparing them teaches nothing."""
    blank_G = advantages.no_signal(scored.score_events_BT.sum(1), scored.groups_B)
    return {"group/no_signal": Mean.of(blank_G.float())}


def experience_of(
    scored: Scored,
    advantages_BT: Tensor,
    reduction: Reduction,
    *,
    kl_coef: float = 0.0,
    importance_cap: float | None = None,
    metrics: Mapping[str, Mean],
) -> PolicyExperience:
    """What will be trained on.

    Args:
        advantages_BT: `[B, T]`, or `[B, 1]` where the response is one action.
        kl_coef: of the KL term in the loss.
        importance_cap: of the correction for the sampler; None for none.
    """
    mask = scored.mask_BT
    weights_BT, units_B = reduction.weigh(mask)
    corrections_BT, corrected = importance(scored, importance_cap)
    return PolicyExperience(
        scored.sequences,
        scored.old_logprobs_BT,
        scored.ref_logprobs_BT,
        advantages_BT.expand(mask.shape),
        weights_BT * corrections_BT,
        units_B,
        kl_coef,
        {**metrics, **corrected},
    )


def group_relative_experience(
    scored: Scored, leash: Leash, reduction: Reduction, *, scale_by_std: bool, importance_cap: float | None
) -> PolicyExperience:
    """Each response against its group, one advantage for all its tokens. One alone of its prompt has advantage 0; its
    KL still counts.

    Raises:
        ValueError: every response is alone of its prompt.
    """
    in_reward, in_loss = leash.coefficients(scored.kl_coef)
    compare = partial(advantages.group_relative, scale_by_std=scale_by_std)
    advantages_B = among_others(compare, rewards_of(scored, in_reward).sum(1), scored.groups_B)
    return experience_of(
        scored,
        advantages_B[:, None],
        reduction,
        kl_coef=in_loss,
        importance_cap=importance_cap,
        metrics=advantage_metrics(advantages_B) | no_signal(scored),
    )


def policy_gradient_loss(batch: PolicyExperience, forward: Forward) -> Loss:
    """Per token: -advantage * log pi, weighted."""
    outputs = forward.tokens(batch.sequences)
    per_token = policy.policy_gradient(outputs.logprobs_BT, batch.advantages_BT)
    return Loss(batch.weights_BT * per_token, batch.mask_BT, token_metrics(outputs, batch))


def clipped_loss(
    batch: PolicyExperience,
    forward: Forward,
    leash: Leash,
    *,
    clip_low: float,
    clip_high: float,
    sequence_ratio: bool = False,
) -> Loss:
    """Per token, weighted: PPO's surrogate + beta * KL term."""
    mask = batch.mask_BT
    outputs, term_BT = read(leash, batch, forward)
    log_ratio = outputs.logprobs_BT - batch.old_logprobs_BT
    clipped = ratio.sequence_log_ratio(log_ratio, mask).expand(mask.shape) if sequence_ratio else log_ratio
    surrogate = policy.clipped_surrogate(clipped, batch.advantages_BT, clip_low=clip_low, clip_high=clip_high)
    moved = clipped.detach().exp()
    metrics = {
        "loss/policy_avg": Mean.of(surrogate, mask),
        "policy/clipfrac_avg": Mean.of(((moved < 1 - clip_low) | (moved > 1 + clip_high)).float(), mask),
    }
    return leashed_loss(surrogate, term_BT, batch, metrics | token_metrics(outputs, batch))


def read(leash: Leash, batch: PolicyExperience, forward: Forward) -> tuple[TokenOutputs, Tensor | None]:
    """What the policy says of the tokens, and the KL term of each; None where the loss has none."""
    return leash.read(batch, forward) if batch.kl_coef else (forward.tokens(batch.sequences), None)


def leashed_loss(
    per_token: Tensor, term_BT: Tensor | None, batch: PolicyExperience, metrics: Mapping[str, Mean]
) -> Loss:
    """Policy loss and KL term of each token, weighted."""
    if term_BT is None:
        return Loss(batch.weights_BT * per_token, batch.mask_BT, metrics)
    leashed = {"loss/kl_avg": Mean.of(term_BT, batch.mask_BT)}
    return Loss(batch.weights_BT * (per_token + batch.kl_coef * term_BT), batch.mask_BT, {**metrics, **leashed})


def token_metrics(outputs: TokenOutputs, batch: PolicyExperience) -> dict[str, Mean]:
    """How far the policy has moved from the one before the update, and its entropy."""
    mask, log_ratio = batch.mask_BT, (outputs.logprobs_BT - batch.old_logprobs_BT).detach()
    return {
        "policy/approxkl_avg": Mean.of(0.5 * log_ratio.square(), mask),
        "policy/entropy_avg": Mean.of(outputs.entropy_BT, mask),
        "val/ratio": Mean.of(log_ratio.exp(), mask),
    }


def beyond(limit: float | None, metrics: Mapping[str, Mean]) -> bool:
    """Whether an update has moved the policy further than its limit, in nats per token; None is no limit."""
    moved = metrics.get("policy/approxkl_avg")
    return limit is not None and moved is not None and moved.value > limit
