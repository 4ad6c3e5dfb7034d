"""The recipe with people in it, whole, with simulated annotators who work in a browser.

    python benchmarks/people_in_the_loop.py [--folder runs/people_in_the_loop] [stages.base.data.count=...]

Three annotators of different care (`feedback.annotators.PANEL`) sit before Debian's Chromium at once, each in a
session of their own, on the page that `assent label` serves from a process of its own: they sign in by name, read
the prompt and the responses off the screen, judge those in the order in which they stand, and press keys. Between
the rounds the recipe is run again as a person would run it; where it is held because the reward model may be guessing,
with as many more questions as it asks for. Prints what was asked and answered, how long it took, the reward models'
figures and the verdicts, as a page.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from local_servers import free_port

from assent.data import domain
from assent.feedback.annotators import PANEL, SimulatedAnnotator
from assent.feedback.store import Store
from assent.records import Comparison, Degree, PromptText

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "people_in_the_loop.yaml"
ASSENT = [sys.executable, "-m", "assent"]
CHROMIUM = os.environ.get("ASSENT_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]
PEOPLE = PANEL[:3]
DEGREES = (Degree.SIGNIFICANTLY, Degree.BETTER, Degree.SLIGHTLY, Degree.NEGLIGIBLY)
NEXT_ONE = "c => { const f = document.querySelector('#answer [name=claim]'); return !f || f.value !== c }"
ROUNDS = ("comparisons", "comparisons_2")
REWARDS = ("reward", "reward_2")
VERDICTS = {"first_verdict": "round 1", "verdict": "round 2"}
WAITS = re.compile(r"(\w+) waits for people")
MORE = re.compile(r"stages\.\w+\.tasks\.count=\d+$", re.MULTILINE)
"""The end of the line that a run which is held gives to be typed."""


@dataclass
class Annotator:
    """One tab of the browser and who sits before it.

    Args:
        page: Playwright's, signed in.
        who: reads and judges.
        rng: what `who` draws noise from.
    """

    page: Any
    who: SimulatedAnnotator
    rng: random.Random
    read: dict[str, list[float]] = field(default_factory=dict)

    def answer_one(self) -> bool:
        """Answer what stands on the screen; False where nothing is asked."""
        if self.page.query_selector("#answer") is None:
            return False
        prompt = self.page.inner_text(".prompt .text")
        texts = [card.inner_text() for card in self.page.query_selector_all("#responses .text.rendered")]
        scores = scores_of(prompt, texts)
        said = self.who.compare("shown", prompt, texts, scores, rng=self.rng, shown=range(len(texts)))
        pair = self.page.get_attribute("#work", "data-kind") == "pair"  # of four samples only two differed
        for key in pair_key(said) if pair else ranking_keys(said):
            self.page.keyboard.press(key)
        claim = self.page.input_value("#answer [name=claim]")
        self.page.keyboard.press("Enter")
        self.page.wait_for_function(NEXT_ONE, arg=claim)
        self.read[claim] = scores
        return True


def scores_of(prompt: PromptText, responses: Sequence[str]) -> list[float]:
    """Judged as if each had ended by itself: nobody sees on the page where one was cut."""
    return [domain.judge(prompt, text, ended=True).gold for text in responses]


def pair_key(said: Comparison) -> str:
    """1 to 4: the left one, from significantly to negligibly; 9 to 6: the right one; 5 a tie."""
    (one,) = said.preferences
    if one.tie:
        return "5"
    key = 1 + DEGREES.index(one.degree)
    return str(key if one.better == 0 else 10 - key)


def ranking_keys(said: Comparison) -> str:
    """The tier of each response, from left to right."""
    beaten = [sum(p.worse == place and not p.tie for p in said.preferences) for place in range(len(said.responses))]
    return "".join(str(1 + better) for better in beaten)


@dataclass(frozen=True)
class Sitting:
    """Labelling until nothing is left.

    Args:
        stage: which asked.
        answered: how many answers each annotator gave.
        read: the judged scores of what stood on the screen, by the claim that was answered.
        seconds: from the first sign-in to the last answer.
    """

    stage: str
    answered: dict[str, int]
    read: dict[str, list[float]]
    seconds: float


def sit(folder: Path, stage: str, number: int) -> Sitting:
    """All annotators answer until nothing is left; they take turns, and each has a question open all the time."""
    from playwright.sync_api import sync_playwright

    with ExitStack() as stack:
        port = stack.enter_context(label(folder))
        driver = stack.enter_context(sync_playwright())
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        stack.callback(browser.close)
        began = time.monotonic()
        people = []
        for who in PEOPLE:
            page = browser.new_context().new_page()
            page.goto(f"http://127.0.0.1:{port}")
            page.fill("#name", who.name)
            page.keyboard.press("Enter")
            page.wait_for_function("() => document.readyState === 'complete' && document.querySelector('#work')")
            people.append(Annotator(page, who, random.Random(f"{who.name}/{number}")))
        while sum([person.answer_one() for person in people]):
            pass
        answered = {person.who.name: len(person.read) for person in people}
        read = {c: s for person in people for c, s in person.read.items()}
        return Sitting(stage, answered, read, time.monotonic() - began)


@contextmanager
def label(folder: Path) -> Iterator[int]:
    """`assent label` on a free port, in a process of its own."""
    port = free_port()
    process = subprocess.Popen([*ASSENT, "label", str(folder), "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None, "the page did not start"
            try:
                HTTPConnection("127.0.0.1", port, timeout=5).connect()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def one_run(folder: Path, settings: Sequence[str]) -> re.Match[str] | None:
    """Run the recipe as far as it goes: where it waits for people or is held, what it says of that."""
    with (folder / "log.txt").open("a") as log:
        begin = log.tell()
        command = [*ASSENT, "run", str(RECIPE), *settings, "--folder", str(folder)]
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode == 0:
        return None
    text = (folder / "log.txt").read_bytes()[begin:].decode()
    stops = WAITS.search(text) or MORE.search(text)
    assert stops, text[-3000:]
    return stops


def figures(folder: Path, stage: str, name: str) -> Any:
    place = json.loads((folder / "run.json").read_text())["stages"][stage]
    return json.loads((folder / place / name).read_text())


def with_interval(found: dict[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "unknown"
    i = found.get("interval")
    return f"{found['value']:.3f}" + (f" [{i['low']:.3f}, {i['high']:.3f}]" if i else "")


def misread(store: Store, sittings: Sequence[Sitting]) -> int:
    """Answers given to texts that judge unlike those in the store: 0, or the screen is not what was asked."""
    read = {claim: scores for sitting in sittings for claim, scores in sitting.read.items()}
    wrong = 0
    for a in store.answers():
        wrong += read[a.token] != scores_of(a.question.prompt, [a.question.responses[i] for i in a.order])
    return wrong


def labels_table(store: Store, sittings: Sequence[Sitting], cards: Sequence[dict[str, Any]]) -> list[str]:
    asked = [[store.progress(batch=b) for b in store.batches() if b.rpartition("-")[0] == stage] for stage in ROUNDS]
    sat = [[s for s in sittings if s.stage == stage] for stage in ROUNDS]
    seconds, answers = ([sum(s.seconds for s in r) for r in sat], [sum(len(s.read) for s in r) for r in sat])
    rows = {
        "questions": [" + ".join(str(b.questions) for b in batches) for batches in asked],
        "answers": [" + ".join(str(b.answers) for b in batches) for batches in asked],
        "by annotator": ["; ".join(", ".join(f"{n} {k}" for n, k in s.answered.items()) for s in r) for r in sat],
        "seconds, three annotators in one browser": [f"{s:.0f}" for s in seconds],
        "seconds an answer": [f"{s / n:.2f}" for s, n in zip(seconds, answers, strict=True)],
        "held-out prompts, pairs": [f"{c['accuracy']['clusters']}, {c['accuracy']['items']}" for c in cards],
        "accuracy of the reward model on them": [with_interval(c["accuracy"]) for c in cards],
        "two annotators agree": [with_interval((c["ceiling"] or {}).get("agreement")) for c in cards],
    }
    lines = ["| | round 1 | round 2 |", "|---|---|---|"]
    return lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]


def verdict_table(folder: Path) -> list[str]:
    lines = ["| policy of | drawn | win | tie | loss | rate | KL, nats |", "|---|---|---|---|---|---|---|"]
    for stage, which in VERDICTS.items():
        results = figures(folder, stage, "results.json")
        for how in ("sampled", "greedy"):
            w = results["win_rates"][how]
            rate = {"value": (w["win"] + w["tie"] / 2) / w["prompts"], "interval": w["interval"]}
            cells = (which, how, w["win"], w["tie"], w["loss"], with_interval(rate), f"{results['kl']:.2f}")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def page(folder: Path, sittings: Sequence[Sitting]) -> str:
    store = Store.open(str(folder / "feedback.db"))
    lines = labels_table(store, sittings, [figures(folder, stage, "card.json") for stage in REWARDS])
    lines += ["", f"Answers to texts read wrongly off the screen: {misread(store, sittings)}.", ""]
    store.close()
    lines += ["Against SFT, by gold, on prompts that neither saw:", "", *verdict_table(folder), ""]
    for stage, which in VERDICTS.items():
        for how, said in figures(folder, stage, "results.json")["verdicts"].items():
            lines.append(f"* {which}, {how}: {said['text']}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "people_in_the_loop")
    parser.add_argument("settings", nargs="*", help="overrides of the recipe")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    sittings: list[Sitting] = []
    began = time.monotonic()
    settings = list(options.settings)
    while (stops := one_run(options.folder, settings)) is not None:
        if stops.re is MORE:
            settings.append(stops[0])
            print(f"held, since the reward model may be guessing; on with {stops[0]}", flush=True)
            continue
        sittings.append(sit(options.folder, stops[1], len(sittings)))
        print(f"answered: {sittings[-1].answered} in {sittings[-1].seconds:.0f} s", flush=True)
    print(page(options.folder, sittings))
    print(f"\nWhole: {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
