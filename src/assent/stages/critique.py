"""SL-CAI: sample, criticise by a random principle, revise, again; every revision becomes a demonstration.

Constitutional AI (Bai et al. 2022, arXiv 2212.08073, section 3): fine-tune the *pretrained* model on the revisions,
with helpful demonstrations beside them. The file that this stage writes is read by `{format: selected, stages: [...]}`.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from assent.errors import ContractError
from assent.feedback.principles import drawn, read_principles
from assent.loops.select import select
from assent.models.folders import CausalModel
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.protocols import Scorer, State, Stateful
from assent.records import Demonstration, to_json
from assent.rewards.asked import Failure
from assent.rewards.critique import Draft, Revised
from assent.rollout.source import PromptSource
from assent.stages.ai_annotators import PrinciplesFile
from assent.stages.feedback_model import AnyFeedbackModel
from assent.stages.generation import decoder, engine_of
from assent.stages.lines import Lines
from assent.stages.parts import Generation, ModelRef, answerable, load_policy, response_ids
from assent.stages.scorers import RawScore, named_apart
from assent.stages.sources import SELECTED, AnyTasks, take
from assent.train.checkpoint import StateFile
from assent.types import Mean, Rollout, ScoreEvents

PROMPTS_PER_STEP = 128
"""Prompts between two looks at the clock; what is left over from whole steps is not asked, and said."""


class CritiqueSpec(StageSpec):
    """Settings of critique and revision.

    Args:
        policy: whose responses are revised; a helpful model that has not learned to decline, in the paper.
        tasks: the prompts; ones that tempt it, in the paper.
        longest_prompt: in tokens; prompts that are longer or leave no room for a response are left out and counted.
        critic: who criticises and revises: `{simulated: domain}`, `{policy: NAME}` or `{endpoint: {...}}`.
        principles: a file of them, one of which is drawn for each revision; the sixteen that ship when None.
        revisions: of each response, one after the other; 4 in the paper, of which the first removes most harm.
        watch: scores of the first response and of each revision, reported and never used.
        generation: how the first responses are drawn.
        checkpoint_seconds: longest work that a kill may cost.
    """

    policy: ModelRef
    tasks: AnyTasks
    longest_prompt: int = Field(512, gt=0)
    critic: AnyFeedbackModel
    principles: PrinciplesFile | None = None
    revisions: int = Field(4, gt=0)
    watch: tuple[RawScore, ...] = ()
    generation: Generation
    checkpoint_seconds: float = Field(20.0, ge=0)

    @model_validator(mode="after")
    def _scorers_are_told_apart(self) -> Self:
        named_apart(self.watch)
        return self


class Revises:
    """Turns the samples of a step into demonstrations, `revisions` of each; its state is what it counted.

    A response that was cut off at its limit is not revised: what follows from it would teach to stop anywhere. Where a
    revision fails, the next round begins with the last one that did not.
    """

    def __init__(self, spec: CritiqueSpec, context: StageContext, policy: CausalModel) -> None:
        self.rounds, self.seed, self.say, self.policy = spec.revisions, context.seed, context.say, policy
        feedback = spec.critic.feedback(context)
        self.critic, self.spent = feedback.critic, feedback.spent
        self.principles = read_principles(None if spec.principles is None else Path(spec.principles).expanduser())
        self.watch: list[Scorer] = [w.scorer(context, policy) for w in spec.watch]
        self.tally: Counter[str] = Counter()
        self.seen: dict[str, Mean] = {}

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> list[dict[str, object]]:
        whole = [r for r in rollouts if r.ended]
        self.tally["responses"] += len(rollouts)
        self.tally["cut_off"] += len(rollouts) - len(whole)
        self._look(whole, "first_response")
        rows: list[dict[str, object]] = []
        for number in range(1, self.rounds + 1):
            drafts = [self._draft(r, number) for r in whole]
            answers = self.critic.revise(drafts)
            whole = [self._after(r, a, number) for r, a in zip(whole, answers, strict=True)]
            self._look(whole, f"revision_{number}")
            rows += [
                _row(r, d, a, number) for r, d, a in zip(whole, drafts, answers, strict=True) if isinstance(a, Revised)
            ]
        for name, mean in self.spent().items():
            self.tally[name.replace("/", "_")] += int(mean.total)
        return rows

    def _draft(self, rollout: Rollout, number: int) -> Draft:
        key = f"{self.seed}/{rollout.prompt.id}/{number}"
        p = drawn(self.principles, random.Random(key))
        return Draft(key, rollout.prompt.source, rollout.text, p.about, p.critique, p.revision)

    def _after(self, rollout: Rollout, answer: Revised | Failure, number: int) -> Rollout:
        """The rollout with the revision in place of its response."""
        if isinstance(answer, Failure):
            if not self.tally[f"unscored_{answer.reason}"] and answer.detail:
                self.say(f"  ! no revision ({answer.reason}): {answer.detail}")
            self.tally[f"unscored_{answer.reason}"] += 1
            return rollout
        self.tally[f"changed_in_round_{number}"] += answer.response.strip() != rollout.text.strip()
        text = (
            answer.response
            if answer.response[:1].isspace() or not rollout.text[:1].isspace()
            else f" {answer.response}"
        )
        ids = tuple(response_ids(self.policy.tokenizer, rollout.prompt.source, text))
        return replace(rollout, text=text, token_ids=ids, sampler_logprobs=(0.0,) * len(ids))

    def _look(self, rollouts: Sequence[Rollout], when: str) -> None:
        for scorer in self.watch if rollouts else ():
            for events in scorer.score(rollouts):
                if events:
                    name = f"{scorer.name}_{when}"
                    self.seen[name] = self.seen.get(name, Mean(0.0, 0.0)) + Mean(sum(e.value for e in events), 1.0)

    def figures(self) -> dict[str, float]:
        """What the stage closes with."""
        return {n: m.value for n, m in self.seen.items()} | {n: float(c) for n, c in self.tally.items()}

    def state_dict(self) -> State:
        return {"tally": dict(self.tally), "seen": {n: [m.total, m.count] for n, m in self.seen.items()}}

    def load_state_dict(self, state: State) -> None:
        self.tally = Counter(state["tally"])
        self.seen = {n: Mean(*m) for n, m in state["seen"].items()}


def _row(rollout: Rollout, draft: Draft, answer: Revised, number: int) -> dict[str, object]:
    """A demonstration, and how it came about."""
    how = {"id": rollout.prompt.id, "round": number, "before": draft.response, "critique": answer.critique}
    return {**to_json(Demonstration(rollout.prompt.source, rollout.text)), **how, "principle": draft.critique}


def run(spec: CritiqueSpec, context: StageContext) -> Mapping[str, float]:
    policy = load_policy(context, spec.policy)
    prompts = answerable(policy, take(spec.tasks, context), spec.longest_prompt, spec.generation, context)
    per_step = min(PROMPTS_PER_STEP, len(prompts))
    source = PromptSource(
        prompts,
        engine_of(policy, slots=spec.generation.slots),
        spec.generation.sampling(policy.tokenizer),
        prompts_per_step=per_step,
        samples_per_prompt=1,
        steps=len(prompts) // per_step,
        seed=context.seed,
        decode=decoder(policy, spec.generation.stop_strings),
    )
    revises = Revises(spec, context, policy)
    lines = Lines(context.out / SELECTED, revises)
    parts: dict[str, Stateful] = {"source": source, "lines": lines, "revises": revises}
    select(source, [], lines, context.tracker, StateFile(context.state, parts, every_seconds=spec.checkpoint_seconds))
    if not lines.written:
        raise ContractError(
            "nothing was revised",
            got=", ".join(f"{name}: {count}" for name, count in revises.tally.items()),
            why="there is nothing to train on",
            fix="raise max_new_tokens where responses are cut off; ask the critic a question by hand where it fails",
        )
    left = len(prompts) % per_step
    if left:
        context.say(f"{left} of {len(prompts):,} prompts were not asked: prompts go out {per_step} at a time")
    return {"demonstrations": lines.written, "prompts": len(prompts) - left, **revises.figures()}


def derive(spec: CritiqueSpec) -> Mapping[str, Number]:
    count = getattr(spec.tasks, "count", None)
    return {} if count is None else {"prompts": count, "demonstrations, at most": count * spec.revisions}


STAGE = Stage("critique", CritiqueSpec, run, derive)
