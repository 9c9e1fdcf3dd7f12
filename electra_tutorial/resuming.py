"""Save a run and take it up again: bit for bit, or with one clear sentence.

A checkpoint is a folder ``checkpoint-<step>``: ``model.safetensors``, ``optimizer.safetensors`` and
``state.json``. It is written under a hidden name and renamed when it is whole. Pre-training needs
nothing random stored: data order, masks, samples and dropout follow from the seed and the step.
Fine-tuning adds two files: its best weights so far, and the states of the random generators.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from electra_tutorial.config import FineTuningConfig, PretrainingConfig
from electra_tutorial.segments import Segments, vocabulary_hash

STATE = "state.json"
MODEL = "model.safetensors"
MOMENTS = "optimizer.safetensors"
MAY_CHANGE = ("log_every", "evaluate_every", "save_every", "keep_checkpoints")
"""Settings that a resumed run may change: they say what is reported and kept, not what is done."""

logger = logging.getLogger(__name__)


def checkpoints_in(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first."""
    return sorted(output_dir.glob("checkpoint-*"))


def refuse_to_overwrite(output_dir: Path) -> None:
    """Refuse to start a new run on top of another.

    Raises:
        FileExistsError: if the folder holds checkpoints.
    """
    found = checkpoints_in(output_dir)
    if found:
        raise FileExistsError(
            f"{output_dir} holds a run with {found[-1].name}: resume it, or name another folder "
            "for a new run."
        )


def advice_not_finite(
    step: int, output_dir: Path, what: str = "the loss or its gradient is"
) -> str:
    """Say what to do about a loss, a gradient or weights that are not finite."""
    found = checkpoints_in(output_dir)
    last = f"the last good checkpoint is {found[-1]}" if found else "no checkpoint was written yet"
    return (
        f"{what} not finite at step {step}: {last}; start a new run from it "
        "or from the beginning with a lower learning rate, a longer warm-up or precision fp32."
    )


# ---------------------------------------------------------------- save


@contextmanager
def named_failure(what: str, output_dir: Path) -> Iterator[None]:
    """Say of a failure to write what was lost, what is still there, and what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        found = checkpoints_in(output_dir)
        last = f"the last whole checkpoint is {found[-1]}" if found else "there is no checkpoint"
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"{what} could not be written to {output_dir} ({reason}): make room, then go on with "
            f"resume; {last}."
        ) from error


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name the tensors of the optimiser's state by the parameter's place in its group."""
    return {
        f"{g}.{p}.{key}": value
        for g, group in enumerate(optimizer.param_groups)
        for p, parameter in enumerate(group["params"])
        for key, value in optimizer.state[parameter].items()
    }


def _to_disk(path: Path) -> None:
    """Have the system write what it holds back, so that a power cut can't take it."""
    if os.name != "posix":  # elsewhere folders can't be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove a checkpoint: at no moment is half of it there under its name."""
    if folder.is_dir():
        hidden = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden)


def save_checkpoint(
    output_dir: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
    more: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Path:
    """Write ``checkpoint-<step>``: whole or absent, the last ``keep`` of them kept.

    Args:
        output_dir: the run's folder.
        model: shared parameters are written once.
        optimizer: AdamW or one with a like state.
        state: numbers and strings for ``state.json``; ``step`` and ``config`` among them.
        keep: how many checkpoints to keep.
        more: further tensors, each mapping in a file ``<name>.safetensors``.

    Raises:
        OSError: if it can't be written, for instance on a full disk; older ones are untouched.
    """
    folder = output_dir / f"checkpoint-{state['step']:08d}"
    partial = output_dir / f".{folder.name}.partial"
    weights = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    moments = {name: tensor.detach().cpu() for name, tensor in _moments(optimizer).items()}
    with named_failure(f"the checkpoint of step {state['step']}", output_dir):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file(weights, partial / MODEL)
            save_file(moments, partial / MOMENTS)
            for name, tensors in (more or {}).items():
                save_file(dict(tensors), partial / f"{name}.safetensors")
            (partial / STATE).write_text(json.dumps(state, indent=2) + "\n")
            for path in (*partial.iterdir(), partial):
                _to_disk(path)
            _remove(folder)
            partial.rename(folder)
            _to_disk(output_dir)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    for old in checkpoints_in(output_dir)[:-keep]:
        _remove(old)
    return folder


# ---------------------------------------------------------------- load


def fingerprints(tokenizer: Any, segments: Segments) -> dict[str, str]:
    """Hashes of the vocabulary, and of the segments' number, length and a thousand rows."""
    rows = np.unique(np.linspace(0, len(segments) - 1, 1000).astype(np.int64))
    sample = np.asarray(segments.input_ids[rows]).astype(np.int32)
    text = f"{len(segments)} {segments.sequence_length} ".encode() + sample.tobytes()
    return {
        "tokenizer": vocabulary_hash(tokenizer),
        "text": hashlib.sha256(text).hexdigest()[:16],
    }


def _read(
    folder: Path, more: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    state = json.loads((folder / STATE).read_text())
    state |= {name: load_file(folder / f"{name}.safetensors") for name in more}
    return state, load_file(folder / MODEL), load_file(folder / MOMENTS)


def _read_latest(
    output_dir: Path, more: Sequence[str]
) -> tuple[Path, dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Read the newest checkpoint that is readable; unreadable ones are set aside and named."""
    for leftover in output_dir.glob(".checkpoint-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    unreadable: list[str] = []
    for folder in reversed(checkpoints_in(output_dir)):
        try:
            state, weights, moments = _read(folder, more)
        except (OSError, SafetensorError, ValueError) as error:
            unreadable.append(f"{folder.name} ({type(error).__name__}: {error})")
            aside = output_dir / f"unreadable-{folder.name}"
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            continue
        if unreadable:
            logger.warning(
                "%s can't be read and is now named unreadable-...: the run in %s goes on from %s.",
                ", ".join(unreadable),
                output_dir,
                folder.name,
            )
        return folder, state, weights, moments
    raise FileNotFoundError(
        f"there is no checkpoint in {output_dir} to resume from: leave out resume, or name the "
        "folder of the earlier run."
        + (f" Not readable: {', '.join(unreadable)}." if unreadable else "")
    )


def _check_same_run(
    output_dir: Path,
    state: dict[str, Any],
    config: PretrainingConfig | FineTuningConfig,
    facts: dict[str, str],
) -> None:
    before = state["config"]
    changed = []
    for field in fields(config):  # a setting newer than the checkpoint had its default
        was, now = before.get(field.name, field.default), getattr(config, field.name)
        if was != now and field.name not in MAY_CHANGE:
            changed.append(f"{field.name} ({was!r}, now {now!r})")
    changed += [name for name, value in facts.items() if state.get(name, value) != value]
    if changed:
        raise ValueError(
            f"the run in {output_dir} was started with another {', '.join(changed)}: resume it "
            "with what it was started with, or start a new run in another folder."
        )


def resume(
    output_dir: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    config: PretrainingConfig | FineTuningConfig,
    facts: dict[str, str],
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """Load the newest readable checkpoint of a run, in place; return its state.

    Args:
        output_dir: the run's folder.
        model: of the run's shape; its parameters are overwritten.
        optimizer: of that model; its moments are overwritten.
        config: must agree with the run's, except for ``MAY_CHANGE``.
        facts: what must agree as well, by name: :func:`fingerprints`, for instance.
        more: names of further files, whose tensors stand under these names in the state.

    Raises:
        FileNotFoundError: if there is no readable checkpoint.
        ValueError: if settings, facts or model are not the run's.
    """
    folder, state, weights, moments = _read_latest(output_dir, more)
    _check_same_run(output_dir, state, config, facts)
    load_weights(folder, model, weights)
    for name, moment in moments.items():
        g, p, key = name.split(".")
        group = optimizer.param_groups[int(g)]
        parameter = group["params"][int(p)]
        # PyTorch keeps a step count on the CPU, unless a fused kernel reads it
        on_cpu = moment.dim() == 0 and not group.get("fused")
        optimizer.state[parameter][key] = moment.to("cpu" if on_cpu else parameter.device)
    return state


def load_weights(
    folder: Path, model: torch.nn.Module, weights: dict[str, Tensor] | None = None
) -> None:
    """Load a checkpoint's weights into a model of its shape, in place.

    Raises:
        ValueError: if the model has other parameters.
    """
    weights = load_file(folder / MODEL) if weights is None else weights
    parameters = dict(model.named_parameters())
    different = [
        name
        for name in sorted(parameters.keys() | weights.keys())
        if name not in parameters
        or name not in weights
        or parameters[name].shape != weights[name].shape
    ]
    if different:
        raise ValueError(
            f"{folder} holds another model ({different[0]} differs): give the model that the run "
            "was started with."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
