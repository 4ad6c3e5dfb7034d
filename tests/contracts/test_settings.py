"""Numbers that cannot be meant are refused when a recipe is read, by name and with the bound."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import ValidationError

from assent.algorithms.apo_down import APODown
from assent.algorithms.apo_zero import APOZero
from assent.algorithms.bco import BCO
from assent.algorithms.cispo import CISPO
from assent.algorithms.cpo import CPO
from assent.algorithms.dpo import DPO
from assent.algorithms.grpo import GRPO
from assent.algorithms.hinge import Hinge
from assent.algorithms.ipo import IPO
from assent.algorithms.kto import KTO
from assent.algorithms.online_dpo import OnlineDPO
from assent.algorithms.orpo import ORPO
from assent.algorithms.plackett_luce import PlackettLuce
from assent.algorithms.ppo import PPO
from assent.algorithms.ppo_lagrangian import PPOLagrangian
from assent.algorithms.reinforce import Reinforce
from assent.algorithms.reinforce_pp import ReinforcePP
from assent.algorithms.reinforce_pp_baseline import ReinforcePPBaseline
from assent.algorithms.remax import ReMax
from assent.algorithms.reward_model import RewardModel
from assent.algorithms.rloo import RLOO
from assent.algorithms.robust_dpo import RobustDPO
from assent.algorithms.safety_reward_model import SafetyRewardModel
from assent.algorithms.simpo import SimPO
from assent.algorithms.soft_reward_model import SoftRewardModel
from assent.errors import ConfigError, DataError
from assent.pipeline.recipe import load_recipe
from assent.records import Comparison, Degree, Preference
from assent.stages import TABLE
from assent.stages.reward_model import RewardModelSpec
from assent.stages.reward_training import Split, batches_of
from assent.stages.rl import RlSpec
from assent.train.guard import KLBudget
from assent.train.scoring import KLControl, Shaping

ROOT = Path(__file__).resolve().parents[2]

EVERY = (
    *(PPO, PPOLagrangian, RLOO, GRPO, Reinforce, ReinforcePP, ReinforcePPBaseline, ReMax, CISPO, OnlineDPO),
    *(DPO, RobustDPO, IPO, KTO, ORPO, SimPO, CPO, BCO, APOZero, APODown, Hinge),
    *(RewardModel, SoftRewardModel, PlackettLuce, SafetyRewardModel, Shaping, KLControl, KLBudget),
)

# The first and the last number of each kind that is refused, and the nearest that is taken.
BOUNDS = {
    "epochs": ((0, -1), (1,)),
    "minibatches": ((0, -1), (1,)),
    "gamma": ((-0.1,), (0.0, 1.0)),
    "lam": ((-0.1, 1.1), (0.0, 1.0)),
    "clip_low": ((-0.1,), (0.0,)),
    "clip_high": ((-0.1,), (0.0,)),
    "dual_clip": ((1.0, 0.5), (1.1,)),
    "value_clip": ((-0.1,), (0.0,)),
    "value_coef": ((-0.1,), (0.0,)),
    "policy_coef": ((-0.1,), (0.0,)),
    "entropy_coef": ((-0.1,), (0.0,)),
    "critic_warmup_steps": ((-1,), (0,)),
    "importance_cap": ((0.0, -1.0), (0.1,)),
    "update_kl_limit": ((0.0, -1.0), (0.1,)),
    "beta": ((0.0, -0.1), (0.01,)),
    "label_smoothing": ((-0.1, 0.5), (0.0, 0.49)),
    "flip_probability": ((-0.1, 0.5), (0.0, 0.49)),
    "nll_weight": ((-0.1,), (0.0,)),
    "desirable_weight": ((-0.1,), (0.0,)),
    "undesirable_weight": ((-0.1,), (0.0,)),
    "weight": ((-0.1,), (0.0,)),
    "centering": ((-0.1,), (0.0,)),
    "regularisation": ((-0.1,), (0.0,)),
    "clip": ((0.0, -1.0), (0.1,)),
    "target": ((0.0, -1.0), (0.1,)),
    "horizon": ((0, -1), (1,)),
    "limit": ((0.0, -1.0), (0.1,)),
}
FREE = {"missing_end_penalty", "length_penalty"}  # a penalty below 0 is a prize, which somebody may mean

CASES = [(kind, f.name) for kind in EVERY for f in fields(kind) if f.name in BOUNDS]


def test_every_number_has_a_bound():
    """A setting that is new must be given one here, or be called free."""
    numbers = {
        f.name for kind in EVERY for f in fields(kind) if isinstance(f.default, (int, float)) or f.default is None
    }
    numbers -= {f.name for kind in EVERY for f in fields(kind) if isinstance(f.default, bool)}
    coefficients = {"coefficient"}  # of `kl` and of the safety labels: below
    assert numbers - {"overlong"} == BOUNDS.keys() | FREE | coefficients


@pytest.mark.parametrize(("kind", "name"), CASES, ids=lambda x: getattr(x, "__name__", x))
def test_a_number_out_of_its_range_is_refused_by_name(kind, name):
    refused, taken = BOUNDS[name]
    for value in (*refused, math.nan):
        with pytest.raises(ValueError, match=rf"{name} must be .*; got {value}"):
            kind(**{name: value})
    for value in taken:
        assert getattr(kind(**{name: value}), name) == value


@pytest.mark.parametrize("kind", [KLControl, SafetyRewardModel])
def test_a_coefficient_below_0_is_refused(kind):
    """A leash of negative weight would drive the policy away from its reference."""
    with pytest.raises(ValueError, match=r"coefficient must be at least 0; got -0\.1"):
        kind(coefficient=-0.1)
    assert kind(coefficient=0.0).coefficient == 0


def test_a_simpo_margin_may_be_large_and_a_discount_may_not():
    assert SimPO(gamma=5.0).gamma == 5.0
    for kind in (PPO, ReinforcePP):
        with pytest.raises(ValueError, match=r"gamma must be at most 1; got 1\.1"):
            kind(gamma=1.1)


def test_a_coefficient_that_nothing_can_move_has_no_target():
    with pytest.raises(ValueError, match="got target 6"):
        KLControl(coefficient=0.0, target=6.0)


def test_the_refusal_names_the_setting_and_its_line_and_says_what_to_do():
    """Of an algorithm that its name chooses among others, too."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(ROOT / "recipes" / "dpo.yaml", TABLE, ["stages.dpo.algorithm.nll_weight=-1"])
    told = str(caught.value)
    assert "stages.dpo.algorithm (line " in told
    assert "got: nll_weight must be at least 0; got -1.0; leave it out for its default\n" in told
    assert "fix: change the value as it says" in told


# ------------------------------------------------------------------------------------------------ combinations

RL = {
    "policy": "somewhere",
    "rewards": [{"rule": "regex", "pattern": "a"}],
    "tasks": {"format": "domain_tasks", "split": "train", "count": 8},
    "steps": 4,
    "prompts_per_step": 4,
    "generation": {"max_new_tokens": 8},
    "optimization": {"optimizer": {"name": "adamw", "lr": 1e-4}},
}
COSTS = {"constraint": {"costs": [{"rule": "regex", "pattern": "b", "name": "cost"}]}}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rewards": [{"rule": "regex", "pattern": "a", "weight": 0}]}, "every reward has weight 0"),
        ({"algorithm": {"critic_warmup_steps": 4}}, "must be below steps; got 4 and 4"),
        (
            {"algorithm": {"name": "ppo_lagrangian", "ppo": {"critic_warmup_steps": 9}}, **COSTS},
            "must be below steps; got 9 and 4",
        ),
        ({"algorithm": {"critic_warmup_steps": 2}, "critic": {"start": "trunk"}}, "cannot warm up alone"),
        (
            {
                "algorithm": {"critic_warmup_steps": 2},
                "mix": {"coefficient": 1.0, "documents": {"format": "domain_documents", "count": 8}},
            },
            "holds it still",
        ),
        ({"algorithm": {"name": "ppo_lagrangian"}, "lag": 1, **COSTS}, "set algorithm.importance_cap"),
    ],
)
def test_a_combination_that_would_not_do_what_it_says_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        RlSpec.model_validate({**RL, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"algorithm": {"critic_warmup_steps": 3}},
        {"algorithm": {"critic_warmup_steps": 2}, "critic": {"start": "policy"}},
        {"algorithm": {"name": "ppo_lagrangian", "ppo": {"importance_cap": 2.0}}, "lag": 1, **COSTS},
        {"algorithm": {"name": "online_dpo"}, "samples_per_prompt": 2, "lag": 1},
    ],
)
def test_one_that_does_is_taken(settings):
    assert RlSpec.model_validate({**RL, **settings}).steps == 4


# ------------------------------------------------------------------------------------------------ settings and data


def batches(*preferences: Preference, unsafe=(), **settings):
    spec = RewardModelSpec.model_validate(
        {
            "model": "somewhere",
            "data": [{"format": "stage", "stage": "comparisons"}],
            "optimization": {"optimizer": {"name": "adamw", "lr": 1e-4}},
            **settings,
        }
    )
    comparison = Comparison("c", "text", ("a", "b", "c"), preferences, unsafe=unsafe)
    split = Split(lambda c: ([1], [[2]] * len(c.responses)), [comparison], [])
    return batches_of(spec, split, seed=0)


def test_a_margin_by_degree_needs_a_degree():
    """Without one every margin would be 0, and the recipe would say otherwise."""
    tie = Preference(0, 2, tie=True, degree=Degree.SIGNIFICANTLY)
    for preference in (Preference(0, 1), Preference(0, 1, degree=Degree.NEGLIGIBLY)):
        with pytest.raises(DataError, match=r"margin 'small' would change nothing(.|\n)*1 ordered pairs"):
            batches(preference, tie, margin="small")
    (_, batch), *_ = batches(Preference(0, 1, degree=Degree.SLIGHTLY), Preference(1, 2), margin="large")
    assert batch.margin_P.tolist() == [1.0, 0.0]
    assert len(batches(Preference(0, 1)))


def test_the_loss_of_safety_labels_needs_labels():
    with pytest.raises(DataError, match="no response is labelled safe or unsafe"):
        batches(Preference(0, 1), algorithm={"name": "safety"})
    (_, batch), *_ = batches(Preference(0, 1), unsafe=(False, True, False), algorithm={"name": "safety"})
    assert batch.safe_B.tolist() == [True, False, True] and batch.labelled_B.all()
