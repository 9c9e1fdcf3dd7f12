"""Experiments on fine-tuning: simple methods, and the records of runs; no network is trained."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from electra_tutorial.task_columns import features_of
from electra_tutorial.tasks import Task, load_task, make_split

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.delitem(sys.modules, "simple_methods", raising=False)
    return importlib.import_module("simple_methods")


@pytest.fixture
def script(methods: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delitem(sys.modules, "real_tasks", raising=False)
    return importlib.import_module("real_tasks")


def pairs(kind: str) -> Task:
    """Pairs that agree or share nothing; a longer common part is a higher number."""
    words = ["ferry", "dawn", "harbour", "lamp", "fog", "winter", "apple", "garden", "town", "noon"]
    first, second, labels = [], [], []
    for i in range(40):
        shared = i % 5
        first.append(" ".join(words[(i + k) % 10] for k in range(4)))
        second.append(" ".join(words[(i + k) % 10] if k < shared else f"x{i}{k}" for k in range(4)))
        labels.append(int(shared > 2) if kind == "classification" else float(shared))
    names = ("no", "yes") if kind == "classification" else ()
    if kind == "classification":
        split = make_split(first, labels, names, second)
    else:
        columns = {"text": first, "text_pair": second, "label": labels}
        split = Dataset.from_dict(columns, features=features_of("regression", 2, ()))
    parts = [split.select(range(*ends)) for ends in ((0, 20), (20, 30), (30, 40))]
    metric = "accuracy" if kind == "classification" else "spearman"
    columns_of = ("text", "text_pair")
    return Task("toy", kind, names, columns_of, *parts, "builtin", "sha256:0", metric)


def test_word_overlap_sees_whether_a_pair_agrees(methods: Any) -> None:
    for kind, metric in (("classification", "accuracy"), ("regression", "spearman")):
        task = pairs(kind)
        assert methods.word_overlap(task).metrics[metric] > 0.9
        assert 0 <= methods.bag_of_words(task).metrics[metric] <= 1
        assert set(methods.baselines_of(task)) == {"bag_of_words", "word_overlap"}


def test_the_commonest_tag_by_hand(methods: Any) -> None:
    names = ("O", "B-PER", "B-LOC", "I-LOC")
    features = features_of("token-classification", 1, names)

    def split(rows: list[tuple[str, list[int]]]) -> Dataset:
        columns = {"tokens": [words.split() for words, _ in rows], "ner_tags": [t for _, t in rows]}
        return Dataset.from_dict(columns, features=features)

    # Ada: twice a person, once not; Paris: once each, so the lower number; New York: a place.
    train = split(
        [("Ada saw Ada", [1, 0, 1]), ("Ada Paris Paris", [0, 1, 2]), ("New York", [2, 3])]
    )
    test = split([("Ada in New York", [1, 0, 2, 3]), ("Paris Unknown ada", [2, 1, 0])])
    task = Task(
        "toy", "token-classification", names, ("tokens",), train, train, test, "b", "r", "f1"
    )
    found = methods.commonest_tags(task)
    assert found.predictions == [["B-PER", "O", "B-LOC", "I-LOC"], ["B-PER", "O", "O"]]
    assert found.metrics["f1"] == pytest.approx(2 * 2 / (4 + 3))
    assert set(methods.baselines_of(task)) == {"commonest_tags", "word_features"}


def test_the_best_sentence_by_hand(methods: Any) -> None:
    task = load_task("passages", quiet=True)
    context = "The ferry left at dawn. Its lamps burned until noon! A dog slept."
    row = {
        "id": ["1", "2"],
        "context": [context] * 2,
        "question": ["How long did the lamps burn until?", "Who slept?"],
        "answers": [
            {"text": ["until noon"], "answer_start": [context.index("until")]},
            {"text": ["A dog"], "answer_start": [context.index("A dog")]},
        ],
    }
    test = Dataset.from_dict(row, features=task.test.features)
    # Words are weighted by the contexts of training; in a single one all would weigh log(1) = 0.
    small = Task("toy", task.kind, (), task.text_columns, task.train, test, test, "b", "r", "f1")
    found = methods.best_sentences(small)
    assert found.predictions == ["Its lamps burned until noon!", "A dog slept."]
    # noon and until of its lamps burned until noon: 2 of 5 words; dog of dog slept: 1 of 2.
    assert found.metrics["f1"] == pytest.approx((2 * 2 / 7 + 2 / 3) / 2)


def test_sentences_cover_the_context(methods: Any) -> None:
    text = "One. Two?  Three 3.5 metres! Four"
    assert [text[a:b] for a, b in methods._sentences(text)] == [
        "One.",
        "Two?",
        "Three 3.5 metres!",
        "Four",
    ]


def figures(arm: str, seed: int, score: float, **more: Any) -> dict[str, Any]:
    return {
        "task": "squad",
        "arm": arm,
        "rows": 10,
        "seed": seed,
        "precision": "fp32",
        "metric": "f1",
        "score": score,
        "also": {"exact_match": score / 2},
        "test_rows": 7,
        "confusion_matrix": None,
        "revision": "r",
        "seconds": 2.0,
    } | more


def test_the_record_holds_every_seed_and_what_the_paper_reports(script: Any) -> None:
    runs = [
        figures(arm, seed, score + seed / 10, learning_rate=rate)
        for arm, score, rate in (("mini", 0.4, 1e-3), ("random", 0.1, 5e-4))
        for seed in (1, 0)
    ] + [figures("best_sentences", seed, 0.2) for seed in (0, 1)]
    found = script.summary(runs, 10, 2)
    squad = found["squad"]
    assert squad["scores"]["mini"] == pytest.approx([0.4, 0.5])
    assert squad["mean"]["random"] == pytest.approx(0.15)
    assert squad["sd"]["mini"] == pytest.approx(np.std([0.4, 0.5], ddof=1))
    assert squad["also"]["mini"]["exact_match"] == pytest.approx(0.225)
    assert squad["learning_rate"] == {"mini": 1e-3, "random": 5e-4}
    assert found["paper"]["squad"] == {"exact_match": 75.8}
    assert "google-research/electra" in found["paper"]["source"]
    for lacking in (runs[1:], runs[2:]):
        with pytest.raises(SystemExit, match="squad lacks seeds of mini"):
            script.summary(lacking, 10, 2)


def test_a_draw_follows_from_the_seed(script: Any) -> None:
    rows = Dataset.from_dict({"n": list(range(50))})
    assert script.draw_rows(rows, 10, 3)["n"] == script.draw_rows(rows, 10, 3)["n"]
    assert script.draw_rows(rows, 10, 3)["n"] != script.draw_rows(rows, 10, 4)["n"]
    assert sorted(script.draw_rows(rows, None, 0)["n"]) == list(range(50))


def test_the_times_of_two_loops_are_compared_pair_by_pair(
    script: Any,
) -> None:
    trainer = importlib.import_module("trainer")
    pairs = [
        {
            "fine_tune": {"accuracy": 0.8 + i / 10, "seconds": 2.0 * i, "cpu_seconds": 1.0},
            "Trainer": {"accuracy": 0.8, "seconds": 4.0, "cpu_seconds": 2.0},
        }
        for i in (1, 2, 4)
    ]
    found = trainer.summary(pairs)
    assert found["time_ratios"]["seconds"] == [0.5, 1.0, 2.0]
    assert found["time_ratio"] == {"seconds": 1.0, "cpu_seconds": 0.5}
    assert found["difference"] == pytest.approx(0.7 / 3)
    low, high = found["difference_interval"]
    assert low < 0.7 / 3 < high
    assert found["Trainer"]["sd"] == pytest.approx(0)


def test_the_arms_of_the_experiment_on_instability_differ(script: Any) -> None:
    arms = importlib.import_module("instability").ARMS
    assert len(set(arms.values())) == len(arms)
    for rate in (2e-3, 5e-3):
        fast = [config for config in arms.values() if config.learning_rate == rate]
        assert len({(c.warmup_fraction > 0, c.bias_correction) for c in fast}) == len(fast) == 4
