"""What the experiments on fine-tuning share: rows drawn by a seed, one judgement, whole files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from electra_tutorial.config import FineTuningConfig
from electra_tutorial.finetuning import FineTuningResult
from electra_tutorial.heads import AnyEvaluation
from electra_tutorial.prediction import evaluate
from electra_tutorial.tasks import Task


def draw_rows(rows: Dataset, count: int | None, seed: int) -> Dataset:
    """Draw `count` rows, or take all, in a drawn order, where there are fewer or it is None."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.select(order[:count].tolist())


def judge(result: FineTuningResult, task: Task, config: FineTuningConfig) -> AnyEvaluation:
    """Evaluate on the test split, which is read as the training rows were."""
    return evaluate(
        result.model,
        result.tokenizer,
        task.test,
        task.label_names,
        max_length=config.max_length,
        window_overlap=config.window_overlap,
    )


def write_whole(path: Path, figures: dict[str, Any]) -> None:
    """Write next to `path` and rename, so that a run is there whole or not at all.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(figures, indent=1, allow_nan=False))
    unfinished.rename(path)
