"""The recipe with people in it, whole, with simulated annotators who answer on the served page.

    python benchmarks/people_in_the_loop.py [--folder runs/people_in_the_loop] [stages.base.data.count=...]

Three annotators of different care (`feedback.annotators.PANEL`) read the prompt and the responses in the HTML that
`assent label` sends them over HTTP, and send a form as a browser would. Between the rounds the recipe is run again as a
person would run it. Prints what was asked and answered, the reward models' figures and the verdict, as a page.
"""

import argparse
import html
import http.client
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from local_servers import free_port

from assent.data import domain
from assent.feedback.annotators import PANEL, SimulatedAnnotator
from assent.feedback.page.security import csrf_token
from assent.feedback.page.visitor import SESSION
from assent.feedback.store import Store

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "people_in_the_loop.yaml"
ASSENT = [sys.executable, "-m", "assent"]
PEOPLE = PANEL[:3]
THE_STAGES = ("reward", "reward_2")


class Annotator(threading.Thread):
    """Ranks what stands on the page until nothing is left to rank."""

    def __init__(self, port: int, who: SimulatedAnnotator) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.who, self.session, self.answered = who, f"secret-of-{who.name}:{who.name}", 0

    def run(self) -> None:
        page = self.ask("GET", "/")
        while claim := re.search(r'name="claim" value="([^"]+)"', page):
            ranks = self.ranks(page)
            form = {"csrf": csrf_token(self.session), "claim": claim[1], "seconds": "9"}
            if 'data-kind="pair"' in page:  # of four samples only two differed
                better = f"{ranks.index(1)}:better" if len(set(ranks)) > 1 else "tie"
                page = self.ask("POST", "/answer", form | {"choice-0": better})
            else:
                page = self.ask("POST", "/answer", form | {f"rank-0-{place}": str(r) for place, r in enumerate(ranks)})
            self.answered += 1

    def ask(self, method: str, path: str, form: dict[str, str] | None = None) -> str:
        headers = {"Cookie": f"{SESSION}={self.session}", "HX-Request": "true"}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        while True:
            self.connection.request(method, path, form and urlencode(form), headers)
            reply = self.connection.getresponse()
            page = reply.read().decode()
            if reply.status == 200:
                return page
            assert reply.status == 429, (reply.status, page[:300])
            time.sleep(0.5)

    def ranks(self, page: str) -> list[int]:
        """The rank of each place, as this annotator reads them."""
        (prompt,) = read(page, r'<section class="card prompt".*?</section>')
        texts = [text for card in read(page, r'<div class="text rendered" dir="auto">.*?</div>') for text in [card]]
        gold = [domain.judge(prompt, text, ended=True).gold for text in texts]
        said = self.who.compare("shown", prompt, texts, gold, rng=random.Random(f"{self.who.name}/{prompt}/{texts}"))
        beaten = [{p.better for p in said.preferences if not p.tie and p.worse == place} for place in range(len(texts))]
        return [1 + len(better) for better in beaten]


def read(page: str, pattern: str) -> list[str]:
    """What a person sees of these parts of a page."""
    found = [re.sub(r"<h2>.*?</h2>", "", part, flags=re.S) for part in re.findall(pattern, page, re.S)]
    parts = [re.sub(r"<br\s*/?>\s*|</p>\s*<p[^>]*>", "\n", part) for part in found]
    return [html.unescape(re.sub(r"<[^>]+>", "", part)).strip() for part in parts]


@contextmanager
def label(folder: Path) -> Iterator[int]:
    """`assent label` on a free port, in a process of its own."""
    port = free_port()
    process = subprocess.Popen([*ASSENT, "label", str(folder), "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None, "the page did not start"
            try:
                http.client.HTTPConnection("127.0.0.1", port, timeout=5).connect()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def one_run(folder: Path, settings: Sequence[str]) -> bool:
    """Run the recipe as far as it goes; whether it waits for people."""
    with (folder / "log.txt").open("a") as log:
        command = [*ASSENT, "run", str(RECIPE), *settings, "--folder", str(folder)]
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    text = (folder / "log.txt").read_text()
    waits = done.returncode != 0 and "waits for people" in text[-4000:]
    assert waits or done.returncode == 0, text[-3000:]
    return waits


def figures(folder: Path, stage: str, name: str) -> Any:
    place = json.loads((folder / "run.json").read_text())["stages"][stage]
    return json.loads((folder / place / name).read_text())


def page(folder: Path, answered: Sequence[dict[str, int]]) -> str:
    store = Store.open(str(folder / "feedback.db"))
    lines = ["| | round 1 | round 2 |", "|---|---|---|"]
    lines.append("| rankings by annotator | " + " | ".join(str(a) for a in answered) + " |")
    batches = [store.progress(batch=b) for b in store.batches()]
    lines.append("| questions, answers | " + " | ".join(f"{p.questions}, {p.answers}" for p in batches) + " |")
    store.close()
    cards = [figures(folder, stage, "card.json") for stage in THE_STAGES]
    for name, of in (
        ("accuracy on held-out votes", lambda c: c["accuracy"]),
        ("two annotators agree", lambda c: (c["ceiling"] or {}).get("agreement") or {"value": None}),
    ):
        cells = []
        for card in cards:
            found = of(card)
            i = found.get("interval")
            cells.append("unknown" if found["value"] is None else f"{found['value']:.3f}")
            cells[-1] += f" [{i['low']:.3f}, {i['high']:.3f}]" if i else ""
        lines.append(f"| {name} | {' | '.join(cells)} |")
    results = figures(folder, "verdict", "results.json")
    lines += ["", "| against SFT, by gold | win | tie | loss | rate |", "|---|---|---|---|---|"]
    for how, w in results["win_rates"].items():
        total = w["win"] + w["tie"] + w["loss"]
        lines.append(f"| {how} | {w['win']} | {w['tie']} | {w['loss']} | {(w['win'] + w['tie'] / 2) / total:.3f} |")
    lines += ["", f"KL to SFT: {results['kl']:.2f} nats.", ""]
    for name, model in results["models"].items():
        lines.append(f"* {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in model.items()))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "people_in_the_loop")
    parser.add_argument("settings", nargs="*", help="overrides of the recipe")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    answered = []
    while one_run(options.folder, options.settings):
        with label(options.folder) as port:
            people = [Annotator(port, who) for who in PEOPLE]
            for person in people:
                person.start()
            for person in people:
                person.join()
        answered.append({person.who.name: person.answered for person in people})
        print(f"answered: {answered[-1]}", flush=True)
    print(page(options.folder, answered))


if __name__ == "__main__":
    main()
