"""Rules: each by hand on right, wrong, hostile and missing answers."""

import time
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from assent.errors import DataError
from assent.rewards.answers import After, Boxed, Matched, Tagged, Whole
from assent.stages.scorers import RuleRef
from assent.types import NoScore, Prompt, Rollout

RULE: TypeAdapter = TypeAdapter(RuleRef)


def rollout(text: str, answer: str = "", tokens: int = 3) -> Rollout:
    return Rollout(Prompt("id", "p", (1,), answer=answer), tuple(range(tokens)), (0.0,) * tokens, True, text, 0)


class Context:
    """As much of a stage's context as a rule needs."""

    @staticmethod
    def say(text: str) -> None:
        raise AssertionError(f"a rule had something to say: {text}")


def scores(spec: dict, *rollouts: Rollout) -> list:
    said = RULE.validate_python(spec).scorer(Context(), None).score(list(rollouts))
    return [e.reason if isinstance(e, NoScore) else e[0].value for e in said]


@pytest.mark.parametrize(
    ("place", "text", "found"),
    [
        (Whole(), "  7 \n", "7"),
        (Whole(), " ", None),
        (After("####"), "so\n#### 3\nno\n#### 12 \nThank you", "12"),
        (After("####"), "12", None),
        (After("####"), "####", None),
        (Tagged("answer"), "<answer>1</answer> <answer> 2 </answer>", "2"),
        (Tagged("answer"), "<answer>1", None),
        (Tagged("answer"), "1</answer>", None),
        (Tagged("answer"), "<answer> </answer>", None),
        (Boxed(True), r"\boxed{1} or \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (Boxed(True), r"\boxed{\frac{1}{2}", None),
        (Boxed(True), "}", None),
        (Matched(r"= (\d+)"), "1 + 1 = 2, 2 + 1 = 3.", "3"),
        (Matched(r"\d+"), "7 and 8", "8"),
        (Matched(r"\d+"), "none", None),
    ],
)
def test_where_an_answer_stands(place, text, found):
    assert place.find(text) == found


def test_exact_answers():
    spec = {"rule": "exact_answer", "answer_in": {"after": "####"}, "right": 1.0, "wrong": -0.5}
    asked = [
        rollout(t, "7 days") for t in ("#### 7 days", "####  7  days.", "#### 7  days", "7 days", "", "#### 7 Days")
    ]
    assert scores(spec, *asked) == [1.0, -0.5, 1.0, -0.5, -0.5, -0.5]
    assert scores({**spec, "ignore_case": True}, asked[-1]) == [1.0]


def test_a_prompt_without_a_reference_is_refused():
    for rule in ("exact_answer", "math_equal"):
        spec = {"rule": rule, "workers": {"count": 1, "retries": 0}} if rule == "math_equal" else {"rule": rule}
        if rule == "exact_answer":
            with pytest.raises(DataError, match="no reference answer"):
                scores(spec, rollout("7"))


@pytest.mark.timeout(240)
def test_mathematical_equality():
    pytest.importorskip("math_verify")
    right = [(r"\frac{1}{2}", "0.5"), ("1,000", "1000"), ("$(x+1)^2$", "$x^2 + 2x + 1$"), ("x", "x")]
    right += [(r"$\{1, 2\}$", r"$\{2, 1\}$"), ("72", "so she has $72")]
    wrong = [("1/2", "0.51"), ("(1, 2)", "[1, 2]"), ("72", ""), ("72", "no idea"), ("72", "<script>" * 500)]
    spec = {"rule": "math_equal", "workers": {"seconds": 20.0}}
    assert scores(spec, *(rollout(said, reference) for reference, said in right)) == [1.0] * len(right)
    assert scores(spec, *(rollout(said, reference) for reference, said in wrong)) == [0.0] * len(wrong)
    boxed = {**spec, "answer_in": {"boxed": True}}
    assert scores(boxed, rollout(r"\boxed{0.50}", "1/2"), rollout("0.50", "1/2")) == [1.0, 0.0]


@pytest.mark.timeout(240)
def test_algebra_that_does_not_end_has_no_score():
    pytest.importorskip("math_verify")

    said: list[str] = []

    class Listening(Context):
        say = staticmethod(said.append)

    tower = "$" + "9^{" * 6 + "9" + "}" * 6 + "$"
    spec = RULE.validate_python({"rule": "math_equal", "workers": {"count": 1, "seconds": 6.0, "retries": 0}})
    began = time.monotonic()
    hung, fine = spec.scorer(Listening(), None).score([rollout(tower, "7"), rollout("7.0", "7")])
    assert fine[0].value == 1.0 and time.monotonic() - began < 120
    assert not hung or hung[0].value == 0.0
    if not hung:
        assert hung.reason in ("timeout", "raised", "died") and len(said) == 1


def test_patterns():
    found = {"rule": "regex", "pattern": r"\bsorry\b"}
    assert scores(found, rollout("so sorry!"), rollout("sorrysorry")) == [1.0, 0.0]
    whole = {"rule": "regex", "pattern": r"[A-D]", "whole": True, "wrong": -1.0}
    assert scores(whole, rollout(" B\n"), rollout("B or C")) == [1.0, -1.0]


def test_a_pattern_that_explodes_has_no_score():
    began = time.monotonic()
    assert scores({"rule": "regex", "pattern": r"(a|a|aa)+$"}, rollout("a" * 60 + "b"), rollout("a")) == [
        "timeout",
        1.0,
    ]
    assert time.monotonic() - began < 20
    exploding = {"rule": "exact_answer", "answer_in": {"pattern": r"(?:a|a|aa)+$"}}
    assert scores(exploding, rollout("a" * 60 + "b", "7")) == ["timeout"]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>a</think> <answer>b</answer>", 1.0),
        ("<think>a\nb</think>\n<answer>b</answer>\n", 1.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a</think>", 0.0),
        ("<think></think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer> and more", 0.0),
        ("well <think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think><think>a</think><answer>b</answer>", 0.0),
        ("<think>a<answer>b</answer></think>", 0.0),
        ("", 0.0),
    ],
)
def test_tags_each_once_in_order_and_nothing_outside(text, score):
    assert scores({"rule": "tags"}, rollout(text)) == [score]


def test_json_objects():
    spec = {"rule": "json", "keys": ["name"]}
    asked = ['{"name": 1, "more": 2}', '{"more": 2}', "[1]", "{", "[" * 100_000, ""]
    assert scores(spec, *(rollout(t) for t in asked)) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    inside = {**spec, "answer_in": {"tag": "json"}}
    assert scores(inside, rollout('Here: <json>{"name": 1}</json>'), rollout('{"name": 1}')) == [1.0, 0.0]


def test_soft_overlong_counts_the_response_s_tokens():
    spec = {"rule": "soft_overlong", "longest": 8, "cache": 4}
    assert scores(spec, *(rollout("x", tokens=n) for n in (1, 4, 6, 8, 9))) == [0.0, 0.0, -0.5, -1.0, -1.0]


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ({"rule": "exact"}, "exact_answer"),
        ({"rule": "regex", "pattern": "("}, "not a regular expression"),
        ({"rule": "exact_answer", "answer_in": {"pattern": "("}}, "not a regular expression"),
        ({"rule": "exact_answer", "answer_in": {"after": ""}}, "empty mark"),
        ({"rule": "exact_answer", "answer_in": {"aftr": "x"}}, "aftr"),
        ({"rule": "soft_overlong", "longest": 8, "cache": 8}, "below longest"),
        ({"rule": "tags", "tags": []}, "at least 1"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(spec, part):
    with pytest.raises(ValidationError, match=part):
        RULE.validate_python(spec)


def test_a_missing_library_is_named_when_the_recipe_is_read(monkeypatch):
    monkeypatch.setattr("assent.stages.scorers.rule.find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r"assent\[math\]"):
        RULE.validate_python({"rule": "math_equal"})


def test_the_library_is_declared():
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert 'math = ["math-verify"]' in project
