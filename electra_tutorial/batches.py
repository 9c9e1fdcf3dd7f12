"""What each step of pre-training reads: which segments, which masks, which noise.

All of it follows from ``(seed, step)`` and is drawn for the whole batch, on the CPU. Every process
draws the same and takes its own rows, so that nothing depends on the number of processes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from electra_tutorial.config import PretrainingConfig
from electra_tutorial.corpora import Segments
from electra_tutorial.masking import IGNORED, SpecialIds, mask_tokens


@lru_cache(maxsize=2)  # one run is in one epoch, or on the border between two
def _order_of_epoch(epoch: int, num_segments: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_segments)


def rows_of_step(step: int, batch_size: int, num_segments: int, seed: int) -> np.ndarray:
    """Return which segments the batch of a step holds; each epoch is a new permutation."""
    wanted = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = np.divmod(wanted, num_segments)
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        order = _order_of_epoch(int(epoch), num_segments, seed)
        rows[epochs == epoch] = order[places[epochs == epoch]]
    return rows


MASKING: dict[str, dict[str, Any]] = {
    "exact": {"method": "exact"},
    "with-replacement": {"method": "exact", "replacement": True},
    "coin": {"method": "coin"},
}
"""What each choice of ``PretrainingConfig.masking`` asks of ``mask_tokens``.

``"with-replacement"`` is the official code's way (``pretrain_helpers.mask``): k draws, each with
its own chance to write [MASK], and a loss that is the mean over the draws. Two things differ,
beside the rounding of k (see :func:`electra_tutorial.masking.number_to_mask`). Where a position was
drawn twice, the official code samples twice and writes half the sum of the two ids, the id of an
unrelated token (issue 41 of google-research/electra); here it gets one sample, as any other. And
the figures of the log count each chosen position once, where the official ones count draws.
"""


def draw_batch(
    step: int, config: PretrainingConfig, segments: Segments, special_ids: SpecialIds
) -> dict[str, Tensor]:
    """Draw the whole batch of a step, masks and sampling noise included, on the CPU.

    Returns:
        Arguments of :meth:`ElectraForJointPreTraining.forward`, each ``(batch_size, seq_len)``.
        With replacement ``loss_weights`` are among them: how often each position was drawn, over
        the mean of that at the chosen positions. Their number divides the loss of a step, so it is
        the mean over all draws, and parts of the batch still add up.
    """
    rows = rows_of_step(step, config.batch_size, len(segments), config.seed)
    noise = torch.Generator().manual_seed(_seed(config.seed, step))
    batch = mask_tokens(
        torch.as_tensor(segments.input_ids[rows].astype(np.int64)),
        special_ids=special_ids,
        mask_probability=config.mask_probability,
        generator=noise,
        **MASKING[config.masking],
    )
    arguments = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "labels": batch.labels,
        "sampling_uniform": torch.rand(batch.labels.shape, generator=noise),
    }
    if batch.draws is not None:
        mean = batch.draws.sum() / batch.chosen.sum().clamp_min(1)
        arguments["loss_weights"] = batch.draws / mean.clamp_min(1)
    if segments.packing == "official":
        arguments["token_type_ids"] = torch.as_tensor(segments.token_type_ids(rows.tolist()))
    return arguments


def dropout_seed(step: int, config: PretrainingConfig, process: int = 0) -> int:
    """Return the seed of a process's dropout in a step: each process needs its own."""
    return _seed(config.seed, step, 1 + process)  # a 0 at the end would be the seed of the noise


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def rows_of_micro_batches(
    config: PretrainingConfig, process: int = 0, processes: int = 1
) -> list[slice]:
    """Cut the batch of a step into parts and return those of one process.

    The parts are contiguous, and their sizes differ by at most one row.

    Raises:
        ValueError: if there are more parts than rows.
    """
    each = config.gradient_accumulation
    parts = processes * each
    if config.batch_size < parts:
        raise ValueError(
            f"a batch of {config.batch_size} rows can't be cut into {parts} parts ({processes} "
            f"processes times gradient_accumulation {each}): use a larger batch_size."
        )
    borders = [config.batch_size * part // parts for part in range(parts + 1)]
    return [
        slice(*borders[part : part + 2]) for part in range(process * each, (process + 1) * each)
    ]


def take_rows(batch: dict[str, Tensor], rows: slice, device: torch.device) -> dict[str, Tensor]:
    """Move some rows of a batch to the device, with the places of the chosen positions.

    The places are found on the CPU, where looking for them makes nothing wait. So is whether the
    rows hold padding: without any, the attention mask is left out, and no network looks for it.
    """
    part = {name: values[rows] for name, values in batch.items()}
    if part["attention_mask"].all():
        del part["attention_mask"]
    part["chosen_positions"] = (part["labels"] != IGNORED).flatten().nonzero().squeeze(1)
    if device.type == "cuda":  # from pinned memory, the copy does not wait for the device
        part = {name: values.pin_memory() for name, values in part.items()}
    return {name: values.to(device, non_blocking=True) for name, values in part.items()}
