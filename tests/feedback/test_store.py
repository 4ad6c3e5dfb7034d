"""The store on SQLite and on a real PostgreSQL server: claims, expiry, undo, overlap, gold, and nothing lost."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from assent.errors import DataError
from assent.feedback.answers import Choice, PairAnswer
from assent.feedback.questions import PairQuestion
from assent.feedback.store import Store
from assent.records import Degree

LEFT, RIGHT = PairAnswer({"overall": Choice(0, Degree.BETTER)}), PairAnswer({"overall": Choice(1)})


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(url, clock):
    opened = Store.open(url, clock=clock, claim_seconds=60, gold_every=0)
    yield opened
    opened.close()


def questions(count, start=0):
    return [PairQuestion(f"q{i:04}", f"prompt {i}", (f"a{i}", f"b{i}")) for i in range(start, start + count)]


def test_questions_are_added_once_and_an_id_is_never_taken_over(store):
    assert store.add(questions(3), batch="b") == 3
    assert store.add(questions(5), batch="b") == 2
    with pytest.raises(DataError, match="another question"):
        store.add([PairQuestion("q0000", "other", ("a", "b"))])
    assert store.progress(batch="b").wanted == 5 and next(q.id for q in store.questions()) == "q0000"


def test_questions_of_several_batches_are_counted_and_read_by_their_ids(store):
    """As a batch counts itself, whatever was answered, corrected, taken back, skipped or flagged."""
    store.add(questions(4), batch="a", per_question=2)
    store.add(questions(4, start=4), batch="b", gold={"q0007": LEFT})
    for name, count in (("ada", 6), ("ben", 5)):
        for i in range(count):
            shown = store.next(name)
            if i == 1:
                store.skip(shown.token, annotator=name)
            elif i == 2:
                store.flag(shown.token, "nonsense", annotator=name)
            else:
                store.answer(shown.token, LEFT, 1.0, annotator=name)
                if i == 3:
                    store.edit(shown.token, RIGHT, 1.0, annotator=name)
    store.undo("ben")
    for batch in ("a", "b"):
        ids = {q.id for q in store.questions(batch=batch)}
        assert replace(store.progress(batch=batch), seconds=0.0) == store.progress_on(ids)
        assert store.answers_to(ids) == list(store.answers(batch=batch))
    both = store.progress_on({"q0000", "q0004"})
    assert both.wanted == 3 and next(a.question.id for a in store.answers_to(["q0004", "q0000"])) == "q0000"
    assert store.answers_to([]) == [] and store.progress_on([]).wanted == 0


def test_two_annotators_get_different_questions_and_a_reload_the_same(store):
    store.add(questions(2))
    ada, ben = store.next("ada"), store.next("ben")
    assert ada.question.id != ben.question.id and store.next("cleo") is None
    assert store.next("ada").token == ada.token and store.shown(ada.token, "ada").order == ada.order
    with pytest.raises(DataError, match="was not shown"):
        store.answer(ada.token, LEFT, 1.0, annotator="ben")


def test_the_answer_keeps_what_was_seen_and_is_recorded_once(store):
    store.add(questions(1), batch="b")
    shown = store.next("ada")
    first = store.answer(shown.token, LEFT, 2.5, annotator="ada")
    assert store.answer(shown.token, LEFT, 9.0, annotator="ada") == first
    with pytest.raises(DataError, match="answered before"):
        store.answer(shown.token, RIGHT, 2.5, annotator="ada")
    (kept,) = store.answers(batch="b")
    assert kept == first and kept.order == shown.order and kept.seconds == 2.5 and kept.annotator == "ada"
    assert tuple(kept.question.responses[i] for i in kept.order) == shown.responses
    assert store.progress() == store.progress(batch="b") and store.progress().answered == 1


def test_the_order_is_random(store):
    store.add(questions(40))
    orders = Counter()
    while (shown := store.next("ada")) is not None:
        orders[shown.order] += 1
        store.answer(shown.token, LEFT, 1.0, annotator="ada")
    assert set(orders) == {(0, 1), (1, 0)} and min(orders.values()) >= 5  # below 5 of 40 with probability 2e-7


def test_a_claim_expires_and_late_work_is_kept(store, clock):
    store.add(questions(1))
    late = store.next("ada")
    clock.now += 30
    assert store.next("ben") is None
    clock.now += 31
    taken = store.next("ben")
    assert taken.question.id == late.question.id and store.next("ada") is None
    store.answer(late.token, LEFT, 61, annotator="ada")
    store.answer(taken.token, RIGHT, 1, annotator="ben")
    done = store.progress()
    assert (done.wanted, done.answered, done.answers) == (1, 1, 2)


def test_overlap_asks_different_people_and_nobody_twice(store):
    store.add(questions(4), overlap=1.0, overlap_annotators=3)
    asked = Counter()
    for name in ("ada", "ben", "cleo", "dan"):
        mine = set()
        while (shown := store.next(name)) is not None:
            assert shown.question.id not in mine
            mine.add(shown.question.id)
            asked[shown.question.id] += 1
            store.answer(shown.token, LEFT, 1, annotator=name)
    assert set(asked.values()) == {3} and store.progress().left == 0


def gold_and_others(url, clock, every, others):
    store = Store.open(url, clock=clock, gold_every=every, claim_seconds=60)
    gold = [PairQuestion(f"g{i}", "gold", ("good", "bad")) for i in range(4)]
    store.add([*gold, *questions(others)], gold={q.id: LEFT for q in gold})
    return store


def all_of(store, annotator):
    """The ids that an annotator is asked, to the end."""
    seen = []
    while (shown := store.next(annotator)) is not None:
        assert "gold" not in repr(type(shown).__slots__)
        seen.append(shown.question.id)
        store.answer(shown.token, LEFT, 1, annotator=annotator)
    return seen


def test_gold_is_mixed_in_for_everyone_and_does_not_show(url, clock):
    store = gold_and_others(url, clock, 2, 40)  # all four come before the 40 end but with probability 1e-9
    seen = all_of(store, "ada")
    assert {q for q in seen if q[0] == "g"} == {f"g{i}" for i in range(4)} and len(seen) == 44
    expected = [a for a in store.answers() if a.gold is not None]
    assert len(expected) == 4 and store.progress().answered == store.progress().wanted == 40
    store.close()


def test_when_gold_comes_cannot_be_worked_out_and_none_comes_at_the_end(tmp_path, clock):
    places = []
    for turn in range(6):
        store = gold_and_others(f"sqlite:///{tmp_path}/{turn}.db", clock, 10, 30)
        seen = all_of(store, "ada")
        assert seen[-1][0] == "q", "after the last ordinary question there is nothing"
        assert all(store.next("ada") is None for _ in range(30))
        places.append(tuple(i for i, q in enumerate(seen) if q[0] == "g"))
        store.close()
    assert len(set(places)) > 1, "the same name was asked in the same places in every store"


def test_a_gold_question_left_lying_goes_as_another_would(url, clock):
    store = gold_and_others(url, clock, 1, 3)
    gold = store.next("ada")
    clock.now += 61
    assert store.next("ada").token == gold.token, "nobody else came"
    clock.now += 50
    store.next("ben")
    assert store.next("ada").token == gold.token, "a reload had renewed it"
    clock.now += 61
    store.next("cleo")
    assert store.next("ada").token != gold.token, "an ordinary one would have been given to cleo"
    store.answer(gold.token, LEFT, 1, annotator="ada")
    store.close()


def test_undo_shows_the_same_again_and_then_what_was_interrupted(store):
    store.add(questions(3))
    first = store.next("ada")
    store.answer(first.token, LEFT, 2, annotator="ada")
    second = store.next("ada")
    again = store.undo("ada")
    assert (again.question, again.order) == (first.question, first.order) and again.token != first.token
    assert list(store.answers()) == [] and store.progress().seconds == 0
    assert store.next("ada").token == again.token
    store.answer(again.token, RIGHT, 1, annotator="ada")
    assert store.next("ada").token == second.token
    assert [a.answer for a in store.answers()] == [RIGHT]
    assert [e.what for e in store.events(annotator="ada")] == [
        *("shown", "answered", "shown", "withdrawn", "shown", "answered")
    ]
    assert store.undo("ben") is None


def test_an_edit_replaces_and_both_stay(store):
    store.add(questions(1))
    shown = store.next("ada")
    store.answer(shown.token, LEFT, 2, annotator="ada")
    store.edit(shown.token, RIGHT, 3, annotator="ada")
    assert [(a.answer, a.seconds) for a in store.answers()] == [(RIGHT, 3)] and store.progress().seconds == 3
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(DataError, match="seconds are a number"):
            store.edit(shown.token, LEFT, wrong, annotator="ada")
    assert [a.seconds for a in store.answers()] == [3]
    store.undo("ada")
    assert list(store.answers()) == [] and store.progress().answered == store.progress().answers == 0


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf")])
def test_seconds_that_are_none_are_refused_wherever_an_answer_comes_from(store, wrong):
    store.add(questions(1))
    shown = store.next("ada")
    with pytest.raises(DataError, match="seconds are a number"):
        store.answer(shown.token, LEFT, wrong, annotator="ada")
    with pytest.raises(DataError, match="seconds are a number"):
        store.give("q0000", LEFT, annotator="a judge", token="t", seconds=wrong)
    assert list(store.answers()) == []


def test_skips_pass_a_question_on_until_too_many_did_and_a_flag_ends_it(store):
    store.add(questions(1))
    for name in ("ada", "ben", "cleo"):
        store.skip(store.next(name).token, "unclear", annotator=name)
        assert store.next(name) is None
    assert store.next("dan") is None
    assert (store.progress().closed, store.progress().skipped, store.progress().left) == (1, 3, 0)
    store.add(questions(1, start=1))
    shown = store.next("dan")
    store.flag(shown.token, "asks for a poison", annotator="dan")
    assert store.next("eve") is None and store.progress().flagged == 1
    assert store.undo("dan").question == shown.question and store.progress().left == 1


@pytest.mark.parametrize("table", ["question", "event", "invitation"])
@pytest.mark.parametrize("change", ["UPDATE {} SET at = 0", "DELETE FROM {}"])
def test_the_database_itself_refuses_to_change_the_truth(store, table, change):
    store.add(questions(1))
    store.invite("ada")
    with pytest.raises(DBAPIError, match="append-only"), store.database.write() as connection:
        connection.execute(text(change.format(table)))


def test_a_token_signs_in_until_it_is_revoked(store):
    token = store.invite("ada")
    assert store.who(token) == "ada" and store.who(token + "x") is None and store.who("") is None
    store.revoke(token)
    assert store.who(token) is None


def test_the_migrations_make_the_tables_that_the_store_reads(url):
    """Columns and indexes; a table that changes without a migration would be missed in every store there is."""
    store = Store.open(url)
    with store.database.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
    assert differences == []
    store.close()


def test_a_store_of_a_newer_version_is_refused(url):
    store = Store.open(url)
    with store.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    store.close()
    with pytest.raises(DataError, match="newer version"):
        Store.open(url)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "judged.jsonl").write_text('{"question": 1}\n' * 100)
    with pytest.raises(DataError, match="cannot be opened"):
        Store.open(str(tmp_path / "judged.jsonl"))


def test_other_databases_are_refused():
    with pytest.raises(DataError, match="not the URL of a store"):
        Store.open("mysql://somewhere/else")


def test_one_token_sent_by_many_at_once_is_one_answer(url):
    store = Store.open(url, gold_every=0)
    store.add(questions(1))
    shown, got = store.next("ada"), []

    def send():
        got.append(store.answer(shown.token, LEFT, 1, annotator="ada").seq)

    threads = [threading.Thread(target=send) for _ in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert len(got) == 8 and len(set(got)) == 1 and store.progress().answers == 1
    store.close()


def submit(url, name, path):
    """Answers until killed; what was acknowledged goes to a file that no buffer holds back."""
    store = Store.open(url, gold_every=0)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while (shown := store.next(name)) is not None:
        kept = store.answer(shown.token, LEFT, 1, annotator=name)
        os.write(log, f"{json.dumps([kept.token, kept.seq])}\n".encode())


def test_kill_9_loses_no_acknowledged_answer_and_records_none_twice(url, tmp_path):
    count = int(os.environ.get("ASSENT_KILL_SUBMISSIONS", "120"))
    store = Store.open(url, gold_every=0)
    store.add(questions(count))
    context = multiprocessing.get_context("spawn")
    for turn in range(40):
        names = [f"w{i}" for i in range(4)]
        logs = [tmp_path / f"{turn}-{name}" for name in names]
        workers = [context.Process(target=submit, args=(url, n, p)) for n, p in zip(names, logs, strict=True)]
        [w.start() for w in workers]
        before, began = store.progress().answers, time.monotonic()
        while any(w.is_alive() for w in workers) and store.progress().answers < before + count // 3:
            assert time.monotonic() - began < 240
            time.sleep(0.01)
        for worker in workers:
            if worker.is_alive():
                os.kill(worker.pid, signal.SIGKILL)
        [w.join() for w in workers]
        if store.progress().left == 0:
            break
    assert turn >= 1, "nobody was killed"
    acknowledged = [tuple(json.loads(x)) for p in tmp_path.glob("[0-9]*-w[0-9]") for x in p.read_text().splitlines()]
    kept = [(a.token, a.seq) for a in store.answers()]
    assert set(acknowledged) <= set(kept) and len(set(acknowledged)) == len(acknowledged)
    assert len(kept) == len({a.question.id for a in store.answers()}) == count == store.progress().answered
    store.close()


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'assent\[postgres\]'"):
        Store.open("postgresql://ann@host/db")
