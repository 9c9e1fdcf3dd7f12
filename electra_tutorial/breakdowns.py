"""Behind one score: where a model is right, how far to trust its probabilities, how sure we are.

All functions take what `evaluate()` returns, or lists like it; none needs the model again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import ArrayLike
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from electra_tutorial.heads import AnyEvaluation, Evaluation
from electra_tutorial.metrics import accuracy, bootstrap_interval
from electra_tutorial.metrics import t_interval as t_interval
from electra_tutorial.tasks import Task

VALIDATION_SHARE = 0.15


@dataclass(frozen=True)
class Calibration:
    """How often a classifier is right where it is so and so sure; empty bins are left out.

    Attributes:
        confidence: the mean probability of the called class in each bin, of shape (bins,).
        accuracy: the share of the bin's items that are right, of shape (bins,).
        count: how many items the bin has, of shape (bins,).
        expected_error: the mean over the items of how far their bin's accuracy lies from its
            confidence; 0 is perfect. Its usual name is expected calibration error.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    expected_error: float


@dataclass(frozen=True)
class Mistake:
    """A text that was given a wrong label, and the probability that this label had."""

    text: str
    label: str
    prediction: str
    probability: float


@dataclass(frozen=True)
class CrossValidation:
    """What `cross_validate()` found.

    Attributes:
        metric: the task's measure.
        scores: that of each fold.
        mean: their mean.
        interval: 95 % interval of the mean, by Student's t over the folds.
    """

    metric: str
    scores: tuple[float, ...]
    mean: float
    interval: tuple[float, float]


def calibration(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> Calibration:
    """Compare how sure a classifier was with how often it was right (Guo et al., 2017).

    The items go into `bins` equally wide bins by the probability of the class that they were given;
    one that falls on an edge goes into the lower bin, as in scikit-learn's `calibration_curve`.

    Args:
        labels: numbers of the true classes, of shape (items,).
        probabilities: of shape (items, classes).
        bins: how many.

    Raises:
        ValueError: if the shapes do not fit, there is no item, a probability lies outside 0 to 1,
            or there is no bin.
    """
    known, shares = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if shares.ndim != 2 or known.shape != shares.shape[:1] or not len(known):
        raise ValueError(
            f"labels and probabilities have shapes {known.shape} and {shares.shape}; give "
            "(items,) and (items, classes), and at least one item."
        )
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError("A probability lies outside 0 to 1: give probabilities, not logits.")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}.")
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == known
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], sure)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    confidence = np.bincount(place, sure, bins)[filled] / count[filled]
    hits = np.bincount(place, right, bins)[filled] / count[filled]
    error = float(np.average(np.abs(hits - confidence), weights=count[filled]))
    return Calibration(confidence, hits, count[filled], error)


def length_groups(lengths: Sequence[int], edges: Sequence[int]) -> list[str]:
    """The class of each length: with edges 8 and 16 one of "1-8", "9-16" and "17+".

    Raises:
        ValueError: if a length is below 1, or the edges are not whole numbers that rise from 1.
    """
    limits = [int(edge) for edge in edges]
    if limits != list(edges) or not limits or limits != sorted({*limits}) or limits[0] < 1:
        raise ValueError(f"edges must be whole numbers that rise, from 1 on, not {list(edges)}.")
    if len(lengths) and min(lengths) < 1:
        raise ValueError(f"Every length must be at least 1, not {min(lengths)}: leave out the row.")
    starts = [1, *(limit + 1 for limit in limits)]
    names = [f"{a}-{b}" for a, b in zip(starts, limits, strict=False)] + [f"{starts[-1]}+"]
    return [names[i] for i in np.searchsorted(limits, np.asarray(lengths))]


def by_group(
    groups: Sequence[str],
    labels: Sequence[Any],
    predictions: Sequence[Any],
    measure: Callable[[Any, Any], float] = accuracy,
) -> list[tuple[str, int, float, tuple[float, float]]]:
    """A measure of each group of items: of short and long texts, say, or of types of entities.

    Args:
        groups: the name of each item's group.
        labels, predictions: of each item; where an item is a sentence, the list of its tags.
        measure: of labels and predictions, for instance `metrics.accuracy`, `metrics.macro_f1`, or
            `metrics.entity_f1` for tags.

    Returns:
        For each group its name, how many items it has, the measure, and its interval (95 %,
        bootstrap over the items). Groups stand in the order of their names, numbers in them in that
        of their values.

    Raises:
        ValueError: if the lengths differ or there is no item.
    """
    sizes = [len(groups), len(labels), len(predictions)]
    if len(set(sizes)) != 1 or not sizes[0]:
        raise ValueError(
            f"There are {sizes[0]} groups, {sizes[1]} labels and {sizes[2]} predictions; give as "
            "many of each, and at least one."
        )
    known, called, names = _items(labels), _items(predictions), np.asarray(groups)
    rows = []
    for group in sorted(set(groups), key=_natural):
        kept = names == group
        there, given = known[kept], called[kept]
        interval = bootstrap_interval(measure, there, given)
        rows.append((group, int(kept.sum()), float(measure(there, given)), interval))
    return rows


def _items(values: Sequence[Any]) -> np.ndarray:
    """An array with one place for each value, be it a number or a list, to draw rows from."""
    if np.ndim(values[0]) == 0:
        return np.asarray(values)
    items = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        items[place] = value
    return items


def _natural(name: str) -> list[str | int]:
    """A key that puts 9-16 before 17-32: digits count as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def most_confident_mistakes(
    texts: Sequence[str], evaluation: Evaluation, count: int = 5
) -> list[Mistake]:
    """The wrong answers of which a classifier was most sure, surest first.

    They show what a score does not: wrong labels in the data, and what the model takes for a sign
    of a class.

    Args:
        texts: of the rows that were evaluated, in their order.
        evaluation: what `evaluate()` returned for them.
        count: how many at most.

    Raises:
        ValueError: if there are not as many texts as answers.
    """
    if len(texts) != len(evaluation.labels):
        raise ValueError(
            f"There are {len(texts)} texts and {len(evaluation.labels)} answers: give the texts of "
            "the rows that were evaluated."
        )
    sure = evaluation.probabilities.max(axis=1)
    wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:count]
    names = evaluation.label_names
    return [
        Mistake(
            texts[i],
            names[int(evaluation.labels[i])],
            names[int(evaluation.predictions[i])],
            float(sure[i]),
        )
        for i in worst.tolist()
    ]


def cross_validate(
    task: Task, fit: Callable[[Task], AnyEvaluation], folds: int = 5, seed: int = 0
) -> CrossValidation:
    """Judge a way of training on every row of a small set, each by a model that has not seen it.

    All rows are cut into `folds` parts: of a classification with the same shares of the classes, of
    questions so that those about one text stay together. Each part serves once as test; of the
    other rows 15 % (of questions: of the texts) are validation, the rest train. Two folds share
    most of their training rows, so their scores are not independent, and the interval is rather too
    narrow (Bengio and Grandvalet, 2004, show that no unbiased one can be had from one run).

    Args:
        task: its own splits are put together first.
        fit: trains on the task that it is given and returns the evaluation of its test split.
        folds: how many parts.
        seed: decides which row goes where.

    Raises:
        ValueError: if there are more folds than rows of the rarest class, than texts with
            questions, or than rows, or if `fit` evaluated something else than the test split.
    """
    rows = concatenate_datasets([task.train, task.validation, task.test])
    scores = []
    for train, validation, test in _folds(task, rows, folds, seed):
        fold = replace(
            task,
            **{
                name: rows.select(sorted(chosen.tolist()))
                for name, chosen in zip(
                    ("train", "validation", "test"), (train, validation, test), strict=True
                )
            },
        )
        evaluation = fit(fold)
        if list(evaluation.labels) != _true_answers(fold):
            raise ValueError(
                "fit() evaluated other rows than the test split of the task that it was given: "
                "return evaluate(model, tokenizer, task.test, task.label_names)."
            )
        scores.append(float(evaluation.metrics[task.metric]))
    return CrossValidation(task.metric, tuple(scores), float(np.mean(scores)), t_interval(scores))


def _folds(
    task: Task, rows: Dataset, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The places of the rows of train, validation and test, fold by fold."""
    if task.kind == "classification":
        labels = np.asarray(rows["label"])
        rarest = int(np.bincount(labels, minlength=len(task.label_names)).min())
        _require_folds(folds, rarest, "rows of the rarest class")
        stratified = StratifiedKFold(folds, shuffle=True, random_state=seed)
        for others, test in stratified.split(labels, labels):
            train, validation = train_test_split(
                others, test_size=VALIDATION_SHARE, stratify=labels[others], random_state=seed
            )
            yield train, validation, test
        return
    asked = task.kind == "question-answering"
    texts = np.asarray(rows["context"]) if asked else np.arange(len(rows))
    different, owner = np.unique(texts, return_inverse=True)
    _require_folds(folds, len(different), "texts with questions" if asked else "rows")
    for others, test in KFold(folds, shuffle=True, random_state=seed).split(different):
        train, validation = train_test_split(others, test_size=VALIDATION_SHARE, random_state=seed)
        yield (
            np.flatnonzero(np.isin(owner, train)),
            np.flatnonzero(np.isin(owner, validation)),
            np.flatnonzero(np.isin(owner, test)),
        )


def _require_folds(folds: int, most: int, of: str) -> None:
    if not 2 <= folds <= most:
        raise ValueError(f"folds must lie between 2 and {most}, the number of {of}, not {folds}.")


def _true_answers(task: Task) -> list[Any]:
    """What the evaluation of the test split has to call its labels."""
    if task.kind == "token-classification":
        names = task.label_names
        return [[names[tag] for tag in tags] for tags in task.test["ner_tags"]]
    if task.kind == "question-answering":
        return [list(answers["text"]) for answers in task.test["answers"]]
    return list(task.test["label"])
