"""Sampling from a policy, as compare, evaluate, chat and epoch selection do it."""

from collections.abc import Callable, Iterable, Sequence

from assent.models.folders import CausalModel
from assent.models.placement import narrowed
from assent.models.tokenizer import text_of
from assent.protocols import Engine
from assent.records import Task
from assent.rollout.native import NativeEngine
from assent.rollout.source import sample
from assent.stages.parts import Generation, prompt_of
from assent.types import Prompt, Rollout, StopStrings

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What decoders put in the place of bytes that are no character."""


def decoder(causal: CausalModel, stop_strings: tuple[str, ...] = ()) -> Callable[[Sequence[int]], str]:
    """Token ids to text without special tokens, up to the first of the strings."""
    text = text_of(causal.tokenizer)
    if not stop_strings:
        return text
    stop = StopStrings(stop_strings, text)
    return lambda ids: stop.cut(text(ids))


def about_broken(texts: Iterable[str]) -> tuple[str, ...]:
    """What to tell a reader of texts in which bytes that are no character stand as U+FFFD; nothing without any.

    Tokens of byte-level vocabularies are bytes. A policy gives a little probability to every one of them, the 128 that
    are no character alone included (2e-6 a token in the embedded domain), and a limit of tokens may cut a character.
    """
    if not any(BROKEN in text for text in texts):
        return ()
    return (f"{BROKEN}: here the model sampled a byte that is no character, or was cut off within one.",)


def engine_of(causal: CausalModel, *, slots: int) -> NativeEngine:
    """An engine that samples in the number type that the model's products run in: from a copy of its weights where that
    is narrower than theirs, since decoding reads every weight for every token."""
    return NativeEngine(causal.model, slots=slots, dtype=narrowed(causal.model))


def most_probable(
    engine: Engine, causal: CausalModel, generation: Generation
) -> Callable[[Sequence[Prompt]], list[Rollout]]:
    """One greedy response to each prompt, by the weights that the engine has when asked."""
    sampling = generation.sampling(causal.tokenizer, greedy=True)
    return lambda prompts: sample(engine, prompts, sampling, seed=0, decode=decoder(causal, generation.stop_strings))


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
        generation.sampling(causal.tokenizer, greedy=greedy),
        samples_per_prompt=samples,
        seed=seed,
        decode=decoder(causal, generation.stop_strings),
        progress=progress,
    )
