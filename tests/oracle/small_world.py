"""The small world of the oracle: policy, reference and rewards as tables, and the real scoring and learner on them."""

from pathlib import Path

import torch

from assent.dist.processes import Alone
from assent.evals.toy_world import TableForward, Tables, TableScorer
from assent.train.learner import LocalLearner
from assent.train.schedule import Schedule
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping
from assent.train.weighing import WeightedScorer

PROMPTS, V, BETA = 2, 3, 0.3


def made_world() -> tuple[Tables, Tables, torch.Tensor]:
    policy, reference = Tables(PROMPTS, V, seed=1), Tables(PROMPTS, V, seed=2)
    rewards = torch.randn(PROMPTS, V, V, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        policy.values_XS.normal_(generator=torch.Generator().manual_seed(4))
    return policy, reference, rewards


def learner_on(tables: Tables, tmp_path: Path, **overrides) -> LocalLearner:
    """Plain gradient descent with step 1 and no clipping: the weights move by minus the gradient."""
    options = dict(
        schedule=Schedule("constant"), total_steps=10**6, token_budget=64, seed=0, quarantine=tmp_path,
        processes=Alone(), max_grad_norm=float("inf"),
    )  # fmt: skip
    optimizer = torch.optim.SGD(tables.parameters(), lr=1.0)
    return LocalLearner(TableForward(tables), {"policy": tables}, [optimizer], **(options | overrides))


def gradient_of(tables: Tables, run) -> torch.Tensor:
    """Minus the move of the policy's logits under one step of the real learner."""
    before = tables.logits_XSV.detach().clone()
    values = tables.values_XS.detach().clone()
    run()
    moved = before - tables.logits_XSV.detach()
    with torch.no_grad():
        tables.logits_XSV.copy_(before)
        tables.values_XS.copy_(values)
    return moved


def scoring_on(policy: Tables, reference: Tables, rewards: torch.Tensor, *, kl_coef: float = BETA) -> RolloutScoring:
    return RolloutScoring(
        TableForward(policy).logprobs,
        TableForward(reference).logprobs,
        [WeightedScorer(TableScorer(rewards))],
        shaping=Shaping(),
        kl_control=KLControl(kl_coef),
        token_budget=64,
    )


def critic_scoring_on(policy: Tables, reference: Tables, rewards: torch.Tensor) -> CriticScoring:
    return CriticScoring(scoring_on(policy, reference, rewards), TableForward(policy).values)


def objective(policy: Tables, reference: Tables, rewards: torch.Tensor) -> torch.Tensor:
    """E over prompts and responses of reward - beta log(policy / reference), from the distributions alone."""
    p, q = policy.distribution(), reference.distribution().detach()
    return (p * (rewards - BETA * (p.log() - q.log()))).sum((1, 2)).mean()
