"""From rollouts to `Scored`: everything that is known about a sample before an algorithm looks at it.

A reward is made in this order. Of each scorer by itself: normalise -> clip -> weight (`WeightedScorer`). Of the sum:
normalise -> clip -> penalties (`Shaping`). The KL penalty comes last, in the algorithm. Raw scores are kept beside, by
name, and so are the moments of every normaliser, in the checkpoint.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from assent.errors import ContractError, NonFiniteError
from assent.functional import control, kl
from assent.protocols import Metered, State
from assent.train.overlong import SoftOverlong
from assent.train.weighing import WeightedScorer, ask, clipped, deviation_of, distribution, leaves, standardise
from assent.types import (
    CombinedScores,
    CriticScored,
    Mean,
    Moments,
    NamedScores,
    NoScore,
    Rollout,
    Scored,
    ScoreEvents,
    Sequences,
    sampler_logprobs,
)
from assent.types.micro_batches import map_sequences
from assent.types.settings import above, at_least


@dataclass(frozen=True, slots=True)
class Shaping:
    """How the weighted sum of the scores becomes what the policy is trained on, in this order.

    Args:
        normalise: subtract the running mean and divide by the running deviation of all sums seen so far.
        clip: bound on the absolute score after normalisation; 10 in OpenRLHF, 5 in DeepSpeed-Chat.
        missing_end_penalty: subtracted where a response did not end within its budget (TRL's
            `missing_eos_penalty`; TL;DR replaces the score by -1 instead).
        length_penalty: alpha in alpha * len(y), len in tokens.
        overlong: DAPO's penalty on the tokens before the limit; `{longest: ..., cache: ...}`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    normalise: bool = False
    clip: float | None = None
    missing_end_penalty: float = 0.0
    length_penalty: float = 0.0
    overlong: SoftOverlong | None = None

    def __post_init__(self) -> None:
        above(0, clip=self.clip)


@dataclass(frozen=True, slots=True)
class KLControl:
    """The KL coefficient: fixed, or adapted so that the observed KL nears a target (Ziegler et al., section 2.2).

    Args:
        coefficient: beta at the start, in score units per nat; 0.02 in InstructGPT, 0.05 in TL;DR.
        target: nats per sequence; None keeps beta fixed. 6 for 24 tokens in Ziegler et al.
        horizon: episodes over which beta would multiply by e at a constant error of 1; 10,000 in Ziegler et al.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    coefficient: float = 0.05
    target: float | None = None
    horizon: int = 10_000

    def __post_init__(self) -> None:
        at_least(0, coefficient=self.coefficient)
        above(0, target=self.target, horizon=self.horizon)
        if self.target is not None and not self.coefficient:
            raise ValueError(
                f"a coefficient of 0 stays 0, whatever the target; got target {self.target}; begin above 0, or leave "
                "the target out"
            )


LogprobsOf = Callable[[Sequences], Tensor]
"""Log-probabilities or values of the response tokens, [B, T]."""

PROBED = 8
"""One response in so many is read to see whether the sampler's log-probabilities are the learner's. A batch is seen
whole once in as many versions."""

ROUNDING = {torch.float32: 2e-5}
"""Nats by which a log-probability of the sampler may differ and still be taken for the learner's. The largest of 5,000
tokens differs by 5e-6 (GPT-2 of 4 x 160 and 6 x 384); in double precision the sampler's, kept in single, never do."""


@dataclass(frozen=True)
class Judged:
    """Rollouts, and the events that each scorer gave them."""

    rollouts: tuple[Rollout, ...]
    events: tuple[tuple[ScoreEvents, ...], ...]


class RolloutScoring:
    """Implements `protocols.Scoring`; its state is the running moments of every scorer and of their sum, the KL
    coefficient and the episode count.

    Args:
        old: the learner's log-probabilities of the response tokens; `old_logprobs` asks for as few as it can.
        reference: the reference's, at the same temperature.
        scorers: at least one.
        shaping: from score to what is trained on.
        kl_control: the KL coefficient.
        token_budget: tokens of one forward micro-batch.
    """

    def __init__(
        self,
        old: LogprobsOf,
        reference: LogprobsOf,
        scorers: Sequence[WeightedScorer],
        *,
        shaping: Shaping,
        kl_control: KLControl,
        token_budget: int,
    ) -> None:
        self.old, self.reference, self.scorers = old, reference, list(scorers)
        self.shaping, self.kl_control, self.token_budget = shaping, kl_control, token_budget
        self.moments, self.coefficient, self.episodes = Moments(), kl_control.coefficient, 0
        self.moments_of: dict[str, Moments] = {w.scorer.name: Moments() for w in self.scorers}
        self._in_force: dict[str, Moments] = {}

    def __call__(self, rollouts: Sequence[Rollout]) -> Scored:
        answers = [ask(w.scorer, rollouts) for w in self.scorers]
        rows, unscored = self._scored_by_all(answers, rollouts)
        kept = [rollouts[i] for i in rows]
        sequences = Sequences.of_rollouts(kept)
        mask = sequences.mask_BT
        last = mask.long().cumsum(1).argmax(1, keepdim=True)
        named = self._named(answers, rows, kept)
        events = [_scatter([a.events[i] for i in rows], mask) for a in answers]
        weighted_BT, of_scorers = self._weigh(events, last, learn=True)
        shaped_BT, penalties = self._shape(weighted_BT, mask, last, kept, learn=True)
        old, of_sampler = old_logprobs(self.old, kept, sequences, token_budget=self.token_budget)
        (ref,) = map_sequences(lambda s: (self.reference(s),), sequences, self.token_budget)
        k1 = kl.k1(old, ref)
        observed = Mean.of(torch.where(mask, k1, 0.0).sum(1))
        metrics = {
            **_rollout_metrics(kept, mask, len(rollouts) - len(kept)),
            **unscored,
            **_objective(shaped_BT, k1, mask, self.coefficient),
            **of_sampler,
            **distribution(named),
            **{name: mean for answer in answers for name, mean in answer.metrics.items()},
            **of_scorers,
            **penalties,
            "objective/entropy": Mean.of(torch.where(mask, -old, 0.0).sum(1)),
            "kl/k3": Mean.of(torch.where(mask, kl.k3(old, ref), 0.0).sum(1)),
            "kl/coefficient": Mean(self.coefficient, 1.0),
        }
        scored = Scored(tuple(kept), sequences, shaped_BT, tuple(named), old, ref, self.coefficient, metrics)
        self._after(observed.value, len(kept))
        return scored

    def judged(self, rollouts: Sequence[Rollout]) -> "Judged":
        """What the scorers say of rollouts that are not trained on; those that any of them would not score are left
        out.

        Raises:
            ContractError: none was scored.
            NonFiniteError: a score is not finite.
        """
        answers = [ask(w.scorer, rollouts) for w in self.scorers]
        rows, _ = self._scored_by_all(answers, rollouts)
        kept = tuple(rollouts[i] for i in rows)
        self._named(answers, rows, kept)
        return Judged(kept, tuple(tuple(answer.events[i] for i in rows) for answer in answers))

    def shaped(self, judged: "Judged") -> Tensor:
        """Their scores, made as those of the batch that was scored last, by the very moments, `[B]`."""
        mask = Sequences.of_rollouts(judged.rollouts).mask_BT
        last = mask.long().cumsum(1).argmax(1, keepdim=True)
        weighted_BT, _ = self._weigh([_scatter(events, mask) for events in judged.events], last, learn=False)
        shaped_BT, _ = self._shape(weighted_BT, mask, last, judged.rollouts, learn=False)
        return shaped_BT.sum(1)

    @property
    def judging(self) -> "RolloutScoring":
        """The scoring without a critic's values: itself."""
        return self

    @property
    def critics(self) -> dict[str, LogprobsOf]:
        """Whose values it asks for, by name."""
        return {}

    def _scored_by_all(
        self, answers: Sequence[CombinedScores], rollouts: Sequence[Rollout]
    ) -> tuple[list[int], dict[str, Mean]]:
        """The rollouts that every scorer scored, but for those that only watch; the others are dropped, and counted by
        reason."""
        asked = [answer for w, answer in zip(self.scorers, answers, strict=True) if not w.watched]
        kept = [i for i in range(len(rollouts)) if all(answer.events[i] for answer in asked)]
        reasons = Counter(said.reason for answer in answers for said in answer.events if isinstance(said, NoScore))
        told = {f"unscored/{reason}": Mean(float(count), 1.0) for reason, count in sorted(reasons.items())}
        if not kept:
            raise ContractError(
                "no rollout of this step was scored",
                got=f"{len(rollouts)} rollouts, none scored by all of "
                f"{[w.scorer.name for w in self.scorers if not w.watched]}"
                + "".join(f"; {reason}: {count}" for reason, count in reasons.items()),
                why="there is nothing to train on",
                fix="run the scorers on a few responses by hand; an empty tuple of events means no score",
            )
        for judge in (j for w in self.scorers for j in leaves(w.scorer)):
            if isinstance(judge, Metered):
                told |= judge.metrics()
        return kept, told

    def _named(
        self, answers: Sequence[CombinedScores], rows: Sequence[int], rollouts: Sequence[Rollout]
    ) -> list[NamedScores]:
        """What each scorer said of the rollouts that are kept, followed by what its parts said; nan where one that only
        watches said nothing."""
        named = []
        for weighted, answer in zip(self.scorers, answers, strict=True):
            silent_B = torch.tensor([not answer.events[i] for i in rows])
            totals = torch.tensor([sum(e.value for e in answer.events[i]) for i in rows])
            parts = [NamedScores(p.name, p.scores_B[list(rows)]) for p in answer.parts]
            mine = [NamedScores(weighted.scorer.name, torch.where(silent_B, torch.nan, totals)), *parts]
            self._require_finite(mine, silent_B, rollouts)
            named += mine
        return named

    def _require_finite(self, named: Sequence[NamedScores], silent_B: Tensor, rollouts: Sequence[Rollout]) -> None:
        for n in named:
            bad_B = ~n.scores_B.isfinite() & ~silent_B
            if bad_B.any():
                raise NonFiniteError(
                    f"scorer {n.name!r} gave a score that is not finite",
                    got=f"{n.scores_B[bad_B][0].item()} for {rollouts[int(bad_B.nonzero()[0])].prompt.id!r}",
                    why="one such score would spoil every weight",
                    fix="return no events for a response that cannot be scored",
                )

    def _weigh(self, events: Sequence[Tensor], last: Tensor, *, learn: bool) -> tuple[Tensor, dict[str, Mean]]:
        """The weighted sum of the scorers, each normalised and clipped by itself, `[B, T]`; and what each adds.

        Args:
            learn: take these scores into the moments first; else those of the batch before are used as they are.
        """
        total, metrics = torch.zeros_like(events[0]), {}
        for weighted, raw_BT in zip(self.scorers, events, strict=True):
            name, events_BT = weighted.scorer.name, raw_BT
            if not weighted.weight:
                continue
            if weighted.normalise is not None:
                if learn:
                    seen = Moments.of(raw_BT.sum(1))
                    self._in_force[name] = weighted.normalise(self.moments_of[name], seen)
                    self.moments_of[name] = self.moments_of[name] + seen
                moments = self._in_force[name]
                events_BT = standardise(raw_BT, last, moments)
                metrics[f"normaliser_mean/{name}"] = Mean(moments.mean, 1.0)
                metrics[f"normaliser_std/{name}"] = Mean(deviation_of(moments), 1.0)
            if weighted.clip is not None:
                events_BT = clipped(events_BT, last, weighted.clip)
            events_BT = weighted.weight * events_BT
            metrics[f"score_weighted/{name}"] = Mean.of(events_BT.sum(1))
            total = total + events_BT
        return total, metrics

    def _shape(
        self, events_BT: Tensor, mask: Tensor, last: Tensor, rollouts: Sequence[Rollout], *, learn: bool
    ) -> tuple[Tensor, dict[str, Mean]]:
        """What is trained on, but for the KL; `learn` as in `_weigh`."""
        shaping, metrics = self.shaping, {}
        if shaping.normalise:
            if learn:
                self.moments = self.moments + Moments.of(events_BT.sum(1))
            events_BT = standardise(events_BT, last, self.moments)
            metrics["reward/normaliser_mean"] = Mean(self.moments.mean, 1.0)
            metrics["reward/normaliser_std"] = Mean(deviation_of(self.moments), 1.0)
        if shaping.clip is not None:
            events_BT = clipped(events_BT, last, shaping.clip)
        missing = torch.tensor([0.0 if r.ended else shaping.missing_end_penalty for r in rollouts])
        lengths = shaping.length_penalty * mask.sum(1).float()
        if shaping.missing_end_penalty:
            metrics["reward/missing_end_penalty"] = Mean.of(missing)
        if shaping.length_penalty:
            metrics["reward/length_penalty"] = Mean.of(lengths)
        taken = missing + lengths
        if shaping.overlong is not None:
            overlong = -shaping.overlong.of(mask.sum(1), torch.tensor([r.ended for r in rollouts]))
            metrics["reward/overlong_penalty"] = Mean.of(overlong)
            taken = taken + overlong
        return events_BT.scatter_add(1, last, -taken[:, None]), metrics

    def _after(self, observed_kl: float, episodes: int) -> None:
        self.episodes += episodes
        if self.kl_control.target is not None:
            self.coefficient = control.adaptive_kl(
                self.coefficient,
                observed_kl,
                target=self.kl_control.target,
                horizon=self.kl_control.horizon,
                episodes=episodes,
            )

    def state_dict(self) -> State:
        return {
            "moments": _as_list(self.moments),
            "moments_of": {name: _as_list(moments) for name, moments in self.moments_of.items()},
            "coefficient": self.coefficient,
            "episodes": self.episodes,
        }

    def load_state_dict(self, state: State) -> None:
        self.moments = Moments(*state["moments"])
        self.moments_of = {name: Moments(*moments) for name, moments in state["moments_of"].items()}
        self.coefficient, self.episodes = state["coefficient"], state["episodes"]


class CriticScoring:
    """`RolloutScoring` followed by the critic's values.

    Args:
        scoring: gives all the rest.
        values: the critic's value of the state before each response token.
    """

    def __init__(self, scoring: RolloutScoring, values: LogprobsOf) -> None:
        self.scoring, self.values = scoring, values

    @property
    def judging(self) -> RolloutScoring:
        return self.scoring

    @property
    def critics(self) -> dict[str, LogprobsOf]:
        return {"values": self.values}

    def __call__(self, rollouts: Sequence[Rollout]) -> CriticScored:
        scored = self.scoring(rollouts)
        (values,) = map_sequences(lambda s: (self.values(s),), scored.sequences, self.scoring.token_budget)
        return CriticScored(**{f.name: getattr(scored, f.name) for f in fields(scored)}, values_BT=values)

    def state_dict(self) -> State:
        return self.scoring.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.scoring.load_state_dict(state)


def _as_list(moments: Moments) -> list[float]:
    return [moments.count, moments.mean, moments.squares]


def _scatter(events: Sequence[ScoreEvents], mask: Tensor) -> Tensor:
    values = torch.zeros(mask.shape)
    for row, of_row in enumerate(events):
        for event in of_row:
            if not (0 <= event.index < mask.shape[1] and bool(mask[row, event.index])):
                raise ContractError(
                    "a score was given for a token that is not part of the response",
                    got=f"token {event.index} of response {row}, which has {int(mask[row].sum())} included tokens",
                    why="a reward on a masked token never reaches the policy",
                    fix="score tokens of the response; the outcome belongs on its last token",
                )
            values[row, event.index] += event.value
    return values


def _rollout_metrics(rollouts: Sequence[Rollout], mask: Tensor, dropped: int) -> dict[str, Mean]:
    ended = sum(r.ended for r in rollouts)
    return {
        "response/length": Mean.of(mask.sum(1).float()),
        "response/ended": Mean(float(ended), float(len(rollouts))),
        "response/unscored": Mean(float(dropped), 1.0),
        "val/num_eos_tokens": Mean(float(ended), 1.0),
    }


def _objective(shaped_BT: Tensor, k1: Tensor, mask: Tensor, coefficient: float) -> dict[str, Mean]:
    kl_B = torch.where(mask, k1, 0.0).sum(1)
    scores_B = shaped_BT.sum(1)
    return {
        "objective/kl": Mean.of(kl_B),
        "objective/scores": Mean.of(scores_B),
        "objective/non_score_reward": Mean.of(-coefficient * kl_B),
        "objective/rlhf_reward": Mean.of(scores_B - coefficient * kl_B),
    }


def old_logprobs(
    own: LogprobsOf, rollouts: Sequence[Rollout], sequences: Sequences, *, token_budget: int
) -> tuple[Tensor, dict[str, Mean]]:
    """Log-probabilities of the responses under the learner before its update, `[B, T]`, and how far the sampler's are
    from them.

    Engine and learner hold the same weights and mostly compute the same number twice. So the learner reads one response
    in `PROBED`, other ones at the next version; where it finds every token of them within `ROUNDING` of the sampler's,
    it takes the sampler's for the rest, else it reads them too. Older weights, half precision and a restricted
    distribution are told from the same weights by that comparison and nothing else.

    Args:
        own: the learner's log-probabilities.
        token_budget: tokens of one forward micro-batch.
    """
    mask, count = sequences.mask_BT, len(rollouts)
    sampled_BT = sampler_logprobs(rollouts, mask)
    # One after the other, since the samples of one prompt stand together, which is then read once.
    step = -(-count // PROBED)
    order = torch.arange(count).roll(-step * (rollouts[0].version % PROBED))
    probe, rest = order[:step], order[step:]
    old_BT = _read(own, sequences, probe, sampled_BT, token_budget)
    gap = (old_BT - sampled_BT)[probe].abs()[mask[probe]]
    taken = bool(len(rest)) and float(gap.max()) <= ROUNDING.get(old_BT.dtype, 0.0)
    if len(rest) and not taken:
        old_BT = _read(own, sequences, rest, old_BT, token_budget)
        gap = (old_BT - sampled_BT).abs()[mask]
    share = mask[rest].sum().item() if taken else 0
    return old_BT, {**_order_statistics(gap), "sampler/taken": Mean(float(share), float(mask.sum()))}


def _read(own: LogprobsOf, sequences: Sequences, rows: Tensor, others_BT: Tensor, token_budget: int) -> Tensor:
    """The learner's log-probabilities of these rows, among the others as they are."""
    (own_RT,) = map_sequences(lambda s: (own(s),), sequences.select(rows), token_budget)
    whole_BT = others_BT.to(own_RT.dtype, copy=True)
    whole_BT[rows, : own_RT.shape[1]] = own_RT
    return whole_BT


def _order_statistics(gap: Tensor) -> dict[str, Mean]:
    """Of the distances of single tokens: a mean would hide the tail."""
    # Not `quantile`, which refuses more than 2**24 elements: a thousand responses of 16k tokens.
    return {
        "sampler/gap_p50": Mean(gap.kthvalue((len(gap) + 1) // 2).values.item(), 1.0),
        "sampler/gap_p95": Mean(gap.kthvalue(math.ceil(0.95 * len(gap))).values.item(), 1.0),
        "sampler/gap_max": Mean(gap.max().item(), 1.0),
    }
