"""How good a pre-trained network is: what it reaches on labelled news after a short fine-tuning.

Part of the experiments on pre-training (`sweep.py`). The rows are tokenized once and kept in a
file, so that a run needs neither the data set nor the package `datasets`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import ElectraForSequenceClassification

from electra_tutorial.optimization import learning_rate_factor
from electra_tutorial.training import autocast

CLASSES = 4
EPOCHS = 6
BATCH = 25
LEARNING_RATE = 1e-3
SETTINGS = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": LEARNING_RATE}
"""How the labelled rows are learnt.

A first setting (three epochs on 500 rows) was given up when two pre-trained networks had reached
0.40 with it; this one was chosen on networks without any pre-training.
"""


@dataclass(frozen=True)
class LabelledRows:
    """Tokenized texts, ``(rows, seq_len)``, padded with 0, and their classes, ``(rows,)``."""

    train_ids: Tensor
    train_labels: Tensor
    test_ids: Tensor
    test_labels: Tensor

    @classmethod
    def open(cls, path: Path, train: int, test: int) -> LabelledRows:
        """Read the first rows of what :func:`prepare_rows` wrote."""
        with np.load(path) as arrays:
            return cls(
                **{
                    name: torch.from_numpy(
                        arrays[name][: train if name.startswith("train") else test]
                    ).long()
                    for name in arrays.files
                }
            )


def prepare_rows(
    path: Path, tokenizer: Any, length: int, train: int, test: int, directory: Path | None
) -> dict[str, Any]:
    """Tokenize rows of AG News, drawn once for all runs; returns what they are.

    Args:
        path: the `.npz` file to write.
        tokenizer: of the pre-training.
        length: texts are cut after so many tokens: those of a pre-training segment.
        train: rows to fine-tune on.
        test: rows to judge on.
        directory: laid out by hub id; by default the one that ELECTRA_TUTORIAL_HUB_DIR names.
    """
    from electra_tutorial.tasks import load_task  # needs datasets, which a run does not

    task = load_task("ag_news", source="directory", directory=directory, quiet=True)
    arrays: dict[str, Any] = {}
    for name, split, count in (("train", task.train, train), ("test", task.test, test)):
        rows = split.select(np.random.default_rng(0).permutation(len(split))[:count].tolist())
        ids = tokenizer(
            list(rows["text"]), truncation=True, max_length=length, padding="max_length"
        )["input_ids"]
        arrays[f"{name}_ids"] = np.asarray(ids, dtype=np.int32)
        arrays[f"{name}_labels"] = np.asarray(rows["label"], dtype=np.int32)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)
    return {"name": "ag_news", "revision": task.revision, "train": train, "test": test}


def fine_tuned_accuracy(encoder: Any, rows: LabelledRows, seed: int, precision: str) -> float:
    """Fine-tune a copy of an encoder with a new head and return its accuracy on the test rows.

    All weights learn, at one rate with linear warm-up and decay, without dropout. The settings
    (`SETTINGS`) are the same for every network.

    Args:
        encoder: an :class:`~transformers.ElectraModel`; it stays as it is.
        rows: what to learn and to judge on.
        seed: of the head and of the order.
        precision: as in :class:`~electra_tutorial.config.PretrainingConfig`.
    """
    device = encoder.device
    torch.manual_seed(seed)  # pre-training seeds each of its steps anew
    settings = copy.deepcopy(encoder.config)
    settings.num_labels = CLASSES
    model: Any = ElectraForSequenceClassification(settings)
    model.electra = copy.deepcopy(encoder)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    steps, step = EPOCHS * math.ceil(len(rows.train_ids) / BATCH), 0
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(rows.train_ids)).split(BATCH):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * learning_rate_factor(step, steps, steps // 10)
            ids, labels = rows.train_ids[chosen].to(device), rows.train_labels[chosen].to(device)
            with autocast(device, precision):
                logits = model(ids, attention_mask=(ids != 0).long()).logits
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
    model.eval()
    correct = 0
    with torch.no_grad(), autocast(device, precision):
        for ids, labels in zip(rows.test_ids.split(100), rows.test_labels.split(100), strict=True):
            ids = ids.to(device)
            logits = model(ids, attention_mask=(ids != 0).long()).logits
            correct += (logits.argmax(-1).cpu() == labels).sum().item()
    return correct / len(rows.test_labels)
