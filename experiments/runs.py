"""What the experiments on fine-tuning share: rows drawn by a seed, and runs kept whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset


def draw_rows(rows: Dataset, count: int | None, seed: int) -> Dataset:
    """Draw `count` rows, or take all, in a drawn order, where there are fewer or it is None."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.select(order[:count].tolist())


def write_whole(path: Path, figures: dict[str, Any]) -> None:
    """Write next to `path` and rename, so that a run is there whole or not at all.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(figures, indent=1, allow_nan=False))
    unfinished.rename(path)
