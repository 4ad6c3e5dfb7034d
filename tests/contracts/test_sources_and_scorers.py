"""What every batch source and every scorer must do."""

import pytest

from assent.data.batches import (
    ComparisonExample,
    PackedBatches,
    TokenBatches,
    TokenExample,
)
from assent.data.comparisons import ComparisonBatches
from assent.data.judged import JudgedBatches, PairUnit, Response, pair_batch
from assent.records import Preference
from assent.rewards.asked import AskedScorer, Failure
from assent.rewards.function import FunctionScorer
from assent.rewards.memory import RecentMemory
from assent.rewards.model import RewardModelScorer, same_tokens
from assent.types import Prompt, Rollout


def token_batches(seed=0):
    return TokenBatches([TokenExample([i], [i, 9]) for i in range(11)], batch_size=4, epochs=3, seed=seed)


def packed_batches(seed=0):
    return PackedBatches([[i, i, i] for i in range(1, 12)], end_id=0, length=5, batch_size=2, epochs=3, seed=seed)


def comparison_batches(seed=0):
    examples = [ComparisonExample([i], [[i], [i, 1], [2]], [Preference(0, 1), Preference(2, 1)]) for i in range(9)]
    return ComparisonBatches(examples, batch_size=4, epochs=3, seed=seed)


def pair_batches(seed=0):
    responses = [(Response.whole([i, 1]), Response.whole([i, 2, 3])) for i in range(9)]
    units = [PairUnit((i,), both, ((0, 1),)) for i, both in enumerate(responses)]
    return JudgedBatches(units, lambda some: pair_batch([units[i] for i in some]), batch_size=4, epochs=3, seed=seed)


SOURCES = [token_batches, packed_batches, comparison_batches, pair_batches]


def content(batch) -> list:
    return [batch.sequences.token_ids_BL.tolist(), batch.sequences.mask_BT.tolist()]


@pytest.mark.parametrize("make", SOURCES)
def test_steps_count_from_zero_to_the_length(make):
    steps = [step for step, _ in make()]
    assert steps == list(range(len(make())))


@pytest.mark.parametrize("make", SOURCES)
def test_the_same_seed_gives_the_same_batches_and_another_seed_others(make):
    one, two, other = ([content(b) for _, b in make(seed)] for seed in (0, 0, 1))
    assert one == two and one != other


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("cut", [0, 1, 4])
def test_a_state_saved_after_a_step_continues_with_the_next(make, cut):
    whole = [(step, content(b)) for step, b in make()]
    source = make()
    for step, _ in source:
        if step == cut:
            state = source.state_dict()
            break
    resumed = make()
    resumed.load_state_dict(state)
    assert [(step, content(b)) for step, b in resumed] == whole[cut + 1 :]


@pytest.mark.parametrize("make", SOURCES)
def test_epochs_have_different_orders(make):
    batches = [content(b) for _, b in make()]
    third = len(batches) // 3
    assert batches[:third] != batches[third : 2 * third]


def rollouts() -> list[Rollout]:
    return [
        Rollout(Prompt(f"p{i}", f"text {i}", (1, 2, 3)), tuple(range(5, 5 + n)), (-1.0,) * n, True, "word " * n, 0)
        for i, n in enumerate((1, 4, 2))
    ]


SCORERS = [
    FunctionScorer("length", lambda r: float(len(r.token_ids))),
    FunctionScorer("odd", lambda r: None if len(r.token_ids) == 4 else 1.0),
    RewardModelScorer("model", same_tokens, lambda s: s.lengths_B.float()),
    AskedScorer(
        "isolated",
        lambda asked: [Failure("timeout") if len(r.token_ids) == 4 else 0.5 * len(r.token_ids) for r in asked],
        source="s",
        memory=RecentMemory(),
        say=lambda text: None,
    ),
]


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: s.name)
def test_one_tuple_of_events_per_rollout_in_order_on_its_own_tokens(scorer):
    answers = scorer.score(rollouts())
    assert len(answers) == 3
    for rollout, events in zip(rollouts(), answers, strict=True):
        assert all(0 <= e.index < len(rollout.token_ids) and isinstance(e.value, float) for e in events)


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: s.name)
def test_a_score_does_not_depend_on_the_neighbours(scorer):
    together = scorer.score(rollouts())
    alone = [scorer.score([r])[0] for r in rollouts()]
    assert together == alone


def test_no_score_is_an_empty_tuple_and_an_outcome_sits_on_the_last_token():
    assert [len(events) for events in SCORERS[1].score(rollouts())] == [1, 0, 1]
    assert [events[0].index for events in SCORERS[2].score(rollouts())] == [0, 3, 1]
    assert [events[0].value for events in SCORERS[2].score(rollouts())] == [4.0, 7.0, 5.0]
