"""D6 on a healthy reward model and on every wrong place a score has been read at."""

import pytest
import torch
from doctor_parts import END, language_model, ragged

from assent.doctor.scores import distinct, score_reads_the_end
from assent.errors import CheckFailed
from assent.models.folders import scalar_from_causal
from assent.models.trunk import backbone_states
from assent.types import Sequences

SCALAR = scalar_from_causal(language_model(), seed=0).scalar


def d6(scores, sequences=None):
    return score_reads_the_end(scores, sequences or ragged(8), name="rm", end_id=END, room=10, dtype=torch.float32)


def read_at(sequences: Sequences, places_B: torch.Tensor) -> torch.Tensor:
    """The head's output at one place of each row."""
    hidden = backbone_states(SCALAR.model, sequences.token_ids_BL)
    return SCALAR.model.score(hidden)[torch.arange(len(sequences)), places_B, 0]


def first_end(sequences: Sequences) -> torch.Tensor:
    """The token at the first end token, where pad and end are one and somebody searched from the left."""
    found = sequences.token_ids_BL == END
    return torch.where(found.any(1), found.long().argmax(1), sequences.lengths_B - 1)


def test_d6_passes_at_the_last_token():
    found = d6(SCALAR.last_scores)
    assert found.figure == 0 and "100%" in found.detail


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (lambda s: s.prompt_lengths_B - 1, r"changed 0 of 8"),
        (lambda s: torch.zeros_like(s.lengths_B), "changed 0 of|all 8 responses"),
        (lambda s: s.lengths_B - 2, r"changed 0 of 8"),
        (first_end, "an end token in the prompt"),
    ],
    ids=["end of the prompt", "first token", "one before the end", "first end token"],
)
def test_d6_refuses_another_place(places, message):
    with pytest.raises(CheckFailed, match=message):
        d6(lambda s: read_at(s, places(s)))


def test_d6_refuses_the_first_end_token_of_the_response():
    """A search that starts behind the prompt is found too."""

    def places(s):
        inside = torch.arange(s.token_ids_BL.shape[1]) >= s.prompt_lengths_B[:, None]
        return ((s.token_ids_BL == END) & inside).long().argmax(1)

    with pytest.raises(CheckFailed, match="start of the response"):
        d6(lambda s: read_at(s, places(s)))


def test_d6_refuses_the_last_column():
    with pytest.raises(CheckFailed, match="D6 failed"):
        d6(lambda s: read_at(s, torch.full_like(s.lengths_B, s.token_ids_BL.shape[1] - 1)))


def test_d6_refuses_padding_that_is_added_up():
    def scores(s):
        return SCALAR.last_scores(s) + s.token_ids_BL.shape[1]

    with pytest.raises(CheckFailed, match="padding moved the scores"):
        d6(scores)


def test_d6_refuses_equal_scores():
    with pytest.raises(CheckFailed, match="gives all 8 responses the score"):
        d6(lambda s: torch.zeros(len(s)))


def test_distinct_keeps_each_sequence_once():
    block = Sequences.of([[5], [5], [5], [5, 6]], [[7, 8], [7], [7, 8], [7]])
    assert distinct(block).lengths_B.tolist() == [3, 2, 3]
