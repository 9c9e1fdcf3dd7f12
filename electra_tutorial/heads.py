"""What a kind of task puts on the encoder: a head, the labels it learns from, and its judgement.

The heads are transformers' own classes. Of each, `HEADS` knows three things: what the model must be
told about the labels, how labelled rows become token ids with labels, and how the logits for them
are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from scipy.special import log_softmax
from scipy.stats import entropy
from transformers import (
    ElectraForMultipleChoice,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
)

from electra_tutorial.encoding import Encoded, column_of, encode, encode_choices, encode_words
from electra_tutorial.masking import IGNORED
from electra_tutorial.metrics import (
    accuracy,
    binary_f1,
    bootstrap_interval,
    classification_metrics,
    classification_report,
    confusion_matrix,
    correlations,
    entity_metrics,
    entity_report,
)
from electra_tutorial.questions import AnswerEvaluation, QuestionHead


@dataclass(frozen=True)
class Evaluation:
    """What a classifier said about labelled items, in their order.

    Attributes:
        labels, predictions: numbers of the classes, each of shape (items,).
        probabilities: of shape (items, classes).
        metrics: accuracy, accuracy_interval (95 %, bootstrap over the items), macro_f1, matthews,
            loss (the mean of -log of the true class's probability), per_label; of two classes also
            f1, that of the second, and f1_interval.
        label_names: the names of the classes.
    """

    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    metrics: dict[str, Any]
    label_names: tuple[str, ...]

    @classmethod
    def of(cls, labels: Any, probabilities: Any, label_names: Sequence[str]) -> Evaluation:
        """Evaluate `probabilities` (items, classes) against `labels` (items,)."""
        known, shares = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
        called = shares.argmax(axis=1)
        measured = classification_metrics(known, called, label_names)
        measured["accuracy_interval"] = bootstrap_interval(accuracy, known, called)
        if "f1" in measured:
            measured["f1_interval"] = bootstrap_interval(binary_f1, known, called)
        # The floor keeps the loss finite where a probability is rounded to 0.
        truth = np.clip(shares[np.arange(len(known)), known], 1e-12, None)
        measured["loss"] = float(-np.log(truth).mean())
        return cls(known, called, shares, measured, tuple(label_names))

    @property
    def report(self) -> str:
        """scikit-learn's table of precision, recall and F1."""
        return classification_report(self.labels, self.predictions, self.label_names)

    @property
    def confusion_matrix(self) -> np.ndarray:
        """Counts of shape (classes, classes): the row is the true class."""
        return confusion_matrix(self.labels, self.predictions, self.label_names)

    def interval(
        self, metric: Callable[[Any, Any], float] = accuracy, **settings: Any
    ) -> tuple[float, float]:
        """Bootstrap interval of any metric of labels and predictions."""
        return bootstrap_interval(metric, self.labels, self.predictions, **settings)


@dataclass(frozen=True)
class RegressionEvaluation:
    """What a regression said about labelled items, in their order.

    Attributes:
        labels, predictions: each of shape (items,).
        metrics: pearson, spearman (each with its 95 % interval over the items) and loss, the mean
            squared error.
    """

    labels: np.ndarray
    predictions: np.ndarray
    metrics: dict[str, Any]

    @property
    def report(self) -> str:
        """One line with both correlations."""
        return "  ".join(f"{name} {self.metrics[name]:.3f}" for name in ("pearson", "spearman"))


@dataclass(frozen=True)
class EntityEvaluation:
    """What a model that labels words said about sentences, in their order.

    Attributes:
        labels, predictions: the tags of each sentence, one per word.
        metrics: precision, recall and f1 of whole entities (type and both ends must be right),
            f1_interval (95 %, bootstrap over the sentences), accuracy of single words, per_label
            and loss (mean of -log of the true tag's probability over the words that were read).
    """

    labels: list[list[str]]
    predictions: list[list[str]]
    metrics: dict[str, Any]

    @property
    def report(self) -> str:
        """seqeval's table of precision, recall and F1 of whole entities."""
        return entity_report(self.labels, self.predictions)


@dataclass(frozen=True)
class ChoiceEvaluation:
    """What a model chose for each row, in their order.

    Attributes:
        labels, predictions: numbers of the choices, each of shape (rows,).
        probabilities: of shape (rows, choices).
        metrics: accuracy, accuracy_interval (95 %, bootstrap over the rows) and loss (the mean of
            -log of the right choice's probability).
    """

    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    metrics: dict[str, Any]

    @property
    def report(self) -> str:
        """One line with the accuracy, and what chance would give."""
        chance = 1 / self.probabilities.shape[1]
        return f"accuracy {self.metrics['accuracy']:.3f}, by chance {chance:.3f}"


AnyEvaluation = (
    Evaluation | RegressionEvaluation | EntityEvaluation | AnswerEvaluation | ChoiceEvaluation
)


class Head(Protocol):
    """One kind of task."""

    model_class: Any

    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        """What the model's configuration must say."""

    def encode(
        self,
        tokenizer: Any,
        dataset: Dataset,
        label_names: Sequence[str],
        max_length: int,
        model_config: Any,
        name: str,
        overlap: int = 64,
    ) -> tuple[list[Encoded], list[Any]]:
        """What the model reads and learns from `dataset`, which errors call `name`.

        One item for each row; of a long context, one for each window, which share `overlap` tokens.
        """

    def judge(
        self,
        logits: Sequence[np.ndarray],
        labels: list[Any],
        dataset: Dataset,
        label_names: Sequence[str],
    ) -> AnyEvaluation:
        """Measure the logits of each item; `labels` are those that `encode` returned for it."""

    def guessing_loss(self, labels: list[Any]) -> float | None:
        """The training loss of guessing that knows these labels, but not what they belong to.

        Classes and tags are guessed by their shares: the loss is their entropy, in nats. None for
        the other kinds. The place of an answer is guessed among the words of its text and a choice
        among those that are there, which the labels do not say; and numbers may correlate well with
        predictions whose squared error is still above that of guessing their mean.
        """


def _names(label_names: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: i for i, name in enumerate(label_names)},
    }


class ClassificationHead:
    """One of several labels for a text or a pair, read off [CLS]."""

    model_class = ElectraForSequenceClassification

    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        return _names(label_names)

    def encode(
        self,
        tokenizer: Any,
        dataset: Dataset,
        label_names: Sequence[str],
        max_length: int,
        model_config: Any,
        name: str,
        overlap: int = 64,
    ) -> tuple[list[Encoded], list[int]]:
        labels = list(column_of(dataset, "label", name))
        for row, label in enumerate(labels):
            if not isinstance(label, int) or not 0 <= label < len(label_names):
                raise ValueError(
                    f"The label in row {row} of {name} is {label!r}; expected a whole number from "
                    f"0 to {len(label_names) - 1}."
                )
        return encode(tokenizer, dataset, max_length, model_config, name), labels

    def judge(
        self,
        logits: Sequence[np.ndarray],
        labels: list[int],
        dataset: Dataset,
        label_names: Sequence[str],
    ) -> Evaluation:
        shares = np.exp(log_softmax(np.stack(logits).astype(np.float64), axis=1))
        return Evaluation.of(labels, shares, label_names)

    def guessing_loss(self, labels: list[int]) -> float | None:
        return float(entropy(np.bincount(labels)))


class RegressionHead:
    """One number for a text or a pair, read off [CLS]; trained with the squared error."""

    model_class = ElectraForSequenceClassification

    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def encode(
        self,
        tokenizer: Any,
        dataset: Dataset,
        label_names: Sequence[str],
        max_length: int,
        model_config: Any,
        name: str,
        overlap: int = 64,
    ) -> tuple[list[Encoded], list[float]]:
        labels = list(column_of(dataset, "label", name))
        for row, label in enumerate(labels):
            if isinstance(label, bool) or not isinstance(label, int | float):
                raise ValueError(
                    f"The label in row {row} of {name} is {label!r}; expected a number."
                )
        numbers = [float(label) for label in labels]
        return encode(tokenizer, dataset, max_length, model_config, name), numbers

    def judge(
        self,
        logits: Sequence[np.ndarray],
        labels: list[float],
        dataset: Dataset,
        label_names: Sequence[str],
    ) -> RegressionEvaluation:
        known, called = np.asarray(labels), np.stack(logits).astype(np.float64)[:, 0]
        measured = correlations(known, called)
        measured["loss"] = float(((known - called) ** 2).mean())
        return RegressionEvaluation(known, called, measured)

    def guessing_loss(self, labels: list[float]) -> float | None:
        return None


class EntityHead:
    """A tag for every word, read off its first word piece (the other pieces teach nothing)."""

    model_class = ElectraForTokenClassification

    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        return _names(label_names)

    def encode(
        self,
        tokenizer: Any,
        dataset: Dataset,
        label_names: Sequence[str],
        max_length: int,
        model_config: Any,
        name: str,
        overlap: int = 64,
    ) -> tuple[list[Encoded], list[list[int]]]:
        sentences, tags = column_of(dataset, "tokens", name), column_of(dataset, "ner_tags", name)
        for row, (words, numbers) in enumerate(zip(sentences, tags, strict=True)):
            if len(words) != len(numbers) or not words:
                raise ValueError(
                    f"Row {row} of {name} has {len(words)} tokens and {len(numbers)} tags; "
                    "expected one tag for each token, and at least one."
                )
            if not all(0 <= number < len(label_names) for number in numbers):
                raise ValueError(
                    f"The tags in row {row} of {name} are {numbers}; expected whole numbers from 0 "
                    f"to {len(label_names) - 1}."
                )
        encoded, words_of_pieces = encode_words(tokenizer, sentences, max_length, model_config)
        labels = []
        for numbers, words in zip(tags, words_of_pieces, strict=True):
            row_labels = [IGNORED] * len(words)
            for word, place in first_pieces(words).items():
                row_labels[place] = numbers[word]
            labels.append(row_labels)
        return encoded, labels

    def judge(
        self,
        logits: Sequence[np.ndarray],
        labels: list[Any],
        dataset: Dataset,
        label_names: Sequence[str],
    ) -> EntityEvaluation:
        outside = label_names.index("O")
        known, called, losses = [], [], []
        for scores, pieces, tags in zip(logits, labels, dataset["ner_tags"], strict=True):
            first = np.flatnonzero(np.asarray(pieces) != IGNORED)
            seen = log_softmax(scores[first].astype(np.float64), axis=1)
            losses.append(-seen[np.arange(len(first)), tags[: len(first)]])
            # A word that was cut off is one that the model calls no entity.
            answers = [*seen.argmax(axis=1), *[outside] * (len(tags) - len(first))]
            known.append([label_names[i] for i in tags])
            called.append([label_names[i] for i in answers])
        measured = entity_metrics(known, called)
        measured["loss"] = float(np.concatenate(losses).mean())
        return EntityEvaluation(known, called, measured)

    def guessing_loss(self, labels: list[list[int]]) -> float | None:
        return float(entropy(np.bincount([tag for row in labels for tag in row if tag != IGNORED])))


def first_pieces(words: Sequence[int | None]) -> dict[int, int]:
    """The place of each word's first piece, given for every piece the number of its word.

    [CLS] and [SEP] belong to no word: None.
    """
    places: dict[int, int] = {}
    for place, word in enumerate(words):
        if word is not None:
            places.setdefault(word, place)
    return places


class ChoiceHead:
    """Which of several replies goes on with a dialogue; each pair's [CLS] gives one score."""

    model_class = ElectraForMultipleChoice

    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {}

    def encode(
        self,
        tokenizer: Any,
        dataset: Dataset,
        label_names: Sequence[str],
        max_length: int,
        model_config: Any,
        name: str,
        overlap: int = 64,
    ) -> tuple[list[Encoded], list[int]]:
        turns, choices, labels = (
            column_of(dataset, column, name) for column in ("turns", "choices", "label")
        )
        for row, (replies, label) in enumerate(zip(choices, labels, strict=True)):
            if not isinstance(label, int) or not 0 <= label < len(replies):
                raise ValueError(
                    f"The label in row {row} of {name} is {label!r}; expected the number of the "
                    f"right choice, from 0 to {len(replies) - 1}."
                )
        return encode_choices(tokenizer, turns, choices, max_length, model_config, name), labels

    def judge(
        self,
        logits: Sequence[np.ndarray],
        labels: list[int],
        dataset: Dataset,
        label_names: Sequence[str],
    ) -> ChoiceEvaluation:
        log_p = log_softmax(np.stack(logits).astype(np.float64), axis=1)
        known, called = np.asarray(labels), log_p.argmax(axis=1)
        measured = {
            "accuracy": accuracy(known, called),
            "accuracy_interval": bootstrap_interval(accuracy, known, called),
            "loss": float(-log_p[np.arange(len(known)), known].mean()),
        }
        return ChoiceEvaluation(known, called, np.exp(log_p), measured)

    def guessing_loss(self, labels: list[int]) -> float | None:
        return None


HEADS: dict[str, Head] = {
    "classification": ClassificationHead(),
    "regression": RegressionHead(),
    "token-classification": EntityHead(),
    "question-answering": QuestionHead(),
    "multiple-choice": ChoiceHead(),
}


def head_of(model: Any) -> Head:
    """The head that a model carries.

    Raises:
        ValueError: if it is none of those in `HEADS`.
    """
    if isinstance(model, ElectraForSequenceClassification):
        alone = model.config.problem_type == "regression"
        return HEADS["regression" if alone else "classification"]
    for head in HEADS.values():
        if isinstance(model, head.model_class):
            return head
    raise ValueError(
        f"{type(model).__name__} has no head that can be evaluated: load it with the class that "
        f"it was fine-tuned as, one for {', '.join(HEADS)}."
    )
