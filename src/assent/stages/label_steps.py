"""Sample solutions and have their steps labelled: by a marker who reads them, or by where completions lead."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from assent.config import Frozen
from assent.data.domain import arithmetic
from assent.feedback.into_records import solutions
from assent.feedback.markers import SimulatedMarker
from assent.feedback.questions import StepsQuestion, identity, question_from_json, question_to_json
from assent.loops.select import select
from assent.models.folders import CausalModel
from assent.models.tokenizer import require_same_tokenizer
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.protocols import Engine, Scorer, Stateful
from assent.records import LabelledSolution, Rating, StepLabel, solution_from_json, to_json
from assent.rollout.randomness import derive_seed
from assent.rollout.source import PromptSource
from assent.stages.asking import People, ask, origin_of, write_records
from assent.stages.generation import decoder, engine_of
from assent.stages.lines import Lines, lines_of
from assent.stages.parts import Generation, ModelRef, load_policy, positions_of, prompt_of
from assent.stages.scorers import RawScore
from assent.stages.sources import AnyTasks, take
from assent.train.checkpoint import StateFile
from assent.types import Delimited, Request, Rollout, Sampling, ScoreEvents, texts_of

SOLUTIONS = "solutions.jsonl"
RIGHT = 0.5
"""A checker's score from which an answer counts as right."""

Labels = tuple[tuple[StepLabel, ...], bool | None]
"""One label per step, and whether the answer is right."""


class SimulatedMarking(Frozen):
    """The simulated marker of the embedded domain's sums, who reads every line with some noise.

    Args:
        overlooks: probability of calling a bad step good.
        doubts: probability of calling a step bad that is not.
        stops: says nothing after the first step called bad, as the labellers of PRM800K.
    """

    by: Literal["simulated"]
    overlooks: float = Field(0.05, ge=0, le=1)
    doubts: float = Field(0.02, ge=0, le=1)
    stops: bool = True

    def labeller(self, spec: "LabelStepsSpec", context: StageContext, policy: CausalModel) -> "Labeller":
        marker = SimulatedMarker("marker", self.overlooks, self.doubts, self.stops)
        return _Marking(marker, context.seed)


class Completions(Frozen):
    """Labels made by rollouts (Math-Shepherd, arXiv 2312.08935): completions are sampled from the end of each step; it
    is as good as the share of them whose answer is right. Nobody labels anything.

    The label of the last step is whether the solution itself is right.

    Args:
        completer: who completes; the policy when None.
        samples: completions of each prefix; 8 in Math-Shepherd.
        label: `hard`: good where any completion is right, `soft`: the share. Hard labels were used in the paper; with
            many samples or a strong completer any lucky completion makes a wrong step good.
        checker: a scorer that gives a right answer more than one half.
    """

    by: Literal["completions"]
    completer: ModelRef | None = None
    samples: int = Field(8, gt=0)
    label: Literal["hard", "soft"] = "hard"
    checker: RawScore

    def labeller(self, spec: "LabelStepsSpec", context: StageContext, policy: CausalModel) -> "Labeller":
        completer = policy
        if self.completer is not None:
            completer = load_policy(context, self.completer)
            require_same_tokenizer(policy.tokenizer, completer.tokenizer, role="completer")
        return _Completing(
            completer,
            engine_of(completer, slots=spec.generation.slots),
            spec.generation.sampling(policy.tokenizer),
            self.checker.scorer(context, policy),
            samples=self.samples,
            label=HARDNESS[self.label],
            seed=context.seed,
        )


class PeopleMarking(People):
    """People who mark every step good, neutral or bad, and may stop after the first bad one."""

    by: Literal["people"]


class LabelStepsSpec(StageSpec):
    """Settings of labelling steps.

    Args:
        policy: whose solutions are labelled.
        tasks: what is solved.
        samples: solutions of each task.
        labels: where labels come from: `{by: simulated}`, `{by: people}` or
            `{by: completions, checker: ...}`.
        generation: how solutions, and completions, are drawn.
        delimiter: what separates steps.
        prompts_per_step: tasks between two looks at the clock; what is left over from whole steps is not asked, said.
        checkpoint_seconds: longest work that a kill may cost.
    """

    policy: ModelRef
    tasks: AnyTasks
    samples: int = Field(1, gt=0)
    labels: Annotated[SimulatedMarking | PeopleMarking | Completions, Field(discriminator="by")]
    generation: Generation
    delimiter: Annotated[str, Field(min_length=1)] = "\n"
    prompts_per_step: int = Field(32, gt=0)
    checkpoint_seconds: float = Field(20.0, ge=0)


Labeller = Callable[[Sequence[Rollout], Sequence[Sequence[int]]], list[Labels]]
"""Rollouts, and the last token of each of their steps, to labels."""

HARDNESS: Mapping[str, Callable[[float], float]] = {"hard": lambda share: float(share > 0), "soft": lambda share: share}


class _Marking:
    """A simulated marker; the answer to a question depends on the seed and the solution, not on when it was asked."""

    def __init__(self, marker: SimulatedMarker, seed: int) -> None:
        self.marker, self.seed = marker, seed

    def __call__(self, rollouts: Sequence[Rollout], ends: Sequence[Sequence[int]]) -> list[Labels]:
        return [self._labels(r) for r in rollouts]

    def _labels(self, rollout: Rollout) -> Labels:
        marked = arithmetic.mark(rollout.prompt.source, rollout.text, ended=rollout.ended)
        rng = random.Random(f"{self.seed}/{rollout.prompt.id}/{rollout.token_ids}")
        return self.marker.label(marked.ratings, rng=rng), marked.answer_right


class _Completing:
    """Labels every prefix by its completions, all of a call's prefixes at once."""

    def __init__(
        self,
        completer: CausalModel,
        engine: Engine,
        sampling: Sampling,
        checker: Scorer,
        *,
        samples: int,
        label: Callable[[float], float],
        seed: int,
    ) -> None:
        self.completer, self.engine, self.sampling, self.checker = completer, engine, sampling, checker
        self.samples, self.label, self.seed = samples, label, seed
        self.decode = decoder(completer, () if sampling.stop is None else sampling.stop.strings)

    def __call__(self, rollouts: Sequence[Rollout], ends: Sequence[Sequence[int]]) -> list[Labels]:
        asked = [(row, end) for row, places in enumerate(ends) for end in places[:-1]]
        shares = self._shares(rollouts, asked)
        right = self._right(rollouts)
        answers: list[Labels] = []
        for row, places in enumerate(ends):
            before = [self.label(shares[row, end]) for end in places[:-1]]
            answers.append(((*before, float(right[row])), right[row]))
        return answers

    def _shares(self, rollouts: Sequence[Rollout], asked: Sequence[tuple[int, int]]) -> dict[tuple[int, int], float]:
        """Share of completions of each (rollout, end of a step) whose answer is right."""
        if not asked:
            return {}
        requests = [
            Request(
                (*rollouts[row].prompt.token_ids, *rollouts[row].token_ids[: end + 1]),
                derive_seed(self.seed, rollouts[row].prompt.id, str(rollouts[row].token_ids), end, n),
            )
            for row, end in asked
            for n in range(self.samples)
        ]
        samples = self.engine.generate(requests, self._within_reach(requests))
        completed = []
        for i, sample in enumerate(samples):
            row, end = asked[i // self.samples]
            begun = rollouts[row]
            ids = (*begun.token_ids[: end + 1], *sample.token_ids)
            logprobs = (*begun.sampler_logprobs[: end + 1], *sample.logprobs)
            completed.append(Rollout(begun.prompt, ids, logprobs, sample.ended, self.decode(ids), begun.version))
        right = self._right(completed)
        return {
            place: sum(right[i * self.samples : (i + 1) * self.samples]) / self.samples for i, place in enumerate(asked)
        }

    def _within_reach(self, requests: Sequence[Request]) -> Sampling:
        """A completion may be as long as a solution, where the model has positions for it."""
        positions, longest = positions_of(self.completer.model), max(len(r.token_ids) for r in requests)
        if positions is None or longest + self.sampling.max_new_tokens <= positions:
            return self.sampling
        return replace(self.sampling, max_new_tokens=max(1, positions - longest))

    def _right(self, rollouts: Sequence[Rollout]) -> list[bool]:
        """What the checker does not score is not right."""
        return [sum(e.value for e in events) > RIGHT for events in self.checker.score(rollouts)]


class _Solutions:
    """A step's rollouts as lines of labelled solutions."""

    def __init__(self, labeller: Labeller, steps: Delimited, annotator: str) -> None:
        self.labeller, self.steps, self.annotator = labeller, steps, annotator

    def finish(self) -> Mapping[str, float]:
        """Nothing beyond what every solution has."""
        return {}

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> list[dict[str, object]]:
        written = [r for r in rollouts if r.text.strip()]
        if not written:
            return []
        ends = [self.steps.ends(r.token_ids) for r in written]
        answers = self.labeller(written, ends)
        numbers = [sum(r.prompt.id == s.prompt.id for s in written[:i]) for i, r in enumerate(written)]
        return [
            to_json(
                LabelledSolution(
                    f"{rollout.prompt.id}/{number}",
                    rollout.prompt.source,
                    texts_of(rollout.token_ids, places, self.steps.decode),
                    labels,
                    correct,
                    self.annotator,
                    rollout.prompt.kind,
                    rollout.ended,
                )
            )
            for rollout, number, places, (labels, correct) in zip(written, numbers, ends, answers, strict=True)
        ]


class _StepQuestions:
    """A step's rollouts as questions to people; the stage's lines are these until they are answered."""

    def __init__(self, people: PeopleMarking, policy: str, steps: Delimited, context: StageContext) -> None:
        self.people, self.policy, self.steps, self.context = people, policy, steps, context

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> list[dict[str, object]]:
        different = {(r.prompt.id, r.text): r for r in rollouts if r.text.strip()}
        return [json.loads(question_to_json(self._question(r))) for r in different.values()]

    def _question(self, rollout: Rollout) -> StepsQuestion:
        prompt = rollout.prompt
        texts = texts_of(rollout.token_ids, self.steps.ends(rollout.token_ids), self.steps.decode)
        known = {"slice": prompt.kind, "task": prompt.id, "ended": (rollout.ended,)}
        origin = origin_of(self.context, self.people, self.policy, why="a solution of the policy's own", **known)
        return StepsQuestion(identity(prompt.id, prompt.source, texts), prompt.source, tuple(texts), origin)

    def finish(self) -> Mapping[str, float]:
        """Ask, and hand on what was marked.

        Raises:
            AwaitingPeople: not enough answers are in.
        """
        lines = lines_of(self.context.out / SOLUTIONS)
        answers, progress = ask(self.people, [question_from_json(line) for line in lines], self.context)
        write_records(self.context, SOLUTIONS, answers, solutions)
        return {"annotators": len({a.annotator for a in answers}), "closed": progress.closed}


def _rows(spec: LabelStepsSpec, context: StageContext, policy: CausalModel) -> _Solutions | _StepQuestions:
    steps = Delimited(decoder(policy), spec.delimiter)
    if isinstance(spec.labels, PeopleMarking):
        return _StepQuestions(spec.labels, spec.policy, steps, context)
    return _Solutions(spec.labels.labeller(spec, context, policy), steps, spec.labels.by)


def run(spec: LabelStepsSpec, context: StageContext) -> Mapping[str, float]:
    policy = load_policy(context, spec.policy)
    prompts = [prompt_of(policy, t) for t in take(spec.tasks, context)]
    per_step = min(spec.prompts_per_step, len(prompts))
    source = PromptSource(
        prompts,
        engine_of(policy, slots=spec.generation.slots),
        spec.generation.sampling(policy.tokenizer),
        prompts_per_step=per_step,
        samples_per_prompt=spec.samples,
        steps=len(prompts) // per_step,
        seed=context.seed,
        decode=decoder(policy, spec.generation.stop_strings),
    )
    rows = _rows(spec, context, policy)
    path = context.out / SOLUTIONS
    lines = Lines(path, rows)
    parts: dict[str, Stateful] = {"source": source, "lines": lines}
    checkpoint = StateFile(context.state, parts, every_seconds=spec.checkpoint_seconds)
    select(source, [], lines, context.tracker, checkpoint)
    checkpoint.save(len(source))  # people take longer than a process lives
    left = len(prompts) % per_step
    if left:
        context.say(f"{left} of {len(prompts):,} tasks were not asked: they go out {per_step} at a time")
    blank = len(source) * per_step * spec.samples - lines.written
    if blank:
        context.say(f"{blank:,} solutions were left out: blank ones have no step, and people see equal ones once")
    more = rows.finish()
    return _figures(path) | {"blank": float(blank)} | dict(more)


def _figures(path: Path) -> dict[str, float]:
    """What was said, over all solutions."""
    solutions = [solution_from_json(json.loads(line)) for line in lines_of(path)]
    labels = [label for s in solutions for label in s.labels if label is not None]
    said = {Rating.BAD: 0.0, Rating.NEUTRAL: 1.0, Rating.GOOD: 1.0}
    values = [said[x] if isinstance(x, Rating) else x for x in labels]
    known = [s.correct for s in solutions if s.correct is not None]
    return {
        "solutions": float(len(solutions)),
        "labelled_steps": float(len(labels)),
        "mean_label": sum(values) / len(values) if values else float("nan"),
        "correct": sum(known) / len(known) if known else float("nan"),
        "with_an_error": sum(s.first_error is not None for s in solutions) / max(1, len(solutions)),
    }


def derive(spec: LabelStepsSpec) -> Mapping[str, Number]:
    count = getattr(spec.tasks, "count", None)
    return {} if count is None else {"tasks": count, "solutions": count * spec.samples}


STAGE = Stage("label_steps", LabelStepsSpec, run, derive)
