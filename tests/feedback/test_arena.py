"""The arena: who said what is kept with every vote, the talk goes on from what was preferred."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from assent.cli import app
from assent.errors import ConfigError, DataError
from assent.feedback.answers import Choice
from assent.feedback.arena import BATCH, Arena, Reply
from assent.feedback.into_records import comparisons
from assent.feedback.store import Store
from assent.feedback.strengths import ratings, votes_of
from assent.records import Message


class Echo:
    """Answers with its name and what it heard, so that a test can tell who spoke and what was read."""

    talks = True

    def __init__(self, id, talks=True):
        self.id = self.name = id
        self.talks, self.heard = talks, []

    def reply(self, prompt):
        self.heard.append(prompt)
        return Reply(f"{self.id} heard {len(prompt)}")


@pytest.fixture
def store(tmp_path):
    opened = Store.open(str(tmp_path / "arena.db"))
    yield opened
    opened.close()


@pytest.fixture
def arena(store):
    return Arena(store, [Echo("north"), Echo("south")])


def place_of(shown, name):
    return [r.split()[0] for r in shown.responses].index(name)


def test_what_a_policy_said_is_kept_under_its_id_whichever_side_it_stood_on(arena, store):
    sides = set()
    for i in range(40):
        shown = arena.ask("ann", f"hello {i}")
        assert [r.split()[0] for r in shown.question.responses] == list(shown.question.origin.policies)
        side = place_of(shown, "north")
        sides.add(side)
        arena.vote("ann", shown.token, "ab"[side])
    assert sides == {0, 1}
    kept = list(store.answers(batch=BATCH))
    assert {a.question.responses[a.order[a.answer.choices["overall"].preferred]] for a in kept} == {"north heard 1"}
    first, second = ratings(votes_of(kept))
    assert (first.policy, first.wins, first.votes) == ("north", 40, 40) and first.rating > second.rating + 400
    assert first.interval.low > 1000


def test_the_talk_goes_on_from_the_response_that_was_preferred(arena):
    shown = arena.ask("ann", "one")
    place = place_of(shown, "south")
    arena.vote("ann", shown.token, "ab"[place])
    talk = arena.talk("ann")
    assert talk.turns == (Message("user", "one"), Message("assistant", "south heard 1")) and talk.open is None
    again = arena.ask("ann", "two", after=talk.after)
    assert again.question.prompt == (*talk.turns, Message("user", "two"))
    assert all(policy.heard[-1] == again.question.prompt for policy in arena.policies)
    arena.vote("ann", again.token, "tie")
    assert arena.talk("ann").turns[-1].content == again.responses[0], "after a tie from the first on the page"
    fresh = arena.ask("ann", "three")
    assert fresh.question.prompt == (Message("user", "three"),)


@pytest.mark.parametrize(("vote", "choice"), [("tie", Choice(None)), ("both_bad", Choice(None, both_bad=True))])
def test_votes_for_neither(arena, store, vote, choice):
    shown = arena.ask("ann", "hello")
    first = arena.vote("ann", shown.token, vote)
    assert arena.vote("ann", shown.token, vote) == first
    with pytest.raises(DataError, match="answered before"):
        arena.vote("ann", shown.token, "a")
    (kept,) = store.answers()
    assert kept.answer.choices == {"overall": choice} and votes_of([kept])[0].share == 0.5


def test_a_reload_a_restart_and_a_second_click_change_nothing(arena, store):
    shown = arena.ask("ann", "hello")
    later = Arena(store, arena.policies)
    assert later.talk("ann").open.token == shown.token
    assert later.ask("ann", "hello").token == shown.token and len(arena.policies[0].heard) == 1
    assert store.next("ben") is None and store.next("ann") is None, "nobody else is asked it"
    with pytest.raises(DataError, match="was not shown"):
        arena.vote("ben", shown.token, "a")
    assert later.talk("ben").open is None and store.progress(batch=BATCH).wanted == 0


def test_policies_that_know_no_dialogue_read_plain_text(store):
    arena = Arena(store, [Echo("north"), Echo("south", talks=False)])
    shown = arena.ask("ann", "hello")
    assert shown.question.prompt == "hello"
    arena.vote("ann", shown.token, "a")
    assert arena.talk("ann").turns == ()


def test_votes_are_comparisons_that_a_reward_model_can_be_trained_on(arena, store):
    shown = arena.ask("ann", "hello")
    arena.vote("ann", shown.token, "b")
    (kept,) = store.answers(batch=BATCH)
    (made,) = comparisons(kept)
    (preference,) = made.preferences
    assert made.responses[preference.better] == shown.responses[1]


@pytest.mark.parametrize("text", ["", "  ", "x" * 8001])
def test_nothing_and_too_much_are_refused(arena, text):
    with pytest.raises(DataError, match="a turn has"):
        arena.ask("ann", text)


def test_a_policy_is_not_set_against_itself(store):
    with pytest.raises(ConfigError, match="two policies that differ"):
        Arena(store, [Echo("north"), Echo("north")])


def test_of_many_policies_all_meet(store):
    arena = Arena(store, [Echo(n) for n in "pqr"])
    met = set()
    for i in range(40):
        shown = arena.ask("ann", f"hello {i}")
        met.add(shown.question.origin.policies)
        arena.vote("ann", shown.token, "tie")
    assert met == {("p", "q"), ("p", "r"), ("q", "r")}


def test_the_command_prints_ratings(arena, tmp_path):
    run = CliRunner().invoke(app, ["arena", "ratings", str(tmp_path / "arena.db")])
    assert run.exit_code == 1 and "no votes yet" in run.stderr
    shown = arena.ask("ann", "hello")
    arena.vote("ann", shown.token, "ab"[place_of(shown, "south")])
    run = CliRunner().invoke(app, ["arena", "ratings", str(tmp_path / "arena.db")])
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["policy", "south", "north"]
    missing = CliRunner().invoke(app, ["arena", "ratings", str(tmp_path / "nothing.db")])
    assert missing.exit_code == 1 and "there is no store" in missing.stderr


def test_ratings_go_by_the_names_that_people_know(store, tmp_path):
    """Two made at different times under one name are told apart; votes from before names were kept go by the id."""
    made = [Echo("0123456789abcdef"), Echo("fedcba9876543210"), Echo("00ff00ff00ff00ff")]
    for policy, name in zip(made, ("sft of runs/one", "ppo of runs/one", "ppo of runs/one"), strict=True):
        policy.name = name
    arena = Arena(store, made)
    for i in range(20):
        arena.vote("ann", arena.ask("ann", f"hello {i}").token, "tie")
    named = {"sft of runs/one", "ppo of runs/one (fedcba98)", "ppo of runs/one (00ff00ff)"}
    assert {r.name for r in ratings(votes_of(store.answers(batch=BATCH)))} == named
    run = CliRunner().invoke(app, ["arena", "ratings", str(tmp_path / "arena.db")])
    assert all(any(line.startswith(f"{name} ") for line in run.stdout.splitlines()) for name in named)
    before = [replace(v, names=()) for v in votes_of(store.answers(batch=BATCH))]
    assert {r.name for r in ratings(before)} == {p.id for p in made}


def test_an_arena_open_to_others_needs_tokens():
    run = CliRunner().invoke(app, ["arena", "nowhere", "nowhere:sft", "--host", "0.0.0.0"])
    assert run.exit_code == 2 and "without sign-in" in run.stderr
