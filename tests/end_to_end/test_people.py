"""People in the middle of a recipe: the stage asks, waits, and goes on with what was clicked."""

import json
import shutil
import threading

import pytest

from assent.data import domain
from assent.errors import ArtefactError, ConfigError
from assent.feedback.answers import Choice, PairAnswer, RankingAnswer
from assent.feedback.into_records import comparisons
from assent.feedback.questions import PairQuestion
from assent.feedback.store import Store
from assent.pipeline.recipe import parse_recipe
from assent.records import to_json
from assent.stages import TABLE
from assent.stages.asking import AwaitingPeople
from tests.end_to_end.tiny import TINY, run_tiny

PEOPLE = TINY[: TINY.index("  ppo:")].replace("count: 96}\n    samples", "count: 12}\n    samples")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose policy is there, made once."""
    folder = tmp_path_factory.mktemp("people") / "trained"
    run_tiny(folder, until="sft", text=PEOPLE)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def answer_all(url, names=("ada", "ben"), most=None):
    """Simulated people who read the domain's hidden judgement and press what they see."""
    store, given = Store.open(url), 0
    for name in names:
        while given != most and (shown := store.next(name)) is not None:
            gold = [domain.judge(shown.question.prompt, t, ended=True).gold for t in shown.responses]
            better = 0 if gold[0] > gold[1] else 1
            ranks = tuple(1 + sum(g > mine for g in gold) for mine in gold)
            pair = isinstance(shown.question, PairQuestion)
            answer = PairAnswer({"overall": Choice(better)}) if pair else RankingAnswer({"overall": ranks})
            store.answer(shown.token, answer, 2.0, annotator=name)
            given += 1
    store.close()
    return given


def test_a_run_waits_for_people_and_goes_on_with_what_they_clicked(folder, tmp_path):
    url = f"sqlite:///{tmp_path}/feedback.db"
    text = PEOPLE.replace("{panel: simulated}", f"{{people: {{store: '{url}'}}}}")
    with pytest.raises(AwaitingPeople, match=r"run the same command again") as caught:
        run_tiny(folder, text=text)
    assert str(caught.value).startswith("comparisons waits for people: ")
    assert f"\n    assent label {url}\n    assent run RECIPE --folder {folder}" in str(caught.value)
    assert answer_all(url, ("ada",), most=2) == 2
    with pytest.raises(AwaitingPeople, match="2 answers"):
        run_tiny(folder, text=text)
    assert answer_all(url) > 2
    made, console = run_tiny(folder, text=text)
    assert any("continued where it was interrupted" in line for line in console.said)
    rows = [json.loads(x) for x in (made["comparisons"].folder / "comparisons.jsonl").read_text().splitlines()]
    store = Store.open(url)
    answers = list(store.answers())
    assert rows == json.loads(json.dumps([to_json(c) for a in answers for c in comparisons(a)])) and rows
    assert {a.question.origin.policy for a in answers} == {made["sft"].id} == set(made["comparisons"].parents.values())
    assert made["reward"].parents["comparisons"] == made["comparisons"].id
    store.close()


def recipe_with(people):
    return PEOPLE.replace("{panel: simulated}", f"{{people: {people}}}")


@pytest.mark.parametrize(
    ("store", "says"),
    [("feedback.db", r"write sqlite:///feedback\.db"), ("postgresql://ann:key@host/db", "PGPASSWORD")],
)
def test_a_store_is_named_by_its_url_and_without_a_password(store, says):
    with pytest.raises(ConfigError, match=says):
        parse_recipe(recipe_with(f"{{store: '{store}'}}"), TABLE)


def test_the_store_of_the_run_is_waited_for_and_answers_outlive_what_asked(folder):
    """Another setting that changes no question asks nobody twice; while it waits, it sees what comes in."""
    with pytest.raises(AwaitingPeople, match=rf"assent label {folder}\n"):
        run_tiny(folder, until="comparisons", text=recipe_with("{}"))
    url = f"sqlite:///{folder}/feedback.db"
    timer = threading.Timer(1.5, answer_all, (url,))
    timer.start()
    made, console = run_tiny(folder, until="comparisons", text=recipe_with("{wait_minutes: 5}"))
    timer.join()
    assert any(f"to give them: assent label {folder}" in line for line in console.said)
    again, _ = run_tiny(folder, until="comparisons", text=recipe_with("{enough: 0.5}"))
    one, other = (m["comparisons"] for m in (made, again))
    assert one.id != other.id and one.metrics["comparisons"] == other.metrics["comparisons"] > 0
    assert len({e.question_id for e in Store.open(url).events()}) == one.metrics["comparisons"]


def test_questions_that_nobody_can_answer_are_not_waited_for(folder):
    with pytest.raises(AwaitingPeople):
        run_tiny(folder, until="comparisons", text=recipe_with("{}"))
    store = Store.open(f"sqlite:///{folder}/feedback.db")
    while (shown := store.next("ada")) is not None:
        store.flag(shown.token, "nonsense", annotator="ada")
    with pytest.raises(ArtefactError, match="nobody could answer what comparisons asks"):
        run_tiny(folder, until="comparisons", text=recipe_with("{}"))
    store.close()
