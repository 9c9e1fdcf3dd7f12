"""What the rows of each kind of task hold, and the checks that they pass before they are used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Features, List, Value

# Beside the texts, a source has these columns.
ANSWER_COLUMNS: dict[str, tuple[str, ...]] = {
    "classification": ("label",),
    "regression": ("label",),
    "token-classification": ("ner_tags",),
    "question-answering": ("id", "answers"),
    "multiple-choice": ("id", "label"),
}


def text_names(kind: str, source_columns: Sequence[str]) -> tuple[str, ...]:
    """The names under which the source's texts go in a split: text and text_pair, or their own."""
    if kind in ("classification", "regression"):
        return ("text", "text_pair")[: len(source_columns)]
    return tuple(source_columns)


def features_of(kind: str, texts: int, label_names: Sequence[str]) -> Features:
    """The columns of a split and their types.

    Args:
        kind: a key of `ANSWER_COLUMNS`.
        texts: 1, or 2 where pairs are classified or compared.
        label_names: the classes or tags, where the kind has any.
    """
    string = Value("string")
    pair = dict.fromkeys(("text", "text_pair")[:texts], string)
    if kind == "classification":
        return Features({**pair, "label": ClassLabel(names=list(label_names))})
    if kind == "regression":
        return Features({**pair, "label": Value("float32")})
    if kind == "token-classification":
        tag = ClassLabel(names=list(label_names))
        return Features({"tokens": List(string), "ner_tags": List(tag)})
    if kind == "question-answering":
        answers = {"text": List(string), "answer_start": List(Value("int32"))}
        return Features({"id": string, "context": string, "question": string, "answers": answers})
    return Features(
        {"id": string, "turns": List(string), "choices": List(string), "label": Value("int64")}
    )


def check_names(feature: Any, label_names: Sequence[str], where: str) -> None:
    """Refuse a source that numbers its classes in another order, which no number would betray.

    Raises:
        ValueError: if `feature` names its classes and they are not `label_names`, but for case.
    """
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    if names is not None and [n.lower() for n in names] != [n.lower() for n in label_names]:
        raise ValueError(
            f"{where} has the classes {', '.join(names)}; expected {', '.join(label_names)}, in "
            "this order: get the original set."
        )


def check_rows(
    kind: str,
    columns: Mapping[str, Sequence[Any]],
    label_names: Sequence[str],
    value_range: tuple[float, float] | None,
    where: str,
) -> None:
    """Look at the answers of every row.

    Args:
        kind: a key of `ANSWER_COLUMNS`.
        columns: the rows as lists by column.
        label_names: the classes or tags.
        value_range: the lowest and the highest label of a regression.
        where: how an error calls these rows, "Split 'train' of task 'sst2'" for instance.

    Raises:
        ValueError: for no rows, or at the first row whose answer cannot be right.
    """
    if not any(len(column) for column in columns.values()):
        raise ValueError(f"{where} is empty: complete the set.")
    if kind == "classification":
        _check_classes(columns["label"], len(label_names), "label", where)
    elif kind == "regression":
        _check_values(columns["label"], value_range, where)
    elif kind == "token-classification":
        _check_tags(columns["tokens"], columns["ner_tags"], len(label_names), where)
    elif kind == "question-answering":
        _check_answers(columns["context"], columns["answers"], where)
    else:
        _check_choices(columns["choices"], columns["label"], where)


def _check_classes(labels: Sequence[Any], count: int, name: str, where: str) -> None:
    wrong = [label for label in labels if not isinstance(label, int) or not 0 <= label < count]
    if wrong:
        hidden = " (-1 marks a hidden label)" if wrong[0] == -1 else ""
        raise ValueError(
            f"{where} has the {name} {wrong[0]!r}{hidden}; expected whole numbers from 0 to "
            f"{count - 1}: correct its {name}s."
        )


def _check_values(
    labels: Sequence[Any], value_range: tuple[float, float] | None, where: str
) -> None:
    low, high = value_range or (-math.inf, math.inf)
    for label in labels:
        number = isinstance(label, int | float) and math.isfinite(label)
        if not number or not low <= label <= high:
            hidden = " (-1 marks a hidden label)" if label == -1 else ""
            raise ValueError(
                f"{where} has the label {label!r}{hidden}; expected numbers from {low:g} to "
                f"{high:g}: correct its labels."
            )


def _check_tags(
    sentences: Sequence[Sequence[Any]], tags: Sequence[Sequence[Any]], count: int, where: str
) -> None:
    for row, (words, numbers) in enumerate(zip(sentences, tags, strict=True)):
        if not words or len(words) != len(numbers):
            raise ValueError(
                f"{where} has {len(words)} tokens and {len(numbers)} ner_tags in row {row}; "
                "expected one tag for each token, and at least one: correct or remove the row."
            )
        _check_classes(numbers, count, "tag", where)


def _check_answers(contexts: Sequence[Any], answers: Sequence[Any], where: str) -> None:
    for row, (context, answer) in enumerate(zip(contexts, answers, strict=True)):
        if not isinstance(answer, Mapping) or not {"text", "answer_start"} <= set(answer):
            raise ValueError(
                f"{where} has the answers {answer!r} in row {row}; expected the lists text and "
                "answer_start: write them as SQuAD does."
            )
        if len(answer["text"]) != len(answer["answer_start"]):
            raise ValueError(
                f"{where} has {len(answer['text'])} answer texts and "
                f"{len(answer['answer_start'])} starts in row {row}: give each answer its start."
            )
        for text, start in zip(answer["text"], answer["answer_start"], strict=True):
            if not text or start < 0 or context[start : start + len(text)] != text:
                raise ValueError(
                    f"{where} says in row {row} that the answer {text!r} starts at character "
                    f"{start} of its context, where it does not stand: correct answer_start."
                )


def _check_choices(choices: Sequence[Sequence[Any]], labels: Sequence[Any], where: str) -> None:
    for row, (replies, label) in enumerate(zip(choices, labels, strict=True)):
        if not isinstance(label, int) or not 0 <= label < len(replies):
            raise ValueError(
                f"{where} has the label {label!r} in row {row}; expected the number of the right "
                f"choice, from 0 to {len(replies) - 1}: correct it."
            )
