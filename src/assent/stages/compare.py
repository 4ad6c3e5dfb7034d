"""Sample K responses to each prompt and have them compared."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from assent.config import Frozen
from assent.data import domain
from assent.feedback.annotators import PANEL
from assent.loops.select import select
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.protocols import Scorer, State, Stateful
from assent.records import Comparison, to_json
from assent.rollout.source import PromptSource
from assent.stages.ai_annotators import AiAnnotator, AiAsks
from assent.stages.generation import decoder, engine_of
from assent.stages.lines import Lines
from assent.stages.parts import Generation, ModelRef, load_policy, prompt_of
from assent.stages.people import PeopleAnnotators, PeopleAsks
from assent.stages.sources import AnyTasks, take
from assent.train.checkpoint import StateFile
from assent.types import Rollout, ScoreEvents

PROMPTS_PER_STEP = 128
"""Prompts sampled between two looks at the clock; what is left over from whole steps is not asked, and
said."""


class SimulatedPanel(Frozen):
    """The simulated annotators of the embedded domain, who read its hidden judgement through their own noise.

    Args:
        judges: what they are asked: `overall` which response is better, `helpfulness` which helps more, whatever it
            is for, `safety` which is more harmless, and of each whether it is unsafe (`data.domain.safety`).
        overlap: share of the prompts that every annotator judges, for agreement and the noise ceiling; the others
            are judged by one annotator each, in turn.
    """

    panel: Literal["simulated"]
    judges: Literal["overall", "helpfulness", "safety"] = "overall"
    overlap: float = Field(0.05, ge=0, le=1)


def _who(value: Any) -> str:
    """Which annotators are meant: by the key that only they have, so that their own mistakes are told."""
    if isinstance(value, PeopleAnnotators) or (isinstance(value, dict) and "people" in value):
        return "people"
    judged = isinstance(value, AiAnnotator) or (isinstance(value, dict) and "judge" in value)
    return "a feedback model" if judged else "a panel"


Annotators = Annotated[
    Annotated[SimulatedPanel, Tag("a panel")]
    | Annotated[AiAnnotator, Tag("a feedback model")]
    | Annotated[PeopleAnnotators, Tag("people")],
    Discriminator(_who),
]


class CompareSpec(StageSpec):
    """Settings of a comparison round.

    Args:
        policy: whose responses are judged.
        tasks: the prompts.
        samples: K responses per prompt; 4 to 9 in InstructGPT.
        annotators: who judges: `{panel: simulated}`, a feedback model, `{judge: {policy: NAME}}`, or people,
            `{people: {}}`, in the store of the run or in another.
        generation: how responses are drawn.
        checkpoint_seconds: longest work that a kill may cost.
    """

    policy: ModelRef
    tasks: AnyTasks
    samples: int = Field(4, ge=2)
    annotators: Annotators
    generation: Generation
    checkpoint_seconds: float = Field(20.0, ge=0)


Read = Callable[[Rollout], float]
"""What annotators read in a response, in units of gold."""


def _overall(rollout: Rollout) -> float:
    return domain.judge(rollout.prompt.source, rollout.text, ended=rollout.ended).gold


def _helpfulness(rollout: Rollout) -> float:
    return domain.judge_helpfulness(rollout.prompt.source, rollout.text, ended=rollout.ended).gold


def _harmlessness(rollout: Rollout) -> float:
    return domain.judge_harm(rollout.prompt.source, rollout.text).harmlessness


READS: Mapping[str, Read] = {"overall": _overall, "helpfulness": _helpfulness, "safety": _harmlessness}


class PanelAsks:
    """Turns the samples of a step into comparisons by the simulated panel.

    The answer to a question depends on the seed and the prompt, not on when it was asked.
    """

    def __init__(self, panel: SimulatedPanel, samples: int, seed: int) -> None:
        self.overlap, self.samples, self.seed = panel.overlap, samples, seed
        self.read, self.labels = READS[panel.judges], panel.judges == "safety"

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> list[dict[str, object]]:
        groups = [rollouts[i : i + self.samples] for i in range(0, len(rollouts), self.samples)]
        return [to_json(comparison) for group in groups for comparison in self._judged(group)]

    def figures(self) -> Mapping[str, float]:
        """Nothing beyond what every comparison has."""
        return {}

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """It has none."""

    def _judged(self, group: Sequence[Rollout]) -> list[Comparison]:
        prompt = group[0].prompt
        read = [self.read(r) for r in group]
        rng = random.Random(f"{self.seed}/{prompt.id}")
        everyone = rng.random() < self.overlap
        chosen = PANEL if everyone else (rng.choice(PANEL),)
        return [
            replace(
                annotator.compare(
                    f"{prompt.id}/{annotator.name}",
                    prompt.source,
                    [r.text for r in group],
                    read,
                    rng=rng,
                    kind=prompt.kind,
                ),
                ended=tuple(r.ended for r in group),
                # Asked after the order, so that without this question the answers are what they were.
                unsafe=annotator.calls_unsafe(read, rng=rng) if self.labels else (),
            )
            for annotator in chosen
        ]


def run(spec: CompareSpec, context: StageContext) -> Mapping[str, float]:
    causal = load_policy(context, spec.policy)
    prompts = [prompt_of(causal, t) for t in take(spec.tasks, context)]
    per_step = min(PROMPTS_PER_STEP, len(prompts))
    source = PromptSource(
        prompts,
        engine_of(causal, slots=spec.generation.slots),
        spec.generation.sampling(causal.tokenizer),
        prompts_per_step=per_step,
        samples_per_prompt=spec.samples,
        steps=len(prompts) // per_step,
        seed=context.seed,
        decode=decoder(causal, spec.generation.stop_strings),
    )
    asks: PanelAsks | AiAsks | PeopleAsks
    scorers: list[Scorer] = []
    if isinstance(spec.annotators, AiAnnotator):
        asks = AiAsks(spec.annotators, spec.samples, context)
    elif isinstance(spec.annotators, PeopleAnnotators):
        asks = PeopleAsks(spec.annotators.people, spec.samples, spec.policy, context)
        scorers = asks.scorers(causal)
    else:
        asks = PanelAsks(spec.annotators, spec.samples, context.seed)
    lines = Lines(context.out / "comparisons.jsonl", asks)
    parts: dict[str, Stateful] = {"source": source, "lines": lines, "asks": asks}
    checkpoint = StateFile(context.state, parts, every_seconds=spec.checkpoint_seconds)
    select(source, scorers, lines, context.tracker, checkpoint)
    checkpoint.save(len(source))  # people take longer than a process lives: what they are asked is not sampled again
    left = len(prompts) % per_step
    if left:
        context.say(f"{left} of {len(prompts):,} prompts were not asked: questions go out {per_step} prompts at a time")
    return {"comparisons": lines.written, "prompts": len(prompts) - left} | dict(asks.figures())


def derive(spec: CompareSpec) -> Mapping[str, Number]:
    count = getattr(spec.tasks, "count", None)
    pairs = spec.samples * (spec.samples - 1) // 2
    return {"pairs per prompt": pairs, **({"prompts": count, "responses": count * spec.samples} if count else {})}


STAGE = Stage("compare", CompareSpec, run, derive)
