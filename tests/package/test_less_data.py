"""The experiment on few labels: which rows keep theirs, and which guesses become labels."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from electra_tutorial import recorded
from electra_tutorial.heads import Evaluation
from electra_tutorial.tasks import load_task

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def less_data(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.delitem(sys.modules, "less_data", raising=False)
    return importlib.import_module("less_data")


@pytest.mark.parametrize("name", ["topics", "messages"])
def test_labels_are_balanced_and_no_row_is_lost(less_data: Any, name: str) -> None:
    task = load_task(name)
    for size in less_data.SIZES[name]:
        small, rest = less_data.draw(task, size, seed=1)
        counts = Counter(small.train["label"])
        assert set(counts.values()) == {size // len(task.label_names)}
        assert Counter([*small.train["text"], *rest["text"]]) == Counter(task.train["text"])
    again, _ = less_data.draw(task, size, seed=1)
    assert list(again.train["text"]) == list(small.train["text"])


def test_the_surest_half_of_each_called_class_keeps_its_guess(less_data: Any) -> None:
    rest = Dataset.from_dict({"text": list("abcdef"), "label": [0, 0, 0, 1, 1, 1]})
    positive = np.array([0.1, 0.4, 0.9, 0.2, 0.8, 0.6])
    found = Evaluation.of(rest["label"], np.stack([1 - positive, positive], axis=1), ("n", "p"))
    more, right = less_data.pseudo_labels(found, rest)
    # Called n: a 0.9, d 0.8, b 0.6; called p: c 0.9, e 0.8, f 0.6. Of three, two are kept.
    assert dict(zip(more["text"], more["label"], strict=True)) == {"a": 0, "d": 0, "c": 1, "e": 1}
    assert right == 0.5


def test_fewer_rows_are_passed_more_often_in_smaller_batches(less_data: Any) -> None:
    settings = [less_data.settings_for(rows, 0) for rows in (24, 72, 240)]
    assert [config.batch_size for config in settings] == [4, 8, 16]
    assert [config.epochs for config in settings] == [10, 7, 4]


def test_the_record_holds_a_score_for_each_seed_and_size(less_data: Any) -> None:
    run = recorded.load("less_data")
    for name, sizes in less_data.SIZES.items():
        curve = run["curves"][name]
        assert curve["sizes"] == list(sizes)
        for arm in less_data.ARMS:
            assert np.shape(curve[arm]) == (len(run["seeds"]), len(sizes))
    assert len(run["curves"][less_data.ADAPTED]["adapted"]) == len(run["seeds"])
