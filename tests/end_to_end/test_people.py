"""People in the middle of a recipe: the stage asks, waits, and goes on with what was clicked."""

import json
import shutil
import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from assent.algorithms.soft_reward_model import SoftRewardModel
from assent.data import domain
from assent.errors import ArtefactError, ConfigError, DataError
from assent.feedback.answers import (
    Choice,
    DemonstrationAnswer,
    EditAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
    StepsAnswer,
)
from assent.feedback.into_records import comparisons
from assent.feedback.questions import DemonstrationQuestion, EditQuestion, PairQuestion, RatingQuestion
from assent.feedback.store import Store
from assent.pipeline.recipe import parse_recipe
from assent.records import Comparison, Judgement, Rating, solution_from_json, to_json
from assent.stages import TABLE
from assent.stages.asking import AwaitingPeople
from assent.stages.choosing import AT_RANDOM, DISAGREED, Choosing
from assent.stages.store_sources import StoreJudged
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


def test_more_prompts_ask_about_the_new_ones_alone(folder):
    """What was answered when fewer were asked is found again, and handed on with the rest."""
    text, url = recipe_with("{overlap: 0.4}"), f"sqlite:///{folder}/feedback.db"
    with pytest.raises(AwaitingPeople):
        run_tiny(folder, until="comparisons", text=text)
    first = answer_all(url, ("ada", "ben", "eve"))
    before, _ = run_tiny(folder, until="comparisons", text=text)
    more = "stages.comparisons.tasks.count=20"
    with pytest.raises(AwaitingPeople, match=f"{first} answers, 0 questions closed"):
        run_tiny(folder, more, until="comparisons", text=text)
    second = answer_all(url, ("ada", "ben", "eve"))
    made, _ = run_tiny(folder, more, until="comparisons", text=text)
    fewer, all_of = (m["comparisons"].metrics["comparisons"] for m in (before, made))
    assert second > 0 and (fewer, all_of) == (first, first + second)
    seen = Counter((e.annotator, e.question_id) for e in Store.open(url).events() if e.what == "answered")
    assert max(seen.values()) == 1 and len(seen) == first + second


CHOSEN = """
  ensemble:
    do: reward_ensemble
    members: 2
    model: sft
    data: [{format: stage, stage: comparisons}]
    batch_size: 8
    held_out: 0.2
    optimization: *fast
    skip_checks: [D11]
  disputed:
    do: compare
    policy: sft
    tasks: {format: domain_tasks, count: 24}
    samples: 4
    annotators: {people: {ask: pairs, round: 1, choose: {questions: 15, ensemble: ensemble, per_prompt: 1}}}
    generation: {max_new_tokens: 12}
    checkpoint_seconds: 0
"""


def test_people_are_asked_where_reward_models_disagree_and_at_random(folder):
    """The shares, the reasons and the cap are kept; a resumed stage asks the same again, and nothing more."""
    text = PEOPLE[: PEOPLE.index("  reward:\n")] + CHOSEN
    with pytest.raises(AwaitingPeople):
        run_tiny(folder, text=text)
    url = f"sqlite:///{folder}/feedback.db"
    store = Store.open(url)
    asked = list(store.questions())
    assert len(asked) == 15 and all(isinstance(q, PairQuestion) and q.origin.round == 1 for q in asked)
    by = Counter(q.origin.why for q in asked)
    assert by[AT_RANDOM] == 3 and by[DISAGREED] == 12
    chosen = Counter(q.origin.task for q in asked if q.origin.why == DISAGREED)
    assert max(chosen.values()) == 1 and all(q.responses[0] != q.responses[1] for q in asked)
    assert answer_all(url) == 15
    made, console = run_tiny(folder, text=text)
    assert made["disputed"].metrics["comparisons"] == 15 and len(list(store.questions())) == 15
    assert any("asks about 15 pairs: 12 by information gain, 3 by random" in line for line in console.said)
    assert set(made["disputed"].parents) == {"sft", "ensemble"}
    store.close()


def test_chosen_pairs_are_what_the_members_disagree_about():
    """Of one prompt with four samples, on two of which two members say the opposite."""
    scores = [[0.0, 0.1, 0.0, 3.0], [0.0, 0.1, 3.0, 0.0]]
    texts = ["left", "right", "up there", "down below"]
    row = {"id": "t", "kind": "", "prompt": "Where?", "responses": texts, "ended": [True] * 4, "scores": scores}
    found = [p for seed in range(8) for p in Choosing(questions=1, ensemble="e", random_share=0.1).pairs([row], seed)]
    disputed = {p.responses for p in found if p.why == DISAGREED}
    assert disputed <= {("up there", "down below")}
    many = Choosing(questions=5, ensemble="e", random_share=0.2).pairs([row] * 1, 0)
    assert len({p.responses for p in many}) == len(many)
    with pytest.raises(ConfigError, match="write `ask: pairs` too"):
        parse_recipe(recipe_with("{choose: {questions: 5}}"), TABLE)


WRITTEN = """
  written:
    do: demonstrate
    tasks: {format: domain_tasks, count: 8}
    people: {per_question: 1}
  improved:
    do: demonstrate
    edit: comparisons
  taught:
    do: sft
    model: sft
    data: {format: selected, stages: [written, improved]}
    epochs: 1
    batch_size: 4
    validation: 0.2
    optimization: *fast
    skip_checks: [D11]
"""
"""After `comparisons`: people write, people edit what was preferred, and a policy is taught both."""


def write_all(url):
    """Writes the kind of text asked for, knowing what it belongs to; what was asked, by prompt."""
    store, asked = Store.open(url), {}
    while (shown := store.next("ada")) is not None:
        q = shown.question
        assert isinstance(q, (EditQuestion, DemonstrationQuestion))
        text = f"better than {q.responses[0]}" if isinstance(q, EditQuestion) else "Write plainly ."
        answer = EditAnswer(text) if isinstance(q, EditQuestion) else DemonstrationAnswer(text)
        store.answer(shown.token, answer, 9.0, annotator="ada")
        asked[q.prompt] = (text, *q.responses)
    store.close()
    return asked


def test_what_people_write_is_taught_and_edits_are_better_than_what_was_preferred(folder):
    url = f"sqlite:///{folder}/feedback.db"
    head = PEOPLE[: PEOPLE.index("  reward:")]
    text = head + WRITTEN + PEOPLE[PEOPLE.index("  reward:") :].replace("stage: comparisons", "stage: improved")
    text = text.replace("{panel: simulated}", "{people: {}}")
    with pytest.raises(AwaitingPeople):
        run_tiny(folder, text=text)
    answer_all(url)
    asked = {}
    for _ in range(2):  # what is written, then what is edited
        with pytest.raises(AwaitingPeople):
            run_tiny(folder, text=text)
        asked |= write_all(url)
    made, _ = run_tiny(folder, text=text)
    taught = [
        json.loads(line)
        for name in ("written", "improved")
        for line in (made[name].folder / "demonstrations.jsonl").read_text().splitlines()
    ]
    assert {row["prompt"]: row["response"] for row in taught} == {prompt: texts[0] for prompt, texts in asked.items()}
    assert made["taught"].metrics["demonstrations"] == pytest.approx(len(taught), abs=6)
    edits = [json.loads(x) for x in (made["improved"].folder / "comparisons.jsonl").read_text().splitlines()]
    assert len(edits) > 2
    for edit in edits:
        better = {(edit["responses"][p["better"]], edit["responses"][p["worse"]]) for p in edit["preferences"]}
        edited, chosen, rejected = asked[edit["prompt"]]
        assert better == {(edited, chosen), (edited, rejected), (chosen, rejected)}
    before = [json.loads(x) for x in (made["comparisons"].folder / "comparisons.jsonl").read_text().splitlines()]
    ordered = {(c["prompt"], c["responses"][p["better"]], c["responses"][p["worse"]])
               for c in before for p in c["preferences"] if not p["tie"]}  # fmt: skip
    assert {(prompt, *texts[1:]) for prompt, texts in asked.items() if texts[1:]} <= ordered
    assert made["reward"].parents["improved"] == made["improved"].id


MARKED = """
  marked:
    do: label_steps
    policy: sft
    tasks: {format: domain_tasks, count: 24}
    labels: {by: people}
    generation: {max_new_tokens: 12}
    delimiter: " "
  process:
    do: process_reward
    model: sft
    data: [{format: stage, stage: marked}]
    epochs: 1
    batch_size: 4
    held_out: 0.3
    optimization: *fast
    skip_checks: [D8, D11]
"""


def test_steps_are_marked_by_people_and_train_a_process_reward_model(folder):
    text = PEOPLE[: PEOPLE.index("  comparisons:")] + MARKED
    with pytest.raises(AwaitingPeople):
        run_tiny(folder, text=text)
    store, said = Store.open(f"{folder}/feedback.db"), {}
    while (shown := store.next("ada")) is not None:
        steps = shown.question.steps
        good = len(said) % 2 and len(steps) > 1
        marks = (Rating.GOOD,) * len(steps) if good else (Rating.BAD, *[None] * (len(steps) - 1))
        store.answer(shown.token, StepsAnswer(marks), 5.0, annotator="ada")
        said[shown.question.prompt, steps] = marks
    made, _ = run_tiny(folder, text=text)
    lines = (made["marked"].folder / "solutions.jsonl").read_text().splitlines()
    found = {(s.prompt, s.steps): s.labels for s in (solution_from_json(json.loads(line)) for line in lines)}
    assert found == said and len(said) > 12
    assert made["process"].metrics["held_out_steps"] > 0
    store.close()


def test_a_store_is_read_as_it_stood_at_one_event(folder, tmp_path):
    """Later answers and corrections change nothing; a number that is too high is answered with the right one."""
    store = Store.open(f"{tmp_path}/s.db", gold_every=0)
    store.add([PairQuestion(f"q{i}", f"Prompt {i}", (f"good answer {i}", f"bad answer {i}")) for i in range(12)])
    store.add([RatingQuestion("r", "Prompt r", ("fine",))])

    def answer(most):
        while most and (shown := store.next("ada")) is not None:
            pair = isinstance(shown.question, PairQuestion)
            good = shown.order.index(0) if pair else 0
            said = PairAnswer({"overall": Choice(good)}) if pair else RatingAnswer({"overall": 7})
            store.answer(shown.token, said, 1.0, annotator="ada")
            most -= 1

    answer(8)
    then = store.last_event()
    store.undo("ada")
    answer(99)
    source = f"{{format: store, store: 'sqlite:///{tmp_path}/s.db', as_of: {then}}}"
    text = PEOPLE[: PEOPLE.index("  comparisons:")] + PEOPLE[PEOPLE.index("  reward:") :]
    text = text.replace("{format: stage, stage: comparisons}", source).replace("held_out: 0.2", "held_out: 0.4")
    _, console = run_tiny(folder, text=text)
    assert any(f"8 records of 8 answers, as of event {then}" in line for line in console.said)
    with pytest.raises(DataError, match=f"write as_of: {store.last_event()}"):
        run_tiny(folder, text=text.replace(f"as_of: {then}", "as_of: 99999"))
    kinds = {type(r) for r in StoreJudged(format="store", store=f"sqlite:///{tmp_path}/s.db", as_of=store.last_event()
                                          ).records_for(SimpleNamespace(say=print))}  # fmt: skip
    assert kinds == {Comparison, Judgement}
    store.close()


@pytest.mark.parametrize("votes", ["share", "dawid_skene", "bradley_terry"])
def test_soft_labels_from_a_store_and_the_noise_ceiling_on_the_card(folder, tmp_path, votes, monkeypatch):
    """Three people judge everything, one of them the wrong way round: reliability learns it, a share cannot."""
    store = Store.open(f"{tmp_path}/s.db", gold_every=0)
    store.add([PairQuestion(f"q{i}", f"Prompt {i}", (f"good {i}", f"bad {i}")) for i in range(24)], per_question=3)
    for name in ("ada", "ben", "eve"):
        while (shown := store.next(name)) is not None:
            good = shown.order.index(0)
            store.answer(
                shown.token, PairAnswer({"overall": Choice(1 - good if name == "eve" else good)}), 1.0, annotator=name
            )
    source = f"{{format: store, store: 'sqlite:///{tmp_path}/s.db', as_of: {store.last_event()}}}"
    text = PEOPLE[: PEOPLE.index("  comparisons:")] + PEOPLE[PEOPLE.index("  reward:") :]
    text = text.replace("{format: stage, stage: comparisons}", source)
    text = text.replace("held_out: 0.2", f"held_out: 0.3\n    algorithm: {{name: soft}}\n    votes: {votes}")
    targets, loss = [], SoftRewardModel.loss

    def noted(self, batch, forward):
        targets.extend(batch.target_P.tolist())
        return loss(self, batch, forward)

    monkeypatch.setattr(SoftRewardModel, "loss", noted)
    made, console = run_tiny(folder, text=text)
    card = json.loads((made["reward"].folder / "card.json").read_text())
    # Of three votes two agree: agreement is 1 / 3, below a coin's; yet a model that follows the two is right on 2 of 3.
    assert card["ceiling"]["agreement"]["value"] == pytest.approx(1 / 3)
    assert card["ceiling"]["accuracy"] == pytest.approx(2 / 3)
    assert any("annotators' noise allows" in line for line in console.said)
    if votes == "share":
        assert targets == pytest.approx([2 / 3] * len(targets)) and targets
    else:
        assert min(targets) > 0.7, "the two who agree are believed more than two in three"
        (said,) = [line for line in console.said if line.startswith("soft labels believe")]
        ada, ben, eve = (float(part.split()[-1]) for part in said.removeprefix("soft labels believe ").split(", "))
        assert ada == ben > 0.7 > 0.4 > eve
    store.close()


def test_votes_that_no_loss_reads_are_refused():
    with pytest.raises(ConfigError, match="reads no soft labels"):
        parse_recipe(PEOPLE.replace("held_out: 0.2", "held_out: 0.2\n    votes: dawid_skene"), TABLE)


def test_questions_that_nobody_can_answer_are_not_waited_for(folder):
    with pytest.raises(AwaitingPeople):
        run_tiny(folder, until="comparisons", text=recipe_with("{}"))
    store = Store.open(f"sqlite:///{folder}/feedback.db")
    while (shown := store.next("ada")) is not None:
        store.flag(shown.token, "nonsense", annotator="ada")
    with pytest.raises(ArtefactError, match="nobody could answer what comparisons asks"):
        run_tiny(folder, until="comparisons", text=recipe_with("{}"))
    store.close()
