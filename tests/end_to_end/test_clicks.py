"""What is clicked = what is exported = what the reward model trains on: from a browser to the loss."""

import random
import re
import shutil

import pytest
from benchmarks.local_servers import served

from assent.algorithms.reward_model import RewardModel
from assent.data.splits import hold_out
from assent.feedback.exchange import bring_in, export
from assent.feedback.into_records import comparisons
from assent.feedback.page.app import create_app
from assent.feedback.page.security import Pace
from assent.feedback.store import Store
from assent.models.folders import load_causal
from assent.records import Degree
from assent.stages.asking import AwaitingPeople
from assent.stages.parts import HELD_OUT_SEED
from assent.stages.reward_algorithms import MARGINS
from tests.end_to_end.test_people import PEOPLE
from tests.end_to_end.tiny import run_tiny

pytestmark = pytest.mark.timeout(290)
KEYS = {"1": Degree.SIGNIFICANTLY, "2": Degree.BETTER, "3": Degree.SLIGHTLY, "4": Degree.NEGLIGIBLY}
KEYS |= {str(10 - int(key)): degree for key, degree in KEYS.items()}
"""1 to 4: the left one, from significantly to negligibly; 9 to 6: the right one; 5 is a tie, 0 both bad."""
HELD = 0.2
MARGIN = {"pairs": "large", "ranking": "none"}
"""A ranking says no degrees, and a margin by them is refused."""


class Annotator:
    """Reads what is on the screen, presses keys, and notes what that means in texts alone."""

    def __init__(self, page, rng):
        self.page, self.rng = page, rng
        self.meant, self.ties, self.pressed = {}, set(), set()

    def work(self):
        while self.page.query_selector("#answer") is not None:
            prompt = plain(self.page.inner_text(".prompt .text"))
            texts = [plain(card.inner_text()) for card in self.page.query_selector_all("#responses .text.rendered")]
            pair = self.page.get_attribute("#work", "data-kind") == "pair"
            self.choose(prompt, texts) if pair else self.rank(prompt, texts)
            before = self.page.input_value("#answer [name=claim]")
            self.page.keyboard.press("Enter")
            gone = "c => { const f = document.querySelector('#answer [name=claim]'); return !f || f.value !== c }"
            self.page.wait_for_function(gone, arg=before)

    def choose(self, prompt, texts):
        key = self.rng.choice("1234567890")
        self.page.keyboard.press(key)
        self.pressed.add(key)
        left, right = texts
        if key in "50":
            self.ties.add((prompt, frozenset(texts)))
        else:
            better, worse = (left, right) if key in "1234" else (right, left)
            self.meant[prompt, better, worse] = KEYS[key]

    def rank(self, prompt, texts):
        tiers = [self.rng.randint(1, len(texts)) for _ in texts]
        for tier in tiers:
            self.page.keyboard.press(str(tier))
        self.pressed.add("ranking")
        for i, a in enumerate(texts):
            for j, b in enumerate(texts):
                if tiers[i] < tiers[j]:
                    self.meant[prompt, a, b] = Degree.UNSTATED
                elif i < j and tiers[i] == tiers[j]:
                    self.ties.add((prompt, frozenset((a, b))))


def plain(text):
    """Letters alone: the page makes control characters visible, and Markdown eats its own."""
    return "".join(re.findall(r"[A-Za-z]+", re.sub(r"\[U\+[0-9A-F]+\]", "", text)))


def sides(comparisons):
    """Ordered pairs with their degree, and ties, in texts alone."""
    meant, ties = {}, set()
    for c in comparisons:
        for p in c.preferences:
            better, worse = plain(c.responses[p.better]), plain(c.responses[p.worse])
            if p.tie:
                ties.add((plain(c.prompt), frozenset((better, worse))))
            else:
                meant[plain(c.prompt), better, worse] = p.degree
    return meant, ties


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clicks") / "trained"
    run_tiny(folder, until="sft", text=PEOPLE)
    return folder


def clicked_by(browser, store, seed, kind=Annotator):
    app = create_app(store, hosts=frozenset({"127.0.0.1"}), pace=Pace(1e6, 1e6))
    with served(app) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.fill("#name", "Ann")
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer")
        annotator = kind(page, random.Random(seed))
        annotator.work()
        context.close()
    return annotator


@pytest.mark.parametrize("ask", ["pairs", "ranking"])
def test_what_is_clicked_is_exported_and_reaches_the_loss(ask, chromium, trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained, tmp_path / "run")
    text = PEOPLE.replace("{panel: simulated}", f"{{people: {{ask: {ask}}}}}")
    text = text.replace("count: 12}\n    samples", "count: 24}\n    samples")
    text = text.replace("held_out: 0.2", f"held_out: {HELD}\n    margin: {MARGIN[ask]}")
    with pytest.raises(AwaitingPeople):
        run_tiny(folder, text=text)
    store = Store.open(f"{folder}/feedback.db", gold_every=0)
    annotator = clicked_by(chromium, store, seed=7)
    assert len(annotator.meant) > 12 and annotator.ties, "nothing to compare"
    assert ask == "ranking" or ({"5", "0"} & annotator.pressed and len(annotator.pressed) > 6)

    written = export(store.answers(), "assent")
    again = Store.open(f"{tmp_path}/again.db")
    bring_in(again, written.text, "assent", batch="back")
    reloaded = [c for a in again.answers() for c in comparisons(a)]
    pairs, ties = sides(reloaded)
    assert dict(annotator.meant.items() ^ pairs.items()) == {}, "exported and reloaded is what was clicked"
    assert annotator.ties ^ ties == set()
    shown = {a.question.id: a.order for a in store.answers()}
    assert shown == {a.question.id: a.order for a in again.answers()}
    assert {order for order in shown.values() if len(order) == 2} >= {(0, 1), (1, 0)} or ask == "ranking"

    batches, loss = [], RewardModel.loss

    def noted(self, batch, forward):
        batches.append(batch)
        return loss(self, batch, forward)

    monkeypatch.setattr(RewardModel, "loss", noted)
    made, _ = run_tiny(folder, text=text)
    training, _ = hold_out(reloaded, HELD, HELD_OUT_SEED)
    expected, _ = sides(training)
    tokenizer = load_causal(made["sft"].folder / "model").tokenizer
    assert reached(batches, tokenizer) == {pair: MARGINS[MARGIN[ask]].get(d, 0.0) for pair, d in expected.items()}
    again.close()
    store.close()


def reached(batches, tokenizer):
    """Prompt, better and worse text to margin, of every pair that a loss was given."""
    found = {}
    for batch in batches:
        rows = [texts_of(row, *parts, tokenizer) for row, *parts in rows_of(batch.sequences)]
        for better, worse, margin in zip(batch.better_P, batch.worse_P, batch.margin_P, strict=True):
            assert rows[better][0] == rows[worse][0], "a pair is of one prompt"
            found[rows[better][0], rows[better][1], rows[worse][1]] = float(margin)
    return found


def rows_of(sequences):
    lengths = zip(sequences.prompt_lengths_B.tolist(), sequences.response_lengths_B.tolist(), strict=True)
    return [(row, *pair) for row, pair in zip(sequences.token_ids_BL.tolist(), lengths, strict=True)]


def texts_of(row, prompt, response, tokenizer):
    parts = row[:prompt], row[prompt : prompt + response]
    return tuple(plain(tokenizer.decode(ids, skip_special_tokens=True)) for ids in parts)
