"""kill -9 of `assent label` itself, again and again, while many people send answers: none lost, none twice."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest
from benchmarks.local_servers import free_port

from assent.feedback.page.security import csrf_token
from assent.feedback.page.visitor import SESSION
from assent.feedback.page.wording import Words
from assent.feedback.questions import PairQuestion
from assent.feedback.store import Store

SUBMISSIONS = 1000
PEOPLE, KILLS, TWICE = 100, 3, 7
GONE = (OSError, http.client.HTTPException)
"""What a client sees of a server that was killed: nothing listens, the connection is cut, or the reply is."""

pytestmark = pytest.mark.timeout(600)


class Person(threading.Thread):
    """Answers until nothing is left, over one connection from an address of their own, which has a pace of its own.

    A hundred of them have as many submissions on their way at once. Every answer carries a comment that no other has.
    One that got no reply is sent again as it was, however often; now and then one that did is sent again all the same,
    as by a browser whose reply was lost on the way.
    """

    def __init__(self, port, number, until):
        super().__init__(daemon=True)
        self.port, self.number, self.until = port, number, until
        self.session = f"secret-{number}:person {number}"
        self.acknowledged, self.sent_again, self.failure = {}, 0, None
        self.connection = None

    def run(self):
        try:
            self.answer_all()
        except Exception as error:
            self.failure = error

    def answer_all(self):
        page = self.ask("GET", "/")
        while claim := re.search(r'name="claim" value="([^"]+)"', page):
            comment = f"{self.number}/{len(self.acknowledged)}"
            form = {"csrf": csrf_token(self.session), "claim": claim[1], "seconds": "2", "comment": comment}
            page = self.ask("POST", "/answer", form | {"choice-0": "0:better"})
            for message in ("answered_before", "form_expired", "incomplete"):
                assert Words("en")(message) not in page, f"{message}: {comment}"
            self.acknowledged[claim[1]] = comment
            if len(self.acknowledged) % TWICE == 0:
                page = self.ask("POST", "/answer", form | {"choice-0": "0:better"})

    def ask(self, method, path, form=None):
        """The page that comes back in the end."""
        tries = 0
        while time.monotonic() < self.until:
            try:
                status, page = self.once(method, path, form)
            except GONE:
                self.connection, tries = None, tries + 1
                time.sleep(0.2)  # a hundred who ask more often take the processor from the server that starts
                continue
            if status != 429:  # too many at once: wait and send it again, as it says
                assert status == 200, (status, page[:300])
                self.sent_again += method == "POST" and tries > 0
                return page
            time.sleep(0.1)
        raise TimeoutError(f"no reply to {method} {path}")

    def once(self, method, path, form):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=60, source_address=(f"127.0.1.{1 + self.number}", 0)
            )
        headers = {"Cookie": f"{SESSION}={self.session}", "HX-Request": "true"}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        self.connection.request(method, path, form and urlencode(form), headers)
        reply = self.connection.getresponse()
        return reply.status, reply.read().decode()


@contextmanager
def label(url, port):
    """The real server in a process of its own; killed with -9 when the block ends."""
    command = [sys.executable, "-m", "assent", "label", url, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 90
        while not answers(port):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.05)
        yield
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


def answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/static/page.css")
        return connection.getresponse().status == 200
    except GONE:
        return False
    finally:
        connection.close()


def test_kill_9_of_the_server_loses_no_acknowledged_answer_and_records_none_twice(url):
    store = Store.open(url, gold_every=0)
    store.add(PairQuestion(f"q{i}", f"Prompt {i}", (f"left {i}", f"right {i}")) for i in range(SUBMISSIONS))
    port = free_port()
    people = [Person(port, i, time.monotonic() + 500) for i in range(PEOPLE)]
    [p.start() for p in people]
    killed = 0
    while any(p.is_alive() for p in people):
        enough = (killed + 1) * SUBMISSIONS // (KILLS + 1) if killed < KILLS else SUBMISSIONS + 1
        with label(url, port):
            while any(p.is_alive() for p in people) and sum(len(p.acknowledged) for p in people) < enough:
                time.sleep(0.01)
            killed += any(p.is_alive() for p in people)
    assert [p.failure for p in people if p.failure] == []
    assert killed == KILLS and sum(p.sent_again for p in people) > 0, "no answer was on its way when the server died"

    acknowledged = {claim: comment for p in people for claim, comment in p.acknowledged.items()}
    kept = {a.token: a.answer.remarks.comment for a in store.answers()}
    assert kept == acknowledged, "an answer was lost, or is there that nobody was told of"
    answered = [e.token for e in store.events() if e.what == "answered"]
    assert len(answered) == len(set(answered)) == len(acknowledged)
    progress = store.progress()
    asked = {a.question.id for a in store.answers()}
    assert len(asked) == progress.answers == progress.answered == progress.wanted == SUBMISSIONS
    store.close()
