"""The first batch of reinforcement learning."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from assent.doctor.layout import padding_changes_nothing, spread
from assent.doctor.policy import (
    engine_follows_weights,
    engine_is_scored,
    kl_starts_at_zero,
    ratio_starts_at_one,
)
from assent.doctor.report import Check, Finding
from assent.doctor.scores import distinct, score_reads_the_end
from assent.models.folders import CausalModel, ScalarFolder
from assent.models.forward import ScalarModel
from assent.models.placement import narrowed
from assent.models.tokenizer import stop_ids
from assent.pipeline.stage import StageContext
from assent.protocols import Engine, Scorer
from assent.rewards.model import RewardModelScorer
from assent.rollout.source import PromptSource
from assent.stages.first_batch.pieces import (
    CANARY_PROMPTS,
    RELOADED,
    ROLLOUTS,
    ROWS,
    audited,
    dtype_of,
    end_of,
    gradients,
    one_gradient,
    room_of,
    together,
)
from assent.stages.first_batch.running import FirstBatch, Saved, SkipChecks, run_checks
from assent.train.greedy import GreedyScoring
from assent.train.lagrange import ConstrainedScoring
from assent.train.learner import LocalLearner
from assent.train.scoring import CriticScoring, RolloutScoring
from assent.types import Sampling, Scored, Sequences
from assent.types.micro_batches import map_sequences


@dataclass(frozen=True, kw_only=True)
class Rl:
    """What reinforcement learning is made of, as its stage has just built it.

    Args:
        same_start: the reference is the policy's own start, so that their KL must be 0.
        judges: the scorers themselves.
        algorithm: an online algorithm; its `experience` and `loss` are called.
    """

    policy: CausalModel
    engine: Engine
    source: PromptSource
    scoring: RolloutScoring | CriticScoring | GreedyScoring | ConstrainedScoring
    judges: Sequence[Scorer]
    learner: LocalLearner
    algorithm: Any
    same_start: bool

    @property
    def judging(self) -> RolloutScoring:
        """The scoring without a critic's values, a greedy baseline or costs."""
        return self.scoring.judging

    @cached_property
    def scored(self) -> Scored:
        """The first rollouts of the first step, whole groups, all of them read by the learner itself."""
        self.engine.sync(self.learner.weights(), version=0)
        rollouts = self.source.rollouts(0)
        kept = min(ROLLOUTS, len(rollouts))
        while kept < len(rollouts) and rollouts[kept].prompt.id == rollouts[kept - 1].prompt.id:
            kept += 1
        scored, read = self.scoring(rollouts[:kept]), self.judging.old
        (own_BT,) = map_sequences(lambda s: (read(s),), scored.sequences, self.judging.token_budget)
        return replace(scored, old_logprobs_BT=own_BT)

    @cached_property
    def experience(self) -> Any:
        return self.algorithm.experience(self.scored)

    def scalar_models(self) -> list[tuple[RewardModelScorer, Sequences]]:
        """The reward models among the scorers, and the first rollouts as each of them reads them."""
        judges = [judge for judge in self.judges if isinstance(judge, RewardModelScorer)]
        pairs = [(judge, [judge.encode(r) for r in self.scored.rollouts]) for judge in judges]
        return [(judge, Sequences.of([p for p, _ in rows], [r for _, r in rows])) for judge, rows in pairs]


def check_rl(skip: SkipChecks, context: StageContext, parts: Rl) -> FirstBatch:
    """D8, D4, D3, D1, D5, D2, D6, D7, and D11 beside the training.

    Raises:
        CheckFailed: a check refuses.
    """
    learner, model = parts.learner, parts.policy.model
    dtype, end = dtype_of(model), stop_ids(parts.policy.tokenizer)[-1]

    def tokens() -> Finding:
        scored = parts.scored
        return audited(
            context, parts.policy, scored.sequences, ends_expected=False, scored_BT=scored.score_events_BT != 0
        )

    def engine() -> Finding:
        temperature = float(getattr(learner.forward, "temperature", 1.0))
        sampling = Sampling(4, stop_ids(parts.policy.tokenizer), temperature)
        prompts = [p.token_ids for p in parts.source.prompts_of(0)[:CANARY_PROMPTS]]
        logprobs, held_in = learner.forward.logprobs, narrowed(model)
        return engine_follows_weights(
            parts.engine, learner.weights(), logprobs, prompts, sampling, version=0, dtype=dtype, held_in=held_in
        )

    def ratio() -> Finding:
        return ratio_starts_at_one(
            gradients(learner), parts.experience, parts.algorithm, minibatches=parts.algorithm.minibatches, dtype=dtype
        )

    def layout() -> Finding:
        reads = {
            "log-probabilities": learner.forward.logprobs,
            "reference log-probabilities": parts.judging.reference,
            **parts.scoring.critics,
        }
        rows = spread(parts.scored.sequences, ROWS)
        found = [padding_changes_nothing(reads, rows, end_id=end, room=room_of(model, rows), dtype=dtype)]
        for judge, sequences in parts.scalar_models():
            some = spread(sequences, ROWS)
            name = f"scores of {judge.name}"
            found.append(
                padding_changes_nothing(
                    {name: judge.scores}, some, end_id=end_of(judge, some, end), room=0, dtype=dtype
                )
            )
        return together(found)

    def scores() -> Finding:
        return together(
            [
                score_reads_the_end(
                    judge.scores, distinct(rows), name=judge.name, end_id=end_of(judge, rows, end), room=0, dtype=dtype
                )
                for judge, rows in parts.scalar_models()
            ]
        )

    has_judge = any(isinstance(judge, RewardModelScorer) for judge in parts.judges)
    checks = [
        Check("D8", tokens),
        Check("D4", engine),
        Check("D3", lambda: engine_is_scored(parts.scored, dtype=dtype)),
        Check("D1", ratio),
        Check("D5", lambda: kl_starts_at_zero(parts.scored, same_start=parts.same_start, dtype=dtype)),
        Check("D2", layout),
        *([Check("D6", scores)] if has_judge else []),
        Check("D7", lambda: one_gradient(learner, parts.experience, parts.algorithm, model, end)),
    ]

    def reloaded() -> Sequences:
        return parts.scored.sequences.select(torch.arange(min(RELOADED, len(parts.scored.sequences))))

    critic = dict(learner.roles.items()).get("critic")
    folder = ScalarFolder(critic, parts.policy.tokenizer) if isinstance(critic, ScalarModel) else None
    return run_checks(skip, context, learner, checks, Saved(parts.policy, folder, reloaded), parts.scoring)
