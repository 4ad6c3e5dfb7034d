"""Token ids of many texts, with every distinct word encoded once.

A byte-level tokenizer cuts a text into words by a pattern and encodes each by itself. Texts have far fewer distinct
words than words, so cutting here and looking words up takes a quarter of the processor time. It is done only where the
ids are certain to be the same: the tokenizer cuts by a pattern known here, and the text is ASCII, where Python's
expressions mean what the tokenizer's do, and holds no added token.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

ENOUGH = 64
"""Texts; for fewer it is not worth looking at the tokenizer."""

BLOCK = 1024
"""Texts whose new words are encoded together."""

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What the tokenizers of Qwen cut by, and those that `train_bpe` makes."""

_WORD = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.ASCII,
)
"""The same for ASCII: letters and digits spelt out, and `\\s` without the separators that only Python counts."""

_CUTS = [
    {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
]


def encode_each(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text alone, nothing put before or after it, as `tokenizer` itself gives them."""
    special = _special(tokenizer) if len(texts) >= ENOUGH else None
    if special is None:
        return _plainly(tokenizer, texts)
    found: list[list[int]] = []
    known: dict[str, list[int]] = {}
    for start in range(0, len(texts), BLOCK):
        block = texts[start : start + BLOCK]
        cut = [_WORD.findall(text) if text.isascii() and not special.search(text) else None for text in block]
        new = list({word for words in cut if words for word in words} - known.keys())
        known.update(zip(new, _plainly(tokenizer, new), strict=True))
        others = iter(_plainly(tokenizer, [text for text, words in zip(block, cut, strict=True) if words is None]))
        found += [next(others) if words is None else [i for word in words for i in known[word]] for words in cut]
    return found


def _plainly(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []


def _special(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """What finds an added token in a text; None for a tokenizer whose words are not known to be those of `_WORD`."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or _is_own(type(tokenizer)):
        return None
    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.model, models.BPE) or backend.model.dropout is not None:
        return None
    if _state(backend.normalizer) not in (None, {"type": "NFC"}):  # neither changes ASCII
        return None
    cuts = _state(backend.pre_tokenizer)
    if cuts is None or cuts.get("pretokenizers") != _CUTS:
        return None
    added = [re.escape(token.content) for token in backend.get_added_tokens_decoder().values()]
    return re.compile("|".join(added) or r"(?!)")


def _is_own(kind: type[PreTrainedTokenizerFast]) -> bool:
    """Whether a class encodes by something else than its backend."""
    base = PreTrainedTokenizerFast
    return any(getattr(kind, name) is not getattr(base, name) for name in ("__call__", "_encode_plus"))


def _state(part: Any) -> dict[str, Any] | None:
    return None if part is None else dict(json.loads(part.__getstate__()))
