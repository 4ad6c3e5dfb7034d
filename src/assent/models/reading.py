"""Weights from a folder or the hub, refused unless they are read exactly as they were written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as hf_logging

from assent.errors import ArtefactError, ContractError

OLD = (".attn.masked_bias", ".attn.bias", "embeddings.position_ids")
"""Constants that the classes of GPT-2 and BERT saved as weights until 2023, as many a model of the hub has them."""


def read_weights(
    kind: Any,
    path: str | Path,
    dtype: torch.dtype,
    *,
    replaced: Callable[[str], bool] = lambda name: False,
    **options: Any,
) -> PreTrainedModel:
    """The model of a folder or hub name as `kind`, one of transformers' Auto classes.

    Args:
        replaced: names of weights that may be missing or left over, because the caller puts a new head in their place.
        options: further arguments of `from_pretrained`.

    Raises:
        ArtefactError: there is no such model.
        ContractError: weights are missing, unexpected or of another shape.
    """
    if not (Path(path).is_dir() or _may_be_hub_name(path)):
        raise unreadable(path, FileNotFoundError("no such folder"))
    try:
        with quiet():
            model, report = kind.from_pretrained(
                path, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable(path, error) from error
    report["unexpected_keys"] = [k for k in report["unexpected_keys"] if not str(k).endswith(OLD)]
    for kind_of_key in ("missing_keys", "unexpected_keys"):
        report[kind_of_key] = [k for k in report[kind_of_key] if not replaced(str(k))]
    faults = {name: sorted(str(k) for k in keys) for name, keys in report.items() if keys}
    if faults:
        raise ContractError(
            f"the weights in {path} are not those of a {type(model).__name__}",
            got="; ".join(f"{name}: {', '.join(keys[:5])} ({len(keys)} in all)" for name, keys in faults.items()),
            why="transformers would go on with random numbers in their place, or leave trained ones out",
            fix="give the folder that was saved for this kind of model, or save it again whole",
        )
    _own_memory(model)
    return model


def _own_memory(model: PreTrainedModel) -> None:
    # Loaded weights are views of the mapped file, aligned to 8 bytes, and matrix products round differently by
    # alignment: a model would not agree bit for bit with itself saved and loaded. It would also change with its file.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _may_be_hub_name(path: str | Path) -> bool:
    return isinstance(path, str) and path.count("/") <= 1 and not path.startswith(("/", ".", "~"))


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own table of missing weights, which becomes an error here, and its progress bars."""
    level, bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bar:
            hf_logging.enable_progress_bar()


def unreadable(path: str | Path, error: Exception) -> ArtefactError:
    return ArtefactError(
        "the model cannot be read",
        got=f"{path}: {(str(error) or type(error).__name__).splitlines()[0]}",
        why="neither a folder with such files nor a model of the hub answers to this name",
        fix="check the path; for a hub name check spelling, network and access",
    )
