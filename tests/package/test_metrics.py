from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from electra_tutorial import metrics


def test_discriminator_metrics_by_hand() -> None:
    # Padding (the last column) is ignored. Replaced: 2.0 and -1.0; original: -2.0, 1.0, -3.0, -1.5.
    scores = torch.tensor([[2.0, -2.0, 1.0, 9.0], [-1.0, -3.0, -1.5, 9.0]])
    replaced = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]])
    measured = metrics.discriminator_metrics(scores, replaced, mask)
    # 8 pairs of a replaced and an original token; only (-1.0, 1.0) is in the wrong order.
    assert measured["auc"] == pytest.approx(7 / 8)
    # Called replaced: 2.0 (rightly) and 1.0 (wrongly). Missed: -1.0.
    assert measured["precision"] == pytest.approx(1 / 2)
    assert measured["recall"] == pytest.approx(1 / 2)
    assert measured["accuracy"] == pytest.approx(4 / 6)
    assert measured["base_rate"] == pytest.approx(2 / 6)


def test_discriminator_metrics_where_nothing_was_replaced() -> None:
    measured = metrics.discriminator_metrics([-1.0, -2.0], [0, 0], [1, 1])
    assert math.isnan(measured["auc"])
    assert (measured["precision"], measured["recall"], measured["accuracy"]) == (0, 0, 1)


def test_tensors_may_need_gradients_and_be_in_half_precision() -> None:
    scores = torch.tensor([2.0, -1.0], dtype=torch.bfloat16, requires_grad=True)
    assert metrics.discriminator_metrics(scores, [1, 0], [1, 1])["auc"] == 1


def test_discriminator_metrics_refuse_bad_shapes() -> None:
    with pytest.raises(ValueError, match="three of one shape"):
        metrics.discriminator_metrics([1.0], [1, 0], [1, 1])
    with pytest.raises(ValueError, match="no token to measure"):
        metrics.discriminator_metrics([1.0], [1], [0])


def test_unigram_entropy_by_hand() -> None:
    # Shares 1/2, 1/4, 1/4: 1.5 bits.
    assert metrics.unigram_entropy([7, 7, 8, 9]) == pytest.approx(1.5 * math.log(2))
    assert metrics.unigram_entropy([[7, 7, 0], [8, 9, 0]], ignore_ids=[0]) == pytest.approx(
        1.5 * math.log(2)
    )
    assert metrics.unigram_entropy(torch.tensor([3, 3, 3])) == 0
    with pytest.raises(ValueError, match="no token to count"):
        metrics.unigram_entropy([0, 0], ignore_ids=[0])


def test_masked_accuracy_by_hand() -> None:
    logits = torch.tensor([[[0.0, 2.0], [3.0, 1.0], [0.0, 1.0]]])  # best: 1, 0, 1
    assert metrics.masked_accuracy(logits, [[1, 1, -100]]) == 1 / 2
    assert metrics.masked_accuracy(logits[0], [1, 0, 0]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="No position is masked"):
        metrics.masked_accuracy(logits, [[-100] * 3])
    with pytest.raises(ValueError, match="do not fit"):
        metrics.masked_accuracy(logits, [1, 1, 1])


LABELS, PREDICTIONS, NAMES = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 1], ["a", "b", "c", "absent"]


def test_classification_metrics_by_hand() -> None:
    measured = metrics.classification_metrics(LABELS, PREDICTIONS, NAMES)
    assert measured["accuracy"] == pytest.approx(3 / 6)
    assert measured["per_label"]["a"] == pytest.approx(
        {"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3}
    )
    assert measured["per_label"]["b"] == pytest.approx(
        {"precision": 1 / 3, "recall": 1 / 2, "f1": 0.4, "support": 2}
    )
    assert measured["per_label"]["c"]["f1"] == 0
    assert measured["macro_f1"] == pytest.approx((0.8 + 0.4 + 0 + 0) / 4)
    assert metrics.macro_f1(LABELS, PREDICTIONS) == pytest.approx((0.8 + 0.4 + 0) / 3)
    assert metrics.matthews_correlation([0, 1, 0, 1], [0, 1, 0, 1]) == 1
    assert metrics.matthews_correlation([0, 1, 0, 1], [0, 0, 1, 1]) == 0


def test_report_and_confusion_matrix_have_a_row_for_every_label() -> None:
    report = metrics.classification_report(LABELS, PREDICTIONS, NAMES)
    assert all(name in report for name in NAMES)
    assert metrics.confusion_matrix(LABELS, PREDICTIONS, NAMES[:3]).tolist() == [
        [2, 1, 0],
        [0, 1, 1],
        [0, 1, 0],
    ]


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [([], [], "at least 1"), ([0, 1], [0], "of one length"), ([0, 4], [0, 0], "from 0 to 4")],
)
def test_labels_that_do_not_fit_are_refused(
    labels: list[int], predictions: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.classification_metrics(labels, predictions, NAMES)


def test_bootstrap_interval_matches_the_binomial_spread() -> None:
    labels = np.zeros(400, dtype=int)
    predictions = np.repeat([0, 1], [320, 80])  # accuracy 0.8, standard error 0.02
    low, high = metrics.bootstrap_interval(metrics.accuracy, labels, predictions)
    assert low == pytest.approx(0.8 - 1.96 * 0.02, abs=0.006)
    assert high == pytest.approx(0.8 + 1.96 * 0.02, abs=0.006)
    assert (low, high) == metrics.bootstrap_interval(metrics.accuracy, labels, predictions)
    assert (low, high) != metrics.bootstrap_interval(
        metrics.accuracy, labels, predictions, seed=1, resamples=100
    )


def test_bootstrap_interval_without_errors_is_a_point() -> None:
    assert metrics.bootstrap_interval(metrics.accuracy, [0, 1], [0, 1]) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (([], []), {}, "at least one"),
        (([1], [1, 0]), {}, "as many of both"),
        (([1], [1]), {"confidence": 95}, "between 0 and 1"),
        (([1], [1]), {"resamples": 0}, "at least 1"),
    ],
)
def test_bootstrap_interval_refuses(arguments: tuple, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.bootstrap_interval(metrics.accuracy, *arguments, **settings)


def test_entities_count_only_with_type_and_both_ends() -> None:
    labels = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG"]]
    predictions = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-ORG"]]
    # There: 3 entities. Found: 3, of which right: Ada, the ORG of the second sentence.
    measured = metrics.entity_metrics(labels, predictions)
    assert measured["precision"] == measured["recall"] == measured["f1"] == pytest.approx(2 / 3)
    assert measured["per_label"]["LOC"]["recall"] == 0.0
    assert measured["per_label"]["ORG"] == {
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
        "support": 1,
    }
    assert measured["accuracy"] == pytest.approx(5 / 6)
    low, high = measured["f1_interval"]
    assert low <= 2 / 3 <= high
    shorter = [["B-PER", "O", "O", "O"], ["O", "O"]]  # half an entity is none
    assert metrics.entity_metrics(labels, shorter)["f1"] == 0.0
    with pytest.raises(ValueError, match="one tag a word"):
        metrics.entity_metrics(labels, labels[:1])


def test_no_entity_anywhere_is_measured_as_zero() -> None:
    assert metrics.entity_metrics([["O", "O"]], [["O", "O"]])["f1"] == 0.0


def test_correlations_are_those_of_scipy_and_zero_for_a_constant() -> None:
    labels, predictions = [0.0, 1.0, 2.0, 5.0], [0.1, 0.9, 3.0, 4.0]
    measured = metrics.correlations(labels, predictions)
    assert measured["pearson"] == pytest.approx(np.corrcoef(labels, predictions)[0, 1])
    assert measured["spearman"] == pytest.approx(1.0)
    assert metrics.correlations(labels, [1.0] * 4)["pearson"] == 0.0
    with pytest.raises(ValueError, match="at least 2"):
        metrics.correlations([1.0], [1.0])


def test_answers_are_compared_as_squad_compares_them() -> None:
    assert metrics.normalize_answer("The  Ferry-boat, a\nlamp!") == "ferryboat lamp"
    assert metrics.normalize_answer("an apple and theatre") == "apple and theatre"
    assert metrics.normalize_answer("A. B. the C") == "b c"  # articles go after the punctuation
    assert (
        metrics.normalize_answer("caf\u00e9 \u2019tis") == "caf\u00e9 \u2019tis"
    )  # ASCII signs only


@pytest.mark.parametrize(
    ("accepted", "given", "exact", "f1"),
    [
        (["the Ferry"], "ferry.", 1, 1),
        (["red apples"], "two red apples", 0, 0.8),  # 2 shared of 2 and 3 words
        (["red red apples"], "red pears", 0, 0.4),  # red counts once
        (["dawn", "before dawn"], "before dawn", 1, 1),  # the best of both
        (["dawn"], "noon", 0, 0),
        (["dawn"], "", 0, 0),
        ([], "", 1, 1),
        ([], "dawn", 0, 0),
        (["the", "dawn"], "", 0, 0),  # an answer of which nothing is left does not count
        (["the"], "", 1, 1),
    ],
)
def test_answer_scores_by_hand(accepted: list[str], given: str, exact: float, f1: float) -> None:
    assert metrics.answer_scores(accepted, given) == (exact, pytest.approx(f1))


def test_question_metrics_by_hand() -> None:
    accepted = [["red apples"], ["dawn"], [], []]
    measured = metrics.question_metrics(accepted, ["two red apples", "dawn", "", "noon"])
    assert measured["exact_match"] == 0.5
    assert measured["f1"] == pytest.approx((0.8 + 1 + 1 + 0) / 4)
    low, high = measured["f1_interval"]
    assert low < measured["f1"] < high
    assert measured["answerable"] == {"exact_match": 0.5, "f1": pytest.approx(0.9), "support": 2}
    assert measured["unanswerable"] == {"exact_match": 0.5, "f1": 0.5, "support": 2}
    assert set(metrics.question_metrics([["dawn"]], ["dawn"])) == {
        "exact_match",
        "exact_match_interval",
        "f1",
        "f1_interval",
    }
    with pytest.raises(ValueError, match="1 questions and 2 answers"):
        metrics.question_metrics([["dawn"]], ["dawn", "noon"])


def test_the_threshold_for_no_answer_by_hand() -> None:
    # By rising score: answered rightly, wrongly although there is none, half rightly, wrongly.
    scores, answerable, odds = [0.5, 1.0, 0.0, 0.0], [1, 1, 0, 0], [3.0, 1.0, 4.0, 2.0]
    # Means: nothing answered 2/4; up to 1.0: 3/4; 2.0: 2/4; 3.0: 2.5/4; 4.0: 1.5/4.
    assert metrics.best_no_answer_threshold(scores, answerable, odds) == (1.0, 0.75)
    assert metrics.best_no_answer_threshold([0.0, 1.0], [1, 0], [1.0, 2.0]) == (0.0, 0.5)
    # Questions with one score are answered together or not at all.
    assert metrics.best_no_answer_threshold([1, 0], [1, 0], [1.0, 1.0]) == (0.0, 0.5)


def test_the_threshold_is_the_best_of_all() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        answerable, odds = random.random(30) < 0.6, random.normal(size=30).round(1)
        scores = np.where(answerable, random.random(30).round(1), 0.0)

        def mean(
            limit: float,
            odds: np.ndarray = odds,
            scores: np.ndarray = scores,
            answerable: np.ndarray = answerable,
        ) -> float:
            return float(np.where(odds > limit, ~answerable, scores).mean())

        threshold, best = metrics.best_no_answer_threshold(scores, answerable, odds)
        assert best == pytest.approx(mean(threshold))
        assert best == pytest.approx(max(mean(limit) for limit in [-9.0, *odds]))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_binary_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    known, called = zip(*pairs, strict=True)
    expected = sklearn.metrics.f1_score(known, called, zero_division=0)
    assert metrics.binary_f1(known, called) == pytest.approx(expected)
    measured = metrics.classification_metrics(known, called, ("other", "same"))
    assert measured["f1"] == pytest.approx(expected)
    assert "f1" not in metrics.classification_metrics(known, called, ("other", "same", "third"))
