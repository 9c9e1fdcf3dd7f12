"""What machine is this, and how should a model run on it.

torch is imported inside the functions: `check_python()` must be able to speak on a Python for
which no torch exists.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

OLDEST_PYTHON = (3, 11)
NEWEST_PYTHON = (3, 14)
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "datasets",
    "numpy",
    "scikit-learn",
    "matplotlib",
)


def check_python(version: tuple[int, int] | None = None) -> None:
    """Refuse a Python for which the book's packages do not exist.

    Raises:
        RuntimeError: if `version` (default: the running one) is too old or too new.
    """
    running = version or sys.version_info[:2]
    oldest, newest = (".".join(map(str, limit)) for limit in (OLDEST_PYTHON, NEWEST_PYTHON))
    if not OLDEST_PYTHON <= running <= NEWEST_PYTHON:
        kind = "old" if running < OLDEST_PYTHON else "new"
        raise RuntimeError(
            f"Python {running[0]}.{running[1]} is too {kind}: install a Python from {oldest} to "
            f"{newest} and make the environment again with it."
        )


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device with the same non-negative number.

    Raises:
        TypeError: if `seed` is not a whole number.
        ValueError: if it is negative or does not fit into 32 bits, NumPy's limit.
    """
    import numpy as np
    import torch

    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be a whole number, not {type(seed).__name__} ({seed!r}).")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie between 0 and 2**32 - 1, not {seed}.")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that the chapters call draw from this state
    torch.manual_seed(seed)  # CPU, CUDA and MPS


@dataclass(frozen=True)
class Plan:
    """How to run a model here.

    Attributes:
        device: "cpu", "cuda" or "mps".
        precision: "fp32", "bf16", or "fp16", which needs a gradient scaler.
        batch_size: the largest that was tried and fitted; the starting one if nothing was tried.
        threads: threads that torch computes with on the CPU.
        notes: what a reader should know about this choice, a sentence each.
    """

    device: str
    precision: str
    batch_size: int
    threads: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"device     {self.device}",
            f"precision  {self.precision}",
            f"batch size {self.batch_size}",
            f"threads    {self.threads}",
        ]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def plan(
    device: str | None = None,
    precision: str | None = None,
    try_batch: Callable[[int], object] | None = None,
    starting_batch_size: int = 128,
) -> Plan:
    """Choose device, precision and batch size for this machine, and say why.

    CUDA is used where there is some, else the CPU; Apple's MPS only on request. bf16 is used where
    the hardware has it, fp16 on an older GPU, fp32 on a CPU and on MPS. `try_batch` is called with
    a batch size and should run one training step on the chosen device; as long as it runs out of
    memory, the size is halved.

    Raises:
        ValueError: if a name is unknown, the device is not there or cannot do the precision.
        RuntimeError: if not even a batch of one fits.
    """
    import torch

    device, notes = _choose_device(device)
    precision, why = _choose_precision(device, precision)
    notes += why
    if isinstance(starting_batch_size, bool) or not isinstance(starting_batch_size, int):
        raise TypeError(f"starting_batch_size must be a whole number, not {starting_batch_size!r}.")
    if starting_batch_size < 1:
        raise ValueError(f"starting_batch_size must be at least 1, not {starting_batch_size}.")
    batch_size = starting_batch_size
    if try_batch is not None:
        batch_size = _largest_batch(try_batch, starting_batch_size)
        if batch_size < starting_batch_size:
            notes.append(f"A batch of {starting_batch_size} ran out of memory; {batch_size} fits.")
    return Plan(device, precision, batch_size, torch.get_num_threads(), tuple(notes))


def _choose_device(device: str | None) -> tuple[str, list[str]]:
    import torch

    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if device is None:
        if there["cuda"]:
            return "cuda", []
        notes = ["There is an Apple GPU; ask for it with device='mps'."] if there["mps"] else []
        return "cpu", notes
    if device not in there:
        raise ValueError(f"Unknown device {device!r}: choose one of {', '.join(there)}.")
    if not there[device]:
        raise ValueError(f"This machine has no {device} device: use device='cpu', or leave it out.")
    if device == "mps":
        return device, [
            "Training on MPS has given wrong results in other books: compare a short run with "
            "the CPU before trusting it."
        ]
    return device, []


def _choose_precision(device: str, precision: str | None) -> tuple[str, list[str]]:
    import torch

    # Without this argument torch also says yes where bf16 is only emulated, and slow: on a T4.
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision not in (None, "fp32", "fp16", "bf16"):
        raise ValueError(f"Unknown precision {precision!r}: choose one of fp32, fp16, bf16.")
    if precision == "bf16" and not bf16:
        instead = "fp16" if device == "cuda" else "fp32"
        raise ValueError(f"This {device} device has no bf16: use precision={instead!r}.")
    if precision == "fp16" and device != "cuda":
        raise ValueError(f"fp16 needs a CUDA device, not {device}: use precision='fp32'.")
    if precision is None:
        precision = "fp32" if device != "cuda" else "bf16" if bf16 else "fp16"
    if precision == "fp16":
        why = "" if bf16 else " because this GPU has no bf16"
        return precision, [f"fp16{why}: gradients are scaled, losses and sampling stay in fp32."]
    return precision, []


def _largest_batch(try_batch: Callable[[int], object], starting_batch_size: int) -> int:
    """Halve the batch size until `try_batch` no longer runs out of memory."""
    from accelerate.utils import find_executable_batch_size

    tried = [starting_batch_size]

    def halve() -> int:
        tried.append(tried[-1] // 2)
        return tried[-1]

    @find_executable_batch_size(starting_batch_size=starting_batch_size, reduce_batch_size_fn=halve)
    def attempt(batch_size: int) -> None:
        try_batch(batch_size)

    try:
        attempt()
    except RuntimeError as error:
        if tried[-1] > 0:  # something else than memory
            raise
        raise RuntimeError(
            "Not even a batch of one fits into memory: use a smaller model, shorter sequences or "
            "another device."
        ) from error
    return tried[-1]


def hardware() -> dict[str, str]:
    """The machine in words: processor, cores, memory, GPU."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": str(_cores()),
        "memory": _memory(),
        "gpu": ", ".join(gpus) if torch.cuda.is_available() and gpus else "none",
    }


def describe() -> dict[str, str]:
    """What a report of a problem should hold: versions, system and hardware; no name, no path."""
    packages = ("electra-tutorial", *PACKAGES)
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        **hardware(),
        **versions,
    }


def _cores() -> int:
    """Cores that this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return "unknown"
    return f"{size / 2**30:.0f} GiB"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
