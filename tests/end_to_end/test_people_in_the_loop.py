"""The shipped recipe, whole and small: SFT, ask, reward model, PPO, ask about the new samples, reward model, PPO.

Both times a browser-driving annotator opens the page and ranks what it reads there.
"""

import pytest

from assent.data import domain
from assent.feedback.store import Store
from assent.pipeline.recipe import load_recipe
from assent.pipeline.run import run
from assent.stages import TABLE
from assent.stages.asking import AwaitingPeople
from tests.architecture.source_tree import ROOT
from tests.end_to_end.test_clicks import Annotator, clicked_by, plain
from tests.end_to_end.tiny import QuietConsole

pytestmark = pytest.mark.timeout(290)
RECIPE = ROOT / "recipes" / "people_in_the_loop.yaml"
KWARGS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
KWARGS |= {"num_attention_heads": 2, "num_key_value_heads": 2}
SMALL = [
    *("questions=14", "steps=2", "overlap=0"),
    *("stages.reward.accuracy_above=null", "stages.reward_2.accuracy_above=null"),  # so few show nothing
    *("stages.base.data.count=120", "stages.base.vocabulary=400", "stages.base.length=64"),
    *(f"stages.base.shape.kwargs.{name}={value}" for name, value in KWARGS.items()),
    *("stages.sft.data.count=96", "stages.sft.epochs=1"),
    *("stages.first_verdict.tasks.count=24", "stages.verdict.tasks.count=24"),
    *(
        f"stages.{name}.generation.max_new_tokens=12"
        for name in ("comparisons", "comparisons_2", "ppo", "ppo_2", "first_verdict", "verdict")
    ),
    *(f"stages.{name}.{field}" for name in ("ppo", "ppo_2") for field in ("tasks.count=40", "prompts_per_step=8")),
    *(f"stages.{name}.skip_checks=[D8, D11]" for name in ("base", "sft", "reward", "reward_2", "ppo", "ppo_2")),
]
"""Overrides; every stage and every reference stays as it is shipped."""


class Ranker(Annotator):
    """Reads the domain's hidden judgement off what stands on the screen, and puts equals into one tier."""

    def rank(self, prompt, texts):
        shown = self.page.inner_text(".prompt .text")
        cards = [card.inner_text() for card in self.page.query_selector_all("#responses .text.rendered")]
        gold = [round(domain.judge(shown, text, ended=True).gold, 2) for text in cards]
        tiers = [1 + sum(g > mine for g in set(gold)) for mine in gold]
        for tier in tiers:
            self.page.keyboard.press(str(tier))
        self.meant[prompt, *texts] = tuple(tiers)


def test_two_rounds_with_people_in_a_browser(chromium, tmp_path):
    recipe, folder = load_recipe(RECIPE, TABLE, SMALL), tmp_path / "run"
    read = {}
    for stage in ("comparisons", "comparisons_2"):
        with pytest.raises(AwaitingPeople, match=f"{stage} waits for people"):
            run(recipe, TABLE, folder, console=QuietConsole())
        store = Store.open(str(folder / "feedback.db"), gold_every=0)
        read |= clicked_by(chromium, store, seed=0, kind=Ranker).meant
        store.close()
    made = run(recipe, TABLE, folder, console=QuietConsole())
    assert list(made) == list(recipe.stages), "every stage of the recipe is finished"
    assert set(made["reward_2"].parents) == {"sft", "comparisons", "comparisons_2"}
    store = Store.open(str(folder / "feedback.db"))
    answers = list(store.answers())
    asked_of = {a.question.origin.round: {made["sft"].id, made["ppo"].id} & {a.question.origin.policy} for a in answers}
    assert asked_of == {0: {made["sft"].id}, 1: {made["ppo"].id}}, "each round is about its own policy's samples"
    for a in (a for a in answers if a.question.kind == "ranking"):
        texts = tuple(plain(a.question.responses[i]) for i in a.order)
        assert read[plain(a.question.prompt), *texts] == a.answer.ranks["overall"]
    assert len(read) >= 20 and made["verdict"].metrics
    store.close()
