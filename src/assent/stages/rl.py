"""Reinforcement learning from a reward, with a KL leash to a named reference."""

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field, model_validator
from torch import nn

from assent.algorithms.online_dpo import OnlineDPO
from assent.algorithms.ppo import PPO
from assent.algorithms.ppo_lagrangian import PPOLagrangian
from assent.loops.online import online
from assent.models.folders import CausalModel, save_causal
from assent.models.forward import ModelForward, ScalarModel, ValueHead
from assent.models.tokenizer import require_same_tokenizer
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.protocols import Stateful
from assent.rollout.native import NativeEngine
from assent.rollout.source import PromptSource
from assent.stages.first_batch import Rl, SkipChecks, check_rl
from assent.stages.generation import decoder, engine_of, most_probable
from assent.stages.online.constraint import ConstraintSpec, build_cost_critic, constrained
from assent.stages.online.critic import CriticSpec, build_critic, save_critic
from assent.stages.online.mixture import PretrainingMix, build_mixture
from assent.stages.online.references import AnyReferenceUpdate, build_following
from assent.stages.online.samples import SampleBook
from assent.stages.online.sampling import DynamicSampling, asked_once, build_source
from assent.stages.online_algorithms import AnyAlgorithm, scoring_for
from assent.stages.parts import (
    MODEL,
    Generation,
    ModelRef,
    Optimization,
    answerable,
    build_learner,
    frozen,
    load_policy,
)
from assent.stages.scorers import RawScore, RewardSpec, charged, named_apart, watched, weighted
from assent.stages.sources import AnyTasks, take
from assent.track.timed import TimedLearner, TimedScoring, TimedSource
from assent.train.checkpoint import StateFile
from assent.train.followers import Averaging
from assent.train.greedy import Greedy, GreedyScoring
from assent.train.guard import KLBudget, KLGuard
from assent.train.lagrange import ConstrainedScoring
from assent.train.learner import LocalLearner
from assent.train.overlong import FinishedOnly
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping
from assent.train.weighing import WeightedScorer, leaves
from assent.types import Prompt


class RlSpec(StageSpec):
    """Settings of reinforcement learning.

    Args:
        policy: what is trained.
        reference: what it is leashed to; the starting policy when None. A frozen snapshot, never "adapters off".
        reference_update: how the snapshot moves after each step, `{name: reset, every: 50}` or
            `{name: ema, rate: 0.01}`; None keeps it where it is.
        average: `{decay: 0.992}` saves the average of the policy over the steps in its place (InstructGPT).
        rewards: what it is trained on, a weighted sum; each may be normalised and clipped by itself before.
        watch: scored and logged, never trained on: a held-out reward model, or the domain's gold. What it will not
            score is trained on all the same.
        constraint: what a response may cost, of `ppo_lagrangian` alone, which needs it.
        critic: the value model, of PPO and `ppo_lagrangian`; None for `CriticSpec`'s defaults.
        tasks: the prompts.
        longest_prompt: in tokens; prompts that are longer or leave no room for a response are left out and counted.
        steps: batches of rollouts.
        prompts_per_step, samples_per_prompt: rollouts of one batch.
        generation: how responses are drawn.
        dynamic_sampling: `{tries: 8}` replaces prompts whose responses all score the same; None keeps them.
        lag: steps that sampling runs ahead of training, as on a placement where the two work at the same time; needs
            an algorithm that corrects for it, with its `importance_cap` set, or online DPO, which need not.
        overlong_filter: responses that were cut off by their budget are not trained on.
        algorithm: `{name: grpo, ...}` and so on, PPO without a name, or one of your own: `{path: module:Class, ...}`.
        shaping: from score to what is trained on.
        kl: coefficient per nat of a sequence, fixed or adaptive.
        exact_kl: also measure the KL of each state over the whole vocabulary, `kl/exact`; two forward passes more.
        budget: KL at which the run stops and rolls back.
        mix: pretraining text mixed in.
        optimization: how weights are moved.
        skip_checks: first-batch checks not to run, by name; recorded in the artefact.
    """

    policy: ModelRef
    reference: ModelRef | None = None
    reference_update: AnyReferenceUpdate | None = None
    average: Averaging | None = None
    rewards: list[RewardSpec] = Field(min_length=1)
    watch: tuple[RawScore, ...] = ()
    constraint: ConstraintSpec | None = None
    critic: CriticSpec | None = None
    tasks: AnyTasks
    longest_prompt: int = Field(512, gt=0)
    steps: int = Field(gt=0)
    prompts_per_step: int = Field(gt=0)
    samples_per_prompt: int = Field(1, gt=0)
    generation: Generation
    dynamic_sampling: DynamicSampling | None = None
    lag: int = Field(0, ge=0)
    overlong_filter: bool = False
    algorithm: AnyAlgorithm = PPO()
    shaping: Shaping = Shaping()
    kl: KLControl = KLControl()
    exact_kl: bool = False
    budget: KLBudget = KLBudget()
    mix: PretrainingMix | None = None
    optimization: Optimization
    skip_checks: SkipChecks = ()

    @model_validator(mode="after")
    def _parts_of_the_algorithm(self) -> Self:
        name, smallest = self.algorithm.name, self.algorithm.smallest_group
        if self.samples_per_prompt < smallest:
            raise ValueError(
                f"{name} compares the responses to one prompt, so samples_per_prompt must be at least {smallest}; "
                f"got {self.samples_per_prompt}"
            )
        if self.critic is not None and not self.algorithm.uses_critic:
            raise ValueError(f"{name} has no critic, so `critic` would change nothing: delete it")
        if isinstance(self.algorithm, OnlineDPO) and not self.kl.coefficient > 0:
            raise ValueError(f"{name}'s beta is kl.coefficient, which must be above 0; got {self.kl.coefficient}")
        if isinstance(self.algorithm, PPOLagrangian) != (self.constraint is not None):
            raise ValueError(f"`constraint` and ppo_lagrangian need each other; got {name} and {self.constraint}")
        return self

    @property
    def costs(self) -> tuple[RewardSpec, ...]:
        """What is charged; nothing without a constraint."""
        return () if self.constraint is None else self.constraint.costs

    @model_validator(mode="after")
    def _scorers_are_told_apart(self) -> Self:
        named_apart([*self.rewards, *self.costs, *self.watch])
        return self

    @model_validator(mode="after")
    def _something_teaches(self) -> Self:
        if not any(reward.weight for reward in self.rewards):
            raise ValueError(
                "every reward has weight 0, so nothing would be learned: give one a weight, or use `watch`"
            )
        warmup = getattr(self.algorithm, "critic_warmup_steps", 0)
        if warmup >= self.steps:
            raise ValueError(
                f"the policy would never learn: critic_warmup_steps must be below steps; got {warmup} and {self.steps}"
            )
        if warmup and self.critic is not None and self.critic.start == "trunk":
            raise ValueError(
                "a critic on the policy's own trunk moves the policy when it learns, so it cannot warm up alone: "
                "delete critic_warmup_steps, or set critic.start to policy or reward_model"
            )
        if warmup and self.mix is not None:
            raise ValueError(
                "`mix` trains the policy at every step, and critic_warmup_steps holds it still: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _parts_of_the_loop(self) -> Self:
        if self.dynamic_sampling is not None and self.samples_per_prompt < 2:
            raise ValueError(
                "dynamic_sampling compares the responses to one prompt, so samples_per_prompt must be at least 2; "
                f"got {self.samples_per_prompt}"
            )
        if self.average is not None and self.budget.limit is not None:
            raise ValueError(
                "average and budget.limit exclude each other: the average would hold the weights that the budget rolls "
                "back; leave one out"
            )
        # Online DPO's loss assumes nothing of what drew its pairs.
        corrected = isinstance(self.algorithm, OnlineDPO) or getattr(self.algorithm, "importance_cap", None) is not None
        if self.lag and not corrected:
            raise ValueError(
                f"lag trains on tokens that older weights drew, and {self.algorithm.name} takes them for the policy's "
                "own: set algorithm.importance_cap (2 is usual) where it has one, or leave lag out"
            )
        return self


def run(spec: RlSpec, context: StageContext) -> Mapping[str, float]:
    policy = load_policy(context, spec.policy)
    reference = load_policy(context, spec.reference or spec.policy)
    require_same_tokenizer(policy.tokenizer, reference.tokenizer, role="reference")
    frozen(reference.model)
    critic = build_critic(spec.critic, spec.rewards, context, policy) if spec.algorithm.uses_critic else None
    cost_critic = None if spec.constraint is None else build_cost_critic(spec.constraint, context, policy)
    critics: dict[str, ScalarModel | ValueHead | None] = {"critic": critic, "cost_critic": cost_critic}
    forward = _forward(spec, policy, critic, cost_critic, reference)
    learner = _learner(spec, context, policy, critics, forward)
    engine = engine_of(policy, slots=spec.generation.slots)
    prompts = answerable(policy, take(spec.tasks, context), spec.longest_prompt, spec.generation, context)
    decode = decoder(policy, spec.generation.stop_strings)
    plain = _prompt_source(spec, context, policy, engine, prompts)
    judges = [weighted(r, context, policy) for r in spec.rewards]
    beside = [*(charged(c, context, policy) for c in spec.costs), *(watched(w, context, policy) for w in spec.watch)]
    asked = [*asked_once(judges, spec.dynamic_sampling), *beside]
    scoring = _scoring(spec, asked, forward, reference, most_probable(engine, policy, spec.generation))
    following = build_following(
        spec.reference_update,
        spec.average,
        policy,
        reference,
        forward,
        exact_kl=spec.exact_kl,
        token_budget=spec.optimization.token_budget,
    )
    source = build_source(
        plain,
        spec.dynamic_sampling,
        judges,
        prompts,
        decode,
        groups=spec.prompts_per_step,
        lag=spec.lag,
        followers=list(following.parts.values()),
    )
    same_start = spec.reference is None or spec.reference == spec.policy
    parts = Rl(
        policy=policy,
        engine=engine,
        source=plain,
        scoring=scoring,
        judges=[judge for w in (*judges, *beside) for judge in leaves(w.scorer)],
        learner=learner,
        algorithm=spec.algorithm,
        same_start=same_start,
    )
    first_batch = check_rl(spec.skip_checks, context, parts)
    samples = SampleBook(
        FinishedOnly(scoring) if spec.overlong_filter else scoring,
        context.out / "samples.jsonl",
        per_epoch=len(prompts) * spec.samples_per_prompt,
        notes=[lambda _: source.metrics, *following.notes],
    )
    guard = KLGuard(spec.budget, policy.model)
    state: dict[str, Stateful] = {
        "learner": learner,
        "source": source,
        "scoring": samples,
        "guard": guard,
        "tracker": context.tracker,
        **following.state,
    }
    checkpoint = StateFile(context.state, state, every_seconds=spec.optimization.checkpoint_seconds)
    phase = context.tracker.phase
    timed = TimedSource(source, phase), TimedScoring(samples, phase)
    online(*timed, spec.algorithm, TimedLearner(learner, phase), context.tracker, checkpoint, guard)
    first_batch.finish()
    if following.average is not None:
        following.average.put()
    save_causal(context.out / MODEL, policy)
    for name, module in critics.items():
        save_critic(module, policy, samples.newest_responses(10), context, name=name)
    return samples.closing_figures() | {"rolled_back": float(guard.rolled_back)}


def _forward(
    spec: RlSpec,
    policy: CausalModel,
    critic: ScalarModel | ValueHead | None,
    cost_critic: ScalarModel | None,
    reference: CausalModel,
) -> ModelForward:
    return ModelForward(
        policy=policy.model,
        critic=critic,
        cost_critic=cost_critic,
        reference=reference.model,
        temperature=spec.generation.temperature,
    )


def _learner(
    spec: RlSpec,
    context: StageContext,
    policy: CausalModel,
    critics: Mapping[str, nn.Module | None],
    forward: ModelForward,
) -> LocalLearner:
    roles: dict[str, nn.Module] = {"policy": policy.model} | {r: c for r, c in critics.items() if c is not None}
    updates = spec.steps * spec.algorithm.epochs * spec.algorithm.minibatches
    mix = None if spec.mix is None else build_mixture(spec.mix, context, policy, updates)
    return build_learner(
        context,
        spec.optimization,
        forward,
        roles,
        total_steps=updates,
        critic_optimizer=(spec.critic or CriticSpec()).optimizer,
        mixture=mix,
    )


def _prompt_source(
    spec: RlSpec, context: StageContext, policy: CausalModel, engine: NativeEngine, prompts: Sequence[Prompt]
) -> PromptSource:
    return PromptSource(
        prompts,
        engine,
        spec.generation.sampling(policy.tokenizer),
        prompts_per_step=spec.prompts_per_step,
        samples_per_prompt=spec.samples_per_prompt,
        steps=spec.steps,
        seed=context.seed,
        decode=decoder(policy, spec.generation.stop_strings),
    )


def _scoring(
    spec: RlSpec,
    scorers: Sequence[WeightedScorer],
    forward: ModelForward,
    reference: CausalModel,
    greedy: Greedy,
) -> RolloutScoring | CriticScoring | GreedyScoring | ConstrainedScoring:
    """What is known of rollouts, with what else the algorithm reads, and with costs where there is a constraint."""
    scoring = RolloutScoring(
        forward.logprobs,
        ModelForward(policy=reference.model, temperature=spec.generation.temperature).logprobs,
        scorers,
        shaping=spec.shaping,
        kl_control=spec.kl,
        token_budget=spec.optimization.token_budget,
    )
    for_algorithm = scoring_for(spec.algorithm, scoring, values=forward.values, greedy=greedy)
    return for_algorithm if spec.constraint is None else constrained(spec.constraint, for_algorithm, forward)


def derive(spec: RlSpec) -> Mapping[str, Number]:
    rollouts = spec.prompts_per_step * spec.samples_per_prompt
    greedy = {"greedy responses per step": spec.prompts_per_step} if spec.algorithm.uses_greedy else {}
    return {
        "rollouts per step": rollouts,
        "episodes": rollouts * spec.steps,
        "updates per step": spec.algorithm.epochs * spec.algorithm.minibatches,
        "updates": spec.steps * spec.algorithm.epochs * spec.algorithm.minibatches,
        "sequences per update": -(-rollouts // spec.algorithm.minibatches),
        **greedy,
        "most tokens sampled": (rollouts + sum(greedy.values())) * spec.steps * spec.generation.max_new_tokens,
    }


STAGE = Stage("rl", RlSpec, run, derive)
