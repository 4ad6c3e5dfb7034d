"""Scoring: shaping in its stated order, the KL controller, dropped samples, events on their tokens."""

import math
import pickle

import pytest
import torch

from assent.errors import ContractError, NonFiniteError
from assent.train.overlong import FinishedOnly, SoftOverlong
from assent.train.scoring import KLControl, RolloutScoring, Shaping, old_logprobs
from assent.train.weighing import WeightedScorer
from assent.types import Mean, NoScore, Prompt, Rollout, ScoreEvent, Sequences


class Says:
    """A scorer with given events."""

    def __init__(self, *events, name="says") -> None:
        self.events, self.name = list(events), name

    def score(self, rollouts):
        return self.events[: len(rollouts)]


def rollouts_of(*lengths: int, ended: tuple[bool, ...] = ()) -> list[Rollout]:
    ended = ended or (True,) * len(lengths)
    return [
        Rollout(Prompt(f"p{i}", "x", (1,)), tuple(range(n)), (-0.5,) * n, done, "text", 0)
        for i, (n, done) in enumerate(zip(lengths, ended, strict=True))
    ]


def scoring_of(*scorers, shaping=Shaping(), kl=KLControl(0.1), old=-0.5, ref=-0.7):  # noqa: B008
    def constant(value):
        return lambda s: torch.where(s.mask_BT, torch.full(s.mask_BT.shape, value), 0.0)

    weighted = [s if isinstance(s, WeightedScorer) else WeightedScorer(s) for s in scorers]
    return RolloutScoring(constant(old), constant(ref), weighted, shaping=shaping, kl_control=kl, token_budget=64)


def event(index: int, value: float) -> tuple[ScoreEvent, ...]:
    return (ScoreEvent(index, value),)


def test_events_stay_on_their_tokens_and_kl_is_summed_per_sequence():
    steps = Says((ScoreEvent(0, 0.25), ScoreEvent(2, -1.0)), event(1, 2.0))
    scored = scoring_of(steps)(rollouts_of(3, 2))
    assert scored.score_events_BT.tolist() == [[0.25, 0.0, -1.0], [0.0, 2.0, 0.0]]
    assert scored.metrics["objective/kl"].value == pytest.approx(0.2 * (3 + 2) / 2, rel=1e-5)
    assert scored.metrics["objective/scores"].value == pytest.approx((-0.75 + 2.0) / 2)
    assert scored.metrics["objective/non_score_reward"].value == pytest.approx(-0.1 * 0.5, rel=1e-5)
    assert scored.metrics["objective/rlhf_reward"].value == pytest.approx(0.625 - 0.05, rel=1e-5)
    assert scored.metrics["objective/entropy"].value == pytest.approx(1.25)
    assert scored.metrics["sampler/gap_max"].value == pytest.approx(0.0, abs=1e-6)


def test_scorers_are_weighted_and_each_is_logged_untouched():
    good, bad = Says(event(1, 1.0), event(1, 3.0), name="good"), Says(event(0, 4.0), event(1, 0.0), name="bad")
    scored = scoring_of(WeightedScorer(good, 0.5), WeightedScorer(bad, -1.0))(rollouts_of(2, 2))
    assert scored.score_events_BT.tolist() == [[-4.0, 0.5], [0.0, 1.5]]
    assert scored.metrics["score/good"].value == 2.0 and scored.metrics["score/bad"].value == 2.0


def test_a_watched_scorer_of_weight_zero_changes_nothing():
    watched = WeightedScorer(Says(event(0, 100.0), event(0, 5.0), name="gold"), 0.0)
    scored = scoring_of(Says(event(1, 1.0), event(1, 2.0)), watched)(rollouts_of(2, 2))
    assert scored.score_events_BT.tolist() == [[0.0, 1.0], [0.0, 2.0]]
    assert scored.metrics["score/gold"].value == 52.5


def test_clip_then_missing_end_then_length_penalty():
    shaping = Shaping(clip=2.0, missing_end_penalty=1.0, length_penalty=0.1)
    scored = scoring_of(Says(event(2, 9.0), event(1, -9.0)), shaping=shaping)(rollouts_of(3, 2, ended=(True, False)))
    assert scored.score_events_BT[0].tolist() == pytest.approx([0.0, 0.0, 2.0 - 0.3])
    assert scored.score_events_BT[1].tolist() == pytest.approx([0.0, -2.0 - 1.0 - 0.2, 0.0])
    assert scored.metrics["reward/missing_end_penalty"].value == 0.5
    assert scored.metrics["response/ended"].value == 0.5


def test_normalisation_uses_the_moments_of_everything_seen_so_far():
    scoring = scoring_of(Says(event(0, 1.0), event(0, 3.0)), shaping=Shaping(normalise=True))
    first = scoring(rollouts_of(1, 1))
    assert first.score_events_BT.flatten().tolist() == pytest.approx([-1.0, 1.0])
    scoring.scorers = [WeightedScorer(Says(event(0, 6.0), event(0, 10.0)))]
    second = scoring(rollouts_of(1, 1))
    values = [1.0, 3.0, 6.0, 10.0]
    mean = sum(values) / 4
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / 4)
    assert second.score_events_BT.flatten().tolist() == pytest.approx([(6 - mean) / std, (10 - mean) / std])
    assert second.metrics["reward/normaliser_std"].value == pytest.approx(std)


def test_adaptive_kl_follows_ziegler_and_the_batch_keeps_the_coefficient_it_was_scored_under():
    scoring = scoring_of(Says(event(0, 1.0)), kl=KLControl(0.2, target=0.1, horizon=100), old=-0.2, ref=-0.7)
    scored = scoring(rollouts_of(1))
    assert scored.kl_coef == 0.2
    assert scoring.coefficient == pytest.approx(0.2 * (1 + 0.2 * 1 / 100)), "error clipped at 0.2, one episode"
    assert scoring(rollouts_of(1)).kl_coef == pytest.approx(0.2 * 1.002)
    assert scoring.coefficient == pytest.approx(0.2 * 1.002 * 1.002), "by its own episodes, not by all so far"


def test_state_brings_back_moments_and_coefficient():
    def fresh():
        return scoring_of(
            Says(event(0, 1.0), event(0, 4.0)),
            shaping=Shaping(normalise=True),
            kl=KLControl(0.2, target=1.0, horizon=50),
        )

    whole, first, second = fresh(), fresh(), fresh()
    for _ in range(3):
        whole(rollouts_of(1, 1))
    first(rollouts_of(1, 1))
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second(rollouts_of(1, 1))
    assert second.state_dict() == whole.state_dict()


def test_samples_without_a_score_are_dropped_and_counted():
    scored = scoring_of(Says(event(0, 1.0), (), event(0, 2.0)))(rollouts_of(1, 1, 1))
    assert [r.prompt.id for r in scored.rollouts] == ["p0", "p2"]
    assert scored.metrics["response/unscored"].value == 1.0


def test_unscored_samples_are_counted_by_reason_for_each_scorer():
    one = Says(event(0, 1.0), NoScore("timeout"), NoScore("declined"), event(0, 2.0), NoScore("timeout"))
    other = Says(event(0, 1.0), event(0, 1.0), NoScore("timeout"), event(0, 1.0), (), name="other")
    scored = scoring_of(one, other)(rollouts_of(1, 1, 1, 1, 1))
    counted = {n: m.value for n, m in scored.metrics.items() if n.startswith("unscored/")}
    assert counted == {"unscored/timeout": 3.0, "unscored/declined": 1.0}
    assert scored.metrics["response/unscored"].value == 3.0 and len(scored.rollouts) == 2


def test_the_reasons_are_named_where_nothing_is_left():
    with pytest.raises(ContractError, match="timeout: 2"):
        scoring_of(Says(NoScore("timeout"), NoScore("timeout")))(rollouts_of(1, 1))


def test_what_a_scorer_spends_is_logged_each_step():
    class Dear(Says):
        calls = 0

        def score(self, rollouts):
            self.calls += len(rollouts)
            return super().score(rollouts)

        def metrics(self):
            spent, self.calls = self.calls, 0
            return {"judge/calls": Mean(float(spent), 1.0)}

    scoring = scoring_of(Dear(*[event(0, 1.0)] * 3))
    assert [scoring(rollouts_of(*[1] * n)).metrics["judge/calls"].value for n in (3, 2)] == [3.0, 2.0]


def test_no_score_is_an_empty_tuple_that_survives_pickling():
    again = pickle.loads(pickle.dumps(NoScore("timeout")))
    assert again == () and not again and again.reason == "timeout"
    with pytest.raises(ContractError, match="no rollout of this step was scored"):
        scoring_of(Says((), ()))(rollouts_of(1, 1))


def test_an_event_beyond_the_response_is_refused():
    with pytest.raises(ContractError, match="token 2 of response 1"):
        scoring_of(Says(event(2, 1.0), event(2, 1.0)))(rollouts_of(3, 2))


def test_a_score_that_is_not_finite_names_the_scorer():
    with pytest.raises(NonFiniteError, match="'mine'"):
        scoring_of(Says(event(0, float("nan")), name="mine"))(rollouts_of(1))


def test_samples_of_one_prompt_share_a_group():
    rollouts = rollouts_of(1, 1, 1)
    rollouts[2] = rollouts[0]
    scored = scoring_of(Says(event(0, 1.0), event(0, 1.0), event(0, 1.0)))(rollouts)
    assert scored.groups_B.tolist() == [0, 1, 0]


# ------------------------------------------------------------------------------------------------ overlong


def test_soft_overlong_is_added_after_the_rest_and_is_whole_for_what_did_not_end():
    shaping = Shaping(clip=1.0, overlong=SoftOverlong(longest=4, cache=2, weight=0.5))
    says = Says(event(1, 3.0), event(2, 3.0), event(3, 3.0), event(4, 3.0), event(0, 3.0))
    scored = scoring_of(says, shaping=shaping)(rollouts_of(2, 3, 4, 5, 1, ended=(True, True, True, True, False)))
    assert scored.score_events_BT.sum(1).tolist() == pytest.approx([1.0, 0.75, 0.5, 0.5, 0.5])
    assert [row.nonzero().tolist() for row in scored.score_events_BT] == [[[1]], [[2]], [[3]], [[4]], [[0]]]
    assert scored.metrics["reward/overlong_penalty"].value == pytest.approx((0.25 + 0.5 * 3) / 5)
    assert "reward/overlong_penalty" not in scoring_of(Says(event(0, 1.0)))(rollouts_of(1)).metrics
    with pytest.raises(ValueError, match="fix:"):
        SoftOverlong(longest=4, cache=5)


def test_overlong_filtering_leaves_out_and_counts_what_was_cut_off():
    says = Says(event(0, 1.0), event(0, 2.0))
    wanted = scoring_of(Says(event(0, 1.0), event(0, 2.0)))([r for i, r in enumerate(rollouts_of(2, 3, 2)) if i != 1])
    scored = FinishedOnly(scoring_of(says))(rollouts_of(2, 3, 2, ended=(True, False, True)))
    assert [r.prompt.id for r in scored.rollouts] == ["p0", "p2"]
    assert torch.equal(scored.score_events_BT, wanted.score_events_BT)
    assert scored.metrics["response/overlong_filtered"].value == 1.0
    assert scored.metrics["response/ended"].value == pytest.approx(2 / 3)
    with pytest.raises(ContractError, match="no response of this step ended"):
        FinishedOnly(scoring_of(says))(rollouts_of(1, 1, ended=(False, False)))


def test_overlong_filtering_keeps_the_state_of_what_it_wraps():
    first, second = (FinishedOnly(scoring_of(Says(event(0, 1.0)), shaping=Shaping(normalise=True))) for _ in "ab")
    first(rollouts_of(1))
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.scoring.state_dict() and second.scoring.moments.count == 1


def test_the_gap_to_the_sampler_is_told_by_order_statistics_of_the_included_tokens():
    gaps = [[float(i) for i in range(12)], [float(i) for i in range(12, 20)]]
    rollouts = [Rollout(Prompt("p", "p", (1,)), (2,) * len(g), tuple(-1.0 - x for x in g), True, "", 0) for g in gaps]
    own = lambda s: torch.where(s.mask_BT, -1.0, 0.0)  # noqa: E731
    _, told = old_logprobs(own, rollouts, Sequences.of_rollouts(rollouts), token_budget=64)
    assert {name: mean.value for name, mean in told.items()} == {
        "sampler/gap_p50": 9.0,
        "sampler/gap_p95": 18.0,
        "sampler/gap_max": 19.0,
        "sampler/taken": 0.0,
    }
