"""From rollouts to `Scored`: everything that is known about a sample before an algorithm looks at it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from assent.errors import ContractError, NonFiniteError
from assent.functional import control, kl
from assent.protocols import Metered, Scorer, State
from assent.train.batching import map_sequences
from assent.train.overlong import SoftOverlong
from assent.types import CriticScored, Mean, Moments, NamedScores, NoScore, Rollout, Scored, ScoreEvents, Sequences


@dataclass(frozen=True, slots=True)
class Shaping:
    """How scores become what the policy is trained on, in this order.

    Args:
        normalise: subtract the running mean and divide by the running deviation of all scores seen so far.
        clip: bound on the absolute score after normalisation; 10 in OpenRLHF, 5 in DeepSpeed-Chat.
        missing_end_penalty: subtracted where a response did not end within its budget (TRL's
            `missing_eos_penalty`; TL;DR replaces the score by -1 instead).
        length_penalty: alpha in alpha * len(y), len in tokens.
        overlong: DAPO's penalty on the tokens before the limit; `{limit: ..., margin: ...}`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    normalise: bool = False
    clip: float | None = None
    missing_end_penalty: float = 0.0
    length_penalty: float = 0.0
    overlong: SoftOverlong | None = None


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


@dataclass(frozen=True)
class WeightedScorer:
    """A scorer and its weight in the sum that the policy is trained on."""

    scorer: Scorer
    weight: float = 1.0


LogprobsOf = Callable[[Sequences], Tensor]
"""Log-probabilities or values of the response tokens, [B, T]."""


class RolloutScoring:
    """Implements `protocols.Scoring`; its state is the running moments, the KL coefficient and the episode count.

    Args:
        old: the learner's log-probabilities of the response tokens.
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

    def __call__(self, rollouts: Sequence[Rollout]) -> Scored:
        kept, events, named, unscored = self._score(rollouts)
        sequences = Sequences.of_rollouts(kept)
        mask = sequences.mask_BT
        raw_BT = _scatter(events, mask)
        shaped_BT, penalties = self._shape(raw_BT, mask, kept)
        (old,) = map_sequences(lambda s: (self.old(s),), sequences, self.token_budget)
        (ref,) = map_sequences(lambda s: (self.reference(s),), sequences, self.token_budget)
        k1 = kl.k1(old, ref)
        observed = Mean.of(torch.where(mask, k1, 0.0).sum(1))
        metrics = {
            **_rollout_metrics(kept, mask, len(rollouts) - len(kept)),
            **unscored,
            **_objective(shaped_BT, k1, mask, self.coefficient),
            **_sampler_gap(kept, old, mask),
            **{f"score/{n.name}": Mean.of(n.scores_B) for n in named},
            **penalties,
            "objective/entropy": Mean.of(torch.where(mask, -old, 0.0).sum(1)),
            "kl/k3": Mean.of(torch.where(mask, kl.k3(old, ref), 0.0).sum(1)),
            "kl/coefficient": Mean(self.coefficient, 1.0),
        }
        scored = Scored(tuple(kept), sequences, shaped_BT, tuple(named), old, ref, self.coefficient, metrics)
        self._after(observed.value, len(kept))
        return scored

    def _score(
        self, rollouts: Sequence[Rollout]
    ) -> tuple[list[Rollout], list[ScoreEvents], list[NamedScores], dict[str, Mean]]:
        """Ask every scorer; drop the samples that any of them would not score, and count them by reason."""
        answers = [w.scorer.score(rollouts) for w in self.scorers]
        kept = [i for i in range(len(rollouts)) if all(answer[i] for answer in answers)]
        reasons = Counter(said.reason for answer in answers for said in answer if isinstance(said, NoScore))
        told = {f"unscored/{reason}": Mean(float(count), 1.0) for reason, count in sorted(reasons.items())}
        if not kept:
            raise ContractError(
                "no rollout of this step was scored",
                got=f"{len(rollouts)} rollouts, none scored by all of {[w.scorer.name for w in self.scorers]}"
                + "".join(f"; {reason}: {count}" for reason, count in reasons.items()),
                why="there is nothing to train on",
                fix="run the scorers on a few responses by hand; an empty tuple of events means no score",
            )
        named = []
        for weighted, answer in zip(self.scorers, answers, strict=True):
            values = torch.tensor([sum(e.value for e in answer[i]) for i in kept])
            if not values.isfinite().all():
                raise NonFiniteError(
                    f"scorer {weighted.scorer.name!r} gave a score that is not finite",
                    got=f"{values[~values.isfinite()][0].item()} for {rollouts[kept[0]].prompt.id!r} or a neighbour",
                    why="one such score would spoil every weight",
                    fix="return no events for a response that cannot be scored",
                )
            named.append(NamedScores(weighted.scorer.name, values))
        events = [
            tuple(
                type(e)(e.index, e.value * w.weight)
                for w, answer in zip(self.scorers, answers, strict=True)
                for e in answer[i]
            )
            for i in kept
        ]
        for weighted in self.scorers:
            if isinstance(weighted.scorer, Metered):
                told |= weighted.scorer.metrics()
        return [rollouts[i] for i in kept], events, named, told

    def _shape(self, events_BT: Tensor, mask: Tensor, rollouts: Sequence[Rollout]) -> tuple[Tensor, dict[str, Mean]]:
        shaping, metrics = self.shaping, {}
        last = mask.long().cumsum(1).argmax(1, keepdim=True)
        if shaping.normalise:
            totals = events_BT.sum(1)
            self.moments = self.moments + Moments.of(totals)
            deviation = max(self.moments.variance, 1e-8) ** 0.5
            # The mean belongs to the sequence, so it is taken off once, at its last token.
            events_BT = (events_BT / deviation).scatter_add(
                1, last, torch.full_like(events_BT[:, :1], -self.moments.mean / deviation)
            )
            metrics["reward/normaliser_mean"] = Mean(self.moments.mean, 1.0)
            metrics["reward/normaliser_std"] = Mean(deviation, 1.0)
        if shaping.clip is not None:
            totals = events_BT.sum(1, keepdim=True)
            excess = totals.clamp(-shaping.clip, shaping.clip) - totals
            events_BT = events_BT.scatter_add(1, last, excess)
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
            "moments": [self.moments.count, self.moments.mean, self.moments.squares],
            "coefficient": self.coefficient,
            "episodes": self.episodes,
        }

    def load_state_dict(self, state: State) -> None:
        self.moments = Moments(*state["moments"])
        self.coefficient, self.episodes = state["coefficient"], state["episodes"]


class CriticScoring:
    """`RolloutScoring` followed by the critic's values.

    Args:
        scoring: gives all the rest.
        values: the critic's value of the state before each response token.
    """

    def __init__(self, scoring: RolloutScoring, values: LogprobsOf) -> None:
        self.scoring, self.values = scoring, values

    def __call__(self, rollouts: Sequence[Rollout]) -> CriticScored:
        scored = self.scoring(rollouts)
        (values,) = map_sequences(lambda s: (self.values(s),), scored.sequences, self.scoring.token_budget)
        return CriticScored(**{f.name: getattr(scored, f.name) for f in fields(scored)}, values_BT=values)

    def state_dict(self) -> State:
        return self.scoring.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.scoring.load_state_dict(state)


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


def _sampler_gap(rollouts: Sequence[Rollout], old: Tensor, mask: Tensor) -> dict[str, Mean]:
    """How far the engine's log-probabilities are from the learner's, per token: a mean would hide the tail."""
    sampled = torch.zeros_like(old)
    for row, rollout in enumerate(rollouts):
        sampled[row, : len(rollout.token_ids)] = torch.tensor(rollout.sampler_logprobs)
    gap = (sampled - old).abs()[mask]
    return {
        "sampler/gap_p50": Mean(gap.quantile(0.5).item(), 1.0),
        "sampler/gap_p95": Mean(gap.quantile(0.95).item(), 1.0),
        "sampler/gap_max": Mean(gap.max().item(), 1.0),
    }
