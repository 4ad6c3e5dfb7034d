"""A whole recipe on the card: no tensor is made in the wrong place, and the results are those of the CPU."""

import pytest

from assent.pipeline.artefact import Artefact
from assent.stages import placement
from tests.device.card import Card, card, plugged_in
from tests.end_to_end.tiny import run_tiny

SHORT = (
    "stages.base.data.count=48",
    "stages.sft.data.count=72",
    "stages.sft.epochs=2",
    "stages.comparisons.tasks.count=36",
    "stages.reward.epochs=1",
    "stages.reward.skip_checks=[D8, D11]",
    "stages.ppo.steps=2",
    "stages.ppo.tasks.count=24",
    "stages.verdict.tasks.count=12",
)


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory) -> dict[str, Artefact]:
    return run_tiny(tmp_path_factory.mktemp("cpu"), "device=cpu", *SHORT)[0]


@pytest.fixture(scope="module")
def on_card(tmp_path_factory) -> tuple[dict[str, Artefact], Card]:
    with pytest.MonkeyPatch.context() as patch, plugged_in() as mode:
        patch.setattr(placement, "_device", lambda name: card())
        return run_tiny(tmp_path_factory.mktemp("card"), *SHORT)[0], mode


STAGES = ("base", "sft", "comparisons", "reward", "ppo", "verdict")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_on_the_card_the_figures_it_has_on_the_cpu(on_cpu, on_card, stage):
    """Attention is another kernel there, so that figures differ in the seventh digit and no more."""
    made, _ = on_card
    assert dict(made[stage].metrics) == pytest.approx(dict(on_cpu[stage].metrics), rel=1e-4, abs=1e-5, nan_ok=True)


def test_models_were_on_the_card_and_data_went_over_batch_by_batch(on_cpu, on_card):
    made, mode = on_card
    assert all(made[stage].environment["device"] == "card:0" for stage in STAGES)
    assert all(on_cpu[stage].environment["device"] == "cpu" for stage in STAGES)
    assert mode.moves["in"] > 0


def test_the_device_is_no_part_of_what_an_artefact_is(on_cpu, on_card):
    made, _ = on_card
    assert {name: a.id for name, a in made.items()} == {name: a.id for name, a in on_cpu.items()}
