"""A remote reward model, against a local server that is slow, busy, broken, rude or silent."""

import time

import pytest
from pydantic import TypeAdapter, ValidationError
from stub_server import serving

from assent.errors import ConfigError, ContractError
from assent.records import Message
from assent.rewards.asked import Failure
from assent.rewards.http import Server
from assent.rewards.remote import RemoteRewards
from assent.stages.scorers import RemoteRef, RewardSpec
from assent.types import NoScore, Prompt, Rollout

SECRET = "the-secret-of-the-test"


def rollout(text: str, prompt="p", answer: str = "") -> Rollout:
    return Rollout(Prompt("id", prompt, (1,), "kind", answer), (1, 2, 3), (0.0,) * 3, False, text, 0)


def lengths(body, before):
    return 200, {"scores": [float(len(i["response"])) for i in body["items"]]}


def asking(url: str, *, batch=2, at_once=1, naps=None, **server) -> RemoteRewards:
    naps = [] if naps is None else naps
    return RemoteRewards(Server(url, sleep=naps.append, **server), batch, at_once)


def test_one_score_per_rollout_in_order_in_batches():
    with serving(lengths) as stub:
        asked = [rollout("x" * n) for n in (3, 1, 2, 5, 4)]
        assert asking(stub.url, at_once=3)(asked) == [3.0, 1.0, 2.0, 5.0, 4.0]
        assert sorted(len(b["items"]) for b in stub.seen) == [1, 2, 2]


def test_what_is_sent_is_the_protocol():
    with serving(lengths) as stub:
        asking(stub.url)([rollout("r", (Message("user", "hi"),), answer="7"), rollout("é")])
        first, second = stub.seen[0]["items"]
    dialogue = [{"role": "user", "content": "hi"}]
    assert first == {"prompt": dialogue, "response": "r", "ended": False, "kind": "kind", "answer": "7"}
    assert second["prompt"] == "p" and second["response"] == "é"


def test_null_and_nonsense_are_no_scores_of_their_own_kind():
    with serving(lambda body, before: (200, '{"scores": [null, "1", NaN, true, 2]}')) as stub:
        said = asking(stub.url, batch=5)([rollout("x")] * 5)
    reasons = [a.reason if isinstance(a, Failure) else a for a in said]
    assert reasons == ["declined", "not_a_number", "not_finite", "not_a_number", 2.0]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_waited_for_longer_each_time(status):
    naps: list[float] = []
    with serving(lambda body, before: (status, "busy") if before < 3 else lengths(body, before)) as stub:
        assert asking(stub.url, naps=naps, pause=0.5)([rollout("x")]) == [1.0]
    assert naps == [0.5, 1.0, 2.0]


def test_a_server_that_names_a_pause_is_given_it_up_to_a_minute():
    naps: list[float] = []
    pauses = ["7", "9999", "Sat, 21 Nov 2026 10:00:00 GMT"]

    def reply(body, before):
        return (429, "busy", {"Retry-After": pauses[before]}) if before < 3 else lengths(body, before)

    with serving(reply) as stub:
        asking(stub.url, naps=naps, pause=0.5)([rollout("x")])
    assert naps == [7.0, 60.0, 2.0]


def test_nobody_there_ends_the_run_in_words():
    with serving(lengths) as stub:
        url = stub.url
    with pytest.raises(ContractError, match=r"cannot be reached[\s\S]*3 tries for each of 1 requests"):
        asking(url, retries=2)([rollout("x")])


def test_one_batch_that_is_lost_costs_its_own_samples_alone():
    with serving(
        lambda body, before: (500, "no") if body["items"][0]["response"] == "bad" else lengths(body, 0)
    ) as stub:
        said = asking(stub.url, batch=1, retries=1)([rollout("ok"), rollout("bad"), rollout("fine")])
    assert said[0] == 2.0 and said[2] == 4.0 and said[1].reason == "unreachable" and "500: no" in said[1].detail


def test_a_server_that_hangs_is_left():
    def reply(body, before):
        time.sleep(3 if body["items"][0]["response"] == "slow" else 0)
        return lengths(body, before)

    with serving(reply) as stub:
        said = asking(stub.url, batch=1, retries=0, seconds=0.4)([rollout("slow"), rollout("ok")])
    assert said[0].reason == "timeout" and said[1] == 2.0


@pytest.mark.parametrize(
    ("status", "part"), [(401, "token_env"), (403, "token_env"), (404, "address"), (405, "address"), (301, "address")]
)
def test_what_no_retry_mends_ends_the_run_at_once(status, part):
    with serving(lambda body, before: (status, "no")) as stub:
        with pytest.raises(ContractError, match=part):
            asking(stub.url)([rollout("x")])
        assert len(stub.seen) == 1


@pytest.mark.parametrize("reply", ['{"scores": [1.0]}', '{"score": 1}', '{"scores": "1, 2"}'])
def test_scores_that_cannot_be_matched_are_refused(reply):
    with serving(lambda body, before: (200, reply)) as stub, pytest.raises(ContractError, match="keep the protocol"):
        asking(stub.url)([rollout("x"), rollout("y")])


@pytest.mark.parametrize("reply", ["<html>", "[1.0]"])
def test_no_json_object_is_unreadable(reply):
    with serving(lambda body, before: (200, reply)) as stub:
        assert [a.reason for a in asking(stub.url)([rollout("x")])] == ["unreadable"]


def test_the_token_is_sent_and_never_told(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    server = Server("http://127.0.0.1:1", "MY_TOKEN")
    assert SECRET not in repr(server)
    with serving(lambda body, before: (401, "who?")) as stub:
        with pytest.raises(ContractError) as caught:
            asking(stub.url, token_env="MY_TOKEN")([rollout("x")])
        assert stub.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in str(caught.value) and "MY_TOKEN" in str(caught.value)
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(ConfigError, match="MY_TOKEN is not set"):
        asking("http://127.0.0.1:1", token_env="MY_TOKEN")([rollout("x")])


# ------------------------------------------------------------------------------------------------ in a recipe


class Context:
    def __init__(self):
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_recipe_s_words_become_the_scorer_which_remembers():
    with serving(lengths) as stub:
        spec = TypeAdapter(RewardSpec).validate_python({"remote": f"{stub.url}/score", "name": "theirs", "batch": 8})
        assert isinstance(spec, RemoteRef) and spec.label == "theirs"
        scorer = spec.scorer(Context(), None)
        first = scorer.score([rollout("abc"), rollout("a"), rollout("abc")])
        again = scorer.score([rollout("a")])
        assert [e[0].value for e in (*first, *again)] == [3.0, 1.0, 3.0, 1.0] and first[0][0].index == 2
        assert [len(b["items"]) for b in stub.seen] == [2]


def test_failures_are_counted_and_shown_once():
    context = Context()
    with serving(lambda body, before: (422, "too long")) as stub:
        spec = RemoteRef(remote=stub.url, batch=1)
        said = spec.scorer(context, None).score([rollout("x"), rollout("y")])
    assert all(isinstance(s, NoScore) and s.reason == "refused" for s in said)
    assert len(context.said) == 1 and "too long" in context.said[0]


@pytest.mark.parametrize(
    ("url", "part"), [("localhost:8000", "no address"), ("http://", "no address"), ("http://a:b@c/", "password")]
)
def test_an_address_is_checked_when_the_recipe_is_read(url, part):
    with pytest.raises(ValidationError, match=part):
        RemoteRef(remote=url)
