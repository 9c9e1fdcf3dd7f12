from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from electra_tutorial import runner

NAME = "04_sample"


def write_notebook(folder: Path, name: str, *sources: str, tags: str = "") -> Path:
    """A notebook of code cells, the first of which may be tagged."""
    cells = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {"tags": [tags]} if tags and number == 0 else {},
            "source": source,
            "execution_count": None,
            "outputs": [],
        }
        for number, source in enumerate(sources)
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def outputs(path: Path) -> list[str]:
    """What the code cells of a notebook printed."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        "".join("".join(output.get("text", "")) for output in cell["outputs"])
        for cell in cells
        if cell["cell_type"] == "code"
    ]


# --- which chapters ---------------------------------------------------------------------------


@pytest.fixture
def chapters(tmp_path: Path) -> Path:
    for name in ("04_mathematics", "05_1_environment", "05_2_pretraining"):
        write_notebook(tmp_path, name, "steps = 3\nrate = 0.1\nword = 'x'", tags="parameters")
    (tmp_path / "profiles.yml").write_text(
        "04_mathematics: {}\n05_2_pretraining:\n  ci: {steps: 1}\n  gpu: {steps: 9, rate: 1}\n",
        encoding="utf-8",
    )
    return tmp_path


@pytest.mark.parametrize("name", ["04_mathematics", "04", "04_mathematics.ipynb", "notebooks/04"])
def test_a_chapter_is_found_by_name_or_beginning(chapters: Path, name: str) -> None:
    assert runner.find_chapter(name, chapters).name == "04_mathematics.ipynb"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("06", "Unknown chapter '06': choose one of 04_mathematics, 05_1"),
        ("", "Unknown chapter ''"),
        ("05", "Ambiguous chapter '05': choose one of 05_1_environment, 05_2_pretraining."),
    ],
)
def test_an_unknown_or_ambiguous_chapter_is_refused(
    chapters: Path, name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        runner.find_chapter(name, chapters)


def test_a_folder_without_notebooks_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match="holds no notebooks; run this in a checkout"):
            runner.notebooks_directory(folder)


# --- which parameters -------------------------------------------------------------------------


def test_the_laptop_profile_passes_no_parameter(chapters: Path) -> None:
    path = chapters / "05_2_pretraining.ipynb"
    assert runner.choose_parameters(path, "laptop", {}) == {}
    assert runner.choose_parameters(path, "ci", {}) == {"steps": 1}
    assert runner.choose_parameters(path, "gpu", {"steps": 7}) == {"steps": 7, "rate": 1}
    assert runner.choose_parameters(chapters / "04_mathematics.ipynb", "ci", {}) == {}


def test_an_unknown_profile_or_parameter_is_refused(chapters: Path) -> None:
    path = chapters / "05_2_pretraining.ipynb"
    with pytest.raises(ValueError, match="Unknown profile 'tpu': choose one of ci, laptop, gpu"):
        runner.choose_parameters(path, "tpu", {})
    with pytest.raises(ValueError, match="no parameter 'stps': it has steps, rate, word"):
        runner.choose_parameters(path, "laptop", {"stps": 1})
    with pytest.raises(ValueError, match="05_1_environment is not in profiles.yml: add it"):
        runner.choose_parameters(chapters / "05_1_environment.ipynb", "ci", {})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("steps", "many", "must be a whole number like 3, not 'many'"),
        ("steps", 2.5, "must be a whole number like 3, not 2.5"),
        ("steps", True, "must be a whole number like 3, not True"),
        ("rate", "fast", "must be a number like 0.1"),
        ("word", 3, "must be a text like 'x', not 3"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused(
    chapters: Path, name: str, value: Any, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        runner.choose_parameters(chapters / "04_mathematics.ipynb", "laptop", {name: value})


def test_plain_parameters_are_read(tmp_path: Path) -> None:
    text = "a = 1  # why\nb = -0.5\nc = 'x'\nd = None\ne = [1, 2]\nf = True"
    path = write_notebook(tmp_path, "n", text, tags="parameters")
    expected = {"a": 1, "b": -0.5, "c": "x", "d": None, "e": [1, 2], "f": True}
    assert runner.read_parameters(path) == expected


@pytest.mark.parametrize("text", ["a = b", "a = max(1, 2)", "import os", "a: int = 3", "a = b = 1"])
def test_a_parameters_cell_holds_nothing_else(tmp_path: Path, text: str) -> None:
    path = write_notebook(tmp_path, "n", text, tags="parameters")
    with pytest.raises(ValueError, match="only `name = value`"):
        runner.read_parameters(path)


def test_there_is_one_parameters_cell(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 0 cells tagged parameters; it needs exactly one"):
        runner.read_parameters(write_notebook(tmp_path, "n", "a = 1"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n:\n  laptop: {a: 1}", "the parameters cell is the laptop profile"),
        ("n:\n  tpu: {a: 1}", "names the profile 'tpu'"),
        ("n:\n  ci: 3", "gives 3 for n, ci; write"),
    ],
)
def test_a_bad_profiles_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "profiles.yml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        runner.read_profiles(tmp_path)


def test_a_missing_profiles_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="says what the ci and gpu profiles change"):
        runner.read_profiles(tmp_path)


def test_assignments_are_parsed() -> None:
    given = ["steps=20", "rate=1e-3", "corpus=notes.txt", "flag=True", "text=a=b"]
    assert runner.parse_parameters(given) == {
        "steps": 20,
        "rate": 1e-3,
        "corpus": "notes.txt",
        "flag": True,
        "text": "a=b",
    }


@pytest.mark.parametrize("text", ["steps", "=3", "1=2", "a b=3"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not NAME=VALUE, for example steps=20"):
        runner.parse_parameters([text])


# --- running ----------------------------------------------------------------------------------


def test_everything_is_refused_before_a_kernel_starts(
    chapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run_notebook", lambda *_, **__: pytest.fail("it started"))
    with pytest.raises(ValueError, match="Unknown chapter 'x'"):
        runner.run_notebooks(["04", "x"], notebooks=chapters, output=tmp_path / "out")
    with pytest.raises(ValueError, match="holds the chapters themselves: choose another one"):
        runner.run_notebooks(["04"], notebooks=chapters, output=chapters)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chapters": "04"}, r"chapters must be a list of names like \['04', '05_2'\], not '04'"),
        ({"chapters": [4]}, r"chapters must be a list of names .*, not \[4\]"),
        ({"parameters": ["steps=3"]}, "parameters must be a mapping like {'steps': 20}, not"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(
    chapters: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        runner.run_notebooks(**arguments, notebooks=chapters)


def test_a_missing_package_is_named(chapters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs papermill.*electra-tutorial\[book\]"):
        runner.run_notebooks(notebooks=chapters)


@pytest.mark.slow
def test_the_profiles_of_a_chapter(executed_sample: Path, tmp_path: Path) -> None:
    source = executed_sample / "notebooks"
    laptop = runner.run_notebooks(notebooks=source, output=tmp_path / "laptop", say=lambda _: None)
    ci = runner.run_notebooks(["04"], "ci", tmp_path / "ci", notebooks=source, say=lambda _: None)
    assert not laptop.failed
    assert not ci.failed
    assert "0 dot\n1 dot\n2 dot\n" in outputs(tmp_path / "laptop" / f"{NAME}.ipynb")
    assert "0 dot\n1 dot\n" in outputs(tmp_path / "ci" / f"{NAME}.ipynb")
    # papermill adds a cell where parameters are passed, and nowhere else.
    assert "injected-parameters" in (tmp_path / "ci" / f"{NAME}.ipynb").read_text("utf-8")
    assert "injected-parameters" not in (tmp_path / "laptop" / f"{NAME}.ipynb").read_text("utf-8")
    report = json.loads((tmp_path / "ci" / "report.json").read_text(encoding="utf-8"))
    assert report["profile"] == "ci"
    (entry,) = report["runs"]
    assert entry["name"] == NAME
    assert entry["parameters"] == {"steps": 2}
    assert entry["written_to"] == f"{NAME}.ipynb"
    assert entry["error"] is None
    assert entry["seconds"] > 0
    assert entry["peak_memory_mb"] > 10


@pytest.mark.slow
def test_a_raising_cell_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    source, target, lines = tmp_path / "in", tmp_path / "out", []
    write_notebook(source, "01_bad", "print('before')", "\nx = 1\nraise KeyError('gone')", "x")
    write_notebook(source, "02_good", "assert 'x' not in globals()\nprint('alone')")
    report = runner.run_notebooks(notebooks=source, output=target, say=lines.append)
    (failed,) = report.failed
    assert failed.error == "code cell 2 of 3, beginning `x = 1`, stopped by KeyError: 'gone'"
    assert outputs(target / "01_bad.ipynb")[0] == "before\n"  # the partial notebook is kept
    assert outputs(target / "02_good.ipynb") == ["alone\n"]
    assert lines[0].startswith("[ 1/2] 01_bad")
    assert lines[0].endswith("FAILED")
    assert "s  " in lines[1]
    assert "(total " in lines[1]
    assert lines[2] == f"01_bad: {failed.error}"


@pytest.mark.slow
def test_a_dying_kernel_and_an_endless_cell_are_named(tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_notebook(source, "01_dies", "print(1)", "import os\nos._exit(1)")
    write_notebook(source, "02_waits", "import time\ntime.sleep(60)")
    report = runner.run_notebooks(
        notebooks=source, output=tmp_path / "out", timeout=2, say=lambda _: None
    )
    dies, waits = (run.error or "" for run in report.runs)
    assert dies.startswith("code cell 2 of 2, beginning `import os`, stopped by the death")
    assert waits.startswith("code cell 1 of 1, beginning `import time`, stopped by its time")


@pytest.mark.slow
def test_memory_of_the_kernel_and_its_children_is_measured(tmp_path: Path) -> None:
    child = "import time; x = bytearray(150_000_000); time.sleep(1.5)"
    source = (
        "import subprocess, sys, time\n"
        "y = bytearray(150_000_000)\n"
        f"subprocess.run([sys.executable, '-c', '{child}'])"
    )
    path = write_notebook(tmp_path / "in", "n", source)
    run = runner.run_notebook(path, tmp_path / "out", {})
    assert run.error is None
    assert 300 < run.peak_memory_mb < 700


@pytest.mark.slow
def test_a_notebook_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    source = "import os, pathlib\nprint(os.listdir(), os.environ['HF_HUB_OFFLINE'])"
    writes = write_notebook(
        tmp_path / "in", "writes", source + "\npathlib.Path('note').write_text('x')"
    )
    quiet = write_notebook(tmp_path / "in", "quiet", source)
    (tmp_path / "out" / "writes_files").mkdir(parents=True)
    (tmp_path / "out" / "writes_files" / "old").touch()
    before = dict(os.environ)
    for path in (writes, quiet):
        assert runner.run_notebook(path, tmp_path / "out", {}).error is None
    assert os.environ == before
    assert outputs(tmp_path / "out" / "writes.ipynb") == ["[] 1\n"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "quiet.ipynb",
        "writes.ipynb",
        "writes_files",
    ]
    assert [p.name for p in (tmp_path / "out" / "writes_files").iterdir()] == ["note"]


def test_a_kernel_may_go_to_the_hub_where_it_was_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "0")
    with runner._kernel_environment(offline=False):
        assert "HF_HUB_OFFLINE" not in os.environ
        assert os.environ["TQDM_DISABLE"] == "0"  # what is set stays
    with runner._kernel_environment(offline=True):
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in os.environ
