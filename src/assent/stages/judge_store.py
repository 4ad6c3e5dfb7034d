"""A model answers the questions of a store: an annotator of another kind, with its model and prompt kept."""

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from assent.config import parse_yaml, read_yaml, refuse, validate
from assent.errors import DataError
from assent.feedback.answers import Answer, Choice, PairAnswer, RankingAnswer
from assent.feedback.principles import Principle, drawn, read_principles
from assent.feedback.questions import OVERALL, PairQuestion, Question, RankingQuestion, identity
from assent.feedback.store.values import MODEL
from assent.pipeline.stage import StageContext
from assent.protocols import StageTracker
from assent.rewards.asked import Failure
from assent.rewards.judge import Pair, PairwiseJudge
from assent.rewards.templates import Question as Template
from assent.stages.ai_annotators import TIE, AiAnnotator

if TYPE_CHECKING:
    from assent.feedback.store import Store

AT_ONCE = 64
"""Questions judged between two writes: what a stop may cost."""

Asked = tuple[str, int, int]
"""Dimension and two responses."""


@dataclass(frozen=True, slots=True)
class JudgedStore:
    """What became of the questions.

    Args:
        answers: new in the store.
        known: answered by this judge before.
        left_out: questions without an answer, counted by reason.
    """

    annotator: str
    answers: int
    known: int
    left_out: Mapping[str, int]


def read_judge(what: str) -> AiAnnotator:
    """A judge as `compare` takes it, as YAML or in a file: `{judge: {endpoint: {endpoint: URL, model: NAME}}}`.

    Raises:
        ConfigError: it is not a judge; every fault is named.
    """
    path = Path(what)
    tree = read_yaml(path) if path.suffix in (".yaml", ".yml") else parse_yaml(what, "the judge")
    spec, problems = validate(AiAnnotator, tree.data, tree)
    refuse(problems, tree.name)
    assert spec is not None
    return spec


def judge_store(
    store: "Store", spec: AiAnnotator, *, batch: str | None = None, seed: int = 0, say: Callable[[str], None] = print
) -> JudgedStore:
    """Have a model answer the pairs and rankings that it has not answered yet; it takes nobody's place in line.

    Every pair is asked in both orders. A ranking is made of the mean probability with which each response is preferred
    to the others. The answer keeps the judge's settings, the text of its template, the principle and every
    probability, from which soft labels are made.

    Args:
        batch: only the questions of this batch.
        seed: of the principles drawn.

    Raises:
        DataError: there is no question that it can answer.
    """
    name = f"judge: {spec.judge.label}"
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        context = StageContext("judge", seed, {}, where, where, cast(StageTracker, None), say, where)
        feedback = spec.judge.feedback(context)
    judge = _StoreJudge(spec, PairwiseJudge(feedback.compare, spec.clamp), name, seed)
    done = {a.question.id for a in store.answers(annotator=name, batch=batch)}
    left_out: Counter[str] = Counter()
    answers, asked = 0, 0
    for some in _parts(_answerable(store.questions(batch=batch), done, left_out)):
        asked += len(some)
        for question, said in zip(some, judge(some), strict=True):
            if isinstance(said, Failure):
                left_out[f"without a verdict: {said.reason}"] += 1
                continue
            answer, by = said
            token = identity(name, question.id)
            answers += store.give(question.id, answer, annotator=name, token=token, by=by)
        say(f"{name}: {answers:,} answers")
    if not asked and not done:
        raise DataError(
            "the store has no question that a judge can answer",
            got=", ".join(f"{n:,} {reason}" for reason, n in left_out.items()) or "no question at all",
            why="a judge compares: pairs and rankings",
            fix="give another store, or another --batch",
        )
    return JudgedStore(name, answers, len(done), dict(left_out))


def _answerable(
    questions: Iterable[Question], done: set[str], left_out: Counter[str]
) -> Iterator[PairQuestion | RankingQuestion]:
    for question in questions:
        if not isinstance(question, (PairQuestion, RankingQuestion)):
            left_out[f"of the kind {question.kind}"] += 1
        elif question.id not in done:
            yield question


def _parts(
    questions: Iterator[PairQuestion | RankingQuestion],
) -> Iterator[list[PairQuestion | RankingQuestion]]:
    while part := list(islice(questions, AT_ONCE)):
        yield part


class _StoreJudge:
    """Questions to answers, with what is kept of how they were made."""

    def __init__(self, spec: AiAnnotator, judge: PairwiseJudge, name: str, seed: int) -> None:
        self.spec, self.judge, self.name, self.seed = spec, judge, name, seed
        self.principles = read_principles(None if spec.principles is None else Path(spec.principles).expanduser())
        templates = getattr(spec.judge, "templates", None)
        self.template = None if templates is None else Template(templates.choose).text

    def __call__(
        self, questions: Sequence[PairQuestion | RankingQuestion]
    ) -> list[tuple[Answer, dict[str, Any]] | Failure]:
        asked = [(q, place) for q in questions for place in _places(q)]
        verdicts = self.judge([self._pair(q, place) for q, place in asked])
        said: dict[str, list[tuple[Asked, float]]] = {q.id: [] for q in questions}
        failed: dict[str, Failure] = {}
        for (question, place), verdict in zip(asked, verdicts, strict=True):
            if isinstance(verdict, Failure):
                failed[question.id] = verdict
            else:
                said[question.id].append((place, verdict.a))
        return [failed.get(q.id) or (_answer(q, said[q.id]), self._by(q, said[q.id])) for q in questions]

    def _principle(self, question: Question, dimension: str) -> Principle:
        principle = drawn(self.principles, random.Random(f"{self.seed}/{question.id}/{dimension}"))
        if dimension in OVERALL:
            return principle
        return replace(principle, choose=f"Choose the response that is more {dimension}.", about=dimension)

    def _pair(self, question: PairQuestion | RankingQuestion, place: Asked) -> Pair:
        dimension, i, j = place
        principle = self._principle(question, dimension)
        texts = question.responses
        return Pair(question.prompt, texts[i], texts[j], principle.choose, principle.about)

    def _by(self, question: PairQuestion | RankingQuestion, said: Sequence[tuple[Asked, float]]) -> dict[str, Any]:
        return {
            "kind": MODEL,
            "judge": self.spec.judge.model_dump(mode="json"),
            "template": self.template,
            "principles": {name: self._principle(question, name).choose for name in question.dimensions},
            "probabilities": {
                name: [[i, j, a] for (dimension, i, j), a in said if dimension == name] for name in question.dimensions
            },
        }


def _places(question: PairQuestion | RankingQuestion) -> list[Asked]:
    return [(d, i, j) for d in question.dimensions for i, j in combinations(range(len(question.responses)), 2)]


def _answer(question: PairQuestion | RankingQuestion, said: Sequence[tuple[Asked, float]]) -> Answer:
    by_dimension = {name: [(i, j, a) for (d, i, j), a in said if d == name] for name in question.dimensions}
    if isinstance(question, PairQuestion):
        return PairAnswer({name: _choice(pairs[0][2]) for name, pairs in by_dimension.items()})
    k = len(question.responses)
    return RankingAnswer({name: _ranks(pairs, k) for name, pairs in by_dimension.items()})


def _choice(a: float) -> Choice:
    return Choice(None) if abs(a - 0.5) < TIE else Choice(0 if a > 0.5 else 1)


def _ranks(pairs: Sequence[tuple[int, int, float]], count: int) -> tuple[int, ...]:
    """By the sum of the probabilities of being preferred; equal sums are ties."""
    sums = [0.0] * count
    for i, j, a in pairs:
        sums[i] += a
        sums[j] += 1 - a
    return tuple(1 + sum(other > mine + TIE for other in sums) for mine in sums)
