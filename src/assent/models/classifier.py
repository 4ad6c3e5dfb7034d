"""Text classifiers of the `transformers` family, such as sentiment or toxicity models, with their own tokenizers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from assent.errors import ConfigError
from assent.models.placement import CPU, Placement, in_full, narrowed, place, running_in
from assent.models.reading import read_weights
from assent.models.tokenizer import load_tokenizer

ROWS = 32  # texts of one forward
PADDING_TOLERANCE = 1e-3
PROBE = ("A film.", "A film that nobody who saw it will forget, for better or worse.")


@dataclass(frozen=True)
class Classifier:
    """A classifier with its tokenizer: one folder.

    Args:
        pads: padding was seen to change no logit, so texts of several lengths may share a forward.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pads: bool

    def logits_of(self, label: str) -> Callable[[Sequence[str]], list[float | None]]:
        """Texts to the logit of this label, None for a text with more tokens than the model reads: none is cut.

        Raises:
            ConfigError: the model has no such label.
        """
        labels = {str(name): int(i) for i, name in (self.model.config.id2label or {}).items()}
        if label not in labels:
            raise ConfigError(
                "the classifier has no label of this name",
                got=label,
                why="the score is the logit of one label",
                fix=f"choose one of: {', '.join(labels)}",
            )
        return lambda texts: self._logits(texts, labels[label])

    def _logits(self, texts: Sequence[str], column: int) -> list[float | None]:
        rows = [list(ids) for ids in self.tokenizer(list(texts))["input_ids"]] if texts else []
        longest = self.longest
        fitting = sorted((i for i, ids in enumerate(rows) if len(ids) <= longest), key=lambda i: len(rows[i]))
        values: list[float | None] = [None] * len(rows)
        size = ROWS if self.pads else 1
        for start in range(0, len(fitting), size):
            block = fitting[start : start + size]
            for i, value in zip(block, forward(self.model, self.tokenizer, [rows[i] for i in block]), strict=True):
                values[i] = value[column].item()
        return values

    @property
    def longest(self) -> int:
        """Tokens it can read."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return min(self.tokenizer.model_max_length, positions or self.tokenizer.model_max_length)


def load_classifier(path: str | Path, *, dtype: torch.dtype = torch.float32, placement: Placement = CPU) -> Classifier:
    """Read a sequence-classification model of any number of labels; it stays frozen.

    Raises:
        ArtefactError: there is no such model.
        ContractError: weights are missing or unexpected.
    """
    model = read_weights(AutoModelForSequenceClassification, path, dtype)
    place(model, placement)
    model.eval().requires_grad_(False)
    tokenizer = load_tokenizer(path)
    with in_full(model):
        pads = _padding_is_harmless(model, tokenizer)
    return Classifier(model, tokenizer, pads=pads)


@torch.no_grad()
def forward(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits of the rows, [rows, labels], float32 on the CPU; rows of several lengths are padded on the right."""
    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=model.device)
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    inputs = {"input_ids": ids, "attention_mask": mask.long().to(model.device)}
    # No token types: encoders take zeros where none are given, and GPT-2 would read them as more tokens.
    with running_in(narrowed(model), ids.device):
        return model(**inputs).logits.float().cpu()


def _padding_is_harmless(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tried out: a decoder looks for its last token by the pad id, and finds another one where that is not set."""
    if tokenizer.pad_token_id is None or model.config.get_text_config().pad_token_id != tokenizer.pad_token_id:
        return False
    rows = [list(ids) for ids in tokenizer(list(PROBE))["input_ids"]]
    together, alone = forward(model, tokenizer, rows), torch.cat([forward(model, tokenizer, [r]) for r in rows])
    return bool((together - alone).abs().max() <= PADDING_TOLERANCE)
