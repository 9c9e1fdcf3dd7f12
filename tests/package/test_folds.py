"""The experiment on five folds: what it compares, and how it sums up."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from electra_tutorial.breakdowns import cross_validate
from electra_tutorial.questions import Span
from electra_tutorial.tasks import load_task

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return importlib.import_module("folds")


def test_silence_is_right_where_there_is_no_answer(script: Any) -> None:
    task = load_task("passages", quiet=True)
    found = script.by_rule(lambda question, context: None)(task)
    unanswerable = [not answers["text"] for answers in task.test["answers"]]
    assert found.predictions == [""] * len(task.test)
    assert found.metrics["exact_match"] == pytest.approx(sum(unanswerable) / len(unanswerable))


def test_a_rule_answers_with_the_span_it_finds(script: Any) -> None:
    task = load_task("passages", quiet=True)
    first = script.by_rule(lambda question, context: Span(context[:5], 0, 5, 1.0))(task)
    assert first.predictions == [context[:5] for context in task.test["context"]]


def test_two_arms_see_the_same_folds(script: Any) -> None:
    task = load_task("entities", quiet=True)
    arms = script.arms_of(task)
    assert set(arms) == {"mini", "random", "features", "features_lower", "features_mini"}
    seen: dict[str, list[list[str]]] = {"one": [], "other": []}
    for name, tests in seen.items():

        def fit(fold: Any, tests: list[list[str]] = tests) -> Any:
            tests.extend(fold.test["tokens"])
            return arms["features_lower"](fold)

        found = cross_validate(task, fit, 2, script.SEED)
        assert 0 < found.mean < 1, name
    assert seen["one"] == seen["other"]


def test_the_summary_compares_fold_by_fold(script: Any) -> None:
    found = script.summary({"mini": [0.8, 0.7, 0.9], "bag_of_words": [0.7, 0.65, 0.75]})
    ahead = [0.1, 0.05, 0.15]
    assert found["difference"] == {"bag_of_words": pytest.approx(0.1)}
    expected = stats.t.interval(0.95, 2, loc=0.1, scale=stats.sem(ahead))
    assert found["difference_interval"]["bag_of_words"] == pytest.approx(expected)
    assert found["mean"]["mini"] == pytest.approx(0.8)
