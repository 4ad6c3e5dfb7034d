"""Sampling from a policy, as compare, evaluate, chat and epoch selection do it."""

from collections.abc import Callable, Sequence

from assent.models.folders import CausalModel
from assent.models.placement import narrowed
from assent.models.tokenizer import stop_ids
from assent.protocols import Engine
from assent.records import Task
from assent.rollout.native import NativeEngine
from assent.rollout.source import sample
from assent.stages.parts import Generation, prompt_of
from assent.types import Prompt, Rollout


def decoder(causal: CausalModel) -> Callable[[Sequence[int]], str]:
    """Token ids to text without special tokens."""
    return lambda ids: str(causal.tokenizer.decode(list(ids), skip_special_tokens=True))


def engine_of(causal: CausalModel, *, slots: int) -> NativeEngine:
    """An engine that samples in the number type that the model's products run in: from a copy of its weights where that
    is narrower than theirs, since decoding reads every weight for every token."""
    return NativeEngine(causal.model, slots=slots, dtype=narrowed(causal.model))


def most_probable(
    engine: Engine, causal: CausalModel, generation: Generation
) -> Callable[[Sequence[Prompt]], list[Rollout]]:
    """One greedy response to each prompt, by the weights that the engine has when asked."""
    sampling = generation.sampling(stop_ids(causal.tokenizer), greedy=True)
    return lambda prompts: sample(engine, prompts, sampling, seed=0, decode=decoder(causal))


def sample_responses(
    causal: CausalModel,
    tasks: Sequence[Task],
    generation: Generation,
    *,
    seed: int,
    samples: int = 1,
    greedy: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Rollout]:
    """`samples` responses to each task, a task's samples together, in the order of the tasks."""
    return sample(
        engine_of(causal, slots=generation.slots),
        [prompt_of(causal, t) for t in tasks],
        generation.sampling(stop_ids(causal.tokenizer), greedy=greedy),
        samples_per_prompt=samples,
        seed=seed,
        decode=decoder(causal),
        progress=progress,
    )
