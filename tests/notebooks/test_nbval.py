"""nbval, as `make test` runs it, compares what is deterministic and sees when it changes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gates
import pytest

Notebook = dict[str, Any]
COUNT, RATE = 3, 5  # the code cells that count and that show `rate + 1`


def same(notebook: Notebook) -> None:
    pass


def changed_text(notebook: Notebook) -> None:
    gates.code_cells(notebook)[COUNT]["outputs"][0]["text"] = ["0 dot\n", "1 dot\n", "2 dots\n"]


def changed_value(notebook: Notebook) -> None:
    gates.code_cells(notebook)[RATE]["outputs"][0]["data"]["text/plain"] = ["1.6"]


def raising_cell(notebook: Notebook) -> None:
    gates.code_cells(notebook)[COUNT]["source"] = ["raise ValueError('planted')"]


def stripped(notebook: Notebook) -> None:
    gates.code_cells(notebook)[COUNT]["outputs"] = []


def changed_run_time(notebook: Notebook) -> None:
    gates.code_cells(notebook)[2]["outputs"][0]["text"] = ["another line\n"]


CHANGES = (same, changed_run_time, changed_text, changed_value, raising_cell, stripped)


@pytest.fixture(scope="module")
def outcome(executed_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What nbval says of one copy of the sample for each change."""
    folder = tmp_path_factory.mktemp("nbval")
    good = (executed_sample / "notebooks" / "04_sample.ipynb").read_text(encoding="utf-8")
    for change in CHANGES:
        notebook = json.loads(good)
        change(notebook)
        (folder / f"{change.__name__}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-rA"]
    done = subprocess.run(
        [*command, "--color=no", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 1, done.stdout
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("change", [same, changed_run_time])
def test_nbval_lets_a_good_notebook_pass(change: Callable[..., None], outcome: str) -> None:
    """The run time may change: the cell's tag says that it is not compared."""
    for number in range(6):
        assert f"PASSED {change.__name__}.ipynb::Cell {number}" in outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "cell", "finding"),
    [
        (changed_text, COUNT, "2 dots"),
        (changed_value, RATE, "1.6"),
        (raising_cell, COUNT, "raise ValueError('planted')"),
        (stripped, COUNT, "Unexpected output fields"),
    ],
)
def test_nbval_finds_a_planted_fault(
    change: Callable[..., None], cell: int, finding: str, outcome: str
) -> None:
    failed = re.findall(rf"FAILED {change.__name__}\.ipynb::Cell (\d+)", outcome)
    assert failed == [str(cell)]  # that cell and no other
    report = outcome.split(f" {change.__name__}.ipynb::Cell {cell} ____")[1].split("\n____")[0]
    assert finding in report
