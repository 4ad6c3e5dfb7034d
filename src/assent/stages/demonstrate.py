"""Have people write: responses to tasks, or better versions of responses that were preferred."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import model_validator

from assent.feedback.into_records import comparisons, demonstrations
from assent.feedback.questions import DemonstrationQuestion, EditQuestion, Question, identity
from assent.pipeline.references import Reference
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.records import Comparison, Task, comparison_from_json
from assent.stages.asking import People, ask, origin_of, write_records
from assent.stages.lines import lines_of
from assent.stages.sources import SELECTED, AnyTasks, take


class DemonstrateSpec(StageSpec):
    """Settings of writing by hand; either `tasks` or `edit`.

    What is written trains `sft`, as `{format: selected, stages: [NAME]}`; edits also train reward models, as
    `{format: stage, stage: NAME}`: edited > chosen > rejected.

    Args:
        tasks: prompts to which people write a response.
        edit: an earlier `compare` stage, the best response to each of whose prompts people make better.
        people: who is asked, and where.
    """

    tasks: AnyTasks | None = None
    edit: Annotated[str, Reference()] | None = None
    people: People = People()

    @model_validator(mode="after")
    def _one_of_them(self) -> "DemonstrateSpec":
        if (self.tasks is None) == (self.edit is None):
            raise ValueError("people write to `tasks`, or `edit` what was preferred: give one of the two")
        return self


def run(spec: DemonstrateSpec, context: StageContext) -> Mapping[str, float]:
    questions: Sequence[Question]
    if spec.tasks is not None:
        questions = [_to_write(task, spec.people, context) for task in take(spec.tasks, context)]
    else:
        questions = list(_to_edit(str(spec.edit), spec.people, context))
    answers, progress = ask(spec.people, questions, context)
    return {
        "demonstrations": write_records(context, SELECTED, answers, demonstrations),
        "comparisons": write_records(context, "comparisons.jsonl", answers, comparisons),
        "annotators": len({a.annotator for a in answers}),
        "closed": progress.closed,
    }


def _to_write(task: Task, people: People, context: StageContext) -> Question:
    origin = origin_of(context, people, "", slice=task.kind, task=task.id, why="a response worth imitating is needed")
    return DemonstrationQuestion(identity(task.id, task.prompt), task.prompt, origin)


def _to_edit(stage: str, people: People, context: StageContext) -> Iterator[Question]:
    """The best of each comparison with the worst one beside it, each prompt's pair of texts once."""
    asked = set()
    for line in lines_of(context.inputs[stage].folder / "comparisons.jsonl"):
        comparison = comparison_from_json(json.loads(line))
        ends = _ends(comparison)
        if ends is None or (key := identity(comparison.prompt, *(comparison.responses[i] for i in ends))) in asked:
            continue
        asked.add(key)
        origin = origin_of(
            context,
            people,
            stage,
            slice=comparison.kind,
            task=comparison.id,
            ended=tuple(comparison.ended[i] for i in ends) if comparison.ended else (),
            why="it was preferred, and may be made better still",
        )
        yield EditQuestion(key, comparison.prompt, tuple(comparison.responses[i] for i in ends), origin)


def _ends(comparison: Comparison) -> tuple[int, int] | None:
    """The response that beats most others and the one that loses to most; None where nothing was ordered."""
    won = [0] * len(comparison.responses)
    for p in comparison.preferences:
        if not p.tie:
            won[p.better] += 1
            won[p.worse] -= 1
    best, worst = won.index(max(won)), won.index(min(won))
    said = {(p.better, p.worse) for p in comparison.preferences if not p.tie}
    return (best, worst) if (best, worst) in said else None


def derive(spec: DemonstrateSpec) -> Mapping[str, Number]:
    count = getattr(spec.tasks, "count", None)
    return {"questions": count, "answers, about": count * spec.people.per_question} if count else {}


STAGE = Stage("demonstrate", DemonstrateSpec, run, derive)
