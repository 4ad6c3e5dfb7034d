"""Several scorers: each normalised, clipped and weighted by itself, logged, kept by name, and resumed bit for bit."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assent.errors import NonFiniteError
from assent.rewards.combined import CombinedScorer
from assent.rewards.function import FunctionScorer
from assent.rewards.gate import Llama2Gate
from assent.stages.heard import Logged
from assent.stages.lines import Lines
from assent.track.catalogue import lookup
from assent.train.scoring import KLControl, RolloutScoring, Shaping
from assent.train.weighing import WeightedScorer, everything_seen, this_batch
from assent.types import Mean, NoScore, Prompt, Rollout, ScoreEvent


class Says:
    """A scorer that says the next list of totals, on the last token, each time it is asked."""

    def __init__(self, name, *batches) -> None:
        self.name, self.batches, self.asked = name, batches, 0

    def score(self, rollouts):
        values = self.batches[self.asked % len(self.batches)]
        self.asked += 1
        return [(ScoreEvent(len(r.token_ids) - 1, v),) for r, v in zip(rollouts, values, strict=True)]


def rollouts_of(*lengths: int) -> list[Rollout]:
    return [
        Rollout(Prompt(f"p{i}", "x", (1,)), tuple(range(n)), (-0.5,) * n, True, "text", 0)
        for i, n in enumerate(lengths)
    ]


def scoring_of(*scorers: WeightedScorer, shaping=Shaping()) -> RolloutScoring:  # noqa: B008
    def constant(value):
        return lambda s: torch.where(s.mask_BT, torch.full(s.mask_BT.shape, value), 0.0)

    return RolloutScoring(
        constant(-0.5), constant(-0.7), scorers, shaping=shaping, kl_control=KLControl(0.1), token_budget=64
    )


def standard(values: list[float], seen: list[float]) -> list[float]:
    mean = sum(seen) / len(seen)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in seen) / len(seen))
    return [(v - mean) / deviation for v in values]


def test_a_selection_logs_what_reinforcement_learning_logs(tmp_path):
    """The same names and numbers for a gate, its parts and what is watched, each step once."""
    said = {"safety": [-3.0, 1.0, -0.5], "helpfulness": [2.0, 0.5, 4.0], "gold": [1.0, 2.0, 2.5]}

    def scorers():
        parts = [Says(name, said[name]) for name in ("safety", "helpfulness")]
        return CombinedScorer("gate", parts, Llama2Gate(frozenset({"refusal"}))), Says("gold", said["gold"])

    gate, gold = scorers()
    scoring = scoring_of(WeightedScorer(gate), WeightedScorer(gold, 0.0, watched=True))
    shown = ("score/", "score_std/", "score_low/", "score_high/", "score_correlation/", "gate/")
    expected = {n: m.value for n, m in scoring(rollouts_of(2, 1, 3)).metrics.items() if n.startswith(shown)}
    assert {f"score/{name}" for name in ("gate", *said)} <= set(expected) and expected["gate/gated"] == 1 / 3
    told = []
    tracker = SimpleNamespace(log=lambda step, metrics: told.append((step, {n: m.value for n, m in metrics.items()})))
    lines = Lines(tmp_path / "groups.jsonl", lambda rollouts, scores: [{} for _ in rollouts])
    logged = Logged(lines, scorers(), tracker, prompts_per_step=3)
    for _ in range(2):
        logged(rollouts_of(2, 1, 3), [s.score(rollouts_of(2, 1, 3)) for s in logged.asked])
    assert [step for step, _ in told] == [0, 1]
    for _, metrics in told:
        assert metrics == pytest.approx(expected)
    assert all(lookup(name) for name in expected)


def test_a_selection_counts_what_a_scorer_would_not_score(tmp_path):
    class Declines(Says):
        def score(self, rollouts):
            return [NoScore("declined"), *super().score(rollouts)[1:]]

    told = []
    lines = Lines(tmp_path / "groups.jsonl", lambda rollouts, scores: [])
    logged = Logged(lines, [Declines("rm", [9.0, 2.0, 4.0])], SimpleNamespace(log=lambda *row: told.append(row)),
                    prompts_per_step=3)  # fmt: skip
    logged(rollouts_of(2, 1, 3), [s.score(rollouts_of(2, 1, 3)) for s in logged.asked])
    ((_, metrics),) = told
    assert metrics["unscored/declined"].value == 1 and metrics["score/rm"].value == 3


A, B = ([1.0, 3.0, 8.0], [2.0, 2.5, 9.0]), ([-100.0, 300.0, 50.0], [10.0, 20.0, 60.0])


def test_each_scorer_has_moments_of_its_own_over_all_it_ever_said():
    a = WeightedScorer(Says("a", *A), 1.0, everything_seen)
    b = WeightedScorer(Says("b", *B), 0.5, everything_seen)
    scoring = scoring_of(a, b)
    first, second = scoring(rollouts_of(2, 1, 3)), scoring(rollouts_of(2, 1, 3))
    want_first = [x + 0.5 * y for x, y in zip(standard(A[0], A[0]), standard(B[0], B[0]), strict=True)]
    whole_a, whole_b = A[0] + A[1], B[0] + B[1]
    want_second = [x + 0.5 * y for x, y in zip(standard(A[1], whole_a), standard(B[1], whole_b), strict=True)]
    assert first.score_events_BT.sum(1).tolist() == pytest.approx(want_first, rel=1e-5)
    assert second.score_events_BT.sum(1).tolist() == pytest.approx(want_second, rel=1e-5)
    assert [n.name for n in second.scores] == ["a", "b"]
    assert second.scores[1].scores_B.tolist() == B[1], "kept as they were said"
    assert second.metrics["normaliser_mean/b"].value == pytest.approx(sum(whole_b) / 6)


def test_whitening_over_the_batch_forgets_the_batches_before():
    scoring = scoring_of(WeightedScorer(Says("a", *A), 1.0, this_batch))
    scoring(rollouts_of(1, 1, 1))
    assert scoring(rollouts_of(1, 1, 1)).score_events_BT.flatten().tolist() == pytest.approx(standard(A[1], A[1]))


def test_the_order_is_normalise_clip_weight_sum_then_the_shaping_of_the_sum():
    a = WeightedScorer(Says("a", A[0]), 10.0, everything_seen, clip=1.0)
    b = WeightedScorer(Says("b", B[0]), 0.01, clip=60.0)
    scored = scoring_of(a, b, shaping=Shaping(clip=9.0, length_penalty=0.5))(rollouts_of(1, 2, 4))
    parts_a = [10.0 * max(-1.0, min(1.0, v)) for v in standard(A[0], A[0])]
    parts_b = [0.01 * max(-60.0, min(60.0, v)) for v in B[0]]
    sums = [max(-9.0, min(9.0, x + y)) for x, y in zip(parts_a, parts_b, strict=True)]
    want = [s - 0.5 * n for s, n in zip(sums, (1, 2, 4), strict=True)]
    assert max(map(abs, standard(A[0], A[0]))) > 1 and max(x + y for x, y in zip(parts_a, parts_b, strict=True)) > 9
    assert scored.score_events_BT.sum(1).tolist() == pytest.approx(want)
    assert scored.metrics["score_weighted/a"].value == pytest.approx(sum(parts_a) / 3)


def test_a_watched_scorer_is_logged_and_neither_normalised_nor_added():
    watched = WeightedScorer(Says("gold", *B), 0.0, everything_seen, clip=1.0)
    scoring = scoring_of(WeightedScorer(Says("a", *A)), watched)
    scored = scoring(rollouts_of(1, 1, 1))
    assert scored.score_events_BT.flatten().tolist() == A[0]
    assert scored.metrics["score/gold"].value == pytest.approx(sum(B[0]) / 3)
    assert "score_weighted/gold" not in scored.metrics and scoring.state_dict()["moments_of"]["gold"][0] == 0


class Shy(Says):
    """Says nothing of the second rollout."""

    def score(self, rollouts):
        return [said if i != 1 else NoScore("timeout") for i, said in enumerate(super().score(rollouts))]


def test_what_only_watches_changes_nothing_that_is_trained_on():
    """Not even where it says nothing; it is then logged over what it said something of."""
    alone = scoring_of(WeightedScorer(Says("a", A[0])))(rollouts_of(1, 1, 1))
    scored = scoring_of(WeightedScorer(Says("a", A[0])), WeightedScorer(Shy("gold", B[0]), 0.0, watched=True))(
        rollouts_of(1, 1, 1)
    )
    assert torch.equal(scored.score_events_BT, alone.score_events_BT) and len(scored.rollouts) == 3
    assert scored.scores[1].scores_B.isnan().tolist() == [False, True, False]
    assert scored.metrics["score/gold"].value == pytest.approx((B[0][0] + B[0][2]) / 2)
    assert scored.metrics["score_correlation/a gold"].value == pytest.approx(1.0), "two points are a line"
    assert scored.metrics["unscored/timeout"].value == 1 and scored.metrics["response/unscored"].value == 0
    mute = Says("gold", [])
    mute.score = lambda rollouts: [()] * len(rollouts)
    told = scoring_of(WeightedScorer(Says("a", A[0])), WeightedScorer(mute, 0.0, watched=True))(rollouts_of(1, 1, 1))
    assert len(told.rollouts) == 3 and "score/gold" not in told.metrics


def test_a_cost_that_says_nothing_drops_its_sample():
    """Of weight 0 as well, but trained on."""
    scored = scoring_of(WeightedScorer(Says("a", A[0])), WeightedScorer(Shy("cost", B[0]), 0.0))(rollouts_of(1, 1, 1))
    assert [r.prompt.id for r in scored.rollouts] == ["p0", "p2"] and scored.metrics["response/unscored"].value == 1


def test_a_score_that_is_no_number_is_refused_and_named_though_it_only_watches():
    gold = WeightedScorer(Says("gold", [1.0, math.nan, 2.0]), 0.0, watched=True)
    with pytest.raises(NonFiniteError, match=r"'gold' gave a score that is not finite(.|\n)*nan for 'p1'"):
        scoring_of(WeightedScorer(Says("a", A[0])), gold)(rollouts_of(1, 1, 1))


def test_the_spread_and_the_correlations_of_a_batch():
    scored = scoring_of(WeightedScorer(Says("a", A[0])), WeightedScorer(Says("b", B[0])))(rollouts_of(1, 1, 1))
    a, b = torch.tensor(A[0], dtype=torch.float64), torch.tensor(B[0], dtype=torch.float64)
    want = ((a - a.mean()) * (b - b.mean())).mean() / (a.std(correction=0) * b.std(correction=0))
    assert scored.metrics["score_correlation/a b"].value == pytest.approx(want.item())
    assert scored.metrics["score_std/a"].value == pytest.approx(a.std(correction=0).item())
    assert scored.metrics["score_low/a"].value == pytest.approx(1.0 + 0.05 * 2 * 2.0)
    assert scored.metrics["score_high/a"].value == pytest.approx(3.0 + 0.9 * 5.0)
    for name in scored.metrics:
        lookup(name)


def test_no_correlation_is_told_of_a_score_that_does_not_vary():
    scored = scoring_of(WeightedScorer(Says("a", A[0])), WeightedScorer(Says("b", [2.0, 2.0, 2.0])))(
        rollouts_of(1, 1, 1)
    )
    assert not any(name.startswith("score_correlation/") for name in scored.metrics)


def test_the_moments_come_back_bit_for_bit():
    values = [torch.randn(5, generator=torch.Generator().manual_seed(i)).tolist() for i in range(6)]

    def fresh(start: int) -> RolloutScoring:
        a, b = Says("a", *values), Says("b", *values[::-1])
        a.asked = b.asked = start
        return scoring_of(
            WeightedScorer(a, 1.0, everything_seen, 2.0),
            WeightedScorer(b, 0.3, everything_seen),
            shaping=Shaping(normalise=True),
        )

    whole, first, second = fresh(0), fresh(0), fresh(2)
    expected = [whole(rollouts_of(3, 1, 2, 2, 1)).score_events_BT for _ in range(5)]
    for _ in range(2):
        first(rollouts_of(3, 1, 2, 2, 1))
    second.load_state_dict(first.state_dict())
    for step in range(2, 5):
        assert torch.equal(second(rollouts_of(3, 1, 2, 2, 1)).score_events_BT, expected[step])
    assert second.state_dict() == whole.state_dict()


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8))
def test_a_step_wise_score_is_normalised_as_its_sum(values):
    """Events on several tokens: their sum is what is normalised, and their differences keep their tokens."""
    if max(values) - min(values) < 1e-2:
        return

    class Steps:
        name = "steps"

        def score(self, rollouts):
            return [(ScoreEvent(0, v / 4), ScoreEvent(1, 3 * v / 4)) for v in values]

    scored = scoring_of(WeightedScorer(Steps(), 1.0, this_batch))(rollouts_of(*[2] * len(values)))
    assert scored.score_events_BT.sum(1).tolist() == pytest.approx(standard(values, values), rel=1e-3, abs=1e-3)


class _Product:
    """A rule whose result is told from a sum."""

    def __call__(self, scores_MB, rollouts):
        return scores_MB.prod(0), {"gate/gated": Mean(1.0, 2.0)}


def _combined() -> CombinedScorer:
    odd = FunctionScorer("odd", lambda r: None if len(r.token_ids) == 3 else 2.0)
    return CombinedScorer("product", [FunctionScorer("length", lambda r: float(len(r.token_ids))), odd], _Product())


def test_what_the_parts_of_a_combination_said_is_logged_and_kept_and_unscored_rows_are_dropped():
    scored = scoring_of(WeightedScorer(_combined()))(rollouts_of(1, 3, 2))
    assert [r.prompt.id for r in scored.rollouts] == ["p0", "p2"]
    assert {n.name: n.scores_B.tolist() for n in scored.scores} == {
        "product": [2.0, 4.0], "length": [1.0, 2.0], "odd": [2.0, 2.0],
    }  # fmt: skip
    assert scored.score_events_BT.tolist() == [[2.0, 0.0], [0.0, 4.0]]
    assert scored.metrics["gate/gated"] == Mean(1.0, 2.0) and scored.metrics["score/length"].value == 1.5
