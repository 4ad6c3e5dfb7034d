"""Losses of reward models: the gradient through the real learner against autograd on the definition, by enumeration."""

import math
from itertools import permutations

import pytest
import torch
from small_world import learner_on

from assent.algorithms.plackett_luce import PlackettLuce
from assent.algorithms.reward_model import RewardModel
from assent.algorithms.safety_reward_model import SafetyRewardModel
from assent.algorithms.soft_reward_model import SoftRewardModel
from assent.data.batches import ComparisonExample
from assent.data.comparisons import OrderedPairs, SafetyLabels, SoftPairs, WholeRankings, ranking_of
from assent.evals.toy_world import Tables
from assent.records import Comparison, Degree, Preference
from assent.stages.reward_algorithms import labels_of


def example(prompt: int, responses, *preferences: Preference, unsafe=()) -> ComparisonExample:
    return ComparisonExample([prompt], [list(r) for r in responses], list(preferences), list(unsafe))


def ranked(prompt: int, *best_first) -> ComparisonExample:
    made = Comparison.from_ranks("", "", [str(r) for r in best_first], range(1, len(best_first) + 1))
    return example(prompt, best_first, *made.preferences)


def tables() -> Tables:
    made = Tables(2, 3, seed=1)
    with torch.no_grad():
        made.scores_XVV.normal_(generator=torch.Generator().manual_seed(2))
    return made


def score(made: Tables, prompt: int, response) -> torch.Tensor:
    return made.scores_XVV[prompt, response[0], response[1]]


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + (-x).exp())


def moved(algorithm, batch, tmp_path, token_budget: int) -> torch.Tensor:
    """Minus the move of the scores under one step of plain descent."""
    made = tables()
    before = made.scores_XVV.detach().clone()
    learner_on(made, tmp_path, token_budget=token_budget).step(batch, algorithm)
    return before - made.scores_XVV.detach()


def gradient(loss) -> torch.Tensor:
    made = tables()
    loss(made).backward()
    return made.scores_XVV.grad


# -------------------------------------------------------------------------------------------------- soft labels

SOFT = [
    example(0, [(0, 1), (1, 2), (2, 2)], Preference(0, 1, probability=2 / 3), Preference(2, 1, tie=True)),
    example(1, [(0, 0), (1, 1)], Preference(1, 0)),
    example(1, [(2, 0), (1, 1)], Preference(0, 1, probability=0.9)),
]


@pytest.mark.parametrize("ties", ["half", "drop"])
@pytest.mark.parametrize("token_budget", [1, 1000])
def test_soft_labels_are_the_expected_loss_over_draws_of_votes(tmp_path, ties, token_budget):
    """Every way in which the votes can fall, weighted by its probability, each vote a plain choice."""
    algorithm = SoftRewardModel(ties=ties)

    def definition(made: Tables) -> torch.Tensor:
        prompts = []
        for e in SOFT:
            kept = [p for p in e.preferences if ties == "half" or not p.tie]
            pairs = []
            for p in kept:
                a, b = (score(made, e.prompt_ids[0], e.responses[i]) for i in (p.better, p.worse))
                share = p.probability or (0.5 if p.tie else 1.0)
                pairs.append(-share * sigmoid(a - b).log() - (1 - share) * sigmoid(b - a).log())
            prompts.append(sum(pairs) / len(pairs))
        return sum(prompts) / len(prompts)

    batch = SoftPairs(ties=ties == "half").batch(SOFT)
    torch.testing.assert_close(
        moved(algorithm, batch, tmp_path, token_budget), gradient(definition), rtol=1e-6, atol=1e-9
    )


def test_soft_labels_that_are_all_plain_choices_are_the_k_wise_loss(tmp_path):
    plain = [ranked(0, (0, 1), (1, 2), (2, 2)), ranked(1, (0, 0), (1, 1))]
    soft = moved(SoftRewardModel(), SoftPairs().batch(plain), tmp_path, 1000)
    hard = moved(RewardModel(), OrderedPairs().batch(plain), tmp_path, 1000)
    torch.testing.assert_close(soft, hard, rtol=0, atol=1e-12)


def test_at_the_log_odds_of_the_shares_soft_labels_stand_still_at_their_entropy(tmp_path):
    shares = [2 / 3, 0.75, 0.5]
    examples = [
        example(0, [(0, i), (1, i)], Preference(0, 1, tie=s == 0.5, probability=s)) for i, s in enumerate(shares)
    ]
    made = tables()
    with torch.no_grad():
        made.scores_XVV[0, 1] = 0.0
        made.scores_XVV[0, 0] = torch.tensor([math.log(s / (1 - s)) for s in shares], dtype=torch.float64)
    before = made.scores_XVV.detach().clone()
    metrics = learner_on(made, tmp_path).step(SoftPairs().batch(examples), SoftRewardModel())
    torch.testing.assert_close(made.scores_XVV.detach(), before, rtol=0, atol=1e-7)
    entropy = sum(-s * math.log(s) - (1 - s) * math.log(1 - s) for s in shares) / 3
    assert metrics["loss/pairs"].value == pytest.approx(entropy, abs=1e-6)
    assert metrics["pairs/label_entropy"].value == pytest.approx(entropy, abs=1e-6)


# -------------------------------------------------------------------------------------------------- whole rankings


def plackett_luce_by_enumeration(scores: list[torch.Tensor]) -> torch.Tensor:
    """P(order) = product of choices; the orders of K responses are enumerated, and their probabilities sum to 1."""

    def probability(order) -> torch.Tensor:
        strengths = [scores[i].exp() for i in order]
        return torch.stack([s / sum(strengths[k:]) for k, s in enumerate(strengths)]).prod()

    total = sum(probability(order) for order in permutations(range(len(scores))))
    assert total.item() == pytest.approx(1.0)
    return -probability(range(len(scores))).log()


@pytest.mark.parametrize("token_budget", [1, 1000])
def test_whole_rankings_are_plackett_luce_and_the_others_their_pairs(tmp_path, token_budget):
    best_first = [(0, 1), (1, 2), (2, 2), (0, 0)]
    tied = example(1, [(0, 1), (1, 1), (2, 0)], Preference(0, 1), Preference(0, 2), Preference(1, 2, tie=True))
    examples = [ranked(0, *best_first), ranked(1, (2, 1), (0, 2)), tied]

    def definition(made: Tables) -> torch.Tensor:
        whole = plackett_luce_by_enumeration([score(made, 0, r) for r in best_first]) / 3
        pair = -sigmoid(score(made, 1, (2, 1)) - score(made, 1, (0, 2))).log()
        gaps = [score(made, 1, (0, 1)) - score(made, 1, other) for other in ((1, 1), (2, 0))]
        return (whole + pair + sum(-sigmoid(g).log() for g in gaps) / 2) / 3

    batch = WholeRankings().batch(examples)
    assert batch.ranked_G.tolist() == [True, True, False]
    found = moved(PlackettLuce(), batch, tmp_path, token_budget)
    torch.testing.assert_close(found, gradient(definition), rtol=1e-6, atol=1e-9)


def test_a_ranking_is_strict_complete_and_without_contradiction():
    responses = [(0, 0), (0, 1), (0, 2)]
    order = [Preference(2, 0), Preference(0, 1), Preference(2, 1)]
    assert ranking_of(example(0, responses, *order)) == [2, 3, 1]
    assert ranking_of(example(0, responses, *order[:2])) is None
    assert ranking_of(example(0, responses, *order, Preference(1, 0))) is None
    circle = [Preference(0, 1), Preference(1, 2), Preference(2, 0)]
    assert ranking_of(example(0, responses, *circle)) is None
    tied = [*order[:2], Preference(1, 2, tie=True)]
    assert ranking_of(example(0, responses, *tied)) is None
    report = WholeRankings().report([example(0, responses, *order), example(0, responses, *circle)])
    assert report.startswith("1 comparisons that are a strict ranking") and "; 1 with ties" in report


# -------------------------------------------------------------------------------------------------- safety labels


@pytest.mark.parametrize("token_budget", [1, 1000])
def test_safety_is_the_ranking_and_the_likelihood_of_the_labels(tmp_path, token_budget):
    """The last prompt has labels and no ordered pair: it still teaches what is safe."""
    three, two = [(0, 1), (1, 2), (2, 2)], [(0, 0), (1, 1)]
    examples = [
        example(0, three, Preference(1, 0), Preference(1, 2), unsafe=(True, False, True)),
        example(1, two, Preference(0, 1)),
        example(1, [(2, 0), (2, 1)], Preference(0, 1, tie=True), unsafe=(False, True)),
    ]

    def definition(made: Tables) -> torch.Tensor:
        s = [score(made, 0, r) for r in three]
        t = [score(made, 1, r) for r in (*two, (2, 0), (2, 1))]
        ranking = (-sigmoid(s[1] - s[0]).log() - sigmoid(s[1] - s[2]).log()) / 2 - sigmoid(t[0] - t[1]).log()
        labels = -(sigmoid(s[1]) * (1 - sigmoid(s[0])) * (1 - sigmoid(s[2]))).log() / 3
        labels = labels - (sigmoid(t[2]) * (1 - sigmoid(t[3]))).log() / 2
        return (ranking + 0.7 * labels) / 3

    kind = SafetyLabels()
    assert [kind.trains(e) for e in examples] == [True, True, True]
    batch = kind.batch(examples)
    found = moved(SafetyRewardModel(coefficient=0.7), batch, tmp_path, token_budget)
    torch.testing.assert_close(found, gradient(definition), rtol=1e-6, atol=1e-9)


def test_on_a_pair_it_is_safe_rlhf_s_cost_loss_with_the_sign_of_a_score(tmp_path):
    """-log s(c_unsafer - c_safer) - log s(s_1 c_1) - log s(s_2 c_2), cost = minus score: coefficient 2 of the mean."""
    pair = [example(0, [(0, 1), (2, 2)], Preference(0, 1), unsafe=(False, True))]

    def definition(made: Tables) -> torch.Tensor:
        safer, unsafer = (-score(made, 0, r) for r in ((0, 1), (2, 2)))
        return -sigmoid(unsafer - safer).log() - sigmoid(-safer).log() - sigmoid(unsafer).log()

    found = moved(SafetyRewardModel(coefficient=2.0), SafetyLabels().batch(pair), tmp_path, 1000)
    torch.testing.assert_close(found, gradient(definition), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("token_budget", [1, 1000])
@pytest.mark.parametrize("labelled", [False, True], ids=["k_wise", "safety"])
def test_the_square_of_the_scores_is_safe_rlhf_s_mean_over_both_responses(tmp_path, token_budget, labelled):
    """loss + c * mean over all responses of the batch of s^2 where every prompt has two; else a mean by prompt."""
    pairs = [((0, 1), (2, 2)), ((1, 1), (0, 2))]
    three = [(0, 0), (1, 0), (2, 0)]
    plain = [example(0, pair, Preference(0, 1), unsafe=(False, True) * labelled) for pair in pairs]
    algorithm = SafetyRewardModel if labelled else RewardModel
    kind = SafetyLabels() if labelled else OrderedPairs()

    def added(examples, squares) -> None:
        batch = kind.batch(examples)
        without, found = (moved(algorithm(regularisation=c), batch, tmp_path, token_budget) for c in (0.0, 0.25))
        expected = gradient(lambda made: 0.25 * squares(made))
        torch.testing.assert_close(found - without, expected, rtol=1e-6, atol=1e-9)

    added(plain, lambda made: sum(score(made, 0, r) ** 2 for pair in pairs for r in pair) / 4)
    mixed = [plain[0], example(1, three, Preference(2, 0), unsafe=(True, True, False) * labelled)]
    added(
        mixed,
        lambda made: (
            (sum(score(made, 0, r) ** 2 for r in pairs[0]) / 2 + sum(score(made, 1, r) ** 2 for r in three) / 3) / 2
        ),
    )


# -------------------------------------------------------------------------------------------------- margins

LLAMA2 = {
    "small": {"significantly": 1.0, "better": 2 / 3, "slightly": 1 / 3, "negligibly": 0.0, "unstated": 0.0},
    "large": {"significantly": 3.0, "better": 2.0, "slightly": 1.0, "negligibly": 0.0, "unstated": 0.0},
    "none": dict.fromkeys(Degree, 0.0),
}


@pytest.mark.parametrize("table", LLAMA2)
@pytest.mark.parametrize("algorithm", [RewardModel(), SafetyRewardModel(coefficient=0.0)], ids=["k_wise", "safety"])
def test_margins_reach_the_loss_as_llama_2_prints_them(tmp_path, table, algorithm):
    degrees = list(Degree)
    examples = [example(0, [(0, 1), (1, 2)], Preference(0, 1, degree=d), unsafe=(False, False)) for d in degrees]
    batch = labels_of(algorithm, table).batch(examples)
    assert batch.margin_P.tolist() == pytest.approx([LLAMA2[table][d] for d in degrees])

    def definition(made: Tables) -> torch.Tensor:
        gap = score(made, 0, (0, 1)) - score(made, 0, (1, 2))
        return sum(-sigmoid(gap - LLAMA2[table][d]).log() for d in degrees) / len(degrees)

    torch.testing.assert_close(moved(algorithm, batch, tmp_path, 1000), gradient(definition), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("algorithm", [RewardModel(), SafetyRewardModel(coefficient=0.0)], ids=["k_wise", "safety"])
@pytest.mark.parametrize("table", LLAMA2)
def test_the_logged_loss_of_pairs_is_ln_2_where_scores_guess_whatever_the_margins(tmp_path, table, algorithm):
    examples = [example(0, [(0, 1), (1, 2)], Preference(0, 1, degree=d), unsafe=(False, False)) for d in Degree]
    batch, made = labels_of(algorithm, table).batch(examples), tables()
    gap = (score(made, 0, (0, 1)) - score(made, 0, (1, 2))).item()
    metrics = learner_on(made, tmp_path).step(batch, algorithm)
    assert metrics["loss/pairs"].value == pytest.approx(math.log1p(math.exp(-gap)), abs=1e-6)
    with torch.no_grad():
        made.scores_XVV.zero_()
    metrics = learner_on(made, tmp_path).step(batch, algorithm)
    assert metrics["loss/pairs"].value == pytest.approx(math.log(2), abs=1e-6)


def test_every_kind_of_label_keeps_its_pairs_together_when_a_batch_is_split():
    examples = [ranked(0, (0, 1), (1, 2), (2, 2)), ranked(1, (2, 1), (0, 2)), ranked(0, (1, 1), (0, 0))]
    for kind in (OrderedPairs(), SoftPairs(), WholeRankings(), SafetyLabels()):
        whole = kind.batch(examples)
        for rows in ([2, 0], [1], [0, 1, 2]):
            expected = kind.batch([examples[i] for i in rows])
            part = whole.select(torch.tensor(rows))
            for name in vars(expected):
                if name != "sequences":
                    found, wanted = getattr(part, name), getattr(expected, name)
                    order = part.group_P.argsort(stable=True) if name.endswith("_P") else slice(None)
                    assert torch.equal(found[order] if name != "group_P" else found.sort().values, wanted), (name, rows)
            assert torch.equal(part.sequences.token_ids_BL, expected.sequences.token_ids_BL)
