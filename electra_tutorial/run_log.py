"""What a pre-training run tells about itself: JSON lines, a callback, trackers.

The figures of the training batches are summed on the device and read only when they are written,
so that no step waits for them.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from electra_tutorial.modeling import JointPreTrainingOutput

LOG = "log.jsonl"
CLOCK_FIELDS = ("seconds", "tokens_per_second", "memory_mb")
"""What differs from run to run on the same data; everything else repeats bit for bit on a CPU."""

LOSSES = ("loss", "generator_loss", "discriminator_loss")
COUNTS = ("chosen", "correct", "tokens", "replaced", "called", "found")


@dataclass(frozen=True)
class Sums:
    """What a :class:`Meter` has summed since the last log entry, read from the device.

    Attributes:
        steps: how many steps the sums cover.
        rows: for each process, one number for each of ``LOSSES`` and ``COUNTS``.
        first_bad: the first step of the run whose loss or gradient was not finite, or infinity.
    """

    steps: int = 0
    rows: Sequence[Sequence[float]] = ()
    first_bad: float = math.inf

    def figures(self) -> dict[str, float]:
        """Means over the steps and shares of the tokens, of all processes together.

        There is no AUC among them: it ranks the scores of all tokens, and is measured at
        evaluations (:func:`electra_tutorial.evaluation.discriminate`).
        """
        columns = zip(*self.rows, strict=True)
        total = dict(zip(LOSSES + COUNTS, map(math.fsum, columns), strict=True))
        figures = {name: total[name] / self.steps for name in LOSSES}
        if total["chosen"]:
            figures["masked_accuracy"] = total["correct"] / total["chosen"]
        if total["tokens"]:
            figures["precision"] = total["found"] / max(total["called"], 1)
            figures["recall"] = total["found"] / max(total["replaced"], 1)
            figures["base_rate"] = total["replaced"] / total["tokens"]
        return figures


class Meter:
    """Sums over the training batches of this process, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.steps = 0
        self.sums = torch.zeros(len(LOSSES + COUNTS), dtype=torch.float64, device=device)
        self.first_bad = torch.full((), math.inf, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, output: JointPreTrainingOutput, part: dict[str, Tensor]) -> None:
        """Add one micro-batch, whose losses are its share of the whole step's.

        Args:
            output: what the model returned.
            part: its arguments, ``chosen_positions`` among them. Without ``attention_mask`` every
                token is real.
        """
        targets = part["labels"].flatten()[part["chosen_positions"]]
        predictions, verdicts = output.generator_logits, output.discriminator_logits
        if predictions is None:  # BERT's objective: the one network predicts tokens
            predictions, verdicts = verdicts, None
        counts: dict[str, Tensor] = {}
        if predictions is not None:
            counts["chosen"] = torch.ones_like(targets)
            counts["correct"] = predictions.argmax(-1) == targets
        is_replaced, shape = output.is_replaced, part["labels"].shape
        if verdicts is not None and is_replaced is not None and verdicts.shape == shape:
            mask = part.get("attention_mask")
            real = torch.ones_like(is_replaced) if mask is None else mask.bool()
            called, replaced = (verdicts > 0) & real, is_replaced & real
            counts |= {"tokens": real, "replaced": replaced, "called": called}
            counts["found"] = called & replaced
        none = self.sums.new_zeros(())
        losses = [getattr(output, name) for name in LOSSES]
        self.sums += torch.stack(
            [none if loss is None else loss.detach().double() for loss in losses]
            + [counts[name].sum().double() if name in counts else none for name in COUNTS]
        )

    def end_step(self, step: int, gradient_norm: Tensor | None) -> None:
        """Count a step, and keep its number if it is the first that was not finite.

        Args:
            step: its number, from 1.
            gradient_norm: None where a scaler leaves out steps whose gradient is not finite.
        """
        self.steps += 1
        finite = self.sums.isfinite().all()
        if gradient_norm is not None:
            finite = finite & gradient_norm.isfinite()
        self.first_bad.masked_fill_(~finite & self.first_bad.isinf(), step)

    def read(self, gather: Callable[[Tensor], Tensor]) -> Sums:
        """Return the sums of all processes: here the host waits for the device.

        In a step it does so only where rows hold padding: transformers then looks at their mask,
        once in each network.

        Args:
            gather: stacks the tensors of all processes, for instance ``Accelerator.gather``.
        """
        rows = gather(torch.cat([self.sums, self.first_bad[None]])[None]).tolist()
        return Sums(self.steps, [row[:-1] for row in rows], min(row[-1] for row in rows))

    def restart(self) -> Sums:
        """Begin the next window; return its sums, which are empty."""
        self.steps = 0
        self.sums.zero_()
        return Sums()

    def load(self, sums: Sums, process: int, processes: int) -> None:
        """Go on with the sums of a checkpoint; the first process takes those of lost ones."""
        self.steps = sums.steps
        if len(sums.rows) == processes:
            self.sums.copy_(torch.tensor(sums.rows[process], dtype=torch.float64))
        elif process == 0 and sums.rows:
            self.sums.copy_(torch.tensor(sums.rows, dtype=torch.float64).sum(0))


class RunLog:
    """The entries of a run, in memory and as lines of ``log.jsonl``.

    Args:
        folder: of the run.
        entries: those of the part of the run that is continued.
        tokens_per_step: positions in a batch, padding counted.
        earlier: seconds that the continued part took.
        writes: whether this process writes the file and calls the callbacks.
        callbacks: called with each entry.
    """

    def __init__(
        self,
        folder: Path,
        entries: list[dict[str, Any]],
        tokens_per_step: int,
        earlier: float = 0.0,
        writes: bool = True,
        callbacks: Sequence[Callable[[dict[str, Any]], None]] = (),
    ) -> None:
        self.path = folder / LOG
        self.entries = entries
        self.tokens_per_step = tokens_per_step
        self.earlier = earlier
        self.writes = writes
        self.callbacks = callbacks
        self._started = self._lap = time.perf_counter()
        self._lap_step = entries[-1]["step"] if entries else 0
        if writes:
            partial = self.path.with_name(f".{LOG}.partial")
            partial.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
            partial.replace(self.path)

    @property
    def seconds(self) -> float:
        """Seconds of the run so far, those before it was interrupted included."""
        return self.earlier + time.perf_counter() - self._started

    def start_lap(self, step: int) -> None:
        """Begin to measure speed: after an evaluation or a checkpoint, which don't count."""
        self._lap, self._lap_step = time.perf_counter(), step

    def tokens_per_second(self, step: int) -> float:
        """Speed since the lap began."""
        return (step - self._lap_step) * self.tokens_per_step / (time.perf_counter() - self._lap)

    def record(self, step: int, figures: dict[str, float]) -> None:
        """Add an entry. Numbers keep eight digits; one that is not finite becomes null.

        Raises:
            OSError: if the line can't be written.
        """
        entry: dict[str, Any] = {"step": step, "tokens": step * self.tokens_per_step}
        entry["seconds"] = round(self.seconds, 2)
        for name, value in figures.items():
            entry[name] = float(f"{value:.8g}") if math.isfinite(value) else None
        self.entries.append(entry)
        if not self.writes:
            return
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise OSError(
                f"the log entry of step {step} could not be written to {self.path} "
                f"({error.strerror}): make room, then go on with resume."
            ) from error
        for callback in self.callbacks:
            callback(entry)


def read_log(folder: Path, last_step: int) -> list[dict[str, Any]]:
    """Read the entries up to a step; a line that a crash cut short is left out."""
    path = folder / LOG
    entries = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["step"] <= last_step:
            entries.append(entry)
    return entries


def memory_figures(device: torch.device) -> dict[str, float]:
    """``memory_mb``, in 10^6 bytes: the most that CUDA allocated, or the process's peak memory.

    Empty where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return {"memory_mb": torch.cuda.max_memory_allocated(device) / 1e6}
    try:
        import resource
    except ImportError:
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"memory_mb": peak * (1 if sys.platform == "darwin" else 1024) / 1e6}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that Accelerate does not know or whose package is missing.

    Raises:
        ValueError: if the name is unknown.
        ModuleNotFoundError: if its package is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
    available = [getattr(name, "value", name) for name in get_available_trackers()]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown tracker {name!r}: choose one of {', '.join(known)}.")
        if name not in available:
            raise ModuleNotFoundError(
                f"the tracker {name!r} needs a package that is not installed: run "
                f"'pip install {name}', or train without it."
            )
