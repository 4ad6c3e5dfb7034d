"""What is measured, against what, and how much is asked of it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        name: of the row.
        ours, theirs: the work of each side, a name in `ours.WORK` and `theirs.WORK`.
        peer: environment of the other side under `.peers/`.
        targets: least ratio of units a second, ours to theirs, by size; a size without one is measured for itself.
        same: the algorithm and the batches are the same, so the losses must be the same too.
        rows: of one step, for a share of the limit that counts tokens.
        figures: of each step, where it is for agreement alone.
    """

    name: str
    ours: str
    theirs: str
    peer: str
    targets: dict[str, float]
    same: bool = False
    unit: str = "tokens"
    long_prompts: bool = False
    figures: int = 1
    sides: tuple[str, ...] = field(default=())


NEWEST, WITH_PPO = "trl-newest", "trl-1.12"
MEMORY_TARGET = 0.5

CASES = (
    Case("rollouts", "rollouts", "rollouts", NEWEST, {"S": 5.0, "M": 3.0}),
    Case("rollouts, against generate_batch", "rollouts", "rollouts_batch", NEWEST, {"S": 3.0}),
    Case("PPO update, separate critic", "ppo", "ppo", WITH_PPO, {"S": 2.5, "M": 2.5}, unit="episodes"),
    Case("PPO update, value head on the trunk", "ppo_shared", "ppo", WITH_PPO, {"S": 3.5}, unit="episodes"),
    Case("SFT", "sft", "sft", NEWEST, {"S": 3.0, "M": 2.3}, same=True, unit="real tokens"),
    Case("reward model, pairs", "reward", "reward", NEWEST, {"S": 2.4}, same=True, unit="pairs"),
    Case(
        "reward model, K = 4 against pairs", "reward_k_wise", "reward", NEWEST, {"S": 8.0}, unit="comparisons"
    ),
    Case("DPO, reference every step", "dpo", "dpo", NEWEST, {"S": 4.5}, same=True, unit="pairs"),
    Case(
        "DPO, reference precomputed", "dpo_precomputed", "dpo_precomputed", NEWEST, {"S": 4.0}, same=True, unit="pairs"
    ),
    Case("GRPO, 8 a prompt", "grpo", "grpo", NEWEST, {"S": 4.0}, unit="completions"),
    Case(
        "GRPO, 8 a prompt, prompts of 256", "grpo", "grpo", NEWEST, {"S": 6.0}, unit="completions", long_prompts=True
    ),
)  # fmt: skip

GIVEN = (
    (Case("PPO, surrogate and KL", "ppo_given", "ppo_given", WITH_PPO, {}, figures=2), ("gpt2", "llama")),
    (Case("GRPO, KL", "grpo_given", "grpo_given", NEWEST, {}), ("llama", "gpt2")),
    (Case("GRPO, KL, prompts of 256", "grpo_given", "grpo_given", NEWEST, {}, long_prompts=True), ("gpt2",)),
)
"""Algorithms that sample, on given responses: both sides must come to the same figures, in these families. GRPO of the
other side reads GPT-2 at other positions where prompts differ in length: it counts the padding on their left."""
