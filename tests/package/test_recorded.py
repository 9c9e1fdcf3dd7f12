from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from electra_tutorial import environment, recorded


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout."""
    (tmp_path / "experiments" / "results").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(recorded, "PROJECT", tmp_path)
    monkeypatch.setattr(recorded, "PACKAGE", tmp_path / "electra_tutorial")
    return tmp_path


def record(**changes: Any) -> Path:
    arguments: dict[str, Any] = {"seeds": [0, 1], "data": {}, "seconds": 1.26, "results": {"f1": 1}}
    return recorded.write("run", **(arguments | changes))


def test_what_was_written_is_loaded(project: Path) -> None:
    rows = project / "rows.txt"
    rows.write_text("abc", encoding="utf-8")
    path = record(data={"rows": rows, "texts": recorded.hash_texts(["a", "b"])}, curves={"x": [1]})
    assert path == project / "experiments" / "results" / "run.json"
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]  # nothing unfinished
    run = recorded.load("run")
    assert run["seeds"] == [0, 1]
    assert run["seconds"] == 1.3
    assert run["results"] == {"f1": 1}
    assert run["curves"] == {"x": [1]}
    assert run["data"]["rows"] == {
        "file": "rows.txt",
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    assert run["data"]["texts"]["texts"] == 2
    assert run["package_versions"]["python"] == sys.version.split()[0]
    assert set(run["package_versions"]) == {"python", *environment.PACKAGES}
    assert run["hardware"]["cores"]
    assert run["hardware"]["threads"] == str(torch.get_num_threads())
    assert recorded.names() == ["run"]


def test_the_text_hash_sees_where_a_text_ends() -> None:
    assert recorded.hash_texts(["ab", "c"]) != recorded.hash_texts(["a", "bc"])


def test_the_command_holds_no_directory_of_this_machine(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = project / "experiments" / "run.py"
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script), "--seeds", "5", "--data", "/some/where/data"])
    record()
    assert recorded.load("run")["command"] == "python experiments/run.py --seeds 5 --data DIR/data"


def test_an_interrupted_write_leaves_the_old_file(project: Path) -> None:
    record()
    with pytest.raises(ValueError, match="JSON compliant"):
        record(results={"f1": math.nan})
    assert recorded.load("run")["results"] == {"f1": 1}
    with pytest.raises(ValueError, match="neither results nor curves"):
        record(results=None)


def test_a_missing_run_names_the_command_that_records_it(project: Path) -> None:
    record()
    with pytest.raises(FileNotFoundError, match=r"recorded: run.*python experiments/absent.py"):
        recorded.load("absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": None}, "lacks a valid seconds"),
        ({"seeds": 3, "command": None}, "lacks a valid command, seeds"),
        ({"results": {}}, "lacks a valid results or curves"),
    ],
)
def test_an_incomplete_file_is_refused(project: Path, change: dict[str, Any], message: str) -> None:
    path = record()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"{message}.*python experiments/run.py"):
        recorded.load("run")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_no_json_object_is_refused(project: Path, text: str) -> None:
    record().write_text(text)
    with pytest.raises(ValueError, match="JSON"):
        recorded.load("run")


@pytest.mark.parametrize("name", ["../run", "", "a b", 3])
def test_a_name_cannot_leave_the_directory(name: Any) -> None:
    with pytest.raises(ValueError, match="not the name of a run"):
        recorded.load(name)


def test_an_installed_package_reads_its_own_copy(project: Path) -> None:
    packaged = project / "electra_tutorial" / "results"
    packaged.mkdir(parents=True)
    assert recorded.results_directory() == packaged


def test_show_run_time(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded.show_run_time("01_background")
    assert capsys.readouterr().out == "01_background has not been timed yet.\n"
    times = {
        "machine": "2 cores, no GPU",
        "notebooks": {"01_background": {"seconds": 5.81, "peak_memory_mb": 912.0}},
    }
    (project / "notebooks" / "run_times.json").write_text(json.dumps(times))
    recorded.show_run_time("01_background")
    assert capsys.readouterr().out == "Reference machine (2 cores, no GPU): 6 s, 0.9 GB.\n"
    assert recorded.run_time("01_background.ipynb") == {
        "machine": "2 cores, no GPU",
        "seconds": 5.81,
        "peak_memory_mb": 912.0,
    }
    assert recorded.run_time("02_core_concepts") is None


def test_every_recorded_run_of_the_project_is_complete() -> None:
    for name in recorded.names():
        recorded.load(name)
