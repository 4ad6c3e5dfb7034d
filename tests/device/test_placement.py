"""Where a recipe says that models run, and what of it is part of an artefact."""

from types import SimpleNamespace

import pytest
import torch

from assent.errors import ConfigError
from assent.functional.logprobs import _logits_at_once
from assent.models.placement import Placement
from assent.pipeline.recipe import parse_recipe
from assent.pipeline.run import plan
from assent.stages import TABLE, placement
from assent.stages.placement import place_of, placement_of, resolve

RECIPE = "name: r\nstages:\n  s: {do: sft, model: m, data: {format: domain_demonstrations, count: 9}, epochs: 1, " + (
    "batch_size: 3, optimization: {optimizer: {name: adamw, lr: 0.1}}}\n"
)


@pytest.fixture
def gpus(monkeypatch):
    """A machine with two GPUs, as far as `resolve` asks."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    return chosen


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_is_a_gpu_where_there_is_one(gpus):
    assert resolve("auto", "float32") == Placement(torch.device("cuda", 0), torch.float32)
    assert resolve("cpu", "float32").device.type == "cpu"
    assert resolve("cuda:1", "bfloat16") == Placement(torch.device("cuda", 1), torch.bfloat16)
    assert gpus == [0, 1]


def test_auto_is_the_cpu_where_there_is_no_gpu_and_cuda_is_refused(no_gpu):
    assert place_of("auto", "float32") == "cpu in float32"
    with pytest.raises(ConfigError, match="device: cuda is not there"):
        resolve("cuda", "float32")


def test_each_process_of_torchrun_takes_the_gpu_of_its_rank(gpus, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve("cuda", "float32").device == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="one GPU for 3 processes"):
        resolve("cuda:0", "float32")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="there is no GPU 2"):
        resolve("cuda", "float32")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:7"])
def test_a_device_that_is_not_there_is_refused(gpus, name):
    with pytest.raises(ConfigError):
        resolve(name, "float32")


def test_bfloat16_is_refused_where_it_would_be_emulated(gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    with pytest.raises(ConfigError, match="bfloat16 has no use"):
        resolve("cuda", "bfloat16")
    monkeypatch.setattr(placement, "_has_bfloat16", lambda device: False)
    with pytest.raises(ConfigError, match="bfloat16 has no use on cpu"):
        resolve("cpu", "bfloat16")


def ids(folder, *overrides: str) -> str:
    return plan(parse_recipe(RECIPE, TABLE, overrides), folder)["s"].identity.id


def test_precision_is_part_of_what_an_artefact_is_and_device_is_not(tmp_path):
    one = ids(tmp_path)
    assert ids(tmp_path, "device=cpu") == ids(tmp_path, "device=cuda:3") == one
    assert ids(tmp_path, "precision=float32") == one != ids(tmp_path, "precision=bfloat16")


@pytest.mark.parametrize("override", ["device=gpu", "device=cuda:", "precision=float16"])
def test_other_devices_and_number_types_are_no_settings(override):
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        parse_recipe(RECIPE, TABLE, [override])


def test_the_resolved_recipe_says_both():
    recipe = parse_recipe(RECIPE, TABLE, ["device=cuda:1", "precision=bfloat16"])
    again = parse_recipe(recipe.to_yaml(), TABLE)
    assert (again.device, again.precision) == (recipe.device, recipe.precision) == ("cuda:1", "bfloat16")


@pytest.mark.parametrize(("gigabytes", "logits"), [(80, 2**27), (24, 2**24 * 3), (8, 2**24)])
def test_a_smaller_gpu_holds_fewer_logits_at_once(monkeypatch, gigabytes, logits):
    memory = SimpleNamespace(total_memory=gigabytes * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    assert _logits_at_once.__wrapped__(torch.device("cuda", 0)) == logits


@pytest.mark.parametrize(
    ("attend", "multiply", "said"),
    [(None, None, "nothing"), (len, None, "attend.c"), (len, len, "attend.c, multiply.c")],
)
def test_what_is_computed_in_c_is_noted(attend, multiply, said, monkeypatch):
    """It rounds otherwise than torch, so that who compares two runs wants to know."""
    monkeypatch.setattr(placement.attend, "attend", lambda: attend)
    monkeypatch.setattr(placement.products, "multiply", lambda: multiply)
    context = SimpleNamespace(device="cpu", precision="float32", environment={})
    placement_of(context)
    assert context.environment == {"device": "cpu", "in C": said}
