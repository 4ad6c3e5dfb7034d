"""How much two ways of computing the same log-probabilities may differ."""

import torch
from torch import Tensor

from assent.rollout.decoders import step_aside

# Largest difference in log-probability that is put down to rounding when a way to decode is compared with the model; in
# half precision about two units in the last place of a logit of 25, over the `LIKELY` most probable tokens. (A double
# model is no more exact: Hugging Face computes its norms and angles in float32.)
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 0.25}
LIKELY = 64


def require_agreement(found_V: Tensor, expected_V: Tensor, dtype: torch.dtype) -> None:
    """Compare logits, [..., V], with those of the model's forward.

    Args:
        dtype: of the model's weights.

    Raises:
        ContractError: a log-probability differs by more than `TOLERANCE`.
    """
    expected, found = (x.double().log_softmax(-1) for x in (expected_V, found_V))
    if dtype in (torch.float16, torch.bfloat16):  # far down the tail, these are all rounding
        likely = expected.topk(min(LIKELY, expected.shape[-1])).indices
        expected, found = expected.gather(-1, likely), found.gather(-1, likely)
    gap = float((found - expected).abs().max())
    if not gap <= TOLERANCE.get(dtype, 0.0):
        raise step_aside(f"its log-probabilities differ from the model's forward by {gap:.2g}")
