"""D8: counts and table against what was put in, and the three defects it refuses."""

from dataclasses import replace

import pytest
import torch

from assent.doctor.tokens import Boundaries, Vocabulary, audit, tokens_in_place
from assent.errors import CheckFailed
from assent.types import Sequences

BEGIN, STOP = 1, 2
VOCABULARY = Vocabulary(lambda i: f"w{i}", lambda ids: " ".join(f"w{i}" for i in ids), BEGIN, (STOP,))
HEALTHY = Sequences.of([[BEGIN, 5, 6], [BEGIN, 7]], [[8, 9, STOP], [10, STOP]])


def looked_at(sequences, **options):
    return audit(sequences, VOCABULARY, title="sft", **options)


def test_d8_passes_and_counts():
    found = looked_at(HEALTHY, boundaries=Boundaries(1, 2))
    assert (found.ended, found.end_in_loss, found.tokens, found.double_begin, found.nothing) == (2, 2, 5, 0, 0)
    passed = tokens_in_place(found, ends_expected=True)
    assert passed.figure == 0 and "5 tokens in the loss; 2 end tokens among them; 1 of 2 rows" in passed.detail
    assert "as one text: 1 of 2" in found.text


def test_the_table_shows_every_token_with_its_part():
    sequences = Sequences.of([[BEGIN, 5]], [[8, 9, STOP]])
    sequences = replace(sequences, mask_BT=torch.tensor([[True, False, True]]))
    text = looked_at(sequences, scored_BT=torch.tensor([[False, False, True]])).text
    rows = [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]
    assert rows == [
        ["0", "1", "prompt", "-", "BOS", "'w1'"],
        ["1", "5", "prompt", "-", "'w5'"],
        ["2", "8", "response", "yes", "'w8'"],
        ["3", "9", "response", "masked", "'w9'"],
        ["4", "2", "response", "yes", "end", "score", "'w2'"],
    ]
    assert repr("w1 w5 w8 w9 w2") in text and "1 BOS in its prompt" in text


def test_d8_refuses_masked_end_tokens():
    """Masking by token id, as when pad equals end."""
    ids = HEALTHY.response_ids_BT
    masked = replace(HEALTHY, mask_BT=HEALTHY.mask_BT & (ids != STOP))
    with pytest.raises(CheckFailed, match="2 of 2 end tokens are masked"):
        tokens_in_place(looked_at(masked), ends_expected=False)


def test_d8_refuses_two_bos():
    doubled = Sequences.of([[BEGIN, BEGIN, 5], [BEGIN, 7]], [[8, STOP], [9, STOP]])
    with pytest.raises(CheckFailed, match="two BOS"):
        tokens_in_place(looked_at(doubled), ends_expected=True)


def test_d8_refuses_a_row_without_a_token_in_the_loss():
    mask = HEALTHY.mask_BT.clone()
    mask[1] = False
    with pytest.raises(CheckFailed, match="1 rows have no response token"):
        tokens_in_place(looked_at(replace(HEALTHY, mask_BT=mask)), ends_expected=True)


def test_d8_wants_end_tokens_in_data_but_not_in_rollouts():
    cut = Sequences.of([[BEGIN, 5]], [[8, 9]])
    assert tokens_in_place(looked_at(cut), ends_expected=False).figure == 0
    with pytest.raises(CheckFailed, match="no response has an end token"):
        tokens_in_place(looked_at(cut), ends_expected=True)


def test_a_family_without_bos_has_no_double_bos():
    vocabulary = replace(VOCABULARY, begin_id=None)
    found = audit(Sequences.of([[BEGIN, BEGIN]], [[STOP]]), vocabulary, title="sft")
    assert found.double_begin == 0
