"""What several stages are made of: settings they share, and the assembly of learner, data and models from them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, TypeVar

import torch
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from assent.config import Frozen
from assent.data.batches import TokenExample
from assent.data.tokenise import Budget, within
from assent.dist import processes
from assent.errors import ContractError
from assent.models.folders import CausalModel, ScalarFolder, load_causal
from assent.models.forward import ModelForward
from assent.models.tokenizer import (
    encode_dialogue_response,
    encode_pair,
    encode_prompt,
    encode_response,
    render_prompt,
    stop_ids,
    text_of,
)
from assent.pipeline.artefact import Artefact
from assent.pipeline.references import Reference
from assent.pipeline.stage import StageContext
from assent.protocols import OfflineAlgorithm
from assent.records import Comparison, Demonstration, PromptText, Task
from assent.stages.placement import placement_of
from assent.train.learner import LocalLearner, Mixture
from assent.train.optimizers import AdamW, Muon
from assent.train.schedule import Schedule
from assent.types import Batch, Mean, Prompt, Sampling, StopStrings, add_metrics, moved

ModelRef = Annotated[str, Reference()]
"""An earlier stage that made a model, a Hugging Face folder, or a hub name."""

AnyOptimizer = Annotated[AdamW | Muon, Field(discriminator="name")]

M = TypeVar("M", bound=nn.Module)

MODEL = "model"
"""Folder of the model within the artefact of a stage that makes one."""
SCORING = frozenset({"reward_model", "reward_ensemble", "reward_average", "process_reward"})
"""Kinds of stages whose model gives scores, not text."""

HELD_OUT_SEED = 0
"""Fixed, so that every model made from comparisons of the same prompts is judged on prompts that none of them was
trained on: reward models, and policies aligned directly."""


class Optimization(Frozen):
    """How weights are moved.

    Args:
        optimizer: `{name: adamw, lr: ...}` or `{name: muon, lr: ..., rest: {lr: ...}}`.
        schedule: of the learning rate; cosine to a tenth without warm-up, as InstructGPT's SFT and reward model.
        max_grad_norm: per role; 1.0 as in Llama 2.
        token_budget: tokens of one micro-batch, padding included; memory and speed, never results.
        checkpoint_seconds: longest work that a kill may cost.
    """

    optimizer: AnyOptimizer
    schedule: Schedule = Schedule()
    max_grad_norm: float = Field(1.0, gt=0)
    token_budget: int = Field(8192, gt=0)
    checkpoint_seconds: float = Field(20.0, ge=0)


class Generation(Frozen):
    """How responses are sampled; what is sampled from is what is scored.

    Args:
        max_new_tokens: length budget of a response, its end token included.
        temperature: 1.0 in InstructGPT, 0.7 in Ziegler et al. and TL;DR.
        min_new_tokens: end tokens are impossible before.
        top_k: draw from the so many most probable tokens alone; 0 for all.
        top_p: draw from the fewest tokens alone that have this share of the probability together; 1 for all. What was
            kept is recorded, and policy and reference are scored among it. Rewards are then those of the restricted
            policy, so that what is served must be restricted likewise; InstructGPT, Llama 2 and GRPO train without.
        stop_strings: end a response where its text has one of them. Who reads the text, and outcome reward models, are
            not shown it; process rewards and critics read the tokens, and it with them.
        slots: sequences decoded at once.
    """

    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(1.0, gt=0)
    min_new_tokens: int = Field(0, ge=0)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    stop_strings: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    slots: int = Field(128, gt=0)

    def sampling(self, tokenizer: PreTrainedTokenizerBase, *, greedy: bool = False) -> Sampling:
        stop = StopStrings(self.stop_strings, text_of(tokenizer)) if self.stop_strings else None
        return Sampling(
            self.max_new_tokens,
            stop_ids(tokenizer),
            self.temperature,
            greedy,
            self.min_new_tokens,
            self.top_k,
            self.top_p,
            stop,
        )


def talks(artefact: Artefact) -> bool:
    """Whether the stage made a language model."""
    return artefact.kind not in SCORING and (artefact.folder / MODEL / "config.json").exists()


def model_folder(context: StageContext, reference: str) -> str:
    """Where the model of a reference lies: inside the artefact of a stage, or the path or hub name itself."""
    if reference in context.inputs:
        return str(context.inputs[reference].folder / MODEL)
    return reference


def load_policy(context: StageContext, reference: str) -> CausalModel:
    return load_causal(model_folder(context, reference), placement=placement_of(context))


def frozen(module: M) -> M:
    """The module with gradients off, for reference and reward models."""
    module.requires_grad_(False)
    return module


def build_learner(
    context: StageContext,
    optimization: Optimization,
    forward: ModelForward,
    roles: Mapping[str, nn.Module],
    *,
    total_steps: int,
    critic_optimizer: AdamW | Muon | None = None,
    mixture: Mixture | None = None,
) -> LocalLearner:
    """A learner on these roles; critics may have an optimiser of their own."""
    own = {} if critic_optimizer is None else {"critic": critic_optimizer, "cost_critic": critic_optimizer}
    optimizers: list[torch.optim.Optimizer] = []
    for role, module in roles.items():
        named = [(f"{role}.{n}", p) for n, p in module.named_parameters()]
        optimizers += own.get(role, optimization.optimizer).build(named)
    return LocalLearner(
        forward,
        roles,
        optimizers,
        schedule=optimization.schedule,
        total_steps=total_steps,
        token_budget=optimization.token_budget,
        seed=context.seed,
        quarantine=context.state / "quarantine",
        processes=processes.current(),
        max_grad_norm=optimization.max_grad_norm,
        mixture=mixture,
    )


def evaluate_loss(batches: Iterator[Batch], algorithm: OfflineAlgorithm, forward: ModelForward) -> dict[str, Mean]:
    """Metrics of an algorithm on batches it is not trained on."""
    total: dict[str, Mean] = {}
    with torch.no_grad():
        for batch in batches:
            total = add_metrics(total, dict(algorithm.loss(moved(batch, forward.device), forward).metrics))
    return total


def prompt_of(policy: CausalModel, task: Task) -> Prompt:
    return Prompt(task.id, task.prompt, tuple(encode_prompt(policy.tokenizer, task.prompt)), task.kind, task.answer)


def example_of(policy: CausalModel, demonstration: Demonstration) -> TokenExample:
    return TokenExample(
        encode_prompt(policy.tokenizer, demonstration.prompt),
        response_ids(policy.tokenizer, demonstration.prompt, demonstration.response),
    )


def response_ids(tokenizer: PreTrainedTokenizerBase, prompt: PromptText, text: str, *, end: bool = True) -> list[int]:
    """Token ids of a response: to a dialogue as its template writes the turn, to plain text as it is.

    Args:
        end: close it, with the template's end of turn or the end token.
    """
    if isinstance(prompt, str):
        return encode_response(tokenizer, text, end=end)
    return encode_dialogue_response(tokenizer, prompt, text, end=end)


Encoded = tuple[Sequence[int], Sequence[Sequence[int]]]
"""A record as tokens: its prompt, and every response to it."""


def texts_to_tokens(
    model: CausalModel | ScalarFolder,
) -> Callable[[PromptText, str, bool], tuple[list[int], list[int]]]:
    """Prompt, response and whether it ended, to the tokens of both as this model reads them: a language model's text
    under its template, an encoder's pair of texts."""
    tokenizer = model.tokenizer
    if isinstance(model, ScalarFolder) and model.bidirectional:
        return lambda prompt, text, ended: encode_pair(tokenizer, render_prompt(tokenizer, prompt), text, end=ended)
    return lambda prompt, text, ended: (
        encode_prompt(tokenizer, prompt),
        response_ids(tokenizer, prompt, text, end=ended),
    )


def encoder(model: CausalModel | ScalarFolder) -> Callable[[Comparison], Encoded]:
    """Prompt and responses as tokens, each comparison once; a response that was cut off gets no end token, as the
    policy left it."""
    tokens = texts_to_tokens(model)

    @cache
    def encode(comparison: Comparison) -> Encoded:
        ended = comparison.ended or (True,) * len(comparison.responses)
        pairs = [tokens(comparison.prompt, text, e) for text, e in zip(comparison.responses, ended, strict=True)]
        return pairs[0][0], [response for _, response in pairs]

    return encode


def fitting(
    encoded: Sequence[Encoded], budget: Budget, kind: str, model: PreTrainedModel, context: StageContext
) -> list[int]:
    """Index of every record within the budget; what was left out is counted and said.

    Raises:
        DataError: over budget, and the budget refuses.
        ContractError: a record that is kept is longer than the model can read.
    """
    kept, report = within(encoded, budget, kind)
    context.say(str(report))
    require_room(model, max(len(encoded[i][0]) + max(map(len, encoded[i][1])) for i in kept))
    return kept


def require_room(model: PreTrainedModel, longest: int) -> None:
    """Raises ContractError where the model has no position for the last of so many tokens."""
    positions = positions_of(model)
    if positions is not None and longest > positions:
        raise ContractError(
            "the text is longer than the model can read",
            got=f"{longest} tokens for {positions} positions",
            why="beyond max_position_embeddings a model has no trained, or no, position to read",
            fix="set lengths: {prompt_tokens: ..., response_tokens: ..., over_long: drop}, which counts what it drops, "
            "or take a model with a longer context",
        )


def positions_of(model: PreTrainedModel) -> int | None:
    """How many tokens a model can read; None where nothing limits it."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else int(limit)


def answerable(
    policy: CausalModel, tasks: Sequence[Task], longest: int, generation: Generation, context: StageContext
) -> list[Prompt]:
    """The tasks as prompts of at most `longest` tokens that leave the model room for a whole response."""
    positions = positions_of(policy.model)
    room = longest if positions is None else min(longest, positions - generation.max_new_tokens)
    return within_budget([prompt_of(policy, t) for t in tasks], room, context)


def within_budget(prompts: Sequence[Prompt], longest: int, context: StageContext) -> list[Prompt]:
    """The prompts of at most `longest` tokens; how many were left out is said, never hidden."""
    kept = [p for p in prompts if len(p.token_ids) <= longest]
    if len(kept) < len(prompts):
        context.say(f"left out {len(prompts) - len(kept):,} of {len(prompts):,} prompts longer than {longest} tokens")
    return kept
