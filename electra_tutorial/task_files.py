"""Your own labelled texts: a CSV file or JSON lines with a column of texts and one of labels.

task = load_own_task("my.csv", text_column="body", label_column="topic")
fine_tune("mini", task)
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from electra_tutorial.tasks import Task, hold_out, make_split

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")


def load_own_task(
    path: str | Path,
    text_column: str = "text",
    label_column: str = "label",
    pair_column: str | None = None,
    quiet: bool = False,
) -> Task:
    """Make a classification out of a file: a tenth of its rows (2,000 at most) for validation.

    The labels that occur are the classes, in the order of the alphabet, or of their numbers. Rows
    with the same text stay on one side. There is no test split: keep a second file for the end, and
    read it with `load_own_rows()`.

    Args:
        path: a .csv or .tsv file whose first line names the columns, or JSON lines (.jsonl, .json).
        text_column, label_column: what the columns are called.
        pair_column: that of a second text, where pairs are classified.
        quiet: do not print what was loaded.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if it cannot be read, a column is missing, a row has no text or no label, all
            labels are the same, or one has no row to train on.
    """
    where, columns = _read(Path(path), text_column, label_column, pair_column)
    names = sorted(set(columns["label"]), key=_alphabet_or_number(columns["label"]))
    if len(names) < 2:
        raise ValueError(
            f"Every row of {where} has the label {names[0]!r}: a classifier needs at least two."
        )
    train, validation = hold_out(columns, [name for name in columns if name != "label"])
    missing = sorted(set(names) - set(train["label"]))
    if missing:
        raise ValueError(
            f"The label {missing[0]!r} of {where} has no row to train on beside the tenth that is "
            "held out: give it more rows."
        )
    splits = [_split(part, names) for part in (train, validation)]
    task = Task(
        name=where.stem,
        kind="classification",
        label_names=tuple(names),
        text_columns=("text",) if pair_column is None else ("text", "text_pair"),
        train=splits[0],
        validation=splits[1],
        test=splits[1].select([]),
        source="file",
        revision=f"sha256:{hashlib.sha256(where.read_bytes()).hexdigest()[:12]}",
        note="a file of the reader's own",
    )
    if not quiet:
        task.describe()
    return task


def load_own_rows(
    path: str | Path,
    label_names: Sequence[str],
    text_column: str = "text",
    label_column: str = "label",
    pair_column: str | None = None,
) -> Dataset:
    """The rows of a file, to evaluate a model on that was trained with `label_names`.

    Raises:
        FileNotFoundError, ValueError: as `load_own_task()`, or if a label is not in `label_names`.
    """
    where, columns = _read(Path(path), text_column, label_column, pair_column)
    for row, label in enumerate(columns["label"], start=1):
        if label not in label_names:
            raise ValueError(
                f"Row {row} of {where} has the label {label!r}, which the model does not know; "
                f"expected one of {', '.join(label_names)}."
            )
    return _split(columns, label_names)


def _split(columns: dict[str, list[str]], names: Sequence[str]) -> Dataset:
    labels = [list(names).index(label) for label in columns["label"]]
    return make_split(columns["text"], labels, names, columns.get("text_pair"))


def _read(
    path: Path, text_column: str, label_column: str, pair_column: str | None
) -> tuple[Path, dict[str, list[str]]]:
    """The file and its columns as strings, under the names text, text_pair and label."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: name a CSV file or JSON lines.")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} must end in {', '.join(SUFFIXES)}: rename or convert it.")
    try:
        rows = _json_rows(path) if path.suffix.lower().startswith(".json") else _csv_rows(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}): save it as UTF-8.") from error
    if not rows:
        raise ValueError(f"{path} has no rows: give at least two labels and some texts of each.")
    wanted = {"text": text_column, "text_pair": pair_column, "label": label_column}
    columns: dict[str, list[str]] = {}
    for name, column in wanted.items():
        if column is None:
            continue
        values = []
        for number, row in enumerate(rows, start=1):
            if column not in row:
                raise ValueError(
                    f"Row {number} of {path} has no column {column!r}; it has "
                    f"{', '.join(map(str, row))}: name the right one."
                )
            value = row[column]
            if isinstance(value, dict | list | float) or value is None or not str(value).strip():
                raise ValueError(
                    f"Row {number} of {path} has {value!r} in column {column!r}; expected "
                    f"{'a label' if name == 'label' else 'a text'}: complete or remove the row."
                )
            values.append(str(value).strip() if name == "label" else str(value))
        columns[name] = values
    return path, columns


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        rows = list(reader)
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(
                f"Row {number} of {path} has more fields than the {len(row) - 1} columns of the "
                "first line: put texts with a comma into double quotes."
            )
    return rows


def _json_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"Line {number} of {path} is not JSON ({error.msg}): write one object a line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"Line {number} of {path} is not an object: write one object a line.")
        rows.append(row)
    return rows


def _alphabet_or_number(labels: Sequence[str]) -> Any:
    """How to sort labels: as numbers if all are (2 before 10), else as words."""
    return int if all(label.isdecimal() for label in labels) else str
