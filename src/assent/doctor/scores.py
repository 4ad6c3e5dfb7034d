"""D6: a score is read from the end of the response, and from nowhere else."""

from dataclasses import replace

import torch
from torch import Tensor

from assent.doctor.layout import EXTRA_COLUMNS, Read, padded
from assent.doctor.report import NOISE, Finding, refusal
from assent.types import Sequences

MOST = 0.5
"""Share of the responses whose score must change with their last token. A causal model that reads there changes nearly
all of them; one that reads anywhere before it changes none."""

HEARD = 1e-6
"""Smallest change of a score that counts, relative to scores above 1: the same block is computed twice, so a score that
does not depend on the changed token comes out equal to the last bit."""


def score_reads_the_end(
    scores: Read, sequences: Sequences, *, name: str, end_id: int, room: int, dtype: torch.dtype
) -> Finding:
    """D6: another last token, another score; other padding, the same; different responses, different scores.

    The end token is also planted in the prompt and in the response: a model that looks for the first end token, where
    it should look at the length, is found only then.

    Args:
        scores: of a block, `[b]`.
        sequences: a few rows, each another one (`distinct`).
        name: of the scorer, for the message.
        end_id: the end token of the scorer's tokenizer.
        room: columns of padding that the model still has positions for.
        dtype: of the weights; sets the tolerance for padding.
    """
    with torch.no_grad():
        base = scores(sequences)
        scale = max(1.0, base.abs().max().item())
        _check_spread(base, scale, name)
        shares = []
        for where, variant in _planted(sequences, end_id).items():
            changed = (scores(_other_end(variant, end_id)) - scores(variant)).abs() > HEARD * scale
            share = changed.float().mean().item()
            if share < MOST:
                raise _not_the_end(name, where, share, int(changed.sum()), len(changed))
            shares.append(share)
        columns = max(0, min(EXTRA_COLUMNS, room))
        wider = scores(padded(sequences, columns=columns, fill=end_id))
        gap = (wider - base).abs().max().item() / scale
    if not gap <= NOISE[dtype]:
        raise _padding_is_scored(name, gap * scale, NOISE[dtype] * scale)
    has_padding = columns > 0 or bool((sequences.lengths_B < sequences.token_ids_BL.shape[1]).any())
    padding = f"padding moves them by {gap * scale:.1g}" if has_padding else "no padding in this batch"
    detail = (
        f"{name}: another last token changes {min(shares):.0%} of {len(sequences)} scores or more; scores span "
        f"{base.min().item():.3g} to {base.max().item():.3g}; {padding}"
    )
    return Finding(1 - min(shares), 1 - MOST, detail)


def _planted(sequences: Sequences, end_id: int) -> dict[str, Sequences]:
    """The rows as they are, and with an end token where one can stand and must not be read."""
    in_prompt = sequences.token_ids_BL.clone()
    in_prompt[:, 0] = end_id
    variants = {"": sequences, ", an end token in the prompt": replace(sequences, token_ids_BL=in_prompt)}
    long = sequences.response_lengths_B > 1
    if bool(long.any()):
        rows = sequences.select(long.nonzero()[:, 0])
        ids = rows.token_ids_BL.clone()
        ids[torch.arange(len(rows)), rows.prompt_lengths_B] = end_id
        variants[", an end token at the start of the response"] = replace(rows, token_ids_BL=ids)
    return variants


def distinct(sequences: Sequences) -> Sequences:
    """Each sequence once."""
    seen: dict[tuple[int, ...], int] = {}
    for row, (ids, length) in enumerate(
        zip(sequences.token_ids_BL.tolist(), sequences.lengths_B.tolist(), strict=True)
    ):
        seen.setdefault(tuple(ids[:length]), row)
    return sequences.select(torch.tensor(list(seen.values())))


def _other_end(sequences: Sequences, end_id: int) -> Sequences:
    """Another token in the last place of each row: one that occurs in the block, or the end, or 0."""
    ids = sequences.token_ids_BL.clone()
    inside = torch.arange(ids.shape[1]) < sequences.lengths_B[:, None]
    known = torch.cat([ids[inside], torch.tensor([0, end_id])]).unique()
    rows, last = torch.arange(len(sequences)), sequences.lengths_B - 1
    place = torch.searchsorted(known, ids[rows, last])
    ids[rows, last] = known[(place + max(1, len(known) // 2)) % len(known)]
    return replace(sequences, token_ids_BL=ids)


def _check_spread(base: Tensor, scale: float, name: str) -> None:
    spread = (base.max() - base.min()).item()
    if len(base) > 1 and not spread > HEARD * scale:
        raise refusal(
            "D6",
            got=f"{name} gives all {len(base)} responses the score {base[0].item():.6g}",
            why="equal scores carry no preference: nothing would be learned",
            causes=(
                "the score is read at a token that all responses share, in the prompt or in the padding",
                "the head is zero or was not loaded",
                "the responses are all the same, or were cut to nothing: look at the token audit",
            ),
        )


def _not_the_end(name: str, where: str, share: float, changed: int, count: int) -> Exception:
    return refusal(
        "D6",
        got=f"another last response token changed {changed} of {count} scores of {name} ({share:.0%}{where})",
        why="chosen and rejected would get the same score, or a score of something else than the response",
        causes=(
            "the score is read at the first end or pad token, which stands in the prompt: give it the lengths",
            "pad equals end, and the search for the last token stops before the end: use lengths, or a pad of its own",
            "prompt and response are cut from the right, so that the response never reaches the model",
            "the model is not causal to its last position: check its attention mask",
        ),
    )


def _padding_is_scored(name: str, gap: float, allowed: float) -> Exception:
    return refusal(
        "D6",
        got=f"padding moved the scores of {name} by up to {gap:.3g} (allowed: {allowed:.1g})",
        why="a score would depend on the longest response of its batch",
        causes=(
            "the score is read at the last column instead of the last token: give it the lengths",
            "attention sees padding: pad on the right of a causal model, or pass a mask",
        ),
    )
