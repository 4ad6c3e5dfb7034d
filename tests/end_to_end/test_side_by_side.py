"""An evaluation whose judge sees both responses: nothing but the judge's preference decides, and order does not."""

import json
import math
from pathlib import Path

import pytest

from assent.errors import ContractError
from assent.evals.plain import from_json
from assent.evals.win_rate import WinRate
from assent.feedback.answers import Choice, PairAnswer
from assent.feedback.store import Store
from assent.stages.ai_annotators import AiAnnotator
from assent.stages.asking import AwaitingPeople
from assent.stages.side_by_side import FeedbackModelJudge
from assent.types import Prompt, Rollout
from tests.end_to_end.tiny import TINY, run_tiny
from tests.rewards.stub_server import chat, serving

PRINCIPLES = """
- {name: kind, critique: c, revision: r, choose: "Which is more harmless?", about: harmless}
- {name: useful, critique: c, revision: r, choose: "Which helps more?", about: helpful}
"""


@pytest.fixture(autouse=True)
def _answers_of_this_test_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path / "cache"))


def rollout(i: int, text: str) -> Rollout:
    return Rollout(Prompt(f"p{i}", f"question {i}", (1,)), (1, 2), (0.0, 0.0), True, text, 0)


def shown(body) -> tuple[str, str]:
    question = body["messages"][0]["content"]
    return tuple(question.split(mark)[1].split("\n")[0] for mark in ("(A)\n> ", "(B)\n> "))


class Context:
    """What a judge reads of a stage's context."""

    seed, inputs = 0, {}


def asked(reply, principles: Path | None = None):
    with serving(reply) as stub:
        judge = {"endpoint": {"endpoint": f"{stub.url}/v1", "model": "m"}}
        spec = AiAnnotator.model_validate({"judge": judge, "principles": principles and str(principles)})
        policy = [rollout(i, f"good {i}" if i % 4 else "same") for i in range(40)]
        baseline = [rollout(i, f"poor {i}" if i % 4 else "same") for i in range(40)]
        return FeedbackModelJudge(spec, Context())(policy, baseline), stub.seen


def test_a_judge_that_prefers_one_text_gives_it_every_win_and_equal_texts_are_ties_that_cost_nothing(tmp_path):
    (tmp_path / "two.yaml").write_text(PRINCIPLES)

    def reply(body, before):
        p = 0.8 if shown(body)[0].startswith("good") else 0.3
        return 200, chat("A", [{"A": math.log(p), "B": math.log(1 - p)}])

    sides, seen = asked(reply, tmp_path / "two.yaml")
    assert (sides.rate.win, sides.rate.tie, sides.rate.loss) == (30, 10, 0)
    assert len(seen) == 60 and not any("same" in shown(body) for body in seen)
    assert sides.consistent == 1.0 and sides.first == pytest.approx(0.55)
    assert set(sides.about) == {"harmless", "helpful"}
    assert sum(rate.comparisons for rate in sides.about.values()) == 40
    assert all(rate.loss == 0 < rate.win for rate in sides.about.values())


def test_a_judge_that_always_says_a_prefers_nobody():
    sides, _ = asked(lambda body, before: (200, chat("A")))
    assert (sides.rate.win, sides.rate.tie, sides.rate.loss) == (0, 40, 0)
    assert sides.consistent == 0.0 and sides.first == 1.0


def test_pairs_without_a_verdict_are_left_out_and_counted():
    def reply(body, before):
        first, _ = shown(body)
        if first.endswith(("1", "3")):
            return 200, chat("I would rather not say.")
        return 200, chat("A" if first.startswith("good") else "B")

    sides, _ = asked(reply)
    silent = sum(1 for i in range(40) if i % 4 and str(i).endswith(("1", "3")))
    assert sides.unscored == silent > 0
    assert (sides.rate.win, sides.rate.tie, sides.rate.loss) == (30 - silent, 10, 0)


def test_a_judge_that_never_answers_is_refused():
    with pytest.raises(ContractError, match="no verdict on any pair"):
        asked(lambda body, before: (200, chat("Both are interesting.")))


def judged_by(judge: str, *, count: int, baseline: str = "base") -> str:
    """A recipe: the SFT model against another, side by side before a judge, and the report."""
    return f"""{TINY[: TINY.index("  comparisons:")]}
  verdict:
    do: evaluate
    policy: sft
    baseline: {baseline}
    tasks: {{format: domain_tasks, count: {count}, split: held_out}}
    judge: {{gold: domain}}
    side_by_side: {judge}
    generation: {{max_new_tokens: 12}}
  report:
    do: report
    of: [base, sft, verdict]
"""


def test_an_evaluation_states_the_preference_beside_the_score(tmp_path):
    """SFT against base before a critic of the domain: what it prefers is in the results, the figures and the report."""
    text = judged_by("{judge: {simulated: domain}}", count=24)
    made, console = run_tiny(tmp_path, text=text)
    results = json.loads((made["verdict"].folder / "results.json").read_text())
    said = results["side_by_side"]
    for name in ("sampled", "greedy"):
        rate = from_json(WinRate, said[name]["rate"])
        assert rate.comparisons + said[name]["unscored"] == results["win_rates"][name]["prompts"]
        assert made["verdict"].metrics[f"preferred_{name}"] == rate.rate
    assert any(line.startswith("Side by side, sampled: ") for line in console.said)
    assert "sampled, side by side" in (made["report"].folder / "report.html").read_text()


def test_people_judge_blind_by_several_dimensions_and_the_verdict_is_theirs(tmp_path):
    """Both find the policy more helpful, wherever it stands; Ada finds the baseline more harmless, Ben neither."""
    url = f"sqlite:///{tmp_path}/feedback.db"
    text = judged_by(f"{{people: {{store: '{url}', dimensions: [helpful, harmless], per_question: 2}}}}", count=10)
    with pytest.raises(AwaitingPeople, match=r"verdict waits for people: \d+ of \d+ answers"):
        run_tiny(tmp_path / "run", text=text)
    store, made = Store.open(url), {}
    for name in ("ada", "ben"):
        while (shown := store.next(name)) is not None:
            ours = shown.responses.index(shown.question.responses[0])
            made[shown.question.origin.policies] = shown.question
            harmless = None if name == "ben" else 1 - ours
            choices = {"helpful": Choice(ours), "harmless": Choice(harmless)}
            store.answer(shown.token, PairAnswer(choices), 2.0, annotator=name)
    asked = len({e.question_id for e in store.events()})
    store.close()
    done, _ = run_tiny(tmp_path / "run", text=text)
    said = json.loads((done["verdict"].folder / "results.json").read_text())["side_by_side"]
    assert set(made) == {(done["sft"].id, done["base"].id)} and asked > 0
    helpful, harmless = (from_json(WinRate, said["sampled"]["about"][name]) for name in ("helpful", "harmless"))
    same = 10 - asked
    assert (helpful.win, helpful.tie, helpful.loss) == (2 * asked, same, 0)
    assert (harmless.win, harmless.tie, harmless.loss) == (0, same + asked, asked)
    assert said["judge"] == "people" and from_json(WinRate, said["sampled"]["rate"]) == helpful
    assert done["verdict"].metrics["preferred_sampled"] == helpful.rate
    assert "sampled, side by side, harmless" in (done["report"].folder / "report.html").read_text()


def test_nobody_is_asked_about_a_model_against_itself(tmp_path):
    text = judged_by("{people: {dimensions: [helpful, honest], responses: greedy}}", count=6, baseline="sft")
    made, _ = run_tiny(tmp_path, text=text)
    said = json.loads((made["verdict"].folder / "results.json").read_text())["side_by_side"]
    assert "sampled" not in said and not (tmp_path / "feedback.db").exists()
    for name in ("helpful", "honest"):
        rate = from_json(WinRate, said["greedy"]["about"][name])
        assert (rate.win, rate.tie, rate.loss) == (0, 6, 0)
