"""How good a pre-trained network is: what it reaches on labelled rows after a short fine-tuning.

Part of the experiments on pre-training (`sweep.py`). The rows have one label each (AG News) or one
for each token (the artificial language of `language.py`). They are tokenized once and kept in a
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
from transformers import ElectraForSequenceClassification, ElectraForTokenClassification

from electra_tutorial.optimization import learning_rate_factor
from electra_tutorial.training import autocast

IGNORED = -100  # the label of [CLS] and [SEP]


@dataclass(frozen=True)
class Tuning:
    """How the labelled rows are learnt: chosen on networks without any pre-training."""

    epochs: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class LabelledRows:
    """Tokenized texts, ``(rows, seq_len)``, padded with 0, and their classes.

    The classes are ``(rows,)``, or ``(rows, seq_len)`` where each token has one or `IGNORED`.
    """

    train_ids: Tensor
    train_labels: Tensor
    test_ids: Tensor
    test_labels: Tensor

    @classmethod
    def open(cls, path: Path, train: int, test: int) -> LabelledRows:
        """Read the first rows of what :meth:`write` wrote."""
        with np.load(path) as arrays:
            return cls(
                **{
                    name: torch.from_numpy(
                        arrays[name][: train if name.startswith("train") else test]
                    ).long()
                    for name in arrays.files
                }
            )

    def write(self, path: Path) -> None:
        """Write the rows, whole or not at all."""
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial, **{name: value.numpy().astype(np.int32) for name, value in vars(self).items()}
        )
        partial.replace(path)


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
    arrays: dict[str, Tensor] = {}
    for name, split, count in (("train", task.train, train), ("test", task.test, test)):
        rows = split.select(np.random.default_rng(0).permutation(len(split))[:count].tolist())
        ids = tokenizer(
            list(rows["text"]), truncation=True, max_length=length, padding="max_length"
        )["input_ids"]
        arrays[f"{name}_ids"] = torch.tensor(ids)
        arrays[f"{name}_labels"] = torch.tensor(list(rows["label"]))
    LabelledRows(**arrays).write(path)
    return {"name": "ag_news", "revision": task.revision, "train": train, "test": test}


def fine_tuned_accuracy(
    encoder: Any, rows: LabelledRows, tuning: Tuning, seed: int, precision: str
) -> float:
    """Fine-tune a copy of an encoder with a new head and return its accuracy on the test rows.

    All weights learn, at one rate with linear warm-up and decay, without dropout. The settings are
    the same for every network.

    Args:
        encoder: an :class:`~transformers.ElectraModel`; it stays as it is.
        rows: what to learn and to judge on.
        tuning: how.
        seed: of the head and of the order.
        precision: as in :class:`~electra_tutorial.config.PretrainingConfig`.
    """
    device = encoder.device
    torch.manual_seed(seed)  # pre-training seeds each of its steps anew
    settings = copy.deepcopy(encoder.config)
    settings.num_labels = int(rows.train_labels.max()) + 1
    for_tokens = rows.train_labels.ndim == 2
    head = ElectraForTokenClassification if for_tokens else ElectraForSequenceClassification
    model: Any = head(settings)
    model.electra = copy.deepcopy(encoder)
    model.to(device).train()

    def logits_of(ids: Tensor) -> Tensor:
        with autocast(device, precision):
            return model(ids.to(device), attention_mask=(ids != 0).long().to(device)).logits.float()

    optimizer = torch.optim.AdamW(model.parameters(), lr=tuning.learning_rate, weight_decay=0.0)
    steps = tuning.epochs * math.ceil(len(rows.train_ids) / tuning.batch_size)
    step = 0
    for _ in range(tuning.epochs):
        for chosen in torch.randperm(len(rows.train_ids)).split(tuning.batch_size):
            for group in optimizer.param_groups:
                factor = learning_rate_factor(step, steps, steps // 10)
                group["lr"] = tuning.learning_rate * factor
            labels = rows.train_labels[chosen].to(device).flatten()
            logits = logits_of(rows.train_ids[chosen]).flatten(0, -2)
            torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
    model.eval()
    with torch.no_grad():
        parts = [logits_of(ids).argmax(dim=-1).cpu() for ids in rows.test_ids.split(100)]
    counts = rows.test_labels != IGNORED
    return (torch.cat(parts) == rows.test_labels)[counts].double().mean().item()
