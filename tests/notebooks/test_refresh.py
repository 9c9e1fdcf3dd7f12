"""What `make refresh` stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gates
import pytest
import refresh

from electra_tutorial import recorded, runner

NAME = "04_sample"


def stored(root: Path) -> dict[str, Any]:
    return json.loads((root / "notebooks" / f"{NAME}.ipynb").read_text(encoding="utf-8"))


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def report(seconds: float, error: str | None = None) -> runner.Report:
    run = runner.NotebookRun(NAME, seconds, 700.0, {}, Path("x"), error)
    return runner.Report("laptop", "2 cores, no GPU", "3.11.7", "2.13.0", "2026-01-01", [run])


def test_pieces_of_a_stream_are_joined() -> None:
    outputs = [stream("a"), stream("b\nc"), stream("d", "stderr"), stream("e")]
    cell = {"cell_type": "code", "metadata": {}, "outputs": outputs, "source": ""}
    cleaned = refresh.clean({"cells": [cell], "metadata": {}})
    assert cleaned["cells"][0]["outputs"] == [
        stream(["ab\n", "c"]),
        stream(["d"], "stderr"),
        stream(["e"]),
    ]
    assert outputs[0] == stream("a")  # the notebook itself is left alone


def test_traces_of_a_run_are_removed() -> None:
    metadata = {"papermill": {}, "execution": {}, "tags": [], "other": 1}
    cell = {"cell_type": "markdown", "metadata": metadata, "source": ""}
    notebook = {"cells": [cell], "metadata": {"papermill": {}, "widgets": {}, "jupytext": {}}}
    cleaned = refresh.clean(notebook)
    assert cleaned["cells"][0]["metadata"] == {"other": 1}
    assert set(cleaned["metadata"]) == {"kernelspec", "language_info"}


def test_ids_stay_and_a_second_refresh_changes_nothing_else(sample_book: Path) -> None:
    before = stored(sample_book)
    assert [cell["id"] for cell in before["cells"]] == [f"cell-{i}" for i in range(11)]
    refresh.refresh(
        ["04"], sample_book / "out", notebooks=sample_book / "notebooks", say=lambda _: None
    )
    assert stored(sample_book) == before


def test_a_chapter_that_fails_is_left_as_it_was(sample_book: Path) -> None:
    path = sample_book / "notebooks" / f"{NAME}.ipynb"
    notebook = stored(sample_book)
    gates.code_cells(notebook)[3]["source"] = "raise ValueError('planted')"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    before = path.read_bytes()
    done = refresh.refresh(
        None, sample_book / "out", notebooks=sample_book / "notebooks", say=lambda _: None
    )
    assert "stopped by ValueError: planted" in (done.failed[0].error or "")
    assert path.read_bytes() == before


def test_run_times_are_kept_and_forgotten(sample_book: Path) -> None:
    notebooks = sample_book / "notebooks"
    path = notebooks / "run_times.json"
    times = json.loads(path.read_text(encoding="utf-8"))
    times["notebooks"]["05_gone"] = times["notebooks"][NAME]
    path.write_text(json.dumps(times), encoding="utf-8")
    refresh.write_run_times(report(9.0, error="bad"), notebooks)
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["notebooks"] == {NAME: times["notebooks"][NAME]}
    refresh.write_run_times(report(9.0), notebooks)
    assert json.loads(path.read_text(encoding="utf-8"))["notebooks"][NAME] == {
        "seconds": 9.0,
        "peak_memory_mb": 700.0,
        "machine": "2 cores, no GPU",
        "python": "3.11.7",
        "torch": "2.13.0",
        "date": "2026-01-01",
    }


def test_the_run_time_shown_is_the_one_just_measured(
    sample_book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "CHECKOUT", sample_book)
    monkeypatch.setattr(recorded, "PROJECT", sample_book)
    refresh.write_run_times(report(9.0), sample_book / "notebooks")
    notebook = stored(sample_book)
    refresh._renew_run_time(notebook, sample_book / "notebooks")
    shown = "".join(gates.code_cells(notebook)[2]["outputs"][0]["text"])
    assert "9 s" in shown
    assert "0.7 GB" in shown


def test_an_unknown_chapter_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert refresh.main(["99"]) == 2
    assert capsys.readouterr().err.startswith("refresh: ")
