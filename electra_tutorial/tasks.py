"""Labelled data sets behind one interface, whether built in, in a local directory or on the hub.

    task = load_task("topics")                        # written for this book, always there
    task = load_task("sst2", source="directory")      # $ELECTRA_TUTORIAL_HUB_DIR/nyu-mll/glue
    task = load_task("sst2", source="hub")            # downloaded

All give a `Task` whose splits have the columns text, for pairs also text_pair, and label. A set
that was asked for and cannot be had is an error; no other set is used instead.
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
from datasets import ClassLabel, Dataset, Features, Value

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
        label_names: the classes, in the order of their numbers.
        text_columns: the source's columns that become text (and text_pair).
        metric: the measure by which the best epoch is chosen and that the field reports.
        hub_id: the set on the hub, or None for a built-in one.
        config: its configuration on the hub.
        test_split: the source's split that serves as test. GLUE hides the labels of its own test
            splits, so its validation split serves as test.
        note: what a reader should know beside a result.
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


NEWS = ("World", "Sports", "Business", "Sci/Tech")
HELD_OUT = "validation is a tenth of train (2,000 rows at most), chosen by a hash of the text"
GLUE = f"test is GLUE's validation split, whose labels are public; {HELD_OUT}"


def _glue(
    name: str, label_names: tuple[str, ...], text_columns: tuple[str, ...], metric: str = "accuracy"
) -> TaskInfo:
    return TaskInfo(
        name, label_names, text_columns, metric, "nyu-mll/glue", name, "validation", GLUE
    )


PAIR = ("sentence1", "sentence2")
TASKS: dict[str, TaskInfo] = {
    info.name: info
    for info in (
        TaskInfo("topics", NEWS, ("text",), note="short news-like items written for this book"),
        TaskInfo(
            "reviews",
            ("negative", "positive"),
            ("text",),
            note="short reviews written for this book, many of them indirect on purpose",
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
    )
}


@dataclass(frozen=True)
class Task:
    """A labelled data set.

    Attributes:
        train, validation, test: splits with the columns of `text_columns` and label, a number.
        label_names: the name of each number.
        text_columns: ("text",), or ("text", "text_pair") where two texts belong together.
        source: "builtin", "directory" or "hub".
        revision: the commit received from the hub, else a hash of the rows.
        metric: "accuracy" or "matthews".
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
    if "validation" not in splits:
        splits["train"], splits["validation"] = _hold_out(splits["train"])
    made = {
        split: make_split(**rows, label_names=info.label_names) for split, rows in splits.items()
    }
    task = Task(
        name=name,
        kind=info.kind,
        label_names=info.label_names,
        text_columns=("text", "text_pair")[: len(info.text_columns)],
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
    """A split as `Task` holds it, from Python lists."""
    pair = {} if text_pair is None else {"text_pair": list(text_pair)}
    types = {key: Value("string") for key in ("text", *pair)}
    return Dataset.from_dict(
        {"text": list(text), **pair, "label": list(label)},
        features=Features({**types, "label": ClassLabel(names=list(label_names))}),
    )


def _read_builtin(info: TaskInfo) -> tuple[dict[str, Mapping[str, Any]], str]:
    content = (resources.files("electra_tutorial") / "builtin" / f"{info.name}.jsonl").read_bytes()
    rows = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    number = {label: i for i, label in enumerate(info.label_names)}
    splits: dict[str, Mapping[str, Any]] = {}
    for split in ("train", "validation", "test"):
        chosen = [row for row in rows if row["split"] == split]
        splits[split] = {
            **{column: [row[column] for row in chosen] for column in info.text_columns},
            "label": [number.get(row["label"], row["label"]) for row in chosen],
        }
    return splits, f"sha256:{hashlib.sha256(content).hexdigest()[:12]}"


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
            received = datasets.load_dataset(str(info.hub_id), info.config)
    except LOADING_ERRORS as error:
        raise ConnectionError(
            f"Task {info.name!r} cannot be had from the hub as {info.hub_id!r} "
            f"({_first_line(error)}): check the network, or use source='directory', or the "
            "built-in task 'topics'."
        ) from error
    # datasets records what it read as hf://datasets/<id>@<commit>/<file>.
    sources = " ".join(map(str, next(iter(received.values())).info.download_checksums or ()))
    commit = re.search(r"@([0-9a-f]{40})", sources)
    return _columns(info, received), commit[1] if commit else "not stated by the hub"


def _columns(info: TaskInfo, received: Any) -> dict[str, Mapping[str, Any]]:
    """The two splits that are used, as lists by column; others, with hidden labels, stay unread."""
    splits: dict[str, Mapping[str, Any]] = {}
    for split, there in (("train", "train"), ("test", info.test_split)):
        if there not in received:
            raise ValueError(
                f"Task {info.name!r} has no split {there!r}, only {', '.join(received)}: "
                "complete the set."
            )
        wanted = [*info.text_columns, "label"]
        missing = [column for column in wanted if column not in received[there].column_names]
        if missing:
            raise ValueError(
                f"Split {there!r} of task {info.name!r} lacks the column {', '.join(missing)}; it "
                f"has {', '.join(received[there].column_names)}: rename its columns."
            )
        splits[split] = received[there].select_columns(wanted)[:]
    return splits


def _checked(info: TaskInfo, split: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns under this book's names, after a look at every label."""
    labels = columns["label"]
    if not labels:
        raise ValueError(f"Split {split!r} of task {info.name!r} is empty: complete the set.")
    wrong = [x for x in labels if not isinstance(x, int) or not 0 <= x < len(info.label_names)]
    if wrong:
        hidden = " (-1 marks a hidden label)" if wrong[0] == -1 else ""
        raise ValueError(
            f"Split {split!r} of task {info.name!r} has the label {wrong[0]!r}{hidden}; expected "
            f"whole numbers from 0 to {len(info.label_names) - 1}: correct its labels."
        )
    names = dict(zip(("text", "text_pair"), info.text_columns, strict=False))
    return {**{new: columns[old] for new, old in names.items()}, "label": labels}


def _hold_out(rows: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split train into (train, validation): rows whose text has the lowest hash are held out.

    A hash does not depend on the order of the rows, which differs between copies of a set, and it
    keeps rows with the same text on one side.
    """
    texts = list(zip(*(rows[key] for key in rows if key != "label"), strict=True))
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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
