"""Texts as a model reads them: token ids, padding, batches of similar length.

What a text becomes is the same in training and in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler

from electra_tutorial.config import FineTuningConfig
from electra_tutorial.masking import IGNORED

Encoded = dict[str, list[int]]  # input_ids, token_type_ids, attention_mask of one item


def encode(
    tokenizer: Any, dataset: Dataset, max_length: int, model_config: Any, name: str = "the data"
) -> list[Encoded]:
    """Turn texts, or pairs, into token ids, cut after `max_length` tokens.

    Raises:
        TypeError: if a text is not a string.
        ValueError: if there is no text, one is empty, or max_length exceeds the positions.
    """
    _check_length(max_length, model_config)
    columns = [column for column in ("text", "text_pair") if column in dataset.column_names]
    if "text" not in columns or not len(dataset):
        raise ValueError(f"{name} has no text: give at least one row with the column text.")
    texts = [list(dataset[column]) for column in columns]
    for column, values in zip(columns, texts, strict=True):
        for row, value in enumerate(values):
            if not isinstance(value, str):
                kind = type(value).__name__
                raise TypeError(f"{column} in row {row} of {name} must be a string, not {kind}.")
            if not value.strip():
                raise ValueError(
                    f"{column} in row {row} of {name} is empty: remove or complete the row."
                )
    return _rows(tokenizer(*texts, truncation=True, max_length=max_length))


def encode_words(
    tokenizer: Any, sentences: Sequence[Sequence[str]], max_length: int, model_config: Any
) -> tuple[list[Encoded], list[list[int | None]]]:
    """Turn sentences that are split into words into token ids, cut after `max_length` tokens.

    A word that the tokenizer drops (a lone control character, for instance) is read as [UNK], so
    that every word which was not cut off has a word piece.

    Returns:
        The rows, and of each word piece the number of its word, or None for [CLS] and [SEP].
    """
    _check_length(max_length, model_config)
    settings = {"is_split_into_words": True, "truncation": True, "max_length": max_length}
    words = sorted({word for sentence in sentences for word in sentence})
    pieces = tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
    dropped = {word for word, ids in zip(words, pieces, strict=True) if not ids}
    readable = [
        [tokenizer.unk_token if word in dropped else word for word in sentence]
        for sentence in sentences
    ]
    encoded = tokenizer(readable, **settings)
    return _rows(encoded), [encoded.word_ids(i) for i in range(len(readable))]


def _check_length(max_length: int, model_config: Any) -> None:
    positions = model_config.max_position_embeddings
    if max_length > positions:
        raise ValueError(
            f"max_length {max_length} exceeds the {positions} positions of this model: use "
            f"max_length={positions} or less."
        )


def _rows(encoded: Any) -> list[Encoded]:
    keys = ("input_ids", "token_type_ids", "attention_mask")
    return [
        dict(zip(keys, row, strict=True)) for row in zip(*(encoded[k] for k in keys), strict=True)
    ]


def collate(rows: Sequence[Encoded], labels: Sequence[Any] | None = None) -> dict[str, Tensor]:
    """Pad to the longest of `rows`: each tensor (batch, seq_len).

    `labels` are one number for each row, (batch,), or one for each token of each row: these are
    padded with -100, which the loss skips. Other padding is 0: where attention_mask is 0,
    input_ids have no effect.
    """
    batch = {
        key: pad_sequence([torch.tensor(row[key]) for row in rows], batch_first=True)
        for key in rows[0]
    }
    if labels is None:
        return batch
    if isinstance(labels[0], list):
        pieces = [torch.tensor(row) for row in labels]
        return {**batch, "labels": pad_sequence(pieces, batch_first=True, padding_value=IGNORED)}
    return {**batch, "labels": torch.tensor(labels)}


class LengthGroupedBatches(Sampler[list[int]]):
    """Batches of items of similar length, in random order: less padding, so less work.

    The items are shuffled, cut into pools of 16 batches, sorted by length inside a pool and cut
    into batches, whose order is shuffled. All of it follows from the seed and `epoch`, which the
    training loop sets. (Accelerate would call a `set_epoch()`, but on a single process only.)
    """

    POOL = 16

    def __init__(self, lengths: Sequence[int], config: FineTuningConfig) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = config.batch_size
        self.seed = config.seed
        self.epoch = 0
        self.drop_last = False

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        pool = self.POOL * self.batch_size
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            order[start : start + pool] = part[np.argsort(self.lengths[part], kind="stable")]
        starts = np.arange(0, len(order), self.batch_size)
        for start in random.permutation(starts):
            yield order[start : start + self.batch_size].tolist()
