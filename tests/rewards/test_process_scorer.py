"""A process reward model as a scorer."""

import pytest
import torch

from assent.functional import process
from assent.rewards.process import ProcessScorer, ReadSolution, same_steps
from assent.stages.scorers.process import FORMS
from assent.types import Delimited, Prompt, Rollout

NEWLINE, END = 0, 9


def decode(ids) -> str:
    return "".join({NEWLINE: "\n", END: ""}.get(i, str(i)) for i in ids)


def rolled(*ids: int) -> Rollout:
    return Rollout(Prompt("p", "p\n", (7, 7)), ids, (-1.0,) * len(ids), True, decode(ids), 0)


def logits(sequences):
    """The sum of the tokens read so far, prompt left out, less 6: it shows where it was read."""
    within = sequences.response_ids_BT.cumsum(1).float() - 6.0
    return torch.where(sequences.mask_BT, within, 0.0)


def scorer(form: str, read=same_steps) -> ProcessScorer:
    return ProcessScorer("process", Delimited(decode), read, logits, FORMS[form])


ROLLED = rolled(1, 2, NEWLINE, 3, NEWLINE, 2, END)
ENDS, LOGITS = (2, 4, 6), torch.tensor([-3.0, 0.0, 11.0])


def test_events_stand_on_the_last_tokens_of_the_steps():
    (events,) = scorer("raw").score([ROLLED])
    assert tuple(e.index for e in events) == ENDS
    assert [e.value for e in events] == pytest.approx(LOGITS.sigmoid().tolist())


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("differences", lambda p: [p[0], p[1] - p[0], p[2] - p[1]]),
        ("product_differences", lambda p: [p[0], p[0] * p[1] - p[0], p[0] * p[1] * p[2] - p[0] * p[1]]),
        ("minimum_differences", lambda p: [p[0], min(p[0], p[1]) - p[0], min(p) - min(p[0], p[1])]),
        ("centred", lambda p: [x - 0.5 for x in p]),
        ("product", lambda p: [0.0, 0.0, float(torch.tensor(p).log().sum())]),
        ("minimum", lambda p: [0.0, 0.0, min(p)]),
        ("last", lambda p: [0.0, 0.0, p[2]]),
    ],
)
def test_every_form(form, wanted):
    (events,) = scorer(form).score([ROLLED])
    assert [e.value for e in events] == pytest.approx(wanted(LOGITS.sigmoid().tolist()), abs=1e-6)


def test_a_score_does_not_depend_on_the_neighbours():
    some = [ROLLED, rolled(5, END), rolled(1, NEWLINE, NEWLINE, 4, 4, NEWLINE, END)]
    together = scorer("differences").score(some)
    assert together == [scorer("differences").score([r])[0] for r in some]
    assert [tuple(e.index for e in events) for events in together] == [(2, 4, 6), (1,), (1, 6)]


def constant(value: float):
    return lambda s: torch.where(s.mask_BT, value, 0.0)


IDLE = (4, NEWLINE)


@pytest.mark.parametrize(
    ("form", "pays"), [("raw", True), ("centred", True), ("differences", False), ("minimum_differences", False)]
)
def test_idle_steps_pay_under_the_raw_form_and_not_under_differences(form, pays):
    """A model that finds an idle step as good as the one before it: the policy may write as many as it likes."""
    totals = []
    for idle in (0, 1, 5, 20):
        rollout = rolled(1, NEWLINE, *IDLE * idle, 2, END)
        judge = ProcessScorer("p", Delimited(decode), same_steps, constant(2.0), FORMS[form])
        totals.append(sum(e.value for e in judge.score([rollout])[0]))
    if pays:
        assert totals == sorted(totals) and totals[-1] > totals[0] + 5
    else:
        assert totals == pytest.approx([totals[0]] * 4, abs=1e-6)


def test_under_the_product_an_idle_step_costs():
    short, long = (
        sum(
            e.value
            for e in ProcessScorer(
                "p", Delimited(decode), same_steps, constant(2.0), FORMS["product_differences"]
            ).score([rolled(1, NEWLINE, *IDLE * n, 2, END)])[0]
        )
        for n in (0, 3)
    )
    assert long < short == pytest.approx(process.running_product(torch.full((2,), 2.0))[-1].item(), abs=1e-6)


def test_another_tokenizer_reads_its_own_tokens_and_rewards_the_policy_s():
    def own(rollout, ends):
        assert list(ends) == list(ENDS)
        return ReadSolution([1], [4, 4, 4, 4], (0, 1, 3))  # its own three ends: 4, 8 and 16 read so far

    (events,) = scorer("raw", own).score([ROLLED])
    assert tuple(e.index for e in events) == ENDS
    assert [e.value for e in events] == pytest.approx(torch.tensor([-2.0, 2.0, 10.0]).sigmoid().tolist())
