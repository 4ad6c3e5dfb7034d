"""Functions in worker processes: whatever they do, every call ends, in order, with a score or a counted reason."""

import os
import time

import mischief
import pytest

from assent.errors import ConfigError, ContractError
from assent.rewards.asked import AskedScorer, Failure
from assent.rewards.memory import NoMemory, RecentMemory
from assent.rewards.workers import Workers
from assent.types import NoScore, Prompt, Rollout

pytestmark = pytest.mark.timeout(240)


def rollout(text: str, prompt: str = "p", tokens: int = 2) -> Rollout:
    return Rollout(Prompt("id", prompt, (1,)), tuple(range(tokens)), (0.0,) * tokens, True, text, 0)


def workers(function, *, seconds=30.0, retries=0, count=2) -> Workers:
    return Workers(function, count=count, seconds=seconds, retries=retries)


def reasons(answers) -> list:
    return [a.reason if isinstance(a, Failure) else a for a in answers]


def test_answers_stand_in_the_order_of_the_rollouts_whoever_is_done_first():
    asked = [rollout("x", tokens=n) for n in (5, 1, 4, 2, 3, 9, 7)]
    assert workers(mischief.length)(asked) == [5, 1, 4, 2, 3, 9, 7]


@pytest.mark.parametrize("function", [mischief.sleeps, mischief.swallows_everything])
def test_a_call_that_hangs_is_killed_and_its_neighbours_are_scored(function):
    pool = workers(function, seconds=1.5)
    began = time.monotonic()
    pool([rollout("warm")])
    started = time.monotonic() - began
    began = time.monotonic()
    assert reasons(pool([rollout(t) for t in ("ok", "slow", "ok", "ok")])) == [1.0, "timeout", 1.0, 1.0]
    assert time.monotonic() - began < 1.5 + 3 * started + 5


@pytest.mark.parametrize(
    ("function", "reason", "part"),
    [
        (mischief.raises, "raised", mischief.SAID),
        (mischief.exits, "raised", "SystemExit: 3"),
        (mischief.dies, "died", "status 7"),
    ],
)
def test_what_a_function_breaks_is_its_own_score(function, reason, part):
    good, bad, again = workers(function)([rollout(t) for t in ("ok", "bad", "ok")])
    assert good == again and isinstance(good, float)
    assert bad.reason == reason and part in bad.detail


def test_numbers_alone_are_scores():
    asked = ["nan", "inf", "text", "list", "none", "good"]
    answers = workers(mischief.nonsense)([rollout(t) for t in asked])
    assert reasons(answers) == ["not_finite", "not_finite", "not_a_number", "not_a_number", "declined", 4.0]
    assert "str: '0.5'" in answers[2].detail


def test_a_failed_call_is_tried_again_as_often_as_asked(tmp_path):
    assert workers(mischief.once_only, retries=1)([rollout(str(tmp_path / "a"))]) == [5.0]
    assert reasons(workers(mischief.once_only)([rollout(str(tmp_path / "b"))])) == ["raised"]


def test_the_work_is_shared_out():
    assert len(set(workers(mischief.process, count=2)([rollout("x")] * 6))) == 2


def test_a_child_that_it_started_dies_with_it(tmp_path):
    note = tmp_path / "pid"
    assert reasons(workers(mischief.starts_a_child_and_hangs, seconds=3)([rollout("x", str(note))])) == ["timeout"]
    child = int(note.read_text())
    for _ in range(50):
        with open(f"/proc/{child}/stat") as file:  # gone, or a zombie that somebody has yet to collect
            if file.read().split()[2] == "Z":
                return
        time.sleep(0.1)
    pytest.fail("the child of a killed worker lives on")


def test_processes_end_with_the_pool():
    pool = workers(mischief.process, count=1)
    (pid,) = pool([rollout("x")])
    assert os.path.exists(f"/proc/{int(pid)}")
    del pool
    assert not os.path.exists(f"/proc/{int(pid)}")


def test_what_a_function_prints_does_not_reach_standard_output(capfd):
    workers(mischief.prints)([rollout("x")])
    out, err = capfd.readouterr()
    assert mischief.SAID not in out and mischief.SAID in err


def test_a_function_that_a_worker_cannot_import_is_refused():
    with pytest.raises(ConfigError, match="top of a module"):
        workers(lambda r: 1.0)


class Unloadable:
    def __reduce__(self):
        return (__import__, ("no_such_module_anywhere",))

    def __call__(self, rollout):
        return 1.0


def test_a_function_that_fails_to_load_ends_the_run_with_its_traceback():
    with pytest.raises(ContractError, match="no_such_module_anywhere"):
        workers(Unloadable())([rollout("x")])


# ------------------------------------------------------------------------------------------------ as a scorer


def scorer(function, memory=None, said=None, **settings) -> AskedScorer:
    said = [] if said is None else said
    memory = RecentMemory() if memory is None else memory
    return AskedScorer("mine", workers(function, **settings), source="s", memory=memory, say=said.append)


def test_no_score_has_a_reason_and_a_score_sits_on_the_last_token():
    said: list[str] = []
    answers = scorer(mischief.raises, said=said).score([rollout(t, tokens=3) for t in ("bad", "ok", "bad")])
    assert [len(a) for a in answers] == [0, 1, 0] and answers[1][0].index == 2
    assert isinstance(answers[0], NoScore) and answers[0].reason == "raised"
    assert len(said) == 1 and "Traceback" in said[0] and mischief.SAID in said[0], "shown once, not per sample"


def test_nothing_is_asked_twice_unless_that_is_asked_for(tmp_path):
    calls = tmp_path / "calls"
    asked = [rollout(t, str(calls)) for t in ("a", "bb", "a")]
    remembering = scorer(mischief.counts, count=1)
    first, again = remembering.score(asked), remembering.score(asked)
    assert first == again and [e[0].value for e in first] == [1.0, 2.0, 1.0]
    assert calls.read_text().split() == ["a", "bb"]
    forgetful = scorer(mischief.counts, memory=NoMemory(), count=1)
    forgetful.score(asked)
    forgetful.score(asked)
    assert calls.read_text().split() == ["a", "bb"] * 3, "within one call the same response is still asked for once"


def test_what_differs_in_text_tokens_or_end_is_another_question(tmp_path):
    calls = tmp_path / "calls"
    one = rollout("a", str(calls))
    cut = Rollout(one.prompt, one.token_ids, one.sampler_logprobs, False, one.text, 0)
    longer = rollout("a", str(calls), tokens=3)
    scorer(mischief.counts, count=1).score([one, cut, longer])
    assert calls.read_text().split() == ["a", "a", "a"]


def test_failures_are_not_remembered(tmp_path):
    asked, mine = [rollout(str(tmp_path / "a"))], scorer(mischief.once_only)
    assert [len(a) for a in mine.score(asked)] == [0]
    assert [len(a) for a in mine.score(asked)] == [1]


def test_memory_forgets_the_oldest():
    memory = RecentMemory(2)
    for key in "abc":
        memory.put(key, 1.0)
    assert [memory.get(k) for k in "abc"] == [None, 1.0, 1.0]
