"""How long the page takes to load and to bring the next question, over a store of a million answered comparisons.

    python benchmarks/feedback_store.py [--answered 1000000] [--open 100000] [--url sqlite:////tmp/million.db]

Without `--url` SQLite is measured in a temporary folder, and PostgreSQL on a private server where its programs are
installed. Questions go in through `Store.add`. The answers are written by one statement of SQL a table, with the same
events, counts and places that `Store.next` and `Store.answer` leave, because a million calls would take an hour and are
not what is measured. What is measured goes through the served page over HTTP, or through the store's own methods.
Writes `benchmarks/results/feedback_store.{md,json}`.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from local_servers import Absent, postgresql, served
from sqlalchemy import text

from assent.feedback.answers import Choice, PairAnswer, answer_to_json
from assent.feedback.page.app import create_app
from assent.feedback.page.security import Pace
from assent.feedback.questions import PairQuestion
from assent.feedback.store import Store

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "feedback_store"
ANNOTATORS, GOLD = 8, 200
FILLER = "A response of about the length that people are shown, so that rows are of a natural size. " * 4
LIMIT_MS = 50.0
ADMIN = "key"
COMMIT = ("git", "rev-parse", "--short", "HEAD")
Timings = dict[str, list[float]]


# ---- filling -------------------------------------------------------------------------------------------------------


def questions(start: int, count: int, name: str = "q") -> Iterator[PairQuestion]:
    for i in range(start, start + count):
        yield PairQuestion(f"{name}{i:07}", f"Prompt {i}", (f"{i} one. {FILLER}", f"{i} two. {FILLER}"))


def fill(store: Store, answered: int, more: int) -> dict[str, float]:
    """Seconds to add the questions, and to write the answers."""
    began = time.perf_counter()
    gold = list(questions(0, GOLD, "gold"))
    store.add(gold, gold={q.id: PairAnswer({"overall": Choice(0)}) for q in gold})
    store.add(questions(0, answered + more))
    added = time.perf_counter()
    answer_first(store, answered)
    with store.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return {"add": added - began, "answers": time.perf_counter() - added}


def answer_first(store: Store, count: int) -> None:
    """Answers to the first open slots, by ANNOTATORS people in turn; each stands at the last slot that was theirs."""
    sqlite, answer = store.database.sqlite, answer_to_json(PairAnswer({"overall": Choice(0)}))
    who = f"'a' || (s.place % {ANNOTATORS})"
    made = "json_object" if sqlite else "json_build_object"
    as_json = "json({})" if sqlite else "({})::json"
    parts = {"answer": "cast(:answer as text)", "order": "'[0, 1]'", "question": "q.body"}
    fields = ", ".join(f"'{name}', {as_json.format(value)}" for name, value in parts.items())
    whole = f"cast({made}({fields}, 'seconds', 5.0) as text)"
    mine = "FROM slot s JOIN question q ON q.id = s.question_id WHERE s.state = 'open' AND s.place <= :last"
    bodies = {"shown": ("'{\"order\": [0, 1]}'", "shown"), "answered": (whole, "done")}
    values = {"last": GOLD + count}
    with store.database.write() as connection:
        for what, (body, once) in bodies.items():
            statement = (
                "INSERT INTO event (what, question_id, batch, token, annotator, once, body, at) "
                f"SELECT '{what}', s.question_id, s.batch, 't' || s.place, {who}, '{once}/t' || s.place, {body}, 0 "
                f"{mine} ORDER BY s.place"
            )
            connection.execute(text(statement), values | ({"answer": answer} if what == "answered" else {}))
        connection.execute(text(f"INSERT INTO seen SELECT {who}, s.question_id {mine}"), values)
        for name in range(ANNOTATORS):
            row = {"name": f"a{name}", "last": GOLD + count, "shown": count // ANNOTATORS}
            connection.execute(text("INSERT INTO reader VALUES (:name, :last, '', :shown)"), row)
        done = "UPDATE slot SET state = 'done', token = 't' || place WHERE state = 'open' AND place <= :last"
        connection.execute(text(done), values)
        for annotator in ("", *(f"a{i}" for i in range(ANNOTATORS))):
            share = count if not annotator else count // ANNOTATORS
            for what, number in (("answered", share), ("answers", share), ("milliseconds", 5000 * share)):
                row = {"annotator": annotator, "what": what, "count": number}
                connection.execute(text("INSERT INTO tally VALUES ('default', :annotator, :what, :count)"), row)


# ---- measuring -----------------------------------------------------------------------------------------------------


class Browser:
    """One connection that is kept, and its cookies."""

    def __init__(self, address: str) -> None:
        self.connection = http.client.HTTPConnection(address.removeprefix("http://"))
        self.cookies: dict[str, str] = {}
        self.page = ""

    def _send(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> http.client.HTTPResponse:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = headers | {"Cookie": cookies}
        try:
            self.connection.request(method, path, body, headers)
            reply = self.connection.getresponse()
        except http.client.RemoteDisconnected:  # it was left alone for longer than the server keeps it
            self.connection.request(method, path, body, headers)
            reply = self.connection.getresponse()
        self.page = reply.read().decode()
        for name, value in reply.getheaders():
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.split(";")[0]
        return reply

    def get(self, path: str) -> None:
        reply = self._send("GET", path, None, {})
        assert reply.status in (200, 303), (path, reply.status, self.page[:200])

    def post(self, path: str, **fields: str) -> None:
        found = dict(re.findall(r'name="(csrf|claim)" value="([^"]*)"', self.page))
        headers = {"Content-Type": "application/x-www-form-urlencoded", "HX-Request": "true"}
        reply = self._send("POST", path, urlencode(found | fields), headers)
        assert reply.status in (200, 303), (path, reply.status, self.page[:200])


def visitor(address: str, name: str) -> Browser:
    browser = Browser(address)
    browser.get("/")
    browser.post("/sign-in", name=name)
    return browser


def take(timings: Timings, what: str, call: Callable[[], object]) -> object:
    began = time.perf_counter()
    value = call()
    timings.setdefault(what, []).append(1000 * (time.perf_counter() - began))
    return value


def one_turn(store: Store, timings: Timings, i: int) -> None:
    name, answer = f"a{i % ANNOTATORS}", PairAnswer({"overall": Choice(0)})
    shown = take(timings, "choose the next question", lambda: store.next(name))
    take(timings, "record an answer", lambda: store.answer(shown.token, answer, 5.0, annotator=name))
    if i % 3 == 0:
        take(timings, "take it back", lambda: store.undo(name))
    if i % 5 == 0:
        before = store.next(name)
        take(timings, "skip", lambda: store.skip(before.token, annotator=name))


def measure_store(store: Store, times: int) -> Timings:
    timings: Timings = {}
    for i in range(times):
        one_turn(store, timings, i)
    for i in range(times):
        take(timings, "choose a newcomer's first question", lambda i=i: store.next(f"new {i}"))
    return timings


def measure_page(address: str, times: int) -> Timings:
    timings: Timings = {}
    browsers = [visitor(address, f"a{i}") for i in range(ANNOTATORS)]
    for browser in itertools.islice(itertools.cycle(browsers), times):
        take(timings, "load the page", partial(browser.get, "/"))
        send = partial(browser.post, "/answer", **{"choice-0": "0:better", "seconds": "5"})
        take(timings, "send an answer, get the next question", send)
        assert 'data-kind="pair"' in browser.page
    for browser in browsers:
        browser.get(f"/admin?token={ADMIN}")
    for browser in itertools.islice(itertools.cycle(browsers), times):
        take(timings, "load `My answers`", partial(browser.get, "/mine"))
        take(timings, "load the admin page", partial(browser.get, "/admin"))
        take(timings, "load one annotator's answers there", partial(browser.get, "/admin?annotator=a1"))
    return timings


def percentiles(timings: Timings) -> dict[str, dict[str, float]]:
    return {
        what: {"p50": float(np.percentile(t, 50)), "p95": float(np.percentile(t, 95)), "most": max(t), "times": len(t)}
        for what, t in timings.items()
    }


def measure(url: str, options: argparse.Namespace) -> dict[str, object]:
    store = Store.open(url)
    seconds = fill(store, options.answered, options.open)
    print(f"{url.split(':')[0]}: filled in {seconds}", flush=True)
    timings = measure_store(store, options.times)
    app = create_app(store, admin_token=ADMIN, pace=Pace(1e9, 1e9))
    with served(app) as address:
        timings |= measure_page(address, options.times)
    progress = store.progress()
    size = Path(url.removeprefix("sqlite:///")).stat().st_size if store.database.sqlite else None
    store.close()
    return {
        "questions": progress.questions,
        "answers": progress.answers,
        "filled_seconds": seconds,
        "bytes": size,
        "ms": percentiles(timings),
    }


# ---- telling -------------------------------------------------------------------------------------------------------


def table(result: dict[str, dict]) -> str:
    lines = []
    for name, found in result["stores"].items():
        filled = found["filled_seconds"]
        lines += [
            f"## {name}",
            "",
            f"{found['answers']:,} answers to {found['questions']:,} questions. Filled in {filled['add']:.0f} s "
            f"(questions, through `Store.add`) and {filled['answers']:.0f} s (answers, in SQL)"
            + (f"; the file has {found['bytes'] / 1e9:.1f} GB." if found["bytes"] else "."),
            "",
            "| what | p50 ms | p95 ms | most ms | times |",
            "|---|---|---|---|---|",
        ]
        for what, t in found["ms"].items():
            lines.append(f"| {what} | {t['p50']:.1f} | {t['p95']:.1f} | {t['most']:.1f} | {t['times']} |")
        lines.append("")
    return "\n".join(lines)


def page(result: dict) -> str:
    worst = max(t["p95"] for found in result["stores"].values() for t in found["ms"].values())
    held = "held" if worst < LIMIT_MS else "NOT HELD"
    return (
        "# A store of a million comparisons\n\n"
        f"`python benchmarks/feedback_store.py` at {result['commit']}, {result['date']}, {result['machine']}, Python "
        f"{result['python']}, niceness {result['nice']}, load {result['load_1_min']} at the end. "
        f"The limit is {LIMIT_MS:.0f} ms for a page "
        f"and for the next question: {held}, the worst p95 is {worst:.1f} ms. Pages are fetched over HTTP from the "
        f"served page, by {ANNOTATORS} annotators in turn; an answer is on the disk (`fsync`) before it is "
        f"acknowledged. One question in 20 is a gold one, of {GOLD}.\n\n" + table(result)
    )


@contextlib.contextmanager
def stores(url: str | None) -> Iterator[dict[str, str]]:
    if url:
        yield {url.split(":")[0]: url}
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        found = {"SQLite": f"sqlite:///{folder}/million.db"}
        try:
            found["PostgreSQL"] = stack.enter_context(postgresql())
        except Absent as absent:
            print(absent)
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answered", type=int, default=1_000_000)
    parser.add_argument("--open", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=400)
    parser.add_argument("--url")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with stores(options.url) as found:
        measured = {name: measure(url, options) for name, url in found.items()}
    result = {
        "stores": measured,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load_1_min": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "commit": subprocess.run(COMMIT, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip(),
        "nice": os.nice(0),
    }
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(page(result), encoding="utf-8")
    print(page(result))


if __name__ == "__main__":
    main()
