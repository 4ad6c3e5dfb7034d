"""Worlds small enough to enumerate: every response, every probability, every optimum is known.

Prompts are one token, responses two tokens of a vocabulary of V, so a prompt has V * V responses. Policy, critic and
reward model are tables. The real scoring, algorithms and learner run on them unchanged.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from assent.functional import kl
from assent.functional import logprobs as lp
from assent.functional.fingerprint import fingerprint
from assent.types import (
    ActorCriticOutputs,
    LeashedOutputs,
    Prompt,
    Request,
    Rollout,
    Sample,
    Sampling,
    ScoreEvent,
    ScoreEvents,
    Sequences,
    TokenOutputs,
)

RESPONSE_LENGTH = 2


class Tables(nn.Module):
    """Policy logits [X, 1 + V, V], two critics' values [X, 1 + V] and scores [X, V, V] for X prompts; state 0 is the
    start.

    Args:
        prompts: X.
        vocabulary: V.
        seed: of the initial policy; critics and scores start at 0.
        dtype: float64 where gradients are compared.
    """

    def __init__(self, prompts: int, vocabulary: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        states = 1 + vocabulary
        start = torch.randn(prompts, states, vocabulary, generator=generator, dtype=torch.float64)
        self.logits_XSV = nn.Parameter(start.to(dtype))
        self.values_XS = nn.Parameter(torch.zeros(prompts, states, dtype=dtype))
        self.cost_values_XS = nn.Parameter(torch.zeros(prompts, states, dtype=dtype))
        self.scores_XVV = nn.Parameter(torch.zeros(prompts, vocabulary, vocabulary, dtype=dtype))

    def distribution(self) -> Tensor:
        """P(response | prompt), [X, V, V], differentiable."""
        log = self.logits_XSV.log_softmax(-1)
        return (log[:, 0, :, None] + log[:, 1:]).exp()


class TableForward:
    """Implements `protocols.Forward` on `Tables`.

    Args:
        reference: what `leashed` holds the policy against; the policy itself, as it is at every moment, when None.
    """

    def __init__(self, tables: Tables, reference: Tables | None = None) -> None:
        self.tables, self.reference = tables, reference or tables

    def _states(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        ids = sequences.response_ids_BT
        prompt = sequences.token_ids_BL[:, :1].expand_as(ids)
        return prompt, torch.cat([torch.zeros_like(ids[:, :1]), 1 + ids[:, :-1]], 1)

    def logprobs(self, sequences: Sequences) -> Tensor:
        return self.tokens(sequences).logprobs_BT

    def tokens(self, sequences: Sequences) -> TokenOutputs:
        logits_BTV = self.tables.logits_XSV[self._states(sequences)]
        return TokenOutputs(lp.token_logprobs(logits_BTV, sequences.response_ids_BT), lp.entropy(logits_BTV))

    def leashed(self, sequences: Sequences) -> LeashedOutputs:
        out = self.tokens(sequences)
        return LeashedOutputs(out.logprobs_BT, out.entropy_BT, self.exact_kl(sequences))

    def exact_kl(self, sequences: Sequences) -> Tensor:
        """KL(policy || reference) of the state before each response token, [B, T]."""
        states = self._states(sequences)
        return kl.exact(self.tables.logits_XSV[states], self.reference.logits_XSV[states].detach())

    def values(self, sequences: Sequences) -> Tensor:
        return self.tables.values_XS[self._states(sequences)]

    def cost_values(self, sequences: Sequences) -> Tensor:
        return self.tables.cost_values_XS[self._states(sequences)]

    def actor_critic(self, sequences: Sequences) -> ActorCriticOutputs:
        out = self.tokens(sequences)
        return ActorCriticOutputs(out.logprobs_BT, out.entropy_BT, self.values(sequences))

    def scores(self, sequences: Sequences) -> Tensor:
        ids = sequences.response_ids_BT
        return self.tables.scores_XVV[sequences.token_ids_BL[:, 0], ids[:, 0], ids[:, 1]]

    def step_scores(self, sequences: Sequences, at_BT: Tensor) -> Tensor:
        """Of the first token by the value of the state it leads to, of the second by the score of the response."""
        ids, prompt = sequences.response_ids_BT, sequences.token_ids_BL[:, 0]
        first_B1 = self.tables.values_XS[prompt, 1 + ids[:, 0]][:, None]
        second_BV = self.tables.scores_XVV[prompt, ids[:, 0]]
        return torch.where(at_BT, torch.cat([first_B1, second_BV.gather(1, ids[:, 1:])], 1), 0.0)


class TableEngine:
    """Implements `protocols.Engine` on `Tables`: exact inverse-CDF sampling of both tokens."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Sample]:
        """One sample per request; the seed of the first request seeds the whole call."""
        log_XVV = self.tables.distribution().detach().log()
        x = torch.tensor([r.token_ids[0] for r in requests])
        v = log_XVV.shape[-1]
        log = self.tables.logits_XSV.detach().log_softmax(-1)
        if sampling.greedy:
            first_B = log[x, 0].argmax(-1)
            flat = first_B * v + log[x, 1 + first_B].argmax(-1)
        else:
            generator = torch.Generator().manual_seed(requests[0].seed % 2**63)
            flat = torch.multinomial(log_XVV.flatten(1)[x].exp(), 1, generator=generator)[:, 0]
        samples = []
        for prompt, first, second in zip(x.tolist(), (flat // v).tolist(), (flat % v).tolist(), strict=True):
            logprobs = (log[prompt, 0, first].item(), log[prompt, 1 + first, second].item())
            samples.append(Sample((first, second), logprobs, ended=True))
        return samples

    def sync(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """The tables are the learner's own."""

    def fingerprint(self) -> str:
        return fingerprint(dict(self.tables.named_parameters()))


class TableScorer:
    """A judge that knows the true reward of every response, [X, V, V]."""

    def __init__(self, rewards_XVV: Tensor, name: str = "truth") -> None:
        self.rewards_XVV, self.name = rewards_XVV, name

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        return [(ScoreEvent(1, float(self.rewards_XVV[(r.prompt.token_ids[0], *r.token_ids)])),) for r in rollouts]


def prompts(count: int) -> list[Prompt]:
    """The X prompts."""
    return [Prompt(f"prompt {x}", f"{x}", (x,)) for x in range(count)]


def rollout(tables: Tables, prompt: int, first: int, second: int) -> Rollout:
    """One response as if it had been sampled."""
    log = tables.logits_XSV.detach().log_softmax(-1)
    logprobs = (log[prompt, 0, first].item(), log[prompt, 1 + first, second].item())
    return Rollout(prompts(prompt + 1)[prompt], (first, second), logprobs, True, f"{first} {second}", 0)


def optimum(reference_XVV: Tensor, rewards_XVV: Tensor, *, kl_coef: float) -> Tensor:
    """The maximiser of E[reward] - kl_coef * KL(policy || reference): ref exp(reward / kl_coef) / Z, [X, V, V]."""
    weight = reference_XVV.log() + rewards_XVV / kl_coef
    return weight.flatten(1).softmax(-1).view_as(weight)


def myopic_optimum(reference_XVV: Tensor, rewards_XVV: Tensor, *, kl_coef: float) -> Tensor:
    """Where each token earns the expected reward of what follows and pays KL for itself alone, [X, V, V].

    The second token is that of `optimum`; the first does not see what the second will pay, so it weighs its
    continuations by the mean of their rewards and not by their free energy.
    """
    first_XV = reference_XVV.sum(-1)
    second_XVV = ((reference_XVV / first_XV[..., None]).log() + rewards_XVV / kl_coef).softmax(-1)
    expected_XV = (second_XVV * rewards_XVV).sum(-1)
    return (first_XV.log() + expected_XV / kl_coef).softmax(-1)[..., None] * second_XVV


def total_variation(p_XVV: Tensor, q_XVV: Tensor) -> float:
    """Largest over prompts of half the L1 distance between two policies, 0 to 1."""
    return (p_XVV - q_XVV).abs().flatten(1).sum(-1).max().item() / 2
