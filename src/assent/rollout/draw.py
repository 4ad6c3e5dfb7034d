"""From logits and one uniform number per row to a token and its log-probability: inverse-CDF, or the greatest."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from assent.rollout.randomness import _BELOW_ONE
from assent.types import Sampling

# One running sum over a long row is slow (it cannot be vectorised); from this width on, blocks are summed first.
_WIDE = 512
_BLOCK = 32
NUCLEUS = 64
"""So many of the most probable tokens are looked at first for top-p; eight times more where they have not the share."""


class Choice(NamedTuple):
    """One token for each of B rows.

    Args:
        tokens_B: int64.
        logprobs_B: of these, under the distribution that they were drawn from.
        kept_BV: bool, what could be drawn; None where nothing was left out.
    """

    tokens_B: Tensor
    logprobs_B: Tensor
    kept_BV: Tensor | None


@dataclass(frozen=True)
class Draw:
    """The rule of one `Sampling`, ready for a device.

    Args:
        sampling: the distribution.
        stops_S: int64, its stop tokens.
        is_stop_V: bool, the same as a table.
    """

    sampling: Sampling
    stops_S: Tensor
    is_stop_V: Tensor

    @classmethod
    def of(cls, sampling: Sampling, vocabulary: int, device: torch.device) -> "Draw":
        stops = torch.tensor(sorted(set(sampling.stop_token_ids)), dtype=torch.int64, device=device)
        is_stop = torch.zeros(vocabulary, dtype=torch.bool, device=device)
        is_stop[stops] = True
        return cls(sampling, stops, is_stop)

    def __call__(self, logits_BV: Tensor, uniform_B: Tensor, too_early_B: Tensor | None) -> Choice:
        """One token for each row.

        Args:
            logits_BV: overwritten.
            uniform_B: in [0, 1 - 2**-22).
            too_early_B: bool, rows in which a stop token is still impossible; None when no row is.
        """
        logits = logits_BV if logits_BV.dtype == torch.float64 else logits_BV.float()
        if self.sampling.temperature != 1.0:
            logits.div_(self.sampling.temperature)
        if too_early_B is not None and len(self.stops_S):
            stops = logits[:, self.stops_S]
            logits[:, self.stops_S] = stops.masked_fill_(too_early_B[:, None], float("-inf"))
        kept = None
        if self.sampling.restricted:
            kept = kept_tokens(logits, self.sampling.top_k, self.sampling.top_p)
            logits.masked_fill_(~kept, float("-inf"))
        probabilities = torch.softmax(logits, dim=-1)
        if self.sampling.greedy:
            tokens = logits.argmax(-1, keepdim=True)
        else:
            tokens = inverse_cdf(probabilities, uniform_B[:, None])
        return Choice(tokens[:, 0], probabilities.gather(1, tokens).log_()[:, 0], kept)


def kept_tokens(logits_BV: Tensor, top_k: int, top_p: float) -> Tensor:
    """bool [B, V]: what top-k and then top-p leave to draw from. Decided by the value, so that of equally probable
    tokens all are kept or none."""
    kept = logits_BV > float("-inf")
    if 0 < top_k < logits_BV.shape[1]:
        kept &= logits_BV >= logits_BV.topk(top_k, dim=-1).values[:, -1:]
    if top_p < 1.0:
        probabilities = torch.softmax(logits_BV.masked_fill(~kept, float("-inf")), dim=-1)
        kept &= probabilities >= _smallest_of_nucleus(probabilities, top_p)
    return kept


def _smallest_of_nucleus(probabilities_BV: Tensor, top_p: float) -> Tensor:
    """[B, 1]: the last of the most probable ones that are needed to have the share together."""
    width = 0
    while True:
        width = min(probabilities_BV.shape[1], max(NUCLEUS, 8 * width))
        values = probabilities_BV.topk(width, dim=-1).values
        short = values.cumsum(-1) < top_p
        if width == probabilities_BV.shape[1] or not bool(short[:, -1].any()):
            return values.gather(1, short.sum(-1, keepdim=True).clamp_(max=width - 1))


def inverse_cdf(probabilities_BV: Tensor, uniform_B1: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds the uniform number; int64 [B, 1].

    A token of probability 0 is never returned. Wide rows are searched in two levels: the block, then the token in it.
    """
    width = probabilities_BV.shape[1]
    if width < _WIDE:
        return _search(probabilities_BV, uniform_B1 * probabilities_BV.sum(-1, keepdim=True))
    if width % _BLOCK:
        probabilities_BV = F.pad(probabilities_BV, (0, -width % _BLOCK))
    blocks = probabilities_BV.unflatten(1, (-1, _BLOCK))
    sums = blocks.sum(-1)
    cumulative = sums.cumsum(-1)
    target = cumulative[:, -1:] * uniform_B1
    block = torch.searchsorted(cumulative, target, right=True).clamp_(max=sums.shape[1] - 1)
    before = cumulative.gather(1, block) - sums.gather(1, block)
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, _BLOCK))[:, 0]
    return _search(inside, target - before).add_(block, alpha=_BLOCK).clamp_(max=width - 1)


def _search(probabilities_BV: Tensor, target_B1: Tensor) -> Tensor:
    cumulative = probabilities_BV.cumsum(-1)
    # Rounding may carry the target to either side of the row's mass; inside it, an impossible token cannot be met.
    target = torch.minimum(target_B1.clamp(min=0.0), cumulative[:, -1:] * _BELOW_ONE)
    # The clamp is for rows of nan alone, whose search runs off the end: the caller sees their nan log-probability.
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=cumulative.shape[1] - 1)
