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
CHAIN = Chain(3, (4, -5, 6))
PROMPT = "Sum: 3+4-5+6\n"


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
        ("3+4=7\n7-5=2\n2+6=8\nAnswer: 8", (G, G, G, G), True),
        ("3+4=8\n8-5=3\n3+6=9\nAnswer: 9", (B, G, G, G), False),
        ("3+4=7\n7-5=2\n2+6=9\nAnswer: 8", (G, G, B, B), True),
        ("3+4=7\n7+0=7\n7-5=2\n2+6=8\nAnswer: 8", (G, N, G, G, G), True),
        ("3+4=7\n7+0=8\n8-5=3\n3+6=9\nAnswer: 9", (G, B, G, G, G), False),
        ("3+4=7\n7+6=13\nAnswer: 13", (G, B, G), False),
        ("3+4=7\n7-5=2\nAnswer: 2", (G, G, B), False),
        ("3+4=7\n\n7-5=2\n2+6=8\nAnswer: 8", (G, G, G, G), True),
        ("3+4=7\n6-5=1\n1+6=7\nAnswer: 7", (G, B, G, G), False),
        ("3+4=8\nno\n3+4=7\n7-5=2\n2+6=8\nAnswer: 8", (B, B, B, G, G, G), True),
        ("3+4=7\n7-5=2\n2+6=8", (G, G, B), False),
        ("3+4=7\n7-5=2\n2+6=8\nAnswer: 8\nAnswer: 8", (G, G, G, G, B), True),
        ("Answer: 8", (B,), True),
        ("what?", (B,), False),
        ("", (), False),
    ],
)
def test_every_line_is_judged_by_the_line_before_it(text, ratings, answer):
    assert of(text) == arithmetic.Marked(ratings, answer)


def test_a_solution_that_was_cut_off_is_not_right():
    cut = of("3+4=7\n7-5=2\n2+6=8\nAnswer: 8", ended=False)
    assert cut.ratings == (G, G, G, B) and not cut.answer_right


def test_lucky_answers_are_right_and_their_steps_are_not():
    lucky = of("3+4=8\n8-5=2\n2+6=8\nAnswer: 8")
    assert lucky.answer_right and not lucky.all_right


def written(pen: Pen, n: int = 1500):
    """Chains, and what somebody with this pen makes of them."""
    rng = random.Random(0)
    chains = [arithmetic.draw(rng, "train") for _ in range(n)]
    return [(c, write(c, pen, rng)) for c in chains]


def test_slips_are_as_frequent_as_the_pen_says():
    made = written(Pen(miss=0.3, skip=0, early=0, idle=0, short=0))
    first = [mark(c.prompt, text, ended=True).ratings[0] for c, text in made]
    assert Counter(first)[B] / len(first) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("kind", ["skip", "early", "short"])
def test_what_is_left_out_makes_a_solution_shorter_and_a_line_of_it_bad(kind):
    pen = Pen(**{"miss": 0, "skip": 0, "early": 0, "idle": 0, "short": 0} | {kind: 0.2})
    slipped = 0
    for chain, text in written(pen, 400):
        ratings = mark(chain.prompt, text, ended=True).ratings
        missing = len(chain.operations) + 1 - len(ratings)
        slipped += missing > 0
        assert (B in ratings) == (missing > 0)
    assert 0.1 < slipped / 400 < 0.9


def test_who_notices_takes_back_every_slip_and_ends_right():
    for chain, text in written(Pen(miss=0.2, skip=0.1, early=0.1, idle=0.1, short=0, notices=True), 300):
        kept: list[str] = []
        for line in text.split("\n"):
            if line == arithmetic.TAKEN_BACK:
                taken_back = mark(chain.prompt, "\n".join(kept), ended=True).ratings
                assert taken_back[-1] is B, "only a slip is taken back"
                kept.pop()
            else:
                kept.append(line)
        assert mark(chain.prompt, "\n".join(kept), ended=True).all_right


def test_somewhat_more_than_half_of_the_demonstrations_are_right():
    made = arithmetic.demonstrations(1500, seed=1)
    share = sum(mark(d.prompt, d.response, ended=True).answer_right for d in made) / 1500
    assert 0.5 < share < 0.65


def test_splits_share_no_sum_and_are_drawn_alike():
    train = {t.prompt for t in arithmetic.tasks(800, seed=1)}
    held = {t.prompt for t in arithmetic.tasks(800, seed=2, split="held_out")}
    shown = {d.prompt for d in arithmetic.demonstrations(800, seed=5)}
    read = {d.text.partition("\n")[0] + "\n" for d in arithmetic.documents(2000, seed=6)}
    assert not held & (train | shown | read) and len(train) == len(held) == 800
    assert {t.kind for t in arithmetic.tasks(300, seed=0)} == {f"{n} operations" for n in range(5, 9)}


def test_sums_can_be_longer_than_any_that_is_demonstrated():
    asked = arithmetic.tasks(300, seed=0, split="held_out", operations=(9, 10))
    shown = arithmetic.demonstrations(300, seed=0)
    assert {t.kind for t in asked} == {"9 operations", "10 operations"}
    assert max(len(arithmetic.read_prompt(d.prompt).operations) for d in shown) == 8
    for task in asked:
        chain = arithmetic.read_prompt(task.prompt)
        assert arithmetic.split_of(chain) == "held_out" and task.answer == str(chain.answer)
        assert mark(task.prompt, arithmetic.right(chain), ended=True).all_right


def test_tasks_without_the_setting_are_those_of_before():
    assert arithmetic.tasks(50, seed=4) == arithmetic.tasks(50, seed=4, operations=(5, 8))


def test_everything_follows_from_the_seed():
    for make in (arithmetic.demonstrations, arithmetic.tasks, lambda n, seed: list(arithmetic.documents(n, seed=seed))):
        assert make(5, seed=1) == make(5, seed=1) != make(5, seed=2)


def test_impossible_input_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        arithmetic.demonstrations(-1, seed=0)
    with pytest.raises(ValueError, match="split"):
        arithmetic.tasks(1, seed=0, split="test")
    for operations in ((9, 8), (3, 8)):
        with pytest.raises(ValueError, match=r"fewest, 4 or more, and the most; got \("):
            arithmetic.tasks(1, seed=0, operations=operations)
    with pytest.raises(DataError, match="arithmetic task"):
        mark("Sum: 3*4\n", "Answer: 12", ended=True)
