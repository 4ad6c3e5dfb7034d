"""How long the store takes to choose the next question among a million, half of them answered.

    python benchmarks/feedback_store.py [--questions 1000000] [--url sqlite:////tmp/million.db] [--out result.json]

Questions go in through `Store.add`. The answers to the first half are written by one statement of SQL, with the same
events and counts that `Store.answer` makes, because a million calls would take hours and are not what is measured.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from assent.feedback.answers import Choice, PairAnswer, answer_to_json
from assent.feedback.questions import PairQuestion
from assent.feedback.store import Store

ANNOTATORS = 8
FILLER = "A response of about the length that people are shown, so that rows are of a natural size. " * 4


def questions(count):
    for i in range(count):
        yield PairQuestion(f"q{i:07}", f"Prompt {i}", (f"{i} one. {FILLER}", f"{i} two. {FILLER}"))


def answer_half(store, count):
    """The first half of the slots, by ANNOTATORS people in turn."""
    sqlite = store.database.sqlite
    half, answer = count // 2, answer_to_json(PairAnswer({"overall": Choice(0)}))
    who = f"'a' || (s.place % {ANNOTATORS})"
    whole = (
        "json_object('answer', json(:answer), 'order', json('[0,1]'), 'seconds', 5.0, 'question', json(q.body))"
        if sqlite
        else "json_build_object('answer', (:answer)::json, 'order', '[0,1]'::json, 'seconds', 5.0, "
        "'question', q.body::json)::text"
    )
    bodies = {"shown": ("'{\"order\": [0, 1]}'", "shown"), "answered": (whole, "done")}
    with store.database.write() as connection:
        for what, (body, once) in bodies.items():
            statement = (
                "INSERT INTO event (what, question_id, batch, token, annotator, once, body, at) "
                f"SELECT '{what}', s.question_id, s.batch, 't' || s.place, {who}, '{once}/t' || s.place, {body}, 0 "
                "FROM slot s JOIN question q ON q.id = s.question_id WHERE s.place <= :half"
            )
            values = {"half": half} | ({"answer": answer} if what == "answered" else {})
            connection.execute(text(statement), values)
        connection.execute(
            text(f"INSERT INTO seen SELECT {who}, s.question_id FROM slot s WHERE s.place <= :half"), {"half": half}
        )
        done = "UPDATE slot SET state = 'done', token = 't' || place WHERE place <= :half"
        connection.execute(text(done), {"half": half})
        for annotator in ("", *(f"a{i}" for i in range(ANNOTATORS))):
            share = half if not annotator else half // ANNOTATORS
            for what, number in (("answered", share), ("answers", share), ("milliseconds", 5000 * share)):
                row = {"annotator": annotator, "what": what, "count": number}
                insert = (
                    "INSERT INTO tally (batch, annotator, what, count) VALUES ('default', :annotator, :what, :count)"
                )
                connection.execute(text(insert), row)


def milliseconds(call, times):
    taken = []
    for i in range(times):
        began = time.perf_counter()
        call(i)
        taken.append(1000 * (time.perf_counter() - began))
    taken.sort()
    return {
        "median": round(statistics.median(taken), 2),
        "p99": round(taken[int(0.99 * (len(taken) - 1))], 2),
        "most": round(taken[-1], 2),
    }


def measure(url, count, times):
    store = Store.open(url, gold_every=0)
    began = time.perf_counter()
    store.add(questions(count))
    added = time.perf_counter() - began
    answer_half(store, count)
    shown = {}

    def ask(i):
        shown[i] = store.next(f"a{i % ANNOTATORS}")

    def reply(i):
        store.answer(shown[i].token, PairAnswer({"overall": Choice(0)}), 5.0, annotator=f"a{i % ANNOTATORS}")

    found = {"next": {}, "answer": {}, "next of a newcomer": {}, "reload": {}, "progress": {}}
    asked, answered = [], []
    for i in range(times):
        asked.append(milliseconds(lambda _, i=i: ask(i), 1)["most"])
        answered.append(milliseconds(lambda _, i=i: reply(i), 1)["most"])
    for name, taken in (("next", sorted(asked)), ("answer", sorted(answered))):
        p99 = taken[int(0.99 * (len(taken) - 1))]
        found[name] = {"median": round(statistics.median(taken), 2), "p99": p99, "most": taken[-1]}
    found["next of a newcomer"] = milliseconds(lambda i: store.next(f"new{i}"), times)
    found["reload"] = milliseconds(lambda i: store.next("new0"), times)
    found["progress"] = milliseconds(lambda i: store.progress(), times)
    progress = store.progress()
    store.close()
    return {"added_seconds": round(added, 1), "questions": progress.questions, "answers": progress.answers, "ms": found}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=300)
    parser.add_argument("--url")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.url or f"sqlite:///{folder}/million.db"
        result = measure(url, given.questions, given.times)
    result |= {
        "store": url.split(":")[0],
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load_1_min": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    line = json.dumps(result, indent=1)
    print(line)
    if given.out:
        given.out.write_text(line + "\n")


if __name__ == "__main__":
    main()
