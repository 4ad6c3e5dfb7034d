"""Fifty questions of every kind, by keyboard and by mouse in a real browser: every stored answer is the one meant.

What is meant is drawn first, about the texts themselves: `prefer the response "left 7"`, not `press 1`. The driver
finds on the page where that text stands, and the store must afterwards say the same of the same text.
"""

import random

import pytest

from assent.feedback.answers import (
    Choice,
    DemonstrationAnswer,
    EditAnswer,
    PairAnswer,
    RankingAnswer,
    RatingAnswer,
    Remarks,
    StepsAnswer,
)
from assent.feedback.page.cards import DEGREES
from assent.feedback.questions import (
    HELPFUL_HARMLESS_HONEST,
    DemonstrationQuestion,
    EditQuestion,
    PairQuestion,
    RankingQuestion,
    RatingQuestion,
    StepsQuestion,
)
from assent.records import Rating

pytestmark = pytest.mark.timeout(280)
COUNT = 50
BOTH_BAD = Choice(None, both_bad=True)

STATE = """() => {
  const claim = document.querySelector("#answer [name=claim]");
  const read = (at) => [...document.querySelectorAll(at)].map((e) => e.innerText.trim());
  return {
    claim: claim && claim.value,
    prompt: read(".prompt .text")[0],
    texts: read(".responses .rendered"),
    drafts: Object.keys(sessionStorage).length,
  };
}"""
NEXT = f"""before => {{
  const claim = document.querySelector("#answer [name=claim]");
  const held = claim && claim.form.hasAttribute("data-htmx-powered");
  const ready = held && document.activeElement.matches("#work, #text");
  const done = claim ? claim.value !== before && ready : document.querySelector("#work");
  return done ? ({STATE})() : null;
}}"""
"""The state as soon as it is another and the page is ready for keys; null is the claim where nothing is left. htmx puts
the focus back before it holds the new form, which until then would go out as one without scripts does."""
LOOKS_EVERY_MS = 25
"""Looking at every frame keeps the browser drawing."""
MIDDLES = """selectors => selectors.map((at) => {
  const box = document.querySelector(at).getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})"""
TALL = {"width": 1280, "height": 1400}
"""Nothing has to be scrolled to; mobile width and scrolling are tested in test_browser.py."""


# ---- questions, and what is meant by the answer to each: in terms of the responses as they are stored ----------------


def pair(i, draw):
    question = PairQuestion(f"q{i}", f"Prompt {i}", (f"left {i}", f"right {i}"))
    return question, PairAnswer({"overall": meant_choice(draw)}, remarks=remarks(draw, 2))


def meant_choice(draw):
    choices = [Choice(place, degree) for place in (0, 1) for degree in DEGREES]
    return draw.choice([*choices, Choice(None), BOTH_BAD])


def sides(i, draw):
    texts = (f"left {i}", f"right {i}")
    question = PairQuestion(f"q{i}", f"Prompt {i}", texts, dimensions=HELPFUL_HARMLESS_HONEST)
    return question, PairAnswer({d: meant_choice(draw) for d in HELPFUL_HARMLESS_HONEST}, remarks=remarks(draw, 2))


def ranking(i, draw):
    k = draw.choice((4, 4, 4, 4, 5, 9))
    question = RankingQuestion(f"q{i}", f"Prompt {i}", tuple(f"text {i} {n}" for n in range(k)))
    tiers = [draw.randint(1, k) for _ in range(k)]
    order = sorted(set(tiers))
    return question, RankingAnswer({"overall": tuple(order.index(t) + 1 for t in tiers)}, remarks(draw, k))


def rating(i, draw):
    question = RatingQuestion(f"q{i}", f"Prompt {i}", (f"text {i}",))
    return question, RatingAnswer({"overall": draw.randint(1, 7)}, remarks(draw, 1))


def steps(i, draw):
    count = draw.randint(2, 5)
    question = StepsQuestion(f"q{i}", f"Prompt {i}", tuple(f"step {i} {n}.\n" for n in range(count)))
    marks = [draw.choice((Rating.GOOD, Rating.NEUTRAL)) for _ in range(count)]
    if draw.random() < 0.6:
        bad = draw.randrange(count)
        marks[bad:] = [Rating.BAD] + [None] * (count - bad - 1)
    return question, StepsAnswer(tuple(marks), remarks=remarks(draw, 0))


def edit(i, draw):
    question = EditQuestion(f"q{i}", f"Prompt {i}", (f"text {i}",))
    return question, EditAnswer(written(i, draw), remarks(draw, 1))


def demonstration(i, draw):
    return DemonstrationQuestion(f"q{i}", f"Prompt {i}"), DemonstrationAnswer(written(i, draw), remarks(draw, 0))


def written(i, draw):
    return f"{draw.choice(('yes', '你好', 'naïve', '<b>', 'שלום'))} {i}"


def remarks(draw, places):
    """Something beside the answer for one question in five."""
    unsafe = tuple(n for n in range(places) if draw.random() < 0.5) if draw.random() < 0.2 else ()
    return Remarks(unsafe=unsafe if places else None)


# ---- the drivers ---------------------------------------------------------------------------------------------------


class Keyboard:
    """Enters what was meant; `places[i]` is where on the page the response with the index i stands."""

    def __init__(self, page):
        self.page = page

    def press(self, keys):
        for key in keys:
            self.page.keyboard.press(key)

    def enter(self, answer, places):
        for i in answer.remarks.unsafe or ():
            self.page.locator(f"[name=unsafe-{places[i]}]").focus()
            self.press(["Space", "Escape"])
        if isinstance(answer, (EditAnswer, DemonstrationAnswer)):
            if answer.remarks.unsafe:
                self.page.locator("#text").focus()
            self.press(["Control+a"])
            self.page.keyboard.insert_text(answer.text)
            return self.press(["Control+Enter"])
        return self.press([*self.keys(answer, places), "Enter"])

    def keys(self, answer, places):
        if isinstance(answer, PairAnswer):
            return [self.key(c, places) for c in answer.choices.values()]
        if isinstance(answer, RankingAnswer):
            ranks = answer.ranks["overall"]
            if len(ranks) % 2:  # by the numbers alone, from the first place to the last
                return [str(ranks[places.index(place)]) for place in range(len(ranks))]
            return [key for i, rank in enumerate(ranks) for key in ("abcdefghi"[places[i]], str(rank))]
        if isinstance(answer, RatingAnswer):
            return [str(answer.scores["overall"])]
        return ["123"[list(Rating).index(mark)] for mark in answer.marks if mark is not None]

    def key(self, choice, places):
        if choice.preferred is None:
            return "0" if choice.both_bad else "5"
        by_degree = DEGREES.index(choice.degree)
        return "1234"[by_degree] if places[choice.preferred] == 0 else "9876"[by_degree]


class Mouse:
    """The same by pointing and clicking, where the screen is and not where an element is known to be."""

    def __init__(self, page):
        self.page = page

    def enter(self, answer, places):
        fields = [(f"unsafe-{places[i]}", 1) for i in answer.remarks.unsafe or ()]
        if isinstance(answer, RankingAnswer):
            for i, rank in enumerate(answer.ranks["overall"]):
                self.drag("abcdefghi"[places[i]], rank)
        elif not isinstance(answer, (EditAnswer, DemonstrationAnswer)):
            fields += self.boxes(answer, places)
        boxes = [f'label.choice:has([name="{name}"][value="{value}"])' for name, value in fields]
        written = isinstance(answer, (EditAnswer, DemonstrationAnswer))
        *middles, submit = self.page.evaluate(MIDDLES, [*boxes, *["#text"] * written, "#submit"])
        for middle in middles:
            self.page.mouse.click(*middle)
        if written:
            self.page.keyboard.press("Control+a")
            self.page.keyboard.insert_text(answer.text)
        self.page.mouse.click(*submit)

    def boxes(self, answer, places):
        if isinstance(answer, PairAnswer):
            return [(f"choice-{n}", self.value(c, places)) for n, c in enumerate(answer.choices.values())]
        if isinstance(answer, RatingAnswer):
            return [("rating-0", answer.scores["overall"])]
        return [(f"step-{n}", mark.value) for n, mark in enumerate(answer.marks) if mark is not None]

    def value(self, choice, places):
        if choice.preferred is None:
            return "both_bad" if choice.both_bad else "tie"
        return f"{places[choice.preferred]}:{choice.degree.value}"

    def drag(self, letter, rank):
        ends = [f'.chip[data-letter="{letter}"]', f'.tier[data-rank="{rank}"]']
        chip, tier = self.page.evaluate(MIDDLES, ends)
        self.page.mouse.move(*chip)
        self.page.mouse.down()
        self.page.mouse.move(*tier)
        self.page.mouse.up()


# ---- the test ------------------------------------------------------------------------------------------------------


def as_meant(answered):
    """The stored answer in terms of the responses as they are stored, whatever the order on the page was."""
    answer, order = answered.answer, answered.order
    unsafe = answer.remarks.unsafe
    said = {"remarks": None if unsafe is None else tuple(sorted(order[place] for place in unsafe))}
    if isinstance(answer, PairAnswer):
        turned = {
            name: c if c.preferred is None else Choice(order[c.preferred], c.degree)
            for name, c in answer.choices.items()
        }
        return said | {"choices": turned}
    if isinstance(answer, RankingAnswer):
        return said | {"ranks": tuple(answer.ranks["overall"][order.index(i)] for i in range(len(order)))}
    if isinstance(answer, RatingAnswer):
        return said | {"score": answer.scores["overall"]}
    return said | ({"marks": answer.marks} if isinstance(answer, StepsAnswer) else {"text": answer.text})


def meant(answer):
    said = {"remarks": answer.remarks.unsafe}
    if isinstance(answer, PairAnswer):
        return said | {"choices": dict(answer.choices)}
    if isinstance(answer, RankingAnswer):
        return said | {"ranks": answer.ranks["overall"]}
    if isinstance(answer, RatingAnswer):
        return said | {"score": answer.scores["overall"]}
    return said | ({"marks": answer.marks} if isinstance(answer, StepsAnswer) else {"text": answer.text})


KINDS = (pair, sides, ranking, rating, steps, edit, demonstration)


@pytest.mark.parametrize("device", [Keyboard, Mouse])
@pytest.mark.parametrize("kind", KINDS)
def test_fifty(store, open_page, kind, device):
    draw = random.Random(f"{kind.__name__} {device.__name__}")
    intended = dict(kind(i, draw) for i in range(COUNT))
    by_prompt = {question.prompt: question for question in intended}
    store.add(intended)
    page = open_page("Ann", viewport=TALL, reduced_motion="reduce")
    driver, state = device(page), page.evaluate(STATE)
    for _ in range(COUNT):
        question = by_prompt[state["prompt"]]
        places = [state["texts"].index(text) for text in question.responses] if question.shuffled else [0]
        driver.enter(intended[question], places)
        state = page.wait_for_function(NEXT, arg=state["claim"], polling=LOOKS_EVERY_MS).json_value()
        assert state["drafts"] <= 1, "drafts of answered questions are dropped"
    assert state["claim"] is None, "nothing is left to answer"
    assert {a.question: as_meant(a) for a in store.answers()} == {q: meant(a) for q, a in intended.items()}
    assert all(0 < a.seconds < 60 for a in store.answers())
