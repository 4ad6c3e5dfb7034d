"""The device and number type of a run, from what its recipe says to where models are put."""

import os
from pathlib import Path

import torch

from assent.errors import ConfigError
from assent.kernels import attend, products
from assent.models.placement import Placement
from assent.pipeline.stage import StageContext

PRODUCTS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve(device: str, precision: str) -> Placement:
    """Where models go: `auto` is a GPU where there is one. Under `torchrun` each process takes the GPU of its own rank.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `float32` or `bfloat16`, of the matrix products.

    Raises:
        ConfigError: there is no such GPU, or the products would be emulated.
    """
    there = _device(device)
    if precision == "bfloat16" and not _has_bfloat16(there):
        raise ConfigError(
            f"precision: bfloat16 has no use on {describe(there)}",
            got="a processor without arithmetic of that type",
            why="it would be emulated: slower than float32, a hundred times so on some processors, and less exact",
            fix="set precision: float32, or run on a GPU that has it (Ampere, 2020, or newer)",
        )
    return Placement(there, PRODUCTS[precision])


def _device(name: str) -> torch.device:
    local, processes = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index = local if name in ("auto", "cuda") else _index(name)
    if not torch.cuda.is_available():
        raise ConfigError(
            f"device: {name} is not there",
            got=f"torch {torch.__version__} without a GPU that it can use",
            why="a run that was meant for a GPU would take days on a CPU",
            fix="set device: auto or cpu, or install torch for CUDA and look at nvidia-smi",
        )
    if name.startswith("cuda:") and processes > 1:
        raise ConfigError(
            f"device: {name} is one GPU for {processes} processes",
            got=f"{processes} processes of torchrun",
            why="they would share its memory and wait for one another",
            fix="set device: cuda, which gives each process the GPU of its rank",
        )
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no GPU {index}",
            got=f"{torch.cuda.device_count()} GPUs, numbered from 0",
            why="each process needs one",
            fix="start as many processes as there are GPUs, or name one that is there",
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _index(name: str) -> int:
    """N of `cuda:N`."""
    if not (number := name.removeprefix("cuda:")).isdigit():
        raise ConfigError(
            f"there is no device {name!r}",
            got=name,
            why="models run on a CPU or on a GPU of CUDA",
            fix="write auto, cpu, cuda or cuda:N",
        )
    return int(number)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return True
    flags = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def describe(device: torch.device) -> str:
    """For people, and for the manifest: `cpu`, or `cuda:0 (NVIDIA H100 80GB HBM3)`."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def place_of(device: str, precision: str) -> str:
    """What the settings of a recipe come to on this machine, in words; raises as `resolve`."""
    found = resolve(device, precision)
    return f"{describe(found.device)} in {precision}"


def placement_of(context: StageContext) -> Placement:
    """Where the models of a stage go; noted in the artefact's environment, with what is computed in C, which rounds
    otherwise than torch."""
    found = resolve(context.device, context.precision)
    context.environment["device"] = describe(found.device)
    if found.device.type == "cpu":
        kernels = {attend.SOURCE.name: attend.attend(), products.SOURCE.name: products.multiply()}
        context.environment["in C"] = ", ".join(n for n, there in kernels.items() if there is not None) or "nothing"
    return found
