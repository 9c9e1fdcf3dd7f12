from __future__ import annotations

import gc
import random

import numpy as np
import pytest
import torch

from electra_tutorial import environment


def fake(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, bf16: bool = False, mps: bool = False):
    """Make torch claim another machine. Emulated bf16 is there on every GPU, as in real torch."""
    monkeypatch.setattr(gc, "collect", lambda: 0)  # Accelerate calls it after every failure: slow
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or bf16,
    )


def test_a_cpu_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, cuda=False)
    plan = environment.plan()
    assert (plan.device, plan.precision, plan.batch_size) == ("cpu", "fp32", 128)
    assert plan.threads == torch.get_num_threads()
    assert plan.notes == ()
    assert str(plan).splitlines()[:2] == ["device     cpu", "precision  fp32"]


def test_a_t4_computes_in_fp16_although_torch_emulates_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake(monkeypatch, cuda=True, bf16=False)
    plan = environment.plan()
    assert (plan.device, plan.precision) == ("cuda", "fp16")
    assert "no bf16" in plan.notes[0]
    assert "scaled" in plan.notes[0]


@pytest.mark.parametrize("gpu", ["A100", "H200"])
def test_an_ampere_or_later_gpu_computes_in_bf16(gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, cuda=True, bf16=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"NVIDIA {gpu}")
    plan = environment.plan()
    assert (plan.device, plan.precision, plan.notes) == ("cuda", "bf16", ())
    assert environment.describe()["gpu"] == f"NVIDIA {gpu}"


def test_mps_is_used_on_request_only_and_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, cuda=False, mps=True)
    assert environment.plan().device == "cpu"
    assert "device='mps'" in environment.plan().notes[0]
    plan = environment.plan(device="mps")
    assert (plan.device, plan.precision) == ("mps", "fp32")
    assert "wrong results" in plan.notes[0]


def test_a_request_beats_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, cuda=True, bf16=True)
    assert environment.plan(device="cpu").precision == "fp32"
    assert environment.plan(precision="fp32").device == "cuda"
    plan = environment.plan(precision="fp16")
    assert plan.precision == "fp16"
    assert "no bf16" not in plan.notes[0]


@pytest.mark.parametrize(
    ("message", "largest", "expected"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", 16, 12),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory", 1, 1),
        ("MPS backend out of memory", 48, 48),
    ],
)
def test_the_batch_is_halved_until_it_fits(
    message: str, largest: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, cuda=False)
    tried = []

    def step(batch_size: int) -> None:
        tried.append(batch_size)
        if batch_size > largest:
            raise RuntimeError(message)

    plan = environment.plan(try_batch=step, starting_batch_size=96)
    assert plan.batch_size == expected
    assert tried == [size for size in (96, 48, 24, 12, 6, 3, 1) if size >= expected]
    assert f"{expected} fits" in plan.notes[-1]


def test_a_batch_that_fits_at_once_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, cuda=False)
    plan = environment.plan(try_batch=lambda batch_size: None, starting_batch_size=32)
    assert (plan.batch_size, plan.notes) == (32, ())


def test_no_batch_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, cuda=False)

    def step(batch_size: int) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(RuntimeError, match="Not even a batch of one fits"):
        environment.plan(try_batch=step)


def test_another_failure_of_the_step_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, cuda=False)

    def step(batch_size: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        environment.plan(try_batch=step)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "tpu"}, "Unknown device 'tpu': choose one of cpu, cuda, mps"),
        ({"device": "cuda"}, "no cuda device"),
        ({"device": "mps"}, "no mps device"),
        ({"precision": "int8"}, "Unknown precision 'int8'"),
        ({"precision": "bf16"}, "no bf16: use precision='fp32'"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"starting_batch_size": 0}, "at least 1"),
    ],
)
def test_an_impossible_plan_is_refused(
    arguments: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, cuda=False)
    with pytest.raises(ValueError, match=message):
        environment.plan(**arguments)


def test_bf16_is_refused_on_a_t4(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, cuda=True, bf16=False)
    with pytest.raises(ValueError, match="use precision='fp16'"):
        environment.plan(precision="bf16")


def test_a_batch_size_must_be_a_whole_number() -> None:
    with pytest.raises(TypeError, match="whole number"):
        environment.plan(starting_batch_size=1.5)  # type: ignore[arg-type]


def test_seeding_repeats_every_generator() -> None:
    draws = []
    for _ in range(2):
        environment.seed_everything(3)
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))  # noqa: NPY002
    assert draws[0] == draws[1]


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (2**32, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_a_seed_must_be_a_small_whole_number(seed: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="seed must"):
        environment.seed_everything(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "kind"), [((3, 10), "old"), ((2, 7), "old"), ((3, 15), "new"), ((4, 0), "new")]
)
def test_a_python_too_old_or_too_new_is_refused(version: tuple[int, int], kind: str) -> None:
    with pytest.raises(RuntimeError, match=f"too {kind}: install a Python from 3.11 to 3.14"):
        environment.check_python(version)


def test_this_python_is_accepted() -> None:
    environment.check_python()
    environment.check_python((3, 11))
    environment.check_python((3, 14))


def test_the_description_names_versions_and_hardware_but_no_person_or_path() -> None:
    described = environment.describe()
    assert described["python"].startswith("3.")
    # The package's metadata and torch itself need not name the same build, as +cu130.
    assert described["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert int(described["cores"]) >= 1
    assert not any("/home" in value or "\\Users" in value for value in described.values())
