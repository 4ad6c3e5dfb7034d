"""A model as an annotator of another kind: in the same store, beside people, with its prompt and its odds."""

import json
import random

import pytest
from typer.testing import CliRunner

from assent.cli import app
from assent.data import domain
from assent.errors import ConfigError, DataError
from assent.feedback.answers import Choice, PairAnswer
from assent.feedback.exchange import bring_in, export
from assent.feedback.into_records import comparisons
from assent.feedback.questions import DemonstrationQuestion, PairQuestion, RankingQuestion
from assent.feedback.store import Store
from assent.rewards.judge import Asked
from assent.rewards.templates import Question as Template
from assent.rewards.verdicts import Choice as Letter
from assent.stages.feedback_model import EndpointFeedback, Feedback
from assent.stages.judge_store import judge_store, read_judge

JUDGE = "{judge: {endpoint: {endpoint: 'http://localhost:1/v1', model: wise-1}, templates: {choose: pairwise}}}"


class LongerIsBetter:
    """A chooser that reads the question it is sent, and prefers the longer answer with 3 to 1."""

    def __init__(self):
        self.questions = []

    def choose(self, questions):
        self.questions += questions
        return [
            Letter(0.75 if self._first(q) > 0 else 0.25 if self._first(q) < 0 else 0.5, graded=True) for q in questions
        ]

    def _first(self, question):
        a, b = question.split("Answer A:")[1].split("Which answer")[0].split("Answer B:")
        return len(a.strip()) - len(b.strip())


@pytest.fixture
def chooser(monkeypatch):
    made = LongerIsBetter()
    feedback = Feedback(Asked(made, Template("pairwise")), None, dict)
    monkeypatch.setattr(EndpointFeedback, "feedback", lambda self, context: feedback)
    return made


@pytest.fixture
def store(tmp_path):
    opened = Store.open(str(tmp_path / "s.db"), gold_every=0)
    opened.add([
        PairQuestion("p", "P", ("short", "longer text"), ("overall", "honest")),
        RankingQuestion("r", "R", ("bb", "dddd", "ccc", "BB")),
        DemonstrationQuestion("d", "D"),
    ])  # fmt: skip
    yield opened
    opened.close()


def test_a_judge_answers_beside_people_and_what_it_was_asked_is_kept(store, chooser):
    done = judge_store(store, read_judge(JUDGE), say=str)
    assert (done.answers, done.known, dict(done.left_out)) == (2, 0, {"of the kind demonstration": 1})
    by_id = {a.question.id: a for a in store.answers()}
    assert by_id["p"].answer.choices == {"overall": Choice(1), "honest": Choice(1)}
    assert by_id["r"].answer.ranks == {"overall": (3, 1, 2, 3)}
    answer = by_id["r"]
    assert answer.annotator == "judge: wise-1 pairwise" and answer.by_model and not answer.order_known
    assert answer.by["judge"]["endpoint"]["model"] == "wise-1"
    assert answer.by["template"] == Template("pairwise").text
    assert answer.by["probabilities"]["overall"][0] == [0, 1, 0.25] and len(answer.by["probabilities"]["overall"]) == 6
    assert len(chooser.questions) == 2 * (2 + 6), "both orders of every pair"
    (comparison,) = comparisons(answer)
    assert {(p.better, p.worse, p.target) for p in comparison.preferences if not p.tie} >= {(1, 0, 0.75), (2, 0, 0.75)}
    assert [p.probability for p in comparison.preferences if p.tie] == [0.5] and comparison.shown == ()
    asked = [store.next("ada").question.id]
    store.skip(store.next("ada").token, annotator="ada")
    assert asked and store.progress().wanted == 3 and store.progress().answered == 0, "it took nobody's place"
    again = judge_store(store, read_judge(JUDGE), say=str)
    assert (again.answers, again.known, len(chooser.questions)) == (0, 2, 16), "nothing is asked twice"


def test_what_a_judge_said_survives_export_and_is_told_where_it_does_not(store, chooser, tmp_path):
    judge_store(store, read_judge(JUDGE), say=str)
    other = Store.open(str(tmp_path / "other.db"))
    bring_in(other, export(store.answers(), "assent").text, "assent", batch="b")
    assert [c for a in other.answers() for c in comparisons(a)] == [c for a in store.answers() for c in comparisons(a)]
    assert export(store.answers(), "trl_preference").left_out["judges' models and prompts"] == 2
    other.close()


def test_the_command_judges_with_the_simulated_critic(tmp_path):
    store = Store.open(str(tmp_path / "s.db"))
    tasks = domain.tasks(12, seed=1)
    rng = random.Random(0)
    good = {t.id: domain.demonstrations(40, seed=rng.randrange(99))[0].response for t in tasks}
    store.add([PairQuestion(t.id, t.prompt, (good[t.id], "no")) for t in tasks])
    store.close()
    command = ["label", "judge", str(tmp_path / "s.db"), "{judge: {simulated: domain}}"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "judge: simulated critic: 12 answers, 0 were there before" in done.output, (
        done.output
    )
    assert "0 answers, 12 were there before" in CliRunner().invoke(app, command).output


def test_a_store_without_comparisons_and_a_wrong_judge_are_refused(tmp_path):
    store = Store.open(str(tmp_path / "s.db"))
    store.add([DemonstrationQuestion("d", "D")])
    with pytest.raises(DataError, match="no question that a judge can answer"):
        judge_store(store, read_judge("{judge: {simulated: domain}}"), say=str)
    with pytest.raises(ConfigError):
        read_judge("{judge: {simulatd: domain}}")
    store.close()


def test_an_imported_pair_is_judged_with_people_left_out_of_training_by_default(store, chooser):
    """Who answered is told apart in the store: people and models never mix unless it is asked for."""
    judge_store(store, read_judge(JUDGE), say=str)
    store.give("p", PairAnswer({"overall": Choice(0), "honest": Choice(0)}), annotator="ada", token="t")
    assert [a.annotator for a in store.answers() if not a.by_model] == ["ada"]
    assert json.loads(export(store.answers(annotator="ada"), "assent").text)["by"] == {}
