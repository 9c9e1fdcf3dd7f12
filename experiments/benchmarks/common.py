"""What the benchmarks share: a training step to measure, the machine's own limits, fair timing.

Two things are compared by running them in turn, one of each, and taking the median of the ratios
of neighbours: whatever else the machine does, it does to both.
"""

from __future__ import annotations

import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from electra_tutorial.batches import draw_batch, rows_of_micro_batches, take_rows
from electra_tutorial.config import ElectraSize, PretrainingConfig, get_size
from electra_tutorial.corpora import Segments
from electra_tutorial.masking import IGNORED, SpecialIds
from electra_tutorial.objectives import get_objective
from electra_tutorial.optimization import build_optimizer
from electra_tutorial.products import onednn_advantage, onednn_product, use_faster_products
from electra_tutorial.training import autocast, prepare_encoders

SPECIAL_IDS = SpecialIds(pad=0, cls=101, sep=102, mask=103)  # those of BERT's uncased vocabulary
FIRST_WORD = 999  # ids below are special, unused or single characters there


def random_segments(rows: int, length: int, vocab_size: int, seed: int = 0) -> Segments:
    """Full rows [CLS] ... [SEP] of random ids: what a step costs does not depend on the words."""
    first = FIRST_WORD if vocab_size > 2 * FIRST_WORD else SPECIAL_IDS.mask + 1
    ids = np.random.default_rng(seed).integers(first, vocab_size, (rows, length), dtype=np.uint16)
    ids[:, 0], ids[:, -1] = SPECIAL_IDS.cls, SPECIAL_IDS.sep
    return Segments(ids, SPECIAL_IDS.pad)


def build_model(
    config: PretrainingConfig, device: torch.device, size: ElectraSize | None = None
) -> Any:
    """A new joint model in training mode, of another size than `config`'s if one is given."""
    torch.manual_seed(config.seed)
    model = get_objective(config.objective).from_size(
        size or get_size(config.size),
        generator_fraction=config.generator_fraction,
        sharing=config.sharing,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
    )
    return model.to(device).train()


class OurStep:
    """One step as `electra_tutorial.training.pretrain` makes it, from rows to new weights.

    `size` replaces the configuration's. `wrap` may put the model into another
    (DistributedDataParallel, say); then this is process number `process` of `processes` and takes
    its part of the batch. `onednn` computes linear layers by `electra_tutorial.products`.
    """

    def __init__(
        self,
        config: PretrainingConfig,
        device: torch.device,
        size: ElectraSize | None = None,
        wrap: Callable[[Any], Any] | None = None,
        process: int = 0,
        processes: int = 1,
        onednn: bool = False,
    ) -> None:
        self.config, self.device, self.processes = config, device, processes
        self.micro_batches = rows_of_micro_batches(config, process, processes)
        self.model = build_model(config, device, size)
        prepare_encoders(self.model, config, device)
        if onednn:
            use_faster_products(self.model, force=True)
        self.network = wrap(self.model) if wrap else self.model
        self.optimizer = build_optimizer(self.model, config)
        vocabulary = self.model.config.discriminator["vocab_size"]
        self.segments = random_segments(4 * config.batch_size, config.sequence_length, vocabulary)
        self.steps = 0

    def __call__(self) -> None:
        """Make one step."""
        batch = draw_batch(self.steps, self.config, self.segments, SPECIAL_IDS)
        counts = {
            "num_chosen": int((batch["labels"] != IGNORED).sum()),
            "num_tokens": int(batch["attention_mask"].sum()),
        }
        for rows in self.micro_batches:
            part = take_rows(batch, rows, self.device)
            with autocast(self.device, self.config.precision):
                output = self.network(**part, **counts)
            (output.loss * self.processes).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1


# ---------------------------------------------------------------- timing


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Seconds that `work` takes, the mean of `times` calls in a row."""
    synchronize(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    synchronize(device)
    return (time.perf_counter() - started) / times


def interleave(
    arms: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, times: int = 1
) -> dict[str, list[float]]:
    """Seconds of each arm in each round; a round runs every arm once."""
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, work in arms.items():
            taken[name].append(seconds(work, device, times))
    return taken


def compare(slower: list[float], faster: list[float]) -> dict[str, float]:
    """How many times as fast the second is: median, smallest and largest of the paired ratios."""
    ratios = [a / b for a, b in zip(slower, faster, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def first_call(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the first call, in which torch.compile compiles, less those of a later one."""
    first, _, later = (seconds(work, device) for _ in range(3))
    return max(0.0, first - later)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process, or its tensors on the GPU, ever took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    if sys.platform == "linux":  # getrusage() would count what the parent had at the start
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6  # type: ignore[index]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


# ---------------------------------------------------------------- what the machine can do


class Machine:
    """The limits of a device: matrix products and copies, measured beside the steps.

    A large product of square matrices gives the peak of computing, a copy of a block that fits into
    no cache that of memory. Each is measured in every round. On a CPU in float32 the product is
    PyTorch's own or oneDNN's, whichever is faster: the peak is the machine's, not a library's.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.size = 1536 if device.type == "cpu" else 8192
        self.left, self.right = (
            torch.randn(self.size, self.size, device=device).to(dtype) for _ in range(2)
        )
        single = device.type == "cpu" and dtype == torch.float32
        self.onednn = single and onednn_advantage() > 1
        numbers = 2**25 if device.type == "cpu" else 2**29
        self.source = torch.zeros(numbers, device=device)
        self.target = torch.zeros_like(self.source)

    def multiply(self) -> None:
        """A large matrix product, the faster way."""
        if self.onednn:
            onednn_product(self.left, self.right)
        else:
            self.multiply_by_default()

    def multiply_by_default(self) -> None:
        """A large matrix product as PyTorch computes it."""
        torch.mm(self.left, self.right)

    def copy(self) -> None:
        """A large copy."""
        self.target.copy_(self.source)

    @property
    def multiply_flops(self) -> float:
        """Operations of :meth:`multiply`."""
        return 2.0 * self.size**3

    @property
    def copy_bytes(self) -> float:
        """Bytes that :meth:`copy` reads and writes."""
        return 2.0 * self.source.numel() * self.source.element_size()
