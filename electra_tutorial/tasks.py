"""Labelled data sets behind one interface, whether built in, in a local directory or on the hub.

    task = load_task("topics")                        # written for this book, always there
    task = load_task("sst2", source="directory")      # $ELECTRA_TUTORIAL_HUB_DIR/nyu-mll/glue
    task = load_task("sst2", source="hub")            # downloaded

All give a `Task`, whose kind says which columns its splits have, whatever the source. A set that
was asked for and cannot be had is an error; no other set is used instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

from electra_tutorial.task_columns import (
    ANSWER_COLUMNS,
    check_names,
    check_rows,
    features_of,
    text_names,
)

DIRECTORY_VARIABLE = "ELECTRA_TUTORIAL_HUB_DIR"
SOURCES = ("builtin", "directory", "hub")
LOADING_ERRORS = (datasets.exceptions.DatasetsError, ValueError, OSError, RuntimeError)
VALIDATION_SHARE = 0.1
MOST_VALIDATION_ROWS = 2000


@dataclass(frozen=True)
class TaskInfo:
    """What is known about a task before it is loaded.

    Attributes:
        name: the name that `load_task()` takes.
        label_names: the classes or tags, in the order of their numbers; empty where there are none.
        text_columns: the source's columns that hold the texts.
        metric: the measure by which the best epoch is chosen and that the field reports.
        hub_id: the set on the hub, or None for a built-in one.
        config: its configuration on the hub.
        test_split: the source's split that serves as test. GLUE hides the labels of its own test
            splits, so its validation split serves as test.
        note: what a reader should know beside a result.
        kind: "classification", "regression", "token-classification", "question-answering" or
            "multiple-choice"; `Task` says what each means.
        validation_split: the source's split that serves as validation. Without one, rows of train
            are held out.
        held_together: the columns that rows share when they must not be torn apart by holding some
            of them out; empty: the texts.
        value_range: the lowest and the highest label of a regression.
        hub_revision: the branch on the hub that holds plain files, where the main one does not.
        trained: whether there is a train split.
    """

    name: str
    label_names: tuple[str, ...]
    text_columns: tuple[str, ...]
    metric: str = "accuracy"
    hub_id: str | None = None
    config: str | None = None
    test_split: str = "test"
    note: str = ""
    kind: str = "classification"
    validation_split: str | None = None
    held_together: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    hub_revision: str | None = None
    trained: bool = True


NEWS = ("World", "Sports", "Business", "Sci/Tech")
HELD_OUT = "validation is a tenth of train (2,000 rows at most), chosen by a hash of the text"
GLUE = f"test is GLUE's validation split, whose labels are public; {HELD_OUT}"


def _glue(
    name: str, label_names: tuple[str, ...], text_columns: tuple[str, ...], metric: str = "accuracy"
) -> TaskInfo:
    return TaskInfo(
        name, label_names, text_columns, metric, "nyu-mll/glue", name, "validation", GLUE
    )


def _bio(*types: str) -> tuple[str, ...]:
    """The tags of these entity types: outside, then the first and the further words of each."""
    return ("O", *(f"{place}-{name}" for name in types for place in "BI"))


def _tagging(
    name: str, types: tuple[str, ...], hub_id: str | None = None, note: str = ""
) -> TaskInfo:
    return TaskInfo(
        name,
        _bio(*types),
        ("tokens",),
        "f1",
        hub_id,
        note=note,
        kind="token-classification",
        validation_split="validation",
        # These sets are scripts on the hub's main branch.
        hub_revision="refs/convert/parquet" if hub_id else None,
    )


def _questions(name: str, hub_id: str | None = None, note: str = "") -> TaskInfo:
    return TaskInfo(
        name,
        (),
        ("context", "question"),
        "f1",
        hub_id,
        test_split="validation" if hub_id else "test",
        note=note,
        kind="question-answering",
        validation_split=None if hub_id else "validation",
        held_together=("context",),
    )


PAIR = ("sentence1", "sentence2")
CONLL = ("PER", "ORG", "LOC", "MISC")
WNUT = ("corporation", "creative-work", "group", "location", "person", "product")
SQUAD = (
    "test is SQuAD's validation split; validation is a tenth of train's questions (2,000 or a few "
    "more), whole passages at a time, chosen by a hash of the passage"
)
TASKS: dict[str, TaskInfo] = {
    info.name: info
    for info in (
        TaskInfo("topics", NEWS, ("text",), note="short news-like items written for this book"),
        TaskInfo(
            "reviews",
            ("negative", "positive"),
            ("text",),
            note="short reviews written for this book, a third of them indirect on purpose",
        ),
        TaskInfo(
            "messages", ("wanted", "spam"), ("text",), note="short messages written for this book"
        ),
        TaskInfo(
            "ag_news",
            NEWS,
            ("text",),
            hub_id="fancyzhx/ag_news",
            note=f"{HELD_OUT}; some copies lack titles or rows: compare the sizes that are printed",
        ),
        _glue("sst2", ("negative", "positive"), ("sentence",)),
        _glue("cola", ("unacceptable", "acceptable"), ("sentence",), "matthews"),
        _glue("mrpc", ("not_equivalent", "equivalent"), PAIR),
        _glue("rte", ("entailment", "not_entailment"), PAIR),
        TaskInfo(
            "stsb",
            (),
            PAIR,
            "spearman",
            "nyu-mll/glue",
            "stsb",
            "validation",
            GLUE,
            kind="regression",
            value_range=(0, 5),
        ),
        _tagging("entities", CONLL, note="sentences with tagged names, written for this book"),
        _tagging("conll2003", CONLL, "eriktks/conll2003", "newswire of Reuters"),
        _tagging("wnut17", WNUT, "leondz/wnut_17", "posts and comments with rare names"),
        _questions("passages", note="passages with questions, written for this book"),
        _questions("squad", "rajpurkar/squad", SQUAD),
        _questions("squad_v2", "rajpurkar/squad_v2", f"some questions have no answer; {SQUAD}"),
        TaskInfo(
            "replies",
            (),
            ("turns", "choices"),
            note="dialogues with four replies each, written for this book; not for training",
            kind="multiple-choice",
            trained=False,
        ),
    )
}


@dataclass(frozen=True)
class Task:
    """A labelled data set.

    The kind says what the splits hold:

    - classification: text, for pairs also text_pair, and label, the number of a class;
    - regression: the same texts, and label, a number in the usual sense;
    - token-classification: tokens, the words of a sentence, and ner_tags, a number for each;
    - question-answering: id, context, question, and answers with the lists text and answer_start
      (a character of the context); both lists are empty where the context does not say;
    - multiple-choice: id, turns (what two people said, one after the other), choices (what might be
      said next), and label, the number of the one that fits.

    Attributes:
        train, validation, test: the splits. `train` has no rows where the set is not for training.
        label_names: the names of the classes or tags, by number; empty where there are none.
        text_columns: which of the columns hold the texts.
        source: "builtin", "directory", "hub", or "file" for the reader's own.
        revision: the commit received from the hub, else a hash of the rows.
        metric: "accuracy", "matthews", "spearman" or "f1".
    """

    name: str
    kind: str
    label_names: tuple[str, ...]
    text_columns: tuple[str, ...]
    train: Dataset
    validation: Dataset
    test: Dataset
    source: str
    revision: str
    metric: str = "accuracy"
    note: str = ""

    def describe(self) -> None:
        """Print on one line what was loaded, from where, and in which revision."""
        sizes = ", ".join(
            f"{len(split):,} {name}"
            for name, split in (
                ("train", self.train),
                ("validation", self.validation),
                ("test", self.test),
            )
        )
        print(f"{self.name}: {sizes} rows from {self.source!r}, revision {self.revision}.")


def load_task(
    name: str, source: str = "builtin", directory: str | Path | None = None, quiet: bool = False
) -> Task:
    """Load a labelled data set and print which one was received.

    Args:
        name: one of `TASKS`.
        source: "builtin"; "directory", laid out by hub id, so that
            `datasets.load_dataset(directory / hub_id, config)` reads it; or "hub".
        directory: that directory; default: the variable ELECTRA_TUTORIAL_HUB_DIR.
        quiet: do not print.

    Raises:
        ValueError: for an unknown task or source, a source that does not have the task, a missing
            column or split, an empty split, or labels out of range.
        FileNotFoundError: if the directory is not named or not there.
        ConnectionError: if the hub cannot be reached.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(f"Unknown task {name!r}: choose one of {', '.join(TASKS)}.")
    if source not in SOURCES:
        raise ValueError(f"Unknown source {source!r}: choose one of {', '.join(SOURCES)}.")
    info = TASKS[name]
    if (source == "builtin") != (info.hub_id is None):
        right = "'builtin'" if info.hub_id is None else "'directory' or 'hub'"
        raise ValueError(f"Task {name!r} is not there from source {source!r}: use source={right}.")
    if source == "builtin":
        splits, revision = _read_builtin(info)
    elif source == "directory":
        splits, revision = _read_directory(info, _hub_directory(info, directory))
    else:
        splits, revision = _read_hub(info)
    splits = {split: _checked(info, split, rows) for split, rows in splits.items()}
    texts = text_names(info.kind, info.text_columns)
    if "validation" not in splits:
        together = info.held_together or texts
        splits["train"], splits["validation"] = hold_out(splits["train"], together)
    features = features_of(info.kind, len(texts), info.label_names)
    made = {
        split: Dataset.from_dict({name: rows[name] for name in features}, features=features)
        for split, rows in splits.items()
    }
    if not info.trained:
        made["train"] = made["test"].select([])
    task = Task(
        name=name,
        kind=info.kind,
        label_names=info.label_names,
        text_columns=texts,
        train=made["train"],
        validation=made["validation"],
        test=made["test"],
        source=source,
        revision=revision,
        metric=info.metric,
        note=info.note,
    )
    if not quiet:
        task.describe()
    return task


def make_split(
    text: Sequence[str],
    label: Sequence[int],
    label_names: Sequence[str],
    text_pair: Sequence[str] | None = None,
) -> Dataset:
    """A split of a classification as `Task` holds it, from Python lists."""
    pair = {} if text_pair is None else {"text_pair": list(text_pair)}
    return Dataset.from_dict(
        {"text": list(text), **pair, "label": list(label)},
        features=features_of("classification", 1 + len(pair), label_names),
    )


def _read_builtin(info: TaskInfo) -> tuple[dict[str, Mapping[str, Any]], str]:
    content = (resources.files("electra_tutorial") / "builtin" / f"{info.name}.jsonl").read_bytes()
    rows = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    number = {label: i for i, label in enumerate(info.label_names)}
    if info.kind == "question-answering":  # a line holds a passage with all its questions
        rows = [row | question for row in rows for question in row["questions"]]
    for row in rows:
        if info.kind == "classification":
            row["label"] = number.get(row["label"], row["label"])
        elif info.kind == "token-classification":
            row["ner_tags"] = [number.get(tag, tag) for tag in row["ner_tags"]]
    splits: dict[str, Mapping[str, Any]] = {
        split: {
            name: [row[name] for row in rows if row["split"] == split] for name in _wanted(info)
        }
        for split in ("train", "validation", "test")
        if split != "train" or info.trained
    }
    return splits, f"sha256:{hashlib.sha256(content).hexdigest()[:12]}"


def _wanted(info: TaskInfo) -> tuple[str, ...]:
    """The source's columns that are read."""
    return (*info.text_columns, *ANSWER_COLUMNS[info.kind])


def _hub_directory(info: TaskInfo, directory: str | Path | None) -> Path:
    named = directory or os.environ.get(DIRECTORY_VARIABLE)
    if not named:
        raise FileNotFoundError(
            f"Task {info.name!r} from source 'directory' needs a directory: set the environment "
            f"variable {DIRECTORY_VARIABLE} or pass directory=."
        )
    path = Path(named) / str(info.hub_id)
    if not path.is_dir():
        raise FileNotFoundError(
            f"There is no directory {path} for task {info.name!r}: put the set there, or name "
            f"another directory with {DIRECTORY_VARIABLE} or directory=."
        )
    return path


def _read_directory(info: TaskInfo, path: Path) -> tuple[dict[str, Mapping[str, Any]], str]:
    try:
        with _no_progress_bars():
            received = datasets.load_dataset(str(path), info.config)
    except LOADING_ERRORS as error:
        raise ValueError(
            f"datasets cannot read task {info.name!r} in {path} ({_first_line(error)}): its "
            "README.md must name the split files, as on the hub."
        ) from error
    splits = _columns(info, received)
    digest = hashlib.sha256()
    for split in sorted(splits):
        digest.update(json.dumps([split, splits[split]]).encode())
    return splits, f"sha256:{digest.hexdigest()[:12]}"


def _read_hub(info: TaskInfo) -> tuple[dict[str, Mapping[str, Any]], str]:
    try:
        with _no_progress_bars():
            branch = {"revision": info.hub_revision} if info.hub_revision else {}
            received = datasets.load_dataset(str(info.hub_id), info.config, **branch)
    except Exception as error:  # the hub's client has transport errors of a class of their own
        what, remedy = _trouble(error)
        raise ConnectionError(
            f"Task {info.name!r} cannot be had from the hub as {info.hub_id!r} ({what}): {remedy}, "
            "or use source='directory', or the built-in task 'topics'."
        ) from error
    return _columns(info, received), _commit(next(iter(received.values())))


def _trouble(error: BaseException) -> tuple[str, str]:
    """What went wrong between here and the hub, and what to do: two parts of one sentence."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    kinds = {type(link).__name__ for link in chain}
    statuses = [getattr(getattr(link, "response", None), "status_code", None) for link in chain]
    status = next(filter(None, statuses), None)
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        return "the hub knows no such data set, or keeps it private", "check the id"
    if "scripts are no longer supported" in str(error):
        return "there it is a script, and scripts are not run", "get a copy in plain files"
    if status == 404:
        return "the hub answered 404: a file is not there", "see on its page what has become of it"
    if status in (401, 403):
        return f"the hub answered {status}", "ask for access on its page and log in"
    if status is not None:
        return f"the hub answered {status}", "try again later"
    if any(kind.endswith("Timeout") for kind in kinds):
        return "the hub stopped sending", "try again: what was received is kept"
    if kinds & {"RemoteProtocolError", "ReadError"} or "Consistency check" in str(error):
        return "the download broke off", "try again"
    if "DatasetGenerationError" in kinds:
        return "a file that was received cannot be read", "delete it from the cache and try again"
    return _first_line(error), "check the network"


def _commit(split: Dataset) -> str:
    """The commit that a split of the hub was read at."""
    # datasets may record what it read, as hf://datasets/<id>@<commit>/<file>; and it keeps the rows
    # in a folder that is named after the commit.
    folders = [Path(file["filename"]).parent.name for file in split.cache_files]
    for place in [*(split.info.download_checksums or ()), *folders]:
        if commit := re.search(r"(?:^|@)([0-9a-f]{40})(?:/|$)", str(place)):
            return commit[1]
    return "not stated by the hub"


def _columns(info: TaskInfo, received: Any) -> dict[str, Mapping[str, Any]]:
    """The splits that are used, as lists by column; others, with hidden labels, stay unread."""
    splits: dict[str, Mapping[str, Any]] = {}
    held_out = {} if info.validation_split is None else {"validation": info.validation_split}
    for split, there in {"train": "train", **held_out, "test": info.test_split}.items():
        if there not in received:
            raise ValueError(
                f"Task {info.name!r} has no split {there!r}, only {', '.join(received)}: "
                "complete the set."
            )
        wanted = list(_wanted(info))
        missing = [column for column in wanted if column not in received[there].column_names]
        if missing:
            raise ValueError(
                f"Split {there!r} of task {info.name!r} lacks the column {', '.join(missing)}; it "
                f"has {', '.join(received[there].column_names)}: rename its columns."
            )
        named = received[there].features[ANSWER_COLUMNS[info.kind][-1]]
        check_names(named, info.label_names, f"Split {there!r} of task {info.name!r}")
        splits[split] = received[there].select_columns(wanted)[:]
    return splits


def _checked(info: TaskInfo, split: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns under this book's names, after a look at every answer."""
    where = f"Split {split!r} of task {info.name!r}"
    check_rows(info.kind, columns, info.label_names, info.value_range, where)
    names = dict(zip(info.text_columns, text_names(info.kind, info.text_columns), strict=True))
    return {names.get(column, column): values for column, values in columns.items()}


def hold_out(
    rows: Mapping[str, Any], together: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split train into (train, validation): rows whose text has the lowest hash are held out.

    A hash does not depend on the order of the rows, which differs between copies of a set, and it
    keeps rows with the same text, in the columns `together`, on one side.
    """
    texts = list(zip(*(rows[key] for key in together), strict=True))
    hashes = [hashlib.sha256("\0".join(text).encode()).digest() for text in texts]
    count = min(MOST_VALIDATION_ROWS, max(1, round(VALIDATION_SHARE * len(hashes))))
    limit = sorted(hashes)[count - 1]
    held = [value <= limit for value in hashes]
    if all(held):
        raise ValueError("Split 'train' has a single text; it needs two to hold one out: add rows.")

    def part(side: bool) -> dict[str, Any]:
        return {
            key: [value for value, is_held in zip(column, held, strict=True) if is_held == side]
            for key, column in rows.items()
        }

    return part(False), part(True)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep the bars of datasets out of a notebook's stored output."""
    disabled = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
