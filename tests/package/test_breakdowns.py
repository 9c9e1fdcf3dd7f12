from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.model_selection import StratifiedKFold

from electra_tutorial import breakdowns, metrics
from electra_tutorial.heads import EntityEvaluation, Evaluation
from electra_tutorial.questions import AnswerEvaluation, Span
from electra_tutorial.tasks import Task, load_task, make_split

NAMES = ("negative", "positive")


# --- calibration --------------------------------------------------------------------------------


def test_calibration_by_hand() -> None:
    shares = [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]]
    found = breakdowns.calibration([0, 1, 0, 1], shares, bins=2)
    # All four are called with more than one half: one bin, three right, sure by 0.75 on average.
    assert found.confidence.tolist() == pytest.approx([0.75])
    assert found.accuracy.tolist() == [0.75]
    assert found.count.tolist() == [4]
    assert found.expected_error == pytest.approx(0)
    four = breakdowns.calibration([0, 1, 0, 1], shares, bins=4)  # 0.5 to 0.75, and above
    assert four.confidence.tolist() == pytest.approx([0.65, 0.85])
    assert four.accuracy.tolist() == [1, 0.5]
    assert four.expected_error == pytest.approx((2 * 0.35 + 2 * 0.35) / 4)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_calibration_is_scikit_learns(items: list[tuple[int, int]], bins: int) -> None:
    # Multiples of 1/80 fall on the edges of many bins.
    first = np.array([number / 80 + 0.25 for _, number in items])
    shares = np.stack([first, *[(1 - first) / 3] * 3], axis=1)
    labels = np.array([label for label, _ in items])
    found = breakdowns.calibration(labels, shares, bins)
    right = shares.argmax(axis=1) == labels
    expected, sure = calibration_curve(right, shares.max(axis=1), n_bins=bins)
    assert found.accuracy == pytest.approx(expected)
    assert found.confidence == pytest.approx(sure)
    assert found.count.sum() == len(items)


def test_calibration_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(2,\); give .items,. and"):
        breakdowns.calibration([0, 1], [0.5, 0.5])
    with pytest.raises(ValueError, match="at least one item"):
        breakdowns.calibration([], np.zeros((0, 2)))
    with pytest.raises(ValueError, match="give probabilities, not logits"):
        breakdowns.calibration([0], [[2.0, -1.0]])
    with pytest.raises(ValueError, match="bins must be at least 1, not 0"):
        breakdowns.calibration([0], [[1.0, 0.0]], bins=0)


# --- groups -------------------------------------------------------------------------------------


def test_length_groups_by_hand() -> None:
    assert breakdowns.length_groups([1, 8, 9, 16, 17, 400], [8, 16]) == [
        "1-8",
        "1-8",
        "9-16",
        "9-16",
        "17+",
        "17+",
    ]
    assert breakdowns.length_groups([], [8]) == []
    assert breakdowns.length_groups([1, 2], [1]) == ["1-1", "2+"]
    for edges in ([], [8, 8], [16, 8], [0, 8], [1.5]):
        with pytest.raises(ValueError, match="whole numbers that rise"):
            breakdowns.length_groups([1], edges)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1, not 0"):
        breakdowns.length_groups([3, 0], [8])


def test_groups_by_hand() -> None:
    groups = ["17+", "9-16", "9-16", "1-8", "9-16", "17+"]
    labels, predictions = [1, 0, 1, 1, 0, 0], [1, 0, 0, 1, 0, 1]
    rows = breakdowns.by_group(groups, labels, predictions)
    assert [row[:2] for row in rows] == [("1-8", 1), ("9-16", 3), ("17+", 2)]
    assert [row[2] for row in rows] == pytest.approx([1, 2 / 3, 1 / 2])
    assert rows[0][3] == (1, 1)
    chosen = np.asarray(groups) == "9-16"
    assert rows[1][3] == metrics.bootstrap_interval(
        metrics.accuracy, np.asarray(labels)[chosen], np.asarray(predictions)[chosen]
    )
    errors = breakdowns.by_group(groups, labels, predictions, lambda a, b: float((a != b).sum()))
    assert [row[2] for row in errors] == [0, 1, 1]


def test_sentences_are_grouped_with_all_their_tags() -> None:
    labels = [["B-PER", "O"], ["B-LOC", "I-LOC"], ["O"], ["B-ORG"]]
    predictions = [["B-PER", "O"], ["B-LOC", "O"], ["O"], ["B-ORG"]]
    groups = breakdowns.length_groups([len(tags) for tags in labels], [1])
    rows = breakdowns.by_group(groups, labels, predictions, metrics.entity_f1)
    assert [row[:3] for row in rows] == [("1-1", 2, 1.0), ("2+", 2, 0.5)]
    for kept, row in (((2, 3), rows[0]), ((0, 1), rows[1])):
        pair = ([labels[i] for i in kept], [predictions[i] for i in kept])
        assert row[2] == metrics.entity_metrics(*pair)["f1"] == metrics.entity_f1(*pair)
        assert row[3] == metrics.entity_metrics(*pair)["f1_interval"]
    alike = breakdowns.by_group(["a", "a"], labels[:2], predictions[:2], metrics.entity_f1)
    assert alike[0][2] == 0.5  # sentences of one length do not become a matrix


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 groups, 1 labels and 1 predictions"):
        breakdowns.by_group(["a", "b"], [0], [0])
    with pytest.raises(ValueError, match="at least one"):
        breakdowns.by_group([], [], [])


# --- mistakes -----------------------------------------------------------------------------------


def test_the_surest_mistakes_come_first() -> None:
    shares = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]
    evaluation = Evaluation.of([0, 1, 0, 1], shares, NAMES)
    texts = ["fine", "poor", "dull", "late"]
    found = breakdowns.most_confident_mistakes(texts, evaluation, count=2)
    assert found == [
        breakdowns.Mistake("dull", "negative", "positive", 0.8),
        breakdowns.Mistake("late", "positive", "negative", 0.7),
    ]
    assert len(breakdowns.most_confident_mistakes(texts, evaluation)) == 3
    with pytest.raises(ValueError, match="There are 1 texts and 4 answers"):
        breakdowns.most_confident_mistakes(["fine"], evaluation)


# --- folds --------------------------------------------------------------------------------------


def small_task(rows: tuple[int, int, int] = (30, 10, 20)) -> Task:
    """Texts that are numbered through; every third is positive."""
    splits, start = [], 0
    for count in rows:
        numbers = range(start, start + count)
        labels = [int(i % 3 == 0) for i in numbers]
        splits.append(make_split([f"text {i}" for i in numbers], labels, NAMES))
        start += count
    return Task("toy", "classification", NAMES, ("text",), *splits, "builtin", "sha256:0")


def guess(task: Task) -> Evaluation:
    """Call every row negative."""
    return Evaluation.of(list(task.test["label"]), [[0.75, 0.25]] * len(task.test), NAMES)


def test_every_row_is_tested_once_in_stratified_folds() -> None:
    task, seen = small_task(), []

    def fit(fold: Task) -> Evaluation:
        seen.append(fold)
        return guess(fold)

    found = breakdowns.cross_validate(task, fit, folds=5, seed=3)
    tested = [text for fold in seen for text in fold.test["text"]]
    assert sorted(tested) == sorted(f"text {i}" for i in range(60))
    labels = [int(i % 3 == 0) for i in range(60)]
    expected = StratifiedKFold(5, shuffle=True, random_state=3).split(labels, labels)
    for fold, (_, test) in zip(seen, expected, strict=True):
        assert list(fold.test["text"]) == [f"text {i}" for i in test]
        parts = [set(split["text"]) for split in (fold.train, fold.validation, fold.test)]
        assert [len(part) for part in parts] == [40, 8, 12]
        assert len(set.union(*parts)) == 60
        assert sum(fold.test["label"]) == 4  # a third
        assert sum(fold.validation["label"]) in (2, 3)
    assert found.metric == "accuracy"
    assert found.scores == (pytest.approx(2 / 3),) * 5
    assert found.interval == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_questions_about_one_text_stay_in_one_split() -> None:
    task, seen = load_task("passages", quiet=True), []

    def fit(fold: Task) -> AnswerEvaluation:
        seen.append(fold)
        accepted = [answers["text"] for answers in fold.test["answers"]]
        spans = [[Span(text[0] if text else "", 0, 0, 1.0)] for text in accepted]
        none = [1.0 if not text else -1.0 for text in accepted]
        return AnswerEvaluation.of(accepted, spans, np.asarray(none), 0.0, threshold=0.0)

    found = breakdowns.cross_validate(task, fit, folds=4)
    assert found.scores == (pytest.approx(1.0),) * 4
    every = [split["question"] for split in (task.train, task.validation, task.test)]
    assert sorted(sum((list(fold.test["question"]) for fold in seen), [])) == sorted(
        sum(map(list, every), [])
    )
    for fold in seen:
        parts = [set(split["context"]) for split in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 56


def test_every_sentence_with_names_is_tested_once() -> None:
    task, tested = load_task("entities", quiet=True), []

    def fit(fold: Task) -> EntityEvaluation:
        tested.extend(map(tuple, fold.test["tokens"]))
        tags = [[fold.label_names[tag] for tag in tags] for tags in fold.test["ner_tags"]]
        return EntityEvaluation(tags, tags, {"f1": 1.0})

    assert breakdowns.cross_validate(task, fit, folds=3).mean == 1.0
    sentences = [tuple(w) for s in (task.train, task.validation, task.test) for w in s["tokens"]]
    assert sorted(tested) == sorted(sentences)


def test_the_folds_follow_from_the_seed() -> None:
    orders: list[list[str]] = []

    def fit(fold: Task) -> Evaluation:
        orders.append(list(fold.test["text"]))
        return guess(fold)

    for seed in (0, 0, 1):
        breakdowns.cross_validate(small_task(), fit, folds=2, seed=seed)
    assert orders[:2] == orders[2:4] != orders[4:]


def test_the_interval_is_students_t() -> None:
    scores = [0.7, 0.8, 0.75, 0.65, 0.9]
    expected = stats.t.interval(0.95, 4, loc=np.mean(scores), scale=stats.sem(scores))
    assert breakdowns.t_interval(scores) == pytest.approx(expected)
    # By hand: mean 0.76, standard deviation 0.0962, t of 4 degrees of freedom 2.776.
    half = 2.776 * 0.0962 / 5**0.5
    assert breakdowns.t_interval(scores) == pytest.approx((0.76 - half, 0.76 + half), abs=1e-3)
    with pytest.raises(ValueError, match="two scores or more"):
        breakdowns.t_interval([0.5])


@pytest.mark.parametrize(
    ("task", "folds", "message"),
    [
        (replace(small_task(), kind="regression"), 61, "between 2 and 60, the number of rows"),
        (small_task(), 21, "between 2 and 20, the number of rows of the rarest class, not 21"),
        (small_task(), 1, "between 2 and 20"),
        (load_task("passages", quiet=True), 1_000, "the number of texts with questions, not 1000"),
    ],
)
def test_folds_that_cannot_be_are_refused(task: Task, folds: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        breakdowns.cross_validate(task, guess, folds=folds)


def test_an_evaluation_of_other_rows_is_refused() -> None:
    def fit(fold: Task) -> Any:
        return guess(replace(fold, test=fold.validation))

    with pytest.raises(ValueError, match="other rows than the test split"):
        breakdowns.cross_validate(small_task(), fit)
