from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from transformers import ElectraConfig, PreTrainedTokenizerFast

from electra_tutorial.config import FineTuningConfig
from electra_tutorial.encoding import LengthGroupedBatches, collate, encode

MODEL = ElectraConfig(max_position_embeddings=16)
TEXTS = ["The ferry left the harbour.", "Red apples.", "Dawn came late in winter, and the fog too."]


@pytest.mark.parametrize("pairs", [False, True])
def test_batches_are_those_of_transformers(pairs: bool, tokenizer: PreTrainedTokenizerFast) -> None:
    columns: dict[str, Any] = {"text": TEXTS} | ({"text_pair": TEXTS[::-1]} if pairs else {})
    rows = encode(tokenizer, Dataset.from_dict(columns), 12, MODEL)
    batch = collate(rows, labels=[0, 1, 0])
    theirs = tokenizer(
        *columns.values(), truncation=True, max_length=12, padding=True, return_tensors="pt"
    )
    assert set(batch) == {*theirs, "labels"}
    for key, value in theirs.items():
        assert batch[key].tolist() == value.tolist(), key
    assert batch["labels"].tolist() == [0, 1, 0]
    assert batch["input_ids"].shape == (3, 12)  # the longest texts were cut


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"text": ["a", " \n"]}, ValueError, "text in row 1 of train is empty: remove or complete"),
        ({"text": []}, ValueError, "train has no text: give at least one row"),
        ({"words": ["a"]}, ValueError, "train has no text"),
        ({"text": [1]}, TypeError, "text in row 0 of train must be a string, not int"),
        ({"text": ["a"], "text_pair": [""]}, ValueError, "text_pair in row 0 of train is empty"),
    ],
)
def test_rows_without_text_are_refused(
    columns: dict[str, list[Any]],
    error: type[Exception],
    message: str,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(error, match=message):
        encode(tokenizer, Dataset.from_dict(columns), 12, MODEL, "train")


def test_a_sequence_longer_than_the_positions_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ValueError, match="max_length 17 exceeds the 16 positions .* or less"):
        encode(tokenizer, Dataset.from_dict({"text": TEXTS}), 17, MODEL)


def test_batches_hold_every_item_once_and_group_by_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=203)
    sampler = LengthGroupedBatches(lengths, FineTuningConfig(batch_size=8))
    batches = list(sampler)
    assert len(batches) == len(sampler) == 26
    assert sorted(i for batch in batches for i in batch) == list(range(203))

    def padded(order: list[list[int]]) -> int:
        return sum(len(batch) * max(lengths[i] for i in batch) for batch in order)

    assert padded(batches) < 1.1 * lengths.sum()
    assert padded([list(range(i, min(i + 8, 203))) for i in range(0, 203, 8)]) > 1.5 * lengths.sum()
    assert list(sampler) == batches
    sampler.epoch = 1
    assert list(sampler) != batches
