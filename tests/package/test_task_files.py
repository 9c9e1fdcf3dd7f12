from __future__ import annotations

import json
from pathlib import Path

import pytest

from electra_tutorial.task_files import load_own_rows, load_own_task

ROWS = [(f"text number {i}, with a comma", ["spam", "wanted"][i % 2]) for i in range(40)]
NAMED = {"text_column": "body", "label_column": "topic"}


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = [f'{i},"{text}",{label}' for i, (text, label) in enumerate(ROWS)]
    return write_csv(tmp_path / "my.csv", "id,body,topic", *lines)


def test_a_table_becomes_a_task(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = load_own_task(table, **NAMED)
    assert (task.name, task.kind, task.metric, task.source) == (
        "my",
        "classification",
        "accuracy",
        "file",
    )
    assert task.label_names == ("spam", "wanted")
    assert (len(task.train), len(task.validation), len(task.test)) == (36, 4, 0)
    rows = [
        (text, task.label_names[label])
        for part in (task.train, task.validation)
        for text, label in zip(part["text"], part["label"], strict=True)
    ]
    assert sorted(rows) == sorted(ROWS)
    assert task.test.features == task.train.features
    assert capsys.readouterr().out.startswith("my: 36 train, 4 validation, 0 test rows from 'file'")
    again = load_own_task(table, **NAMED, quiet=True)
    assert list(again.validation["text"]) == list(task.validation["text"])
    assert capsys.readouterr().out == ""


def test_other_forms_of_a_file_give_the_same_rows(table: Path, tmp_path: Path) -> None:
    expected = load_own_task(table, **NAMED, quiet=True)
    lines = [json.dumps({"body": text, "topic": label}) for text, label in ROWS]
    as_json = write_csv(tmp_path / "my.jsonl", *lines, "")
    tabs = [f"{text}\t {label} " for text, label in ROWS]
    as_tabs = write_csv(tmp_path / "my.TSV", "\ufeffbody\ttopic", *tabs)  # with a byte order mark
    for path in (as_json, as_tabs):
        task = load_own_task(path, **NAMED, quiet=True)
        assert task.train[:] == expected.train[:]
        assert task.label_names == expected.label_names


def test_pairs_and_numbers_as_labels(tmp_path: Path) -> None:
    rows = [{"a": f"one {i}", "b": f"two {i}", "label": [10, 2][i % 2]} for i in range(20)]
    path = write_csv(tmp_path / "my.jsonl", *map(json.dumps, rows))
    task = load_own_task(path, "a", pair_column="b", quiet=True)
    assert task.label_names == ("2", "10")
    assert task.text_columns == ("text", "text_pair")
    assert task.train[0]["text_pair"].startswith("two ")


def test_rows_to_evaluate_on_have_the_labels_of_the_model(table: Path) -> None:
    rows = load_own_rows(table, ["other", "wanted", "spam"], **NAMED)
    assert rows["label"][:3] == [2, 1, 2]
    with pytest.raises(ValueError, match="Row 2 .* label 'wanted', which the model does not know"):
        load_own_rows(table, ["spam", "other"], **NAMED)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.csv", ["body,label", "x,y"], "Row 1 of .* has no column 'topic'; it has body, label"),
        ("a.csv", ["body,topic", "x,y", " ,z"], "Row 2 of .* has ' ' in column 'body'; .* a text"),
        ("a.csv", ["body,topic", "x,"], "Row 1 of .* expected a label: complete or remove"),
        ("a.csv", ["body,topic", "x"], "has None in column 'topic'"),
        ("a.csv", ["body,topic", "x, y, z"], "more fields than the 2 columns .* double quotes"),
        ("a.csv", ["body,topic", '"x,y'], "cannot be read"),
        ("a.csv", ["body,topic", "x,y", "z,y"], "Every row .* label 'y': .* at least two"),
        ("a.csv", ["body,topic"], "has no rows"),
        ("a.csv", ["body,topic", "x,y", "x,z"], "single text"),
        ("a.csv", ["body,topic", "x,y", "v,z"], "has no row to train on"),
        ("a.jsonl", ['{"body": "x", "topic": "y"}', "{"], "Line 2 of .* is not JSON"),
        ("a.jsonl", ["[1]"], "Line 1 of .* is not an object"),
        ("a.jsonl", ['{"body": "x", "topic": 0.5}'], "has 0.5 in column 'topic'; expected a label"),
        ("a.xlsx", ["x"], "must end in .csv, .tsv, .jsonl, .json"),
    ],
)
def test_bad_files_get_one_clear_sentence(
    name: str, lines: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_own_task(write_csv(tmp_path / name, *lines), **NAMED)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_own_task(tmp_path / "absent.csv")
    (tmp_path / "a.csv").write_bytes(b"text,label\n\xff\xfe,x\n")
    with pytest.raises(ValueError, match="save it as UTF-8"):
        load_own_task(tmp_path / "a.csv")
