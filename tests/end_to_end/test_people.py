"""People in the middle of a recipe: the stage asks, waits, and goes on with what was clicked."""

import json

import pytest

from assent.data import domain
from assent.errors import ConfigError
from assent.feedback.answers import Choice, PairAnswer, RankingAnswer
from assent.feedback.into_records import comparisons
from assent.feedback.questions import PairQuestion
from assent.feedback.store import Store
from assent.pipeline.recipe import parse_recipe
from assent.records import to_json
from assent.stages import TABLE
from assent.stages.people import AwaitingPeople
from tests.end_to_end.tiny import TINY, run_tiny

PEOPLE = TINY[: TINY.index("  ppo:")].replace("count: 96}\n    samples", "count: 12}\n    samples")


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


def test_a_run_waits_for_people_and_goes_on_with_what_they_clicked(tmp_path):
    url = f"sqlite:///{tmp_path}/feedback.db"
    text = PEOPLE.replace("{panel: simulated}", f"{{people: {{store: '{url}'}}}}")
    with pytest.raises(AwaitingPeople, match=r"run the same command again") as caught:
        run_tiny(tmp_path / "run", text=text)
    assert str(caught.value).startswith("comparisons waits for people: ")
    assert answer_all(url, ("ada",), most=2) == 2
    with pytest.raises(AwaitingPeople, match="2 answers"):
        run_tiny(tmp_path / "run", text=text)
    assert answer_all(url) > 2
    made, console = run_tiny(tmp_path / "run", text=text)
    assert any("continued where it was interrupted" in line for line in console.said)
    rows = [json.loads(x) for x in (made["comparisons"].folder / "comparisons.jsonl").read_text().splitlines()]
    store = Store.open(url)
    answers = list(store.answers())
    assert rows == json.loads(json.dumps([to_json(c) for a in answers for c in comparisons(a)])) and rows
    assert {a.question.origin.policy for a in answers} == {made["sft"].id} == set(made["comparisons"].parents.values())
    assert made["reward"].parents["comparisons"] == made["comparisons"].id
    store.close()


def test_a_store_is_named_by_its_url():
    with pytest.raises(ConfigError, match=r"write sqlite:///feedback\.db"):
        parse_recipe(PEOPLE.replace("{panel: simulated}", "{people: {store: feedback.db}}"), TABLE)
