"""Reinforcement learning from a reward, with a KL leash to a named reference."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import nn

from assent.algorithms.ppo import PPO
from assent.algorithms.sft import SFT
from assent.config import Frozen
from assent.data.batches import PackedBatches, TokenBatches
from assent.loops.online import online
from assent.models.folders import CausalModel, ScalarFolder, load_scalar, save_causal, save_scalar, scalar_from_causal
from assent.models.forward import ModelForward, ScalarModel, ValueHead
from assent.models.tokenizer import encode_text, require_same_tokenizer, stop_ids
from assent.pipeline.recipe import Number, Stage, StageSpec
from assent.pipeline.run import StageContext
from assent.protocols import BatchSource, Forward, Scoring, State, Stateful
from assent.rollout.native import NativeEngine
from assent.rollout.source import PromptSource
from assent.stages.first_batch import Rl, SkipChecks, check_rl
from assent.stages.generation import decoder
from assent.stages.online_algorithms import AnyAlgorithm
from assent.stages.parts import (
    MODEL,
    AnyOptimizer,
    Generation,
    ModelRef,
    Optimization,
    answerable,
    build_learner,
    example_of,
    frozen,
    load_policy,
    model_folder,
)
from assent.stages.scorers import RewardModelRef, RewardSpec, named_apart
from assent.stages.sources import AnyDemonstrations, AnyDocuments, AnyTasks, take
from assent.train.checkpoint import StateFile
from assent.train.guard import KLBudget, KLGuard
from assent.train.learner import Mixture
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping, WeightedScorer
from assent.types import Loss, Mean, Rollout, Scored, Sequences, TokenBatch

SAMPLES_KEPT = 8
"""Rollouts of a step that are kept to be read."""


class CriticSpec(Frozen):
    """The value model.

    Args:
        start: `reward_model` copies the first reward model (Stiennon et al., InstructGPT); `policy` puts a fresh head
            on a copy of the policy's trunk; `trunk` puts a head on the policy itself, one forward for both.
        optimizer: of its own; None uses the policy's.
    """

    start: Literal["reward_model", "policy", "trunk"] = "reward_model"
    optimizer: AnyOptimizer | None = None


class PretrainingMix(Frozen):
    """PPO-ptx: text mixed into every optimiser step.

    Args:
        documents, demonstrations: where it comes from; exactly one.
        coefficient: multiplies its mean loss; 27.8 in InstructGPT's normalisation, tune by gradient norm.
        batch_size: rows per optimiser step.
        length: tokens per packed row of documents.
    """

    documents: AnyDocuments | None = None
    demonstrations: AnyDemonstrations | None = None
    coefficient: float = Field(gt=0)
    batch_size: int = Field(8, gt=0)
    length: int = Field(128, gt=1)


class RlSpec(StageSpec):
    """Settings of reinforcement learning.

    Args:
        policy: what is trained.
        reference: what it is leashed to; the starting policy when None. A frozen snapshot, never "adapters off".
        rewards: what it is trained on, a weighted sum.
        watch: scored and logged, never trained on: a held-out reward model, or the domain's gold.
        critic: the value model, of PPO alone; None for `CriticSpec`'s defaults.
        tasks: the prompts.
        longest_prompt: in tokens; prompts that are longer or leave no room for a response are left out and counted.
        steps: batches of rollouts.
        prompts_per_step, samples_per_prompt: rollouts of one batch.
        generation: how responses are drawn.
        algorithm: `{name: ppo, ...}`, `{name: rloo, ...}` or `{name: grpo, ...}`; PPO without a name.
        shaping: from score to what is trained on.
        kl: coefficient per nat of a sequence, fixed or adaptive.
        budget: KL at which the run stops and rolls back.
        mix: pretraining text mixed in.
        optimization: how weights are moved.
        skip_checks: first-batch checks not to run, by name; recorded in the artefact.
    """

    policy: ModelRef
    reference: ModelRef | None = None
    rewards: list[RewardSpec] = Field(min_length=1)
    watch: tuple[RewardSpec, ...] = ()
    critic: CriticSpec | None = None
    tasks: AnyTasks
    longest_prompt: int = Field(512, gt=0)
    steps: int = Field(gt=0)
    prompts_per_step: int = Field(gt=0)
    samples_per_prompt: int = Field(1, gt=0)
    generation: Generation
    algorithm: AnyAlgorithm = PPO()
    shaping: Shaping = Shaping()
    kl: KLControl = KLControl()
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
        return self


def run(spec: RlSpec, context: StageContext) -> Mapping[str, float]:
    policy = load_policy(context, spec.policy)
    reference = load_policy(context, spec.reference or spec.policy)
    require_same_tokenizer(policy.tokenizer, reference.tokenizer, role="reference")
    frozen(reference.model)
    critic = _critic(spec, context, policy) if spec.algorithm.uses_critic else None
    temperature = spec.generation.temperature
    forward = ModelForward(policy=policy.model, critic=critic, temperature=temperature)
    roles: dict[str, nn.Module] = {"policy": policy.model} | ({} if critic is None else {"critic": critic})
    updates = spec.steps * spec.algorithm.epochs * spec.algorithm.minibatches
    mix = None if spec.mix is None else _mixture(spec.mix, context, policy, updates)
    learner = build_learner(
        context,
        spec.optimization,
        forward,
        roles,
        total_steps=updates,
        critic_optimizer=(spec.critic or CriticSpec()).optimizer,
        mixture=mix,
    )
    engine = NativeEngine(policy.model, slots=spec.generation.slots)
    prompts = answerable(policy, take(spec.tasks, context), spec.longest_prompt, spec.generation, context)
    source = PromptSource(
        prompts,
        engine,
        spec.generation.sampling(stop_ids(policy.tokenizer)),
        prompts_per_step=spec.prompts_per_step,
        samples_per_prompt=spec.samples_per_prompt,
        steps=spec.steps,
        seed=context.seed,
        decode=decoder(policy),
    )
    scoring = _scoring(spec, context, policy, forward, reference)
    same_start = spec.reference is None or spec.reference == spec.policy
    parts = Rl(
        policy=policy,
        engine=engine,
        source=source,
        scoring=scoring,
        learner=learner,
        algorithm=spec.algorithm,
        same_start=same_start,
    )
    first_batch = check_rl(spec.skip_checks, context, parts)
    samples = SampleBook(scoring, context.out / "samples.jsonl", per_epoch=len(prompts) * spec.samples_per_prompt)
    guard = KLGuard(spec.budget, policy.model)
    state: dict[str, Stateful] = {
        "learner": learner,
        "source": source,
        "scoring": samples,
        "guard": guard,
        "tracker": context.tracker,
    }
    checkpoint = StateFile(context.state, state, every_seconds=spec.optimization.checkpoint_seconds)
    online(source, samples, spec.algorithm, learner, context.tracker, checkpoint, guard)
    first_batch.finish()
    save_causal(context.out / MODEL, policy)
    _save_critic(critic, policy, samples, context)
    return samples.closing_figures() | {"rolled_back": float(guard.rolled_back)}


def _scoring(
    spec: RlSpec, context: StageContext, policy: CausalModel, forward: ModelForward, reference: CausalModel
) -> RolloutScoring | CriticScoring:
    """What is known of rollouts; the critic's values where the algorithm has a critic."""
    named_apart([*spec.rewards, *spec.watch])
    weighted = [WeightedScorer(r.scorer(context, policy), r.weight) for r in spec.rewards]
    watched = [WeightedScorer(w.scorer(context, policy), 0.0) for w in spec.watch]
    scoring = RolloutScoring(
        forward.logprobs,
        ModelForward(policy=reference.model, temperature=spec.generation.temperature).logprobs,
        [*weighted, *watched],
        shaping=spec.shaping,
        kl_control=spec.kl,
        token_budget=spec.optimization.token_budget,
    )
    return CriticScoring(scoring, forward.values) if spec.algorithm.uses_critic else scoring


def _critic(spec: RlSpec, context: StageContext, policy: CausalModel) -> ScalarModel | ValueHead:
    """The value model; whatever it starts from, it must read the policy's tokens."""
    start = (spec.critic or CriticSpec()).start
    if start == "trunk":
        return ValueHead.on(policy.model)
    models = [r for r in spec.rewards if isinstance(r, RewardModelRef)]
    if start == "policy" or not models:
        if start == "reward_model":
            context.say("no reward model to start the critic from: it starts from the policy's trunk")
        return scalar_from_causal(policy, seed=context.seed).scalar
    loaded = load_scalar(model_folder(context, models[0].reward_model))
    require_same_tokenizer(policy.tokenizer, loaded.tokenizer)
    return copy.deepcopy(loaded.scalar)


def _mixture(mix: PretrainingMix, context: StageContext, policy: CausalModel, updates: int) -> Mixture:
    batches: BatchSource
    if mix.documents is not None:
        encoded = [encode_text(policy.tokenizer, d.text) for d in take(mix.documents, context)]
        tokens = sum(len(e) + 1 for e in encoded)
        epochs = 1 + updates * mix.batch_size * mix.length // tokens
        end = policy.tokenizer.eos_token_id
        batches = PackedBatches(
            encoded,
            end_id=end,
            length=mix.length,
            batch_size=mix.batch_size,
            epochs=epochs + 1,
            seed=context.seed,
        )
    else:
        assert mix.demonstrations is not None
        examples = [example_of(policy, d) for d in take(mix.demonstrations, context)]
        epochs = 1 + updates * mix.batch_size // len(examples)
        batches = TokenBatches(examples, batch_size=mix.batch_size, epochs=epochs + 1, seed=context.seed)
    return Mixture(batches, _Mixed(), mix.coefficient)


class _Mixed:
    """SFT's loss under a metric name of its own."""

    def loss(self, batch: TokenBatch, forward: Forward) -> Loss:
        loss = SFT().loss(batch, forward)
        return Loss(loss.per_item, loss.mask, {"ptx/loss": loss.metrics["loss/tokens"]})


class SampleBook:
    """Scoring that also keeps a few rollouts of each step to be read, in a file that follows the saved state."""

    def __init__(self, scoring: Scoring, path: Path, *, per_epoch: int) -> None:
        self.scoring, self.path, self.per_epoch = scoring, path, per_epoch
        self.step, self.asked, self.episodes = 0, 0, 0
        self.last: dict[str, float] = {}
        path.write_text("", encoding="utf-8")

    def __call__(self, rollouts: Sequence[Rollout]) -> Scored:
        scored = self.scoring(rollouts)
        stride = max(1, len(scored.rollouts) // SAMPLES_KEPT)
        with self.path.open("a", encoding="utf-8") as file:
            for row in range(0, len(scored.rollouts), stride):
                rollout = scored.rollouts[row]
                scores = {n.name: n.scores_B[row].item() for n in scored.scores}
                line = {
                    "step": self.step,
                    "prompt": rollout.prompt.source,
                    "response": rollout.text,
                    "ended": rollout.ended,
                    "scores": scores,
                }
                file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        self.step += 1
        self.asked += len(rollouts)
        self.episodes += len(scored.rollouts)
        counts = {"episode": Mean(self.episodes, 1), "epoch": Mean(self.asked / self.per_epoch, 1)}
        scored = replace(scored, metrics={**scored.metrics, **counts})
        self.last = {n: m.value for n, m in scored.metrics.items()}
        return scored

    def closing_figures(self) -> dict[str, float]:
        """Of the last batch of rollouts."""
        names = ("objective/kl", "objective/scores", "response/length", "response/ended")
        return {n: self.last[n] for n in names if n in self.last} | {
            n: v for n, v in self.last.items() if n.startswith("score/")
        }

    def state_dict(self) -> State:
        text = self.path.read_text(encoding="utf-8")
        return {
            "scoring": self.scoring.state_dict(),
            "counts": [self.step, self.asked, self.episodes],
            "text": text,
            "last": dict(self.last),
        }

    def load_state_dict(self, state: State) -> None:
        self.scoring.load_state_dict(state["scoring"])
        self.step, self.asked, self.episodes = state["counts"]
        self.last = state["last"]
        self.path.write_text(state["text"], encoding="utf-8")


def _save_critic(
    critic: ScalarModel | ValueHead | None, policy: CausalModel, samples: SampleBook, context: StageContext
) -> None:
    """A critic of its own is a folder like any reward model; a head on the trunk is useless without its policy."""
    if isinstance(critic, ScalarModel):
        lines = samples.path.read_text(encoding="utf-8").splitlines()[-10:]
        texts = [json.loads(line)["response"] or " " for line in lines]
        ids = [encode_text(policy.tokenizer, t) or [policy.tokenizer.eos_token_id] for t in texts]
        start = [[policy.tokenizer.eos_token_id]] * len(ids)
        save_scalar(context.out / "critic", ScalarFolder(critic, policy.tokenizer), golden=Sequences.of(start, ids))


def derive(spec: RlSpec) -> Mapping[str, Number]:
    rollouts = spec.prompts_per_step * spec.samples_per_prompt
    return {
        "rollouts per step": rollouts,
        "episodes": rollouts * spec.steps,
        "updates per step": spec.algorithm.epochs * spec.algorithm.minibatches,
        "updates": spec.steps * spec.algorithm.epochs * spec.algorithm.minibatches,
        "sequences per update": -(-rollouts // spec.algorithm.minibatches),
        "most tokens sampled": rollouts * spec.steps * spec.generation.max_new_tokens,
    }


STAGE = Stage("rl", RlSpec, run, derive)
