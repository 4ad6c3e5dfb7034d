"""A tiny, healthy RL set-up: a GPT-2 and its reward model, made here. Tests break one part of it at a time."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from assent.algorithms.ppo import PPO
from assent.dist.processes import Alone
from assent.models.folders import CausalModel, ModelShape, ScalarFolder, new_causal, scalar_from_causal
from assent.models.forward import ModelForward
from assent.models.tokenizer import stop_ids, train_bpe
from assent.pipeline.stage import StageContext
from assent.protocols import Engine
from assent.rewards.model import RewardModelScorer, same_tokens
from assent.rollout.native import NativeEngine
from assent.rollout.source import PromptSource
from assent.stages.first_batch import Rl
from assent.train.learner import LocalLearner
from assent.train.optimizers import AdamW
from assent.train.schedule import Schedule
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping
from assent.train.weighing import WeightedScorer
from assent.types import Prompt, Sampling, Sequences

CORPUS = [
    "the kettle is broken and the customer is not amused",
    "please send back the kettle, and we will send another one",
] * 5
TOKENIZER = train_bpe(CORPUS, vocab_size=300)
END = TOKENIZER.eos_token_id
TEMPERATURE = 0.7
SHAPE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}


def language_model(seed: int = 1) -> CausalModel:
    """With weights large enough that every token and every position matters."""
    return new_causal(ModelShape("gpt2", {**SHAPE, "initializer_range": 0.2}), TOKENIZER, seed=seed)


def ragged(count: int = 6, *, seed: int = 3) -> Sequences:
    """Prompts and responses of many lengths; the responses close with the end token."""
    generator = torch.Generator().manual_seed(seed)
    size = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))  # noqa: E731
    words = lambda n: torch.randint(3, 300, (n,), generator=generator).tolist()  # noqa: E731
    prompts = [words(size(2, 9)) for _ in range(count)]
    return Sequences.of(prompts, [[*words(size(2, 12)), END] for _ in range(count)])


def said(context: StageContext) -> list[str]:
    """What the stage told its reader."""
    return context.say.__self__  # type: ignore[attr-defined, no-any-return]


def context_in(folder: Path, *, name: str = "policy", inputs: Mapping[str, Any] | None = None) -> StageContext:
    for part in ("out", "state"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    return StageContext(
        name, 0, inputs or {}, folder / "out", folder / "state", SimpleNamespace(), lines.append, folder / "cache"
    )


@dataclass(frozen=True)
class World:
    """Everything that a stage of reinforcement learning builds."""

    policy: CausalModel
    critic: ScalarFolder
    reward_model: ScalarFolder
    parts: Rl

    def with_(self, **changes: Any) -> Rl:
        """The parts with some replaced."""
        return replace(self.parts, **changes)


def learner_on(forward: Any, roles: Mapping[str, torch.nn.Module], folder: Path, **overrides: Any) -> LocalLearner:
    optimizers = [o for m in roles.values() for o in AdamW(lr=1e-2).build(m.named_parameters())]
    options = dict(
        schedule=Schedule("constant"), total_steps=100, token_budget=100, seed=5, quarantine=folder, processes=Alone()
    )
    return LocalLearner(forward, roles, optimizers, **(options | overrides))  # type: ignore[arg-type]


def scores_of(folder: ScalarFolder) -> Any:
    def scores(sequences: Sequences) -> Tensor:
        with torch.no_grad():
            return folder.scalar.last_scores(sequences)

    return scores


def source_on(engine: Engine, *, seed: int = 7, steps: int = 3) -> PromptSource:
    generator = torch.Generator().manual_seed(11)
    prompts = [
        Prompt(f"{i}", "text", tuple(torch.randint(3, 300, (3 + i % 5,), generator=generator).tolist()))
        for i in range(12)
    ]
    sampling = Sampling(8, stop_ids(TOKENIZER), TEMPERATURE)
    decode = lambda ids: str(TOKENIZER.decode(list(ids)))  # noqa: E731
    return PromptSource(
        prompts, engine, sampling, prompts_per_step=6, samples_per_prompt=2, steps=steps, seed=seed, decode=decode
    )


def scoring_on(old: Any, reference: Any, values: Any, scorers: list[Any]) -> CriticScoring:
    scoring = RolloutScoring(
        old,
        reference,
        [WeightedScorer(s) for s in scorers],
        shaping=Shaping(normalise=True),
        kl_control=KLControl(0.1, target=1.0, horizon=100),
        token_budget=60,
    )
    return CriticScoring(scoring, values)


def world(folder: Path) -> World:
    policy, reference = language_model(), language_model()
    reward_model = scalar_from_causal(language_model(2), seed=4)
    critic = ScalarFolder(copy.deepcopy(reward_model.scalar), TOKENIZER)
    forward = ModelForward(policy=policy.model, critic=critic.scalar, temperature=TEMPERATURE)
    learner = learner_on(forward, {"policy": policy.model, "critic": critic.scalar}, folder)
    engine = NativeEngine(policy.model, slots=8)
    judge = RewardModelScorer("reward_model", same_tokens, scores_of(reward_model))
    leash = ModelForward(policy=reference.model, temperature=TEMPERATURE)
    scoring = scoring_on(forward.logprobs, leash.logprobs, forward.values, [judge])
    parts = Rl(
        policy=policy,
        engine=engine,
        source=source_on(engine),
        scoring=scoring,
        judges=[judge],
        learner=learner,
        algorithm=PPO(epochs=2, minibatches=2),
        same_start=True,
    )
    return World(policy, critic, reward_model, parts)
