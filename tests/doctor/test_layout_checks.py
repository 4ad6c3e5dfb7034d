"""D2 and D7 on a healthy set-up and on the defects they are for."""

import pytest
import torch
from doctor_parts import END, language_model, learner_on, ragged

from assent.algorithms.reward_model import RewardModel
from assent.algorithms.sft import SFT
from assent.doctor.layout import Padded, gradient_is_one, padded, padding_changes_nothing, spread
from assent.errors import CheckFailed
from assent.models.folders import scalar_from_causal
from assent.models.forward import ModelForward
from assent.models.trunk import backbone_states
from assent.types import ComparisonBatch, Loss, Sequences, TokenBatch

FLOAT = torch.float32

# ------------------------------------------------------------------------------------------------ D2


def d2(reads, sequences=None, **options):
    options = {"end_id": END, "room": 10, "dtype": FLOAT} | options
    return padding_changes_nothing(reads, sequences or ragged(), **options)


def test_d2_passes_for_log_probabilities_values_and_scores():
    policy = language_model()
    scalar = scalar_from_causal(policy, seed=0).scalar
    reads = {
        "log-probabilities": ModelForward(policy=policy.model).logprobs,
        "values": scalar.token_values,
        "scores": scalar.last_scores,
    }
    found = d2(reads)
    assert found.figure < 1e-5 and "5 layouts" in found.detail


def left_padded(sequences: Sequences) -> tuple[torch.Tensor, torch.Tensor]:
    """The block as other systems lay it out, and where each row begins."""
    length = int(sequences.lengths_B.max())
    rows = [
        [END] * (length - n) + ids[:n]
        for ids, n in zip(sequences.token_ids_BL.tolist(), sequences.lengths_B.tolist(), strict=True)
    ]
    return torch.tensor(rows), length - sequences.lengths_B


def last_logprobs(
    model, sequences: Sequences, *, right_positions: bool = True, right_mask: bool = True
) -> torch.Tensor:
    """Log-probability of each last token, from a left-padded block."""
    ids, starts = left_padded(sequences)
    places = torch.arange(ids.shape[1]).expand_as(ids)
    real = places >= starts[:, None]
    positions = (places - starts[:, None]).clamp(min=0) if right_positions else places
    mask = real.long() if right_mask else torch.ones_like(ids)
    with torch.no_grad():
        logits = model(input_ids=ids, position_ids=positions, attention_mask=mask).logits
    return logits[:, -2].log_softmax(-1).gather(1, ids[:, -1:])[:, 0]


def test_d2_accepts_left_padding_done_right():
    model = language_model().model
    d2({"log-probabilities": lambda s: last_logprobs(model, s)})


@pytest.mark.parametrize("wrong", [{"right_positions": False}, {"right_mask": False}], ids=["positions", "mask"])
def test_d2_refuses_shifted_positions_and_attended_padding(wrong):
    model = language_model().model
    with pytest.raises(CheckFailed, match=r"D2 failed(.|\n)*differ by up to"):
        d2({"log-probabilities": lambda s: last_logprobs(model, s, **wrong)})


def test_d2_refuses_an_end_that_is_looked_for_among_the_tokens():
    scalar = scalar_from_causal(language_model(), seed=0).scalar

    def read(sequences):
        """The last token that is not 0, as with a pad token of 0."""
        ids = sequences.token_ids_BL
        last_B = ((ids != 0) * torch.arange(ids.shape[1])).argmax(1)
        with torch.no_grad():
            return scalar.model.score(backbone_states(scalar.model, ids))[torch.arange(len(ids)), last_B, 0]

    words = Sequences.of([[5, 6], [7]], [[8, 9, 10, 11], [12, 13]])
    with pytest.raises(CheckFailed, match="padded with"):
        d2({"scores": read}, words, end_id=4)


def test_d2_refuses_neighbours_that_matter():
    with pytest.raises(CheckFailed, match="in a padded block"):
        d2({"scores": lambda s: s.lengths_B.double() / s.lengths_B.max()})


def test_d2_refuses_nan():
    with pytest.raises(CheckFailed):
        d2({"scores": lambda s: torch.full((len(s),), float("nan"))})


def test_padded_changes_padding_and_nothing_else():
    sequences = ragged()
    wider = padded(sequences, columns=3, fill=9)
    for row, n in enumerate(sequences.lengths_B.tolist()):
        assert wider.token_ids_BL[row, :n].tolist() == sequences.token_ids_BL[row, :n].tolist()
        assert set(wider.token_ids_BL[row, n:].tolist()) == {9}
    assert wider.token_ids_BL.shape[1] == sequences.token_ids_BL.shape[1] + 3


def test_spread_holds_the_shortest_and_the_longest():
    sequences = ragged(20)
    some = spread(sequences, 4)
    assert len(some) == 4
    assert {int(some.lengths_B.min()), int(some.lengths_B.max())} == {
        int(sequences.lengths_B.min()), int(sequences.lengths_B.max())
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ D7


def d7(learner, batch, algorithm):
    return gradient_is_one(
        lambda b, a, budget: learner.gradients(b, a, token_budget=budget),
        batch,
        algorithm,
        end_id=END,
        room=10,
        dtype=FLOAT,
    )


@pytest.fixture
def learner(tmp_path):
    model = language_model().model
    return learner_on(ModelForward(policy=model), {"policy": model}, tmp_path)


def test_d7_passes_for_sft(learner):
    found = d7(learner, TokenBatch(ragged()), SFT())
    assert 0 <= found.figure < 1e-5 and "gradient norm" in found.detail


def test_d7_passes_for_comparisons(tmp_path):
    scalar = scalar_from_causal(language_model(), seed=0).scalar
    learner = learner_on(ModelForward(scalar=scalar), {"reward_model": scalar}, tmp_path)
    batch = ComparisonBatch(
        ragged(5), torch.tensor([3, 2]), torch.tensor([0, 1, 3]), torch.tensor([2, 2, 4]), torch.tensor([0, 0, 1]),
        torch.zeros(3),
    )  # fmt: skip
    assert d7(learner, batch, RewardModel()).figure < 1e-5


class MeanOfMicroBatch:
    """A loss that divides by its own micro-batch: the classic."""

    def loss(self, batch, forward):
        loss = SFT().loss(batch, forward)
        return Loss(loss.per_item / loss.mask.sum(), loss.mask)


class CountsPadding:
    """A loss divided by the width of its block."""

    def loss(self, batch, forward):
        loss = SFT().loss(batch, forward)
        return Loss(loss.per_item / batch.sequences.token_ids_BL.shape[1], loss.mask)


class Whitened:
    """A loss that uses the mean of whatever it sees."""

    def loss(self, batch, forward):
        loss = SFT().loss(batch, forward)
        return Loss((loss.per_item - loss.per_item[loss.mask].mean()) ** 2, loss.mask)


@pytest.mark.parametrize("algorithm", [MeanOfMicroBatch(), CountsPadding(), Whitened()])
def test_d7_refuses_losses_that_know_their_micro_batch(learner, algorithm):
    with pytest.raises(CheckFailed, match="differs from that of the whole batch"):
        d7(learner, TokenBatch(ragged()), algorithm)


def test_d7_refuses_padding_in_the_loss_even_when_all_lengths_are_equal(learner):
    batch = TokenBatch(Sequences.of([[5, 6], [7, 8]], [[9, END], [10, END]]))
    with pytest.raises(CheckFailed, match="more columns of padding"):
        d7(learner, batch, CountsPadding())


def test_d7_refuses_a_learner_that_divides_by_each_micro_batch(learner):
    accumulate = learner.gradients

    def gradients(batch, algorithm, budget):
        """Mean of the micro-batches' means, as with a forgotten global denominator."""
        if budget != 1:
            return accumulate(batch, algorithm, token_budget=budget)
        parts = [accumulate(batch.select(torch.tensor([i])), algorithm) for i in range(len(batch))]
        return {name: sum(p[name] for p in parts) / len(parts) for name in parts[0]}

    with pytest.raises(CheckFailed, match="in micro-batches of one"):
        gradient_is_one(gradients, TokenBatch(ragged()), SFT(), end_id=END, room=10, dtype=FLOAT)


def test_d7_says_when_a_batch_teaches_nothing(learner):
    class Nothing:
        def loss(self, batch, forward):
            loss = SFT().loss(batch, forward)
            return Loss(0 * loss.per_item, loss.mask)

    assert "teaches nothing" in d7(learner, TokenBatch(ragged()), Nothing()).detail


def test_a_padded_batch_is_the_batch_but_for_its_padding():
    batch = TokenBatch(ragged())
    wider = Padded(batch, 4, END)
    rows = torch.tensor([1, 2])
    assert len(wider) == len(batch) and wider.denominator == batch.denominator
    assert wider.select(rows).denominator == batch.select(rows).denominator
    width = batch.select(rows).sequences.token_ids_BL.shape[1]
    assert wider.select(rows).sequences.token_ids_BL.shape[1] == width + 4
