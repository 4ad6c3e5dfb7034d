"""Sums of the embedded domain: what is marked right is right, and every planted slip is found where it stands."""

import random
import re
from collections import Counter

import pytest

from assent.data.domain import arithmetic
from assent.data.domain.arithmetic import Chain, Pen, mark, right, write
from assent.errors import DataError
from assent.records import Rating

G, N, B = Rating.GOOD, Rating.NEUTRAL, Rating.BAD
CHAIN = Chain(37, (8, -5, 6))
PROMPT = "Sum: 37+8-5+6\n"


def of(text, ended=True):
    return mark(PROMPT, text, ended=ended)


def test_right_solutions_are_marked_right():
    for task in arithmetic.tasks(200, seed=3):
        solved = mark(task.prompt, right(arithmetic.read_prompt(task.prompt)), ended=True)
        assert solved.all_right and set(solved.ratings) == {G}
        assert (
            str(eval(re.sub(r"^Sum: ", "", task.prompt))) == task.answer
        )  # the prompt is a sum, and this is its value


@pytest.mark.parametrize(
    ("text", "ratings", "answer"),
    [
        ("37+8=45\n45-5=40\n40+6=46\nAnswer: 46", (G, G, G, G), True),
        ("37+8=35\n35-5=30\n30+6=36\nAnswer: 36", (B, G, G, G), False),
        ("37+8=45\n45-5=40\n40+6=47\nAnswer: 46", (G, G, B, B), True),
        ("37+8=45\n45+0=45\n45-5=40\n40+6=46\nAnswer: 46", (G, N, G, G, G), True),
        ("37+8=45\n45+0=46\n46-5=41\n41+6=47\nAnswer: 47", (G, B, G, G, G), False),
        ("37+8=45\n45+6=51\nAnswer: 51", (G, B, G), False),
        ("37+8=45\n45-5=40\nAnswer: 40", (G, G, B), False),
        ("37+8=45\n\n45-5=40\n40+6=46\nAnswer: 46", (G, G, G, G), True),
        ("37+8=45\n44-5=39\n39+6=45\nAnswer: 45", (G, B, G, G), False),
        ("37+8=45\n45-5=40\n40+6=46", (G, G, B), False),
        ("37+8=45\n45-5=40\n40+6=46\nAnswer: 46\nAnswer: 46", (G, G, G, G, B), True),
        ("Answer: 46", (B,), True),
        ("what?", (B,), False),
        ("", (), False),
    ],
)
def test_every_line_is_judged_by_the_line_before_it(text, ratings, answer):
    assert of(text) == arithmetic.Marked(ratings, answer)


def test_a_solution_that_was_cut_off_is_not_right():
    cut = of("37+8=45\n45-5=40\n40+6=46\nAnswer: 46", ended=False)
    assert cut.ratings == (G, G, G, B) and not cut.answer_right


def test_lucky_answers_are_right_and_their_steps_are_not():
    lucky = of("37+8=46\n46-5=40\n40+6=46\nAnswer: 46")
    assert lucky.answer_right and not lucky.all_right


def test_slips_are_as_frequent_as_the_pen_says():
    """A ten is carried or borrowed in a share of the steps that is counted here by other means."""
    rng = random.Random(0)
    chains = [arithmetic.draw(rng, "train") for _ in range(1500)]
    crossing = bad = 0
    for chain in chains:
        marked = mark(chain.prompt, write(chain, Pen(carry=0.5, miss=0, skip=0, idle=0, short=0), rng), ended=True)
        bad += Counter(marked.ratings)[B]
        value = chain.start
        for b in chain.operations:
            crossing += value // 10 != (value + b) // 10
            value += b
    assert bad / crossing == pytest.approx(0.5, abs=0.06)


def test_somewhat_more_than_half_of_the_demonstrations_are_right():
    written = arithmetic.demonstrations(1500, seed=1)
    share = sum(mark(d.prompt, d.response, ended=True).answer_right for d in written) / 1500
    assert 0.5 < share < 0.65


def test_splits_share_no_sum_and_are_drawn_alike():
    train = {t.prompt for t in arithmetic.tasks(800, seed=1)}
    held = {t.prompt for t in arithmetic.tasks(800, seed=2, split="held_out")}
    shown = {d.prompt for d in arithmetic.demonstrations(800, seed=5)}
    read = {d.text.partition("\n")[0] + "\n" for d in arithmetic.documents(2000, seed=6)}
    assert not held & (train | shown | read) and len(train) == len(held) == 800
    assert {t.kind for t in arithmetic.tasks(300, seed=0)} == {f"{n} operations" for n in range(3, 7)}


def test_everything_follows_from_the_seed():
    for make in (arithmetic.demonstrations, arithmetic.tasks, lambda n, seed: list(arithmetic.documents(n, seed=seed))):
        assert make(5, seed=1) == make(5, seed=1) != make(5, seed=2)


def test_impossible_input_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        arithmetic.demonstrations(-1, seed=0)
    with pytest.raises(ValueError, match="split"):
        arithmetic.tasks(1, seed=0, split="test")
    with pytest.raises(DataError, match="arithmetic task"):
        mark("Sum: 3*4\n", "Answer: 12", ended=True)
