from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from electra_tutorial import tasks
from electra_tutorial.task_columns import check_rows

SPLITS = ("train", "validation", "test")


def write_sst2(directory: Path, **splits: list[dict[str, Any]]) -> Path:
    """A directory laid out by hub id that holds SST-2 with the given rows."""
    root = directory / "nyu-mll" / "glue"
    (root / "sst2").mkdir(parents=True)
    files = []
    for split, rows in splits.items():
        path = root / "sst2" / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        files.append(f"  - split: {split}\n    path: sst2/{split}.jsonl\n")
    readme = "---\nconfigs:\n- config_name: sst2\n  data_files:\n" + "".join(files) + "---\n"
    (root / "README.md").write_text(readme, encoding="utf-8")
    return directory


def rows(count: int, start: int = 0, **changes: Any) -> list[dict[str, Any]]:
    return [
        {"sentence": f"sentence {i}", "label": i % 2, "idx": i} | changes
        for i in range(start, start + count)
    ]


@pytest.fixture(autouse=True)
def isolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Keep this machine's cache out of the tests, and its sets out of all but the mirror tests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    if request.node.get_closest_marker("mirror") is None:
        monkeypatch.delenv(tasks.DIRECTORY_VARIABLE, raising=False)


def test_the_built_in_task(capsys: pytest.CaptureFixture[str]) -> None:
    task = tasks.load_task("topics")
    assert task.label_names == ("World", "Sports", "Business", "Sci/Tech")
    assert (task.kind, task.text_columns, task.source) == ("classification", ("text",), "builtin")
    for split in SPLITS:
        data = getattr(task, split)
        assert data.column_names == ["text", "label"]
        assert set(Counter(data["label"])) == {0, 1, 2, 3}
        assert data.features["label"].names == list(task.label_names)
    line = capsys.readouterr().out
    assert line.startswith(f"topics: {len(task.train):,} train, ")
    assert f"from 'builtin', revision {task.revision}." in line
    assert tasks.load_task("topics", quiet=True).revision == task.revision
    assert capsys.readouterr().out == ""


def test_no_text_of_the_built_in_task_stands_in_two_splits() -> None:
    task = tasks.load_task("topics", quiet=True)
    texts = [text for split in SPLITS for text in getattr(task, split)["text"]]
    assert len(set(texts)) == len(texts)


def test_a_directory_gives_the_same_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sst2(tmp_path, train=rows(20), validation=rows(4, start=20))
    task = tasks.load_task("sst2", source="directory", directory=tmp_path)
    assert task.train.column_names == ["text", "label"]
    assert (len(task.train), len(task.validation), len(task.test)) == (18, 2, 4)
    assert task.test["text"][0] == "sentence 20"  # GLUE's validation split
    assert set(task.train["text"]) | set(task.validation["text"]) == {
        f"sentence {i}" for i in range(20)
    }
    out, err = capsys.readouterr()
    assert "18 train, 2 validation, 4 test" in out
    assert str(tmp_path) not in out
    assert err == ""


def test_the_variable_names_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sst2(tmp_path, train=rows(20), validation=rows(4))
    monkeypatch.setenv(tasks.DIRECTORY_VARIABLE, str(tmp_path))
    assert len(tasks.load_task("sst2", source="directory", quiet=True).test) == 4


def test_the_held_out_rows_do_not_depend_on_the_order_of_the_rows() -> None:
    texts = [f"text {i // 2}" for i in range(100)]  # each twice
    columns: dict[str, list[Any]] = {"text": texts, "label": list(range(100))}
    train, held = tasks.hold_out(columns, ["text"])
    backwards = tasks.hold_out({key: column[::-1] for key, column in columns.items()}, ["text"])[1]
    assert sorted(held["label"]) == sorted(backwards["label"])
    assert len(held["text"]) == 10
    assert not set(held["text"]) & set(train["text"])
    with pytest.raises(ValueError, match="single text"):
        tasks.hold_out({"text": ["a", "a"], "label": [0, 1]}, ["text"])


def test_pairs_have_a_second_text_column(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}
    received = DatasetDict({split: Dataset.from_dict(columns) for split in SPLITS})
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments: received)
    task = tasks.load_task("rte", source="hub", quiet=True)
    assert task.text_columns == ("text", "text_pair")
    assert task.test.column_names == ["text", "text_pair", "label"]
    assert task.test[0] == {"text": "a", "text_pair": "c", "label": 0}


def test_the_hub_revision_that_was_received_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    split = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    split.info.download_checksums = {f"hf://datasets/fancyzhx/ag_news@{'0a' * 20}/a.parquet": {}}
    asked = []

    def load(*arguments: object) -> DatasetDict:
        asked.append(arguments)
        return DatasetDict(train=split, test=split)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert tasks.load_task("ag_news", source="hub").revision == "0a" * 20
    assert asked == [("fancyzhx/ag_news", None)]
    assert f"from 'hub', revision {'0a' * 20}." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("Couldn't reach the Hub\nsecond line."), "Couldn't reach the Hub.: check"),
        (datasets.exceptions.DatasetNotFoundError("x"), "the hub knows no such data set, or keeps"),
        (RuntimeError("Dataset scripts are no longer supported"), "there it is a script, and"),
        (datasets.exceptions.DatasetGenerationError("x"), "a file that was received cannot be"),
        (OSError("Consistency check failed: file should be of size 5"), "the download broke off"),
    ],
)
def test_a_hub_that_does_not_answer(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(ConnectionError, match=message) as caught:
        tasks.load_task("ag_news", source="hub")
    assert "source='directory', or the built-in task 'topics'." in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ag-news",), "Unknown task 'ag-news': choose one of topics, reviews, messages, ag_news"),
        (
            (["topics"],),
            r"Unknown task \['topics'\]: choose one of topics, reviews, messages, ag_news",
        ),
        (("topics", "internet"), "Unknown source 'internet': choose one of builtin"),
        (("sst2",), "not there from source 'builtin': use source='directory' or 'hub'"),
        (("topics", "hub"), "not there from source 'hub': use source='builtin'"),
    ],
)
def test_unknown_names_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tasks.load_task(*arguments)


def test_no_directory_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="set the environment variable ELECTRA_TUTORIAL"):
        tasks.load_task("sst2", source="directory")


def test_the_directory_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no directory .*nyu-mll"):
        tasks.load_task("sst2", source="directory", directory=tmp_path)


def test_the_directory_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "nyu-mll" / "glue").mkdir(parents=True)
    with pytest.raises(ValueError, match="datasets cannot read task 'sst2'"):
        tasks.load_task("sst2", source="directory", directory=tmp_path)


def test_the_splits_in_the_directory_contradict_each_other(tmp_path: Path) -> None:
    write_sst2(tmp_path, train=[{"words": "a", "label": 0}], validation=rows(2))
    with pytest.raises(ValueError, match="datasets cannot read task 'sst2'"):
        tasks.load_task("sst2", source="directory", directory=tmp_path)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": rows(4)}, "no split 'validation', only train"),
        (
            {split: [{"words": "a", "label": 0}] for split in ("train", "validation")},
            "lacks the column sentence; it has words, label",
        ),
        ({"train": rows(4), "validation": rows(4, label=2)}, "has the label 2; expected .* 0 to 1"),
        ({"train": rows(4, label=-1), "validation": rows(4)}, "-1 marks a hidden label"),
        ({"train": rows(4, label="bad"), "validation": rows(4)}, "has the label 'bad'"),
        ({"train": rows(4, label=0.5), "validation": rows(4)}, "has the label 0.5"),
    ],
)
def test_bad_rows_are_refused(
    tmp_path: Path, splits: dict[str, list[dict[str, Any]]], message: str
) -> None:
    write_sst2(tmp_path, **splits)
    with pytest.raises(ValueError, match=message):
        tasks.load_task("sst2", source="directory", directory=tmp_path)


def test_an_empty_split_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    received = DatasetDict(train=full, test=full.select([]))
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments: received)
    with pytest.raises(ValueError, match="Split 'test' of task 'ag_news' is empty"):
        tasks.load_task("ag_news", source="hub")


# --- tags, answers, numbers and choices ---------------------------------------------------------


def answer(text: str, start: int) -> dict[str, Any]:
    return {"text": [text], "answer_start": [start]}


def receive(
    monkeypatch: pytest.MonkeyPatch, features: Features | None = None, **columns: Any
) -> None:
    """Let every source give these columns in all of its splits."""
    split = Dataset.from_dict(columns, features=features)
    received = DatasetDict(dict.fromkeys(SPLITS, split))
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **branch: received)


def test_the_built_in_tags() -> None:
    task = tasks.load_task("entities", quiet=True)
    assert (task.kind, task.metric, task.text_columns) == (
        "token-classification",
        "f1",
        ("tokens",),
    )
    order = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
    assert task.label_names == order  # CoNLL-2003's
    for split in SPLITS:
        data = getattr(task, split)
        assert data.column_names == ["tokens", "ner_tags"]
        assert data.features["ner_tags"].feature.names == list(task.label_names)
        for words, tags in zip(data["tokens"], data["ner_tags"], strict=True):
            assert len(words) == len(tags)


def test_the_built_in_questions() -> None:
    task = tasks.load_task("passages", quiet=True)
    assert (task.kind, task.metric, task.label_names) == ("question-answering", "f1", ())
    for split in SPLITS:
        data = getattr(task, split)
        assert data.column_names == ["id", "context", "question", "answers"]
        for context, given in zip(data["context"], data["answers"], strict=True):
            for text, start in zip(given["text"], given["answer_start"], strict=True):
                assert context[start:].startswith(text)


def test_the_built_in_choices_have_nothing_to_train_on(capsys: pytest.CaptureFixture[str]) -> None:
    task = tasks.load_task("replies")
    assert (task.kind, task.metric) == ("multiple-choice", "accuracy")
    assert len(task.train) == 0
    assert task.train.features == task.test.features
    for split in SPLITS:
        assert getattr(task, split).column_names == ["id", "turns", "choices", "label"]
    assert "replies: 0 train, " in capsys.readouterr().out


def test_the_hub_is_asked_for_the_branch_without_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Dataset.from_dict({"tokens": [["Ada", "wrote"]], "ner_tags": [[1, 0]]})
    asked = []

    def load(*arguments: object, **branch: object) -> DatasetDict:
        asked.append((arguments, branch))
        return DatasetDict(dict.fromkeys(SPLITS, split))

    monkeypatch.setattr(datasets, "load_dataset", load)
    task = tasks.load_task("conll2003", source="hub", quiet=True)
    assert task.validation[0] == {"tokens": ["Ada", "wrote"], "ner_tags": [1, 0]}
    assert asked == [(("eriktks/conll2003", None), {"revision": "refs/convert/parquet"})]


def test_questions_about_one_passage_stay_in_one_split(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = [f"passage {i // 5}" for i in range(200)]
    receive(
        monkeypatch,
        id=[str(i) for i in range(200)],
        title=["t"] * 200,
        context=contexts,
        question=[f"question {i}" for i in range(200)],
        answers=[answer("passage", 0)] * 200,
    )
    task = tasks.load_task("squad", source="hub", quiet=True)
    assert task.train.column_names == ["id", "context", "question", "answers"]
    assert len(task.validation) == 20
    assert not set(task.validation["context"]) & set(task.train["context"])
    assert len(task.train) + len(task.validation) == 200


def test_numbers_keep_their_fractions(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "label": [0.0, 2.5, 5.0]}
    receive(monkeypatch, **columns)
    task = tasks.load_task("stsb", source="hub", quiet=True)
    assert (task.kind, task.metric, task.label_names) == ("regression", "spearman", ())
    assert task.text_columns == ("text", "text_pair")
    assert task.test.column_names == ["text", "text_pair", "label"]
    assert list(task.test["label"]) == [0.0, 2.5, 5.0]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (5.5, r"has the label 5.5; expected numbers from 0 to 5: correct"),
        (-1.0, r"-1 marks a hidden label"),
        (float("nan"), r"has the label nan"),
    ],
)
def test_numbers_out_of_range_are_refused(
    label: float, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(monkeypatch, sentence1=["a", "b"], sentence2=["c", "d"], label=[1.0, label])
    with pytest.raises(ValueError, match=message):
        tasks.load_task("stsb", source="hub")


@pytest.mark.parametrize(
    ("words", "tags", "message"),
    [
        (["Ada"], [1, 0], "has 1 tokens and 2 ner_tags in row 1; expected one tag for each token"),
        ([], [], "has 0 tokens and 0 ner_tags in row 1; .* at least one"),
        (["Ada"], [9], "has the tag 9; expected whole numbers from 0 to 8: correct its tags"),
    ],
)
def test_bad_tags_are_refused(
    words: list[str], tags: list[int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(monkeypatch, tokens=[["It", "rains"], words], ner_tags=[[0, 0], tags])
    with pytest.raises(ValueError, match=message) as caught:
        tasks.load_task("conll2003", source="hub")
    assert "Split 'train' of task 'conll2003'" in str(caught.value)


def test_tags_in_another_order_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-MISC", "I-MISC"]
    features = Features(
        {"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))}
    )
    receive(monkeypatch, features, tokens=[["Ada"]], ner_tags=[["B-PER"]])
    with pytest.raises(ValueError, match="has the classes O, B-LOC, .*; expected O, B-PER, "):
        tasks.load_task("conll2003", source="hub")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (answer("wood", 3), "in row 1 that the answer 'wood' starts at character 3 of its context"),
        (answer("ash", -10), "where it does not stand: correct answer_start"),
        (answer("", 0), "the answer '' starts"),
        ({"text": ["ash"], "answer_start": [0, 4]}, "1 answer texts and 2 starts in row 1"),
    ],
)
def test_bad_answers_are_refused(
    given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(
        monkeypatch,
        id=["1", "2"],
        context=["ash is wood", "ash is wood"],
        question=["What is ash?", "What is wood?"],
        answers=[answer("wood", 7), given],
    )
    with pytest.raises(ValueError, match=message):
        tasks.load_task("squad", source="hub")


def test_answers_of_another_form_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"id": ["1"], "context": ["ash"], "question": ["What?"], "answers": ["ash"]}
    receive(monkeypatch, **columns)
    with pytest.raises(ValueError, match="has the answers 'ash' in row 0; expected the lists text"):
        tasks.load_task("squad", source="hub")


def test_a_choice_that_is_not_there_is_refused() -> None:
    columns: dict[str, list[Any]]
    columns = {"id": ["1"], "turns": [["Hello?"]], "choices": [["Yes?", "No."]], "label": [2]}
    with pytest.raises(ValueError, match="has the label 2 in row 0; expected .* from 0 to 1"):
        check_rows("multiple-choice", columns, (), None, "Split 'test' of task 'replies'")


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "sizes", "built_in"),
    [
        ("conll2003", (14_041, 3_250, 3_453), "entities"),
        ("wnut17", (3_394, 1_009, 1_287), None),
        pytest.param("squad", (85_599, 2_000, 10_570), "passages", marks=pytest.mark.slow),
        ("stsb", (5_174, 575, 1_500), None),
    ],
)
def test_real_sets_of_other_kinds(
    name: str, sizes: tuple[int, int, int], built_in: str | None
) -> None:
    task = tasks.load_task(name, source="directory", quiet=True)
    assert (len(task.train), len(task.validation), len(task.test)) == sizes
    if built_in is not None:
        ours = tasks.load_task(built_in, quiet=True)
        assert ours.test.features == task.test.features
        assert (ours.label_names, ours.metric) == (task.label_names, task.metric)
    if task.kind == "token-classification":
        used = {tag for tags in task.train["ner_tags"] for tag in tags}
        assert used == set(range(len(task.label_names)))
    elif task.kind == "question-answering":
        assert not set(task.validation["context"]) & set(task.train["context"])
        assert all(answers["text"] for answers in task.test["answers"])
    else:
        assert (min(task.test["label"]), max(task.test["label"])) == (0.0, 5.0)


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "train", "validation", "test"),
    [
        ("ag_news", 15_556, 1_728, 7_600),
        ("sst2", 65_349, 2_000, 872),
        ("cola", 7_696, 855, 1_043),
        ("mrpc", 3_301, 367, 408),
        ("rte", 2_241, 249, 277),
    ],
)
def test_real_sets_in_a_hub_directory(name: str, train: int, validation: int, test: int) -> None:
    task = tasks.load_task(name, source="directory", quiet=True)
    sizes = (len(task.train), len(task.validation), len(task.test))
    # The carved validation may hold a few rows more: rows with the same text stay together.
    assert sizes == pytest.approx((train, validation, test), abs=5)
    assert sum(sizes) == train + validation + test
    shares = [Counter(split["label"]) for split in (task.train, task.validation, task.test)]
    assert all(set(share) == set(range(len(task.label_names))) for share in shares)
    for split in (task.train, task.validation):
        share = Counter(split["label"])[1] / len(split)
        assert share == pytest.approx(Counter(task.train["label"])[1] / len(task.train), abs=0.06)


def check_squad_v2(task: tasks.Task) -> None:
    """Questions with and without an answer in each split, and no passage in two of them."""
    assert (task.kind, task.metric, task.source) == ("question-answering", "f1", "directory")
    assert "some questions have no answer" in task.note
    for split in SPLITS:
        data = getattr(task, split)
        answerable = {bool(answers["text"]) for answers in data["answers"]}
        assert answerable == {True, False}, split
    assert not set(task.validation["context"]) & set(task.train["context"])
    built_in = tasks.load_task("passages", quiet=True)
    assert built_in.test.features == task.test.features


def test_questions_without_an_answer_in_a_hub_directory(tmp_path: Path) -> None:
    root = tmp_path / "hub" / "rajpurkar" / "squad_v2"
    root.mkdir(parents=True)
    files = []
    for split, passages in (("train", 40), ("validation", 4)):
        lines = [
            {
                "id": f"{split}-{i}-{kind}",
                "title": "Ferries",
                "context": f"Ferry {i} of {split} left at dawn.",
                "question": f"When did ferry {i} {kind}?",
                "answers": answer("dawn", len(f"Ferry {i} of {split} left at "))
                if kind == "leave"
                else {"text": [], "answer_start": []},
            }
            for i in range(passages)
            for kind in ("leave", "sink")
        ]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
        files.append(f"  - split: {split}\n    path: {split}.jsonl\n")
    readme = "---\nconfigs:\n- config_name: squad_v2\n  data_files:\n" + "".join(files) + "---\n"
    (root / "README.md").write_text(readme, encoding="utf-8")
    task = tasks.load_task("squad_v2", "directory", tmp_path / "hub", quiet=True)
    assert (len(task.train), len(task.validation), len(task.test)) == (72, 8, 8)
    check_squad_v2(task)


@pytest.mark.mirror
@pytest.mark.slow
def test_squad_v2_where_the_directory_holds_it(hub_dir: Path) -> None:
    if not (hub_dir / "rajpurkar" / "squad_v2").is_dir():
        pytest.skip("the directory holds no rajpurkar/squad_v2")
    task = tasks.load_task("squad_v2", source="directory", quiet=True)
    assert len(task.test) == 11_873
    check_squad_v2(task)
