"""Prompts through an engine: a source for the loops that resumes without gap or repeat, and a single pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from assent.errors import ArtefactError, ConfigError, DataError
from assent.protocols import Engine, State
from assent.rollout.drawn import Drawn
from assent.rollout.randomness import derive_seed
from assent.types import Prompt, Request, Rollout, Sampling

Decode = Callable[[Sequence[int]], str]
"""Token ids of a response to its text."""


class PromptSource:
    """Yields (step, rollouts), `prompts_per_step` times `samples_per_prompt` of them; implements `protocols.Source`.

    Every prompt is used once per pass over the data; each pass has its own order, drawn from (seed, pass). A step may
    span two passes, so that none is cut short. What a step asks for is a function of its number alone: the state is
    that number. The samples of one prompt stand together, in the order in which the step drew its prompts.

    Args:
        prompts: the data, ids unique.
        engine: samples the responses.
        sampling: how.
        prompts_per_step: prompts of one step.
        samples_per_prompt: responses to each.
        steps: how many steps in all.
        seed: of the order and of every request.
        decode: response tokens to text.
        version: policy updates that the engine's weights have seen already.

    Raises:
        DataError: no prompts, or two with one id.
        ConfigError: a count below 1.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        engine: Engine,
        sampling: Sampling,
        *,
        prompts_per_step: int,
        samples_per_prompt: int,
        steps: int,
        seed: int,
        decode: Decode,
        version: int = 0,
    ) -> None:
        _check_prompts(prompts)
        counts = {"prompts_per_step": prompts_per_step, "samples_per_prompt": samples_per_prompt, "steps": steps}
        for name, count in counts.items():
            _check_count(name, count)
        self._prompts, self._engine, self._sampling, self._decode = list(prompts), engine, sampling, decode
        self._prompts_per_step, self._samples_per_prompt = prompts_per_step, samples_per_prompt
        self._steps, self._seed, self._version = steps, seed, version
        self._digest = derive_seed(*(part for p in prompts for part in (p.id, str(p.token_ids))))
        self._next = 0
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Steps in all."""
        return self._steps

    @property
    def samples_per_prompt(self) -> int:
        return self._samples_per_prompt

    def __iter__(self) -> Iterator[tuple[int, list[Rollout]]]:
        """From where the source stands.

        While a step's rollouts are out, the source already stands after it: a checkpoint is written when the step is
        finished, and what was in hand when a run is killed comes again from the checkpoint before.
        """
        while self._next < self._steps:
            step = self._next
            rollouts = self.rollouts(step)
            self._next = step + 1
            yield step, rollouts

    def prompts_of(self, step: int) -> list[Prompt]:
        """The prompts of a step, in order."""
        return [prompt for _, prompt in self._row(step * self._prompts_per_step, self._prompts_per_step)]

    def rollouts(self, step: int) -> list[Rollout]:
        """Sample the responses of a step with the engine's present weights."""
        return self.ask(step * self._prompts_per_step, self._prompts_per_step)

    def draw(self, step: int) -> Drawn:
        """Implements `drawn.Drawing`: `rollouts`, about which there is nothing more to tell."""
        return Drawn(self.rollouts(step), {})

    def ask(self, start: int, count: int) -> list[Rollout]:
        """Sample responses to `count` prompts from place `start` on in the endless row of all passes, with the
        engine's present weights.

        Seeds depend on (seed, pass, prompt id, sample index): a prompt occurs once in a pass, so none occurs twice.
        """
        row = self._row(start, count)
        seeds = [
            [derive_seed(self._seed, epoch, prompt.id, k) for k in range(self._samples_per_prompt)]
            for epoch, prompt in row
        ]
        prompts = [prompt for _, prompt in row]
        return _sample(self._engine, prompts, seeds, self._sampling, self._decode, self._version)

    def _row(self, start: int, count: int) -> list[tuple[int, Prompt]]:
        """(pass over the data, prompt) at `count` places from `start` on."""
        places = [divmod(i, len(self._prompts)) for i in range(start, start + count)]
        return [(epoch, self._prompts[self._order_of(epoch)[place]]) for epoch, place in places]

    def _order_of(self, epoch: int) -> list[int]:
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
            self._order = (epoch, torch.randperm(len(self._prompts), generator=generator).tolist())
        return self._order[1]

    def sync(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Pass new weights to the engine; rollouts carry `version` from here on."""
        self._engine.sync(weights, version=version)
        self._version = version

    def state_dict(self) -> State:
        """The step to come, and what must be unchanged for it to mean the same."""
        return {
            "next": self._next,
            "version": self._version,
            "seed": self._seed,
            "prompts": self._digest,
            "prompts_per_step": self._prompts_per_step,
        }

    def load_state_dict(self, state: State) -> None:
        """Stand where the saved source stood.

        Raises:
            ArtefactError: the state belongs to other data or another seed.
        """
        mine = self.state_dict()
        for name in ("seed", "prompts", "prompts_per_step"):
            if state[name] != mine[name]:
                raise ArtefactError(
                    f"the saved source differs in {name}",
                    got=f"{state[name]} saved, {mine[name]} now (prompts are given as a digest)",
                    why="the prompts still to come would not be the ones left over",
                    fix="resume with the recipe and data of the saved run, or start a new one",
                )
        self._next, self._version = state["next"], state["version"]


def sample(
    engine: Engine,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    samples_per_prompt: int = 1,
    seed: int,
    decode: Decode,
    version: int = 0,
    at_once: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> list[Rollout]:
    """Responses to every prompt, in the order of the prompts, the samples of one prompt together.

    The seed of a response depends on (seed, prompt id, sample index) and on nothing else, so that more prompts or more
    samples leave the others as they were.

    Args:
        at_once: responses per call of the engine; between calls, `progress` is told.
        progress: called with (responses done, responses in all).

    Raises:
        DataError: no prompts, or two with one id.
        ConfigError: a count below 1.
    """
    _check_prompts(prompts)
    _check_count("samples_per_prompt", samples_per_prompt)
    _check_count("at_once", at_once)
    rollouts: list[Rollout] = []
    stride = max(1, at_once // samples_per_prompt)
    for start in range(0, len(prompts), stride):
        part = prompts[start : start + stride]
        seeds = [[derive_seed(seed, p.id, k) for k in range(samples_per_prompt)] for p in part]
        rollouts += _sample(engine, part, seeds, sampling, decode, version)
        if progress is not None:
            progress(len(rollouts), len(prompts) * samples_per_prompt)
    return rollouts


def _sample(
    engine: Engine,
    prompts: Sequence[Prompt],
    seeds: Sequence[Sequence[int]],
    sampling: Sampling,
    decode: Decode,
    version: int,
) -> list[Rollout]:
    asked = [(p, Request(p.token_ids, s)) for p, row in zip(prompts, seeds, strict=True) for s in row]
    samples = engine.generate([request for _, request in asked], sampling)
    return [
        Rollout(prompt, s.token_ids, s.logprobs, s.ended, decode(s.token_ids), version, kept=s.kept)
        for (prompt, _), s in zip(asked, samples, strict=True)
    ]


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ConfigError(f"{name} must be at least 1", got=count, why="nothing would be sampled", fix=f"raise {name}")


def _check_prompts(prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise DataError(
            "there are no prompts to sample from",
            got="0 prompts",
            why="a source yields rollouts",
            fix="check the data set, its split and the length filter",
        )
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DataError(
                "two prompts share one id",
                got=prompt.id,
                why="the id seeds the samples and names the group that advantages are relative to",
                fix="give every prompt its own id, and ask for more samples_per_prompt instead of repeating it",
            )
        seen.add(prompt.id)
