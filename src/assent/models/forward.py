"""From tokens to what a loss needs: with `encoder`, the only code that knows padding and attention layout.

Sequences come as right-padded blocks with explicit lengths and a mask. The backbone runs on the block; heads run only
at included response positions, gathered into `[N, D]`; results are spread back to `[B, T]`, exactly 0 where masked.
No token id has a meaning here, so the pad token may equal any other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from assent.errors import ContractError
from assent.functional.logprobs import KeptTokens
from assent.models.encoder import AnyEncoder
from assent.models.placement import device_of
from assent.models.prepare import (
    HeadStates,
    LogitStates,
    check_scores,
    exact_kl,
    hidden_at,
    prepare,
    reader_of,
)
from assent.models.raw_scores import RAW_SCORE, SCORE_OFFSET, RawScale, raw_scale, remember_raw
from assent.models.trunk import embedding_weight, pick
from assent.types import ActorCriticOutputs, KeptBlock, LeashedOutputs, Sequences, TokenOutputs
from assent.types.micro_batches import map_sequences

BLOCK_TOKENS = 2048
"""Slots of one block where no gradient is kept. Of 512 to 16k, 2048 was fastest on one CPU core (256 sequences of 18 to
92 tokens, Llama of 2 layers of 96: 105k tokens/s, 60k at 8192)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the N included response tokens of a block are.

    Args:
        row_N: the row of each.
        before_N: place in its row of the token before each, that is of the state it is drawn from.
        at_N: index of its own place in the flattened `[B, T]`.
        tokens_N: the tokens.
    """

    row_N: Tensor
    before_N: Tensor
    at_N: Tensor
    tokens_N: Tensor
    shape_BT: torch.Size

    @classmethod
    def of(cls, sequences: Sequences) -> "Places":
        at_N = sequences.mask_BT.flatten().nonzero()[:, 0]
        row_N = at_N.div(sequences.mask_BT.shape[1], rounding_mode="floor")
        own_N = sequences.prompt_lengths_B[row_N] + at_N % sequences.mask_BT.shape[1]
        tokens_N = pick(sequences.token_ids_BL[..., None], row_N * sequences.token_ids_BL.shape[1] + own_N)[:, 0]
        return cls(row_N, own_N - 1, at_N, tokens_N, sequences.mask_BT.shape)

    def spread(self, values_N: Tensor) -> Tensor:
        """`[B, T]`, 0 elsewhere."""
        flat = values_N.new_zeros(self.shape_BT.numel())
        return flat.index_copy(0, self.at_N, values_N).view(self.shape_BT)


def _raised(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _policy_states(model: PreTrainedModel, sequences: Sequences) -> tuple[HeadStates | LogitStates, Places]:
    sequences = sequences.to(device_of(model))
    places = Places.of(sequences)
    states = reader_of(model)(model, sequences, places.row_N, places.before_N)
    return (states if sequences.kept is None else replace(states, kept=_kept_at(places, sequences.kept))), places


def _kept_at(places: Places, kept: KeptBlock) -> KeptTokens:
    """Of the N included response tokens."""
    return KeptTokens(kept.ids_M, kept.start_BT.flatten()[places.at_N], kept.count_BT.flatten()[places.at_N])


def token_outputs(model: PreTrainedModel, sequences: Sequences, *, temperature: float) -> TokenOutputs:
    """Log-probability and entropy (nats) of each included response token, `[B, T]`, 0 where masked; both carry
    gradients, and are those among the tokens that could be drawn, where `sequences.kept` says so.

    Args:
        temperature: divides the logits, as in sampling; > 0.

    Raises:
        ContractError: a sequence is longer than the model's positions.
        ValueError: temperature is not above 0, or a token is outside the vocabulary.
    """
    states, places = _policy_states(model, sequences)
    logprobs_N, entropy_N = states.logprobs_and_entropy(places.tokens_N, temperature)
    return TokenOutputs(places.spread(logprobs_N), places.spread(entropy_N))


def token_logprobs(model: PreTrainedModel, sequences: Sequences, *, temperature: float) -> Tensor:
    """`token_outputs` without the entropy, cheaper: log-probabilities `[B, T]`, 0 where masked."""
    states, places = _policy_states(model, sequences)
    return places.spread(states.logprobs(places.tokens_N, temperature))


class ScalarModel(nn.Module):
    """A transformers sequence-classification model with one label, as reward model or critic.

    Score = `model.score(hidden state) + offset`. The gain of a normalisation is folded into the head's weight and the
    offset kept in the config (`assent_score_offset`), so that any other server of the folder gives the same score up
    to a constant. As a critic, deep-copy a reward model: its values start from normalised scores.

    Args:
        model: `AutoModelForSequenceClassification` compatible, `num_labels=1`, with its head in `.score`.

    Raises:
        ContractError: it is none of these, or its own logit is not head of last hidden state.
    """

    bidirectional: ClassVar[bool] = False

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        head = getattr(model, "score", None)
        if type(head) is not nn.Linear or head.out_features != 1:
            raise ContractError(
                "a scalar model needs one linear output in `.score`",
                got=f"{type(model).__name__} with score={head}",
                why="its score is read as head times hidden state of one token",
                fix="use a ...ForSequenceClassification model saved with num_labels=1",
            )
        self.model = model
        prepare(model)
        check_scores(model)

    @property
    def head(self) -> nn.Linear:
        head = self.model.score
        assert isinstance(head, nn.Linear)
        return head

    @property
    def offset(self) -> float:
        return float(getattr(self.model.config, SCORE_OFFSET, 0.0))

    def _read(self, hidden_ND: Tensor) -> Tensor:
        head = self.head
        bias = None if head.bias is None else _raised(head.bias)
        return nn.functional.linear(_raised(hidden_ND), _raised(head.weight), bias)[:, 0] + self.offset

    def token_values(self, sequences: Sequences) -> Tensor:
        """Value of the state before each included response token, `[B, T]`, 0 where masked.

        The state before response token t is the hidden state at `prompt_length - 1 + t`: it has not seen token t.
        """
        sequences = sequences.to(device_of(self.model))
        places = Places.of(sequences)
        return places.spread(self._read(hidden_at(self.model, sequences, places.row_N, places.before_N)))

    def last_scores(self, sequences: Sequences) -> Tensor:
        """Score at the last token of each response, `[B]`, whatever that token is, and whatever the mask says of it."""
        sequences = sequences.to(device_of(self.model))
        rows_B = torch.arange(len(sequences), device=sequences.token_ids_BL.device)
        return self._read(hidden_at(self.model, sequences, rows_B, sequences.lengths_B - 1))

    @property
    def raw_scale(self) -> RawScale:
        """From its scores back to the raw ones, the logits of its training."""
        return raw_scale(self.model.config)

    def step_scores(self, sequences: Sequences, at_BT: Tensor) -> Tensor:
        """Score at the named response tokens, which have read themselves and all before them, `[B, T]`; 0 elsewhere.

        Args:
            at_BT: bool, True at the last token of a step; only on included tokens.
        """
        sequences = replace(sequences, mask_BT=at_BT).to(device_of(self.model))
        places = Places.of(sequences)
        return places.spread(self._read(hidden_at(self.model, sequences, places.row_N, places.before_N + 1)))

    @torch.no_grad()
    def become_cost(self) -> None:
        """Change the scores to minus the raw scores, for good: from harmlessness as it was trained to cost."""
        scale = self.raw_scale
        offset = -scale.mean - scale.std * self.offset
        head = self.model.score
        assert isinstance(head, nn.Linear)
        for parameter in (head.weight, *([] if head.bias is None else [head.bias])):
            parameter.mul_(-scale.std)
        setattr(self.model.config, SCORE_OFFSET, offset)
        setattr(self.model.config, RAW_SCORE, [0.0, 1.0])

    @torch.no_grad()
    def normalise(self, mean: float, std: float) -> None:
        """Change the scores s to (s - mean) / std, for good.

        Args:
            mean: of the present scores, on the samples that shall have mean 0.
            std: of the same; > 0.

        Raises:
            ContractError: std is not above 0, or a number is not finite.
        """
        if not (std > 0 and torch.isfinite(torch.tensor([mean, std])).all()):
            raise ContractError(
                "scores cannot be normalised by these moments",
                got=f"mean {mean}, standard deviation {std}",
                why="equal or non-finite scores carry no preference",
                fix="check that the reward model was trained, and that the reference samples differ",
            )
        remember_raw(self.model.config, mean, std)
        offset = (self.offset - mean) / std
        self.head.weight.div_(std)
        if self.head.bias is not None:
            self.head.bias.div_(std)
        setattr(self.model.config, SCORE_OFFSET, offset)


class ValueHead(nn.Module):
    """A linear head on the policy's own hidden states: a critic without a second trunk.

    Zero at the start, so the first values are 0 and the first gradients through it leave the trunk alone.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @classmethod
    def on(cls, policy: PreTrainedModel) -> "ValueHead":
        """A head for this policy, on its device."""
        return cls(policy.config.get_text_config().hidden_size).to(embedding_weight(policy).device)

    def read(self, hidden_ND: Tensor) -> Tensor:
        """Values `[N]` in float32 at least."""
        return nn.functional.linear(_raised(hidden_ND), _raised(self.linear.weight), _raised(self.linear.bias))[:, 0]


class Reads(Protocol):
    """A model with one score for a sequence."""

    def last_scores(self, sequences: Sequences) -> Tensor: ...


class Critic(Protocol):
    """Where `ModelForward` gets values from: a second model, or the trunk that has already run."""

    def values(self, sequences: Sequences, states: HeadStates | LogitStates, places: Places) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class _OwnTrunk:
    scalar: ScalarModel

    def values(self, sequences: Sequences, states: HeadStates | LogitStates, places: Places) -> Tensor:
        return self.scalar.token_values(sequences)


@dataclass(frozen=True, slots=True)
class _SharedTrunk:
    head: ValueHead

    def values(self, sequences: Sequences, states: HeadStates | LogitStates, places: Places) -> Tensor:
        return places.spread(self.head.read(states.hidden_ND))


class ModelForward:
    """The models of a learner, behind `protocols.Forward`.

    Args:
        policy: a causal language model; what `tokens` and `actor_critic` read.
        critic: a `ScalarModel` of its own, or a `ValueHead` on the policy's trunk, which then runs once for both.
        cost_critic: a second critic of its own, of cost; what `cost_values` reads.
        scalar: a reward model in training, decoder or encoder; what `scores` reads.
        reference: frozen; what `leashed` and `exact_kl` hold the policy against. It belongs to no optimiser.
        temperature: of the policy and the reference, in sampling and scoring alike; > 0.

    `modules` holds what was given, by role, for an optimiser: names start with `policy.`, `critic.`, `cost_critic.` or
    `scalar.`.
    """

    def __init__(
        self,
        *,
        policy: PreTrainedModel | None = None,
        critic: ScalarModel | ValueHead | None = None,
        cost_critic: ScalarModel | None = None,
        scalar: ScalarModel | AnyEncoder | None = None,
        reference: PreTrainedModel | None = None,
        temperature: float = 1.0,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0; got {temperature}; use the temperature of the sampling")
        self.temperature = temperature
        roles: dict[str, nn.Module | None] = {
            "policy": policy,
            "critic": critic,
            "cost_critic": cost_critic,
            "scalar": scalar,
        }
        self.modules = nn.ModuleDict({role: module for role, module in roles.items() if module is not None})
        self._policy, self._reference, self._cost_critic = policy, reference, cost_critic
        self._scalar: Reads | None = scalar
        self._critic: Critic | None = None
        if critic is not None:
            self._critic = _SharedTrunk(critic) if isinstance(critic, ValueHead) else _OwnTrunk(critic)
        for model in (policy, reference):
            if model is not None:
                reader_of(model)

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return device_of(self.modules)

    def logprobs(self, sequences: Sequences) -> Tensor:
        return token_logprobs(_given(self._policy, "policy"), sequences, temperature=self.temperature)

    def values(self, sequences: Sequences) -> Tensor:
        critic = _given(self._critic, "critic")
        if isinstance(critic, _OwnTrunk):
            return critic.scalar.token_values(sequences)
        states, places = _policy_states(_given(self._policy, "policy"), sequences)
        return critic.values(sequences, states, places)

    def cost_values(self, sequences: Sequences) -> Tensor:
        return _given(self._cost_critic, "cost critic").token_values(sequences)

    def tokens(self, sequences: Sequences) -> TokenOutputs:
        return token_outputs(_given(self._policy, "policy"), sequences, temperature=self.temperature)

    def actor_critic(self, sequences: Sequences) -> ActorCriticOutputs:
        critic = _given(self._critic, "critic")
        states, places = _policy_states(_given(self._policy, "policy"), sequences)
        logprobs_N, entropy_N = states.logprobs_and_entropy(places.tokens_N, self.temperature)
        values_BT = critic.values(sequences, states, places)
        return ActorCriticOutputs(places.spread(logprobs_N), places.spread(entropy_N), values_BT)

    def leashed(self, sequences: Sequences) -> LeashedOutputs:
        """`tokens`, with the exact KL to the reference; the policy's trunk runs once for all three."""
        states, places = _policy_states(_given(self._policy, "policy"), sequences)
        logprobs_N, entropy_N = states.logprobs_and_entropy(places.tokens_N, self.temperature)
        kl_N = self._exact_kl(states, sequences)
        return LeashedOutputs(places.spread(logprobs_N), places.spread(entropy_N), places.spread(kl_N))

    def exact_kl(self, sequences: Sequences) -> Tensor:
        """KL(policy || reference) of the state before each included response token, over the whole vocabulary and at
        the temperature, `[B, T]`, nats, 0 where masked; carries the policy's gradient.

        Raises:
            ContractError: there is no reference.
            ValueError: the two vocabularies differ in size.
        """
        states, places = _policy_states(_given(self._policy, "policy"), sequences)
        return places.spread(self._exact_kl(states, sequences))

    def _exact_kl(self, states: HeadStates | LogitStates, sequences: Sequences) -> Tensor:
        with torch.no_grad():
            ref_states, _ = _policy_states(_given(self._reference, "reference"), sequences)
        return exact_kl(states, ref_states, self.temperature)

    def scores(self, sequences: Sequences) -> Tensor:
        return _given(self._scalar, "scalar").last_scores(sequences)

    def step_scores(self, sequences: Sequences, at_BT: Tensor) -> Tensor:
        return step_reader(_given(self._scalar, "scalar")).step_scores(sequences, at_BT)


def step_reader(scalar: object) -> ScalarModel:
    """The model, as one that can be asked for the score of a step.

    Raises:
        ContractError: it reads a whole response at once.
    """
    if not isinstance(scalar, ScalarModel):
        raise ContractError(
            "this model has no score of a step",
            got=f"{type(scalar).__name__}, which reads a whole response at once",
            why="the score of a step would depend on the steps after it, which are not yet written when it is rewarded",
            fix="use a decoder as a process reward model",
        )
    return scalar


def _given(part: T | None, role: str) -> T:
    if part is None:
        raise ContractError(
            f"this forward has no {role} model",
            got="a loss that asks for it",
            why="an algorithm and the models of its learner must fit",
            fix=f"build ModelForward with {role}=...",
        )
    return part


def in_blocks(
    read: Callable[[Sequences], tuple[Tensor, ...]], sequences: Sequences, *, block_tokens: int = BLOCK_TOKENS
) -> tuple[Tensor, ...]:
    """`map_sequences` in blocks of the size that is fastest where nothing is trained."""
    return map_sequences(read, sequences, block_tokens)
