from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from electra_tutorial import __version__, cli, environment, runner


def fake_report(*errors: str | None) -> runner.Report:
    runs = [
        runner.NotebookRun(f"0{i}_x", 1.0, 500.0, {}, Path("x"), error)
        for i, error in enumerate(errors)
    ]
    return runner.Report("laptop", "2 cores, no GPU", "3.11.7", "2.13.0", "2026-01-01", runs)


def test_env_prints_what_a_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env"]) == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed == environment.describe()


def test_env_refuses_a_python_that_is_too_new(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "NEWEST_PYTHON", (3, 5))
    monkeypatch.setattr(environment, "OLDEST_PYTHON", (3, 4))
    assert cli.main(["env"]) == 2
    assert "is too new: install a Python from 3.4 to 3.5" in capsys.readouterr().err


def test_run_hands_on_its_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def run(*arguments: object, **options: object) -> runner.Report:
        given.update(options, arguments=arguments)
        return fake_report(None, None)

    monkeypatch.setattr(runner, "run_notebooks", run)
    line = "run 04 05_2 --profile ci --output out --notebooks in -p steps=3 -p word=x --timeout 9"
    assert cli.main(line.split()) == 0
    assert given == {
        "arguments": (["04", "05_2"], "ci", "out"),
        "notebooks": "in",
        "parameters": {"steps": 3, "word": "x"},
        "timeout": 9.0,
    }
    assert capsys.readouterr().out == "2 of 2 notebooks passed in 2 s, at most 0.5 GB; see out.\n"


def test_run_returns_one_where_a_notebook_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run_notebooks", lambda *_, **__: fake_report(None, "bad"))
    assert cli.main(["run"]) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run --notebooks absent", "absent holds no notebooks"),
        ("run -p steps", "'steps' is not NAME=VALUE"),
        ("run 04 --profile tpu --notebooks {sample}", "Unknown profile 'tpu'"),
        ("run 99 --notebooks {sample}", "Unknown chapter '99'"),
        ("run --notebooks {sample} -p stps=3", "has no parameter 'stps'"),
        ("run --notebooks {sample} -p steps=x", "must be a whole number like 3, not 'x'"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    sample_book: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    assert cli.main(line.format(sample=sample_book / "notebooks").split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("electra-tutorial run: ")
    assert message in said
    assert said.count("\n") == 1


def test_debug_shows_where_an_error_arose() -> None:
    with pytest.raises(FileNotFoundError, match="holds no notebooks"):
        cli.main(["run", "--notebooks", "absent", "--debug"])


@pytest.mark.parametrize("line", ["", "unknown", "run --unknown", "run --timeout soon"])
def test_a_command_that_is_none_shows_the_usage(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(line.split())
    assert stopped.value.code == 2
    assert "usage: electra-tutorial" in capsys.readouterr().err


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"electra-tutorial {__version__}\n"


@pytest.mark.slow
def test_the_module_is_a_command_with_an_exit_status(sample_book: Path) -> None:
    command = [sys.executable, "-m", "electra_tutorial.cli", "run", "99", "--notebooks"]
    done = subprocess.run(
        [*command, str(sample_book / "notebooks")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
