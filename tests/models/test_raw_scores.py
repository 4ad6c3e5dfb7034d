"""Raw scores: however often a reward model was normalised, and saved and loaded, its trained logits come back."""

import pytest
import torch

from assent.errors import ContractError
from assent.models.folders import load_scalar, save_scalar, scalar_from_causal
from assent.models.raw_scores import RAW_SCORE, RawScale, raw_scale, remember_raw
from assent.types import Sequences

ROWS = Sequences.of([[1, 2], [3], [2, 2]], [[4, 5], [6, 7, 8], [1]])


@pytest.fixture
def folder(causal):
    return scalar_from_causal(causal, seed=1)


def test_raw_scores_come_back_after_two_normalisations_and_a_round_trip(folder, tmp_path):
    before = folder.scalar.last_scores(ROWS)
    folder.scalar.normalise(0.3, 2.0)
    folder.scalar.normalise(-1.5, 0.25)
    now = folder.scalar.last_scores(ROWS)
    assert not torch.allclose(now, before)
    torch.testing.assert_close(folder.scalar.raw_scale.raw(now), before, rtol=1e-4, atol=1e-5)
    save_scalar(tmp_path / "rm", folder, golden=ROWS)
    loaded = load_scalar(tmp_path / "rm").scalar
    torch.testing.assert_close(loaded.raw_scale.raw(loaded.last_scores(ROWS)), before, rtol=1e-4, atol=1e-5)


def test_a_model_that_was_never_normalised_is_raw_as_it_is(folder):
    assert folder.scalar.raw_scale == RawScale()


def test_a_model_normalised_without_its_moments_is_refused(folder):
    folder.scalar.normalise(0.3, 2.0)
    delattr(folder.scalar.model.config, RAW_SCORE)
    with pytest.raises(ContractError, match="raw scores of this reward model are not known"):
        raw_scale(folder.scalar.model.config)
    with pytest.raises(ContractError):
        remember_raw(folder.scalar.model.config, 0.0, 1.0)
