"""Measures of the field, through scikit-learn where it has them.

Arguments may be lists, NumPy arrays or torch tensors.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from seqeval import metrics as seqeval_metrics
from sklearn import metrics as sklearn_metrics


def discriminator_metrics(
    scores: ArrayLike, is_replaced: ArrayLike, attention_mask: ArrayLike
) -> dict[str, float]:
    """How well a discriminator finds replaced tokens, over all tokens that are not padding.

    All three have one shape, for instance (batch, seq_len). `scores` are logits: a token counts as
    called replaced where its logit is above 0, a probability above one half. AUC asks for no
    threshold: it is the probability that a replaced token scores above an original one. Where all
    tokens are of one kind it does not exist and is NaN.

    Returns:
        auc, precision, recall, accuracy, and base_rate, the share of replaced tokens; 1 - base_rate
        is the accuracy of calling every token original.

    Raises:
        ValueError: if the shapes differ or no token is left.
    """
    shapes = {np.shape(values) for values in (scores, is_replaced, attention_mask)}
    if len(shapes) != 1:
        raise ValueError(
            f"scores, is_replaced and attention_mask have shapes {sorted(shapes)}; "
            "give three of one shape."
        )
    real = _array(attention_mask).astype(bool)
    logits = _array(scores).astype(np.float64)[real]
    replaced = _array(is_replaced).astype(bool)[real]
    if not replaced.size:
        raise ValueError("There is no token to measure; attention_mask is 0 everywhere.")
    called = logits > 0
    both = bool(replaced.any() and not replaced.all())
    return {
        "auc": float(sklearn_metrics.roc_auc_score(replaced, logits)) if both else float("nan"),
        "precision": float(sklearn_metrics.precision_score(replaced, called, zero_division=0)),
        "recall": float(sklearn_metrics.recall_score(replaced, called, zero_division=0)),
        "accuracy": float((called == replaced).mean()),
        "base_rate": float(replaced.mean()),
    }


def unigram_entropy(token_ids: ArrayLike, ignore_ids: Sequence[int] = ()) -> float:
    """The entropy, in nats, of how often each token occurs, leaving out `ignore_ids`.

    A generator that knows frequencies and no context cannot have a lower loss on this text.

    Raises:
        ValueError: if no token is left.
    """
    tokens = _array(token_ids).ravel()
    tokens = tokens[~np.isin(tokens, list(ignore_ids))]
    if not tokens.size:
        raise ValueError("There is no token to count; give text, or ignore fewer ids.")
    shares = np.unique(tokens, return_counts=True)[1] / tokens.size
    return float(-(shares * np.log(shares)).sum())


def masked_accuracy(logits: ArrayLike, labels: ArrayLike, ignore_index: int = -100) -> float:
    """Share of the masked positions whose most likely token is the original one.

    `logits` has shape (..., vocabulary), `labels` the same without the last dimension and
    `ignore_index` wherever nothing was masked.

    Raises:
        ValueError: if the shapes do not fit or nothing was masked.
    """
    best = _array(logits).argmax(axis=-1)
    targets = _array(labels)
    if best.shape != targets.shape:
        raise ValueError(
            f"logits for {best.shape} positions do not fit labels of shape {targets.shape}."
        )
    masked = targets != ignore_index
    if not masked.any():
        raise ValueError(f"No position is masked; every label is {ignore_index}.")
    return float((best == targets)[masked].mean())


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Share of `predictions` that equal `labels`."""
    return float((_array(labels) == _array(predictions)).mean())


def macro_f1(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The mean over the classes of F1; a class that occurs in neither argument is left out."""
    return float(
        sklearn_metrics.f1_score(
            _array(labels), _array(predictions), average="macro", zero_division=0
        )
    )


def binary_f1(labels: ArrayLike, predictions: ArrayLike) -> float:
    """F1 of class 1, GLUE's second measure of MRPC; 0 where no item is in it or called so."""
    known, called = _array(labels) == 1, _array(predictions) == 1
    there = int(known.sum()) + int(called.sum())
    return 2 * int((known & called).sum()) / there if there else 0.0


def matthews_correlation(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Correlation between labels and predictions, the measure of CoLA; 0 is chance."""
    return float(sklearn_metrics.matthews_corrcoef(_array(labels), _array(predictions)))


def classification_metrics(
    labels: ArrayLike, predictions: ArrayLike, label_names: Sequence[str]
) -> dict[str, Any]:
    """accuracy, macro_f1, matthews, and per_label: name -> precision, recall, f1, support.

    Of two classes also f1, that of the second, which GLUE reports of MRPC.

    Raises:
        ValueError: if there is nothing to measure, or a label lies outside `label_names`.
    """
    known, called = _checked_labels(labels, predictions, label_names)
    columns = sklearn_metrics.precision_recall_fscore_support(
        known, called, labels=range(len(label_names)), zero_division=0
    )
    keys = ("precision", "recall", "f1", "support")
    per_label = {
        name: {key: column[i].item() for key, column in zip(keys, columns, strict=True)}
        for i, name in enumerate(label_names)
    }
    return {
        "accuracy": accuracy(known, called),
        "macro_f1": float(np.mean([row["f1"] for row in per_label.values()])),
        "matthews": matthews_correlation(known, called),
        **({"f1": per_label[label_names[1]]["f1"]} if len(label_names) == 2 else {}),
        "per_label": per_label,
    }


def classification_report(
    labels: ArrayLike, predictions: ArrayLike, label_names: Sequence[str], digits: int = 2
) -> str:
    """scikit-learn's table of precision, recall and F1, with a row for every one of the labels."""
    known, called = _checked_labels(labels, predictions, label_names)
    return str(
        sklearn_metrics.classification_report(
            known,
            called,
            labels=range(len(label_names)),
            target_names=list(label_names),
            digits=digits,
            zero_division=0,
        )
    )


def confusion_matrix(
    labels: ArrayLike, predictions: ArrayLike, label_names: Sequence[str]
) -> np.ndarray:
    """Counts of shape (labels, labels): the row is the true label, the column the predicted one."""
    known, called = _checked_labels(labels, predictions, label_names)
    return sklearn_metrics.confusion_matrix(known, called, labels=range(len(label_names)))


def correlations(labels: ArrayLike, predictions: ArrayLike) -> dict[str, Any]:
    """pearson and spearman, each with its interval (95 %, bootstrap over the items); STS-B's pair.

    A prediction that never varies correlates with nothing: 0.

    Raises:
        ValueError: if the lengths differ or there are fewer than two items.
    """
    known, called = _array(labels).astype(np.float64), _array(predictions).astype(np.float64)
    if known.shape != called.shape or known.ndim != 1 or len(known) < 2:
        raise ValueError(
            f"labels and predictions have shapes {known.shape} and {called.shape}; give two lists "
            "of one length, at least 2."
        )

    def of_varying(measure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], float]:
        return lambda a, b: float(measure(a, b)[0]) if np.ptp(a) and np.ptp(b) else 0.0

    measures = {"pearson": of_varying(stats.pearsonr), "spearman": of_varying(stats.spearmanr)}
    figures: dict[str, Any] = {name: measure(known, called) for name, measure in measures.items()}
    for name, measure in measures.items():
        figures[f"{name}_interval"] = bootstrap_interval(measure, known, called)
    return figures


Tags = Sequence[Sequence[str]]


def entity_metrics(labels: Tags, predictions: Tags) -> dict[str, Any]:
    """How well whole entities were found, as the CoNLL-2003 script and seqeval count.

    An entity counts as found only if its type and both of its ends are right. Tags are BIO, one a
    word; a prediction that opens an entity with I- is read as if it said B-, as that script does.

    Returns:
        precision, recall and f1 over all entities, f1_interval (95 %, bootstrap over the
        sentences), accuracy of single words, and per_label: type -> precision, recall, f1, support.

    Raises:
        ValueError: if a sentence has another number of predictions than labels, or there is none.
    """
    if not labels or [len(row) for row in labels] != [len(row) for row in predictions]:
        raise ValueError(
            f"There are {len(labels)} sentences with labels and {len(predictions)} with "
            "predictions; give as many of both, at least one, with one tag a word."
        )
    known, called = [list(row) for row in labels], [list(row) for row in predictions]
    counts = _all_entity_counts(known, called)
    table = {}
    if counts.any():  # seqeval averages over the types that it finds
        table = seqeval_metrics.classification_report(
            known, called, output_dict=True, zero_division=0
        )
    overall = table.get("micro avg", {"precision": 0.0, "recall": 0.0, "f1-score": 0.0})
    return {
        "precision": float(overall["precision"]),
        "recall": float(overall["recall"]),
        "f1": float(overall["f1-score"]),
        "f1_interval": bootstrap_interval(_f1_of_counts, counts, counts),
        "accuracy": float(seqeval_metrics.accuracy_score(known, called)),
        "per_label": {
            name: {
                "precision": float(row["precision"]),
                "recall": float(row["recall"]),
                "f1": float(row["f1-score"]),
                "support": int(row["support"]),
            }
            for name, row in table.items()
            if not name.endswith(" avg")
        },
    }


def entity_report(labels: Tags, predictions: Tags, digits: int = 2) -> str:
    """seqeval's table of precision, recall and F1 of whole entities, by type."""
    known, called = [list(row) for row in labels], [list(row) for row in predictions]
    return str(seqeval_metrics.classification_report(known, called, digits=digits, zero_division=0))


def entity_f1(labels: Tags, predictions: Tags) -> float:
    """F1 of whole entities alone, as `entity_metrics()` counts it; 0 without any entity."""
    return _f1_of_counts(_all_entity_counts(labels, predictions))


def _f1_of_counts(counts: np.ndarray, _: np.ndarray | None = None) -> float:
    right, real, found = counts.sum(axis=0)
    return float(2 * right / (real + found)) if real + found else 0.0


def _all_entity_counts(labels: Tags, predictions: Tags) -> np.ndarray:
    pairs = zip(labels, predictions, strict=True)
    counts = [_entity_counts(tuple(known), tuple(called)) for known, called in pairs]
    return np.array(counts, dtype=np.int64).reshape(-1, 3)


@lru_cache(maxsize=16_384)  # a bootstrap asks for the same sentences a thousand times
def _entity_counts(known: tuple[str, ...], called: tuple[str, ...]) -> tuple[int, int, int]:
    """Entities of one sentence: found rightly, there, found."""
    real = set(seqeval_metrics.sequence_labeling.get_entities(list(known)))
    found = set(seqeval_metrics.sequence_labeling.get_entities(list(called)))
    return len(real & found), len(real), len(found)


def normalize_answer(text: str) -> str:
    """An answer as SQuAD compares it: lower case, no punctuation (ASCII), no a, an, the, one space.

    Source: SQuAD's evaluation, in this order; the articles go after the punctuation.
    """
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def answer_scores(accepted: Sequence[str], given: str) -> tuple[float, float]:
    """Exact match and F1 of one answer, as SQuAD 2.0's evaluation counts: the best over `accepted`.

    F1 is that of the words that both share, counted as often as they occur in both. No answer is
    the empty string: an empty `given` is right only where nothing is accepted.

    Args:
        accepted: the answers that count as right; empty where the context has none.
        given: the answer to measure.
    """
    called = normalize_answer(given).split()
    # Accepted answers of which nothing is left, "the" for instance, do not count.
    targets = [words for text in accepted if (words := normalize_answer(text).split())] or [[]]
    return (
        max(float(words == called) for words in targets),
        max(_word_f1(words, called) for words in targets),
    )


def _word_f1(known: list[str], called: list[str]) -> float:
    if not known or not called:
        return float(known == called)
    shared = sum((Counter(known) & Counter(called)).values())
    return 2 * shared / (len(known) + len(called))


def question_metrics(accepted: Sequence[Sequence[str]], given: Sequence[str]) -> dict[str, Any]:
    """SQuAD's measures of answers, from 0 to 1; `answer_scores()` says what is counted.

    Returns:
        exact_match and f1, each with its interval (95 %, bootstrap over the questions); and, where
        some questions have no answer, answerable and unanswerable: exact_match, f1 and support of
        the questions with and without one.

    Raises:
        ValueError: if the lengths differ or there is nothing to measure.
    """
    if len(accepted) != len(given) or not len(given):
        raise ValueError(
            f"There are {len(accepted)} questions and {len(given)} answers to measure; give as "
            "many of both, and at least one."
        )
    scores = np.array([answer_scores(*pair) for pair in zip(accepted, given, strict=True)])
    names = ("exact_match", "f1")
    figures: dict[str, Any] = {}
    for name, column in zip(names, scores.T, strict=True):
        figures[name] = float(column.mean())
        figures[f"{name}_interval"] = bootstrap_interval(_mean, column, column)
    answerable = np.array([bool(texts) for texts in accepted])
    if not answerable.all():
        for kind, kept in (("answerable", answerable), ("unanswerable", ~answerable)):
            means = scores[kept].mean(axis=0).tolist() if kept.any() else [float("nan")] * 2
            figures[kind] = {**dict(zip(names, means, strict=True)), "support": int(kept.sum())}
    return figures


def best_no_answer_threshold(
    scores: ArrayLike, answerable: ArrayLike, no_answer_scores: ArrayLike
) -> tuple[float, float]:
    """Above which score "no answer" should be said, as SQuAD 2.0's evaluation finds it.

    Raise the threshold from below the lowest `no_answer_scores`, where no question is answered, to
    the highest, where each is. A question that is answered counts with its score if it has an
    answer, and with 0 if not; one that is not answered counts 1 if it has none.

    Args:
        scores: what each answer scores if it is given, exact match or F1.
        answerable: whether the question has an answer.
        no_answer_scores: high where the model sees no answer.

    Returns:
        The threshold and the mean score with it; of equal means, the lowest threshold.
    """
    gained = np.where(_array(answerable), _array(scores), -1.0).astype(np.float64)
    odds = _array(no_answer_scores).astype(np.float64)
    order = np.argsort(odds, kind="stable")
    totals = float((~_array(answerable).astype(bool)).sum()) + gained[order].cumsum()
    ends = np.append(np.diff(odds[order]) > 0, True)  # questions with one score go together
    totals, limits = totals[ends], odds[order][ends]
    best = int(totals.argmax())
    nothing = float((~_array(answerable).astype(bool)).sum())
    if nothing >= totals[best]:
        return float(limits[0]) - 1.0, nothing / len(odds)
    return float(limits[best]), float(totals[best]) / len(odds)


def _mean(values: np.ndarray, _: np.ndarray) -> float:
    return float(values.mean())


def bootstrap_interval(
    metric: Callable[[np.ndarray, np.ndarray], float],
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap: between which values the metric falls for test sets like this one.

    The items are drawn again with replacement `resamples` times. The interval holds the chance of
    having drawn these test items, not the spread over training seeds.

    Raises:
        ValueError: if the lengths differ, there is nothing to draw, or a setting makes no sense.
    """
    known, called = _array(labels), _array(predictions)
    if known.shape[:1] != called.shape[:1] or not len(known):
        raise ValueError(
            f"There are {len(known)} labels and {len(called)} predictions; give as many of both, "
            "and at least one."
        )
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"confidence must lie between 0 and 1 and resamples be at least 1, not {confidence} "
            f"and {resamples}."
        )
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        row = generator.integers(len(known), size=len(known))
        values.append(metric(known[row], called[row]))
    outside = (1 - confidence) / 2
    low, high = np.quantile(values, [outside, 1 - outside])
    return float(low), float(high)


def t_interval(scores: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the mean of a few scores, by Student's t: of folds, or of training seeds.

    Raises:
        ValueError: for fewer than two scores, or a confidence outside 0 to 1.
    """
    if len(scores) < 2 or not 0 < confidence < 1:
        raise ValueError(
            f"An interval needs two scores or more and a confidence between 0 and 1, not "
            f"{len(scores)} and {confidence}."
        )
    half = stats.t.ppf((1 + confidence) / 2, len(scores) - 1) * stats.sem(scores)
    middle = float(np.mean(scores))
    return middle - float(half), middle + float(half)


def _array(values: Any) -> np.ndarray:
    """`values` as NumPy sees them; a tensor may need gradients, lie on a GPU or be in bf16."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def _checked_labels(
    labels: ArrayLike, predictions: ArrayLike, label_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    known, called = _array(labels), _array(predictions)
    if known.shape != called.shape or known.ndim != 1 or not known.size:
        raise ValueError(
            f"labels and predictions have shapes {known.shape} and {called.shape}; give two lists "
            "of one length, at least 1."
        )
    lowest, highest = min(known.min(), called.min()), max(known.max(), called.max())
    if lowest < 0 or highest >= len(label_names):
        raise ValueError(
            f"Labels reach from {lowest} to {highest}, but there are {len(label_names)} label "
            f"names: use 0 to {len(label_names) - 1}."
        )
    return known, called
