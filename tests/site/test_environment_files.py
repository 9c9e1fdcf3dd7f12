"""requirements.txt, pyproject.toml, the Python limits and the wheel agree with each other."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import freeze
import gates
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from electra_tutorial import __version__, environment

ROOT = gates.ROOT
PINNED = os.environ.get("ELECTRA_TUTORIAL_PINNED") == "1"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line and not line.startswith("#")]
    for row in rows:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", row), row
    assert rows == sorted(rows, key=str.lower)
    return {canonicalize_name(name): version for name, version in (r.split("==") for r in rows)}


def test_the_pins_name_a_whole_environment(pins: dict[str, str], project: dict[str, Any]) -> None:
    assert len(pins) > 100
    assert pins["torch"] == "2.13.0"
    assert not [name for name in pins if name.startswith(("nvidia", "triton", "electra"))]
    extras = project["optional-dependencies"].values()
    for wanted in [*project["dependencies"], *(wanted for extra in extras for wanted in extra)]:
        requirement = Requirement(wanted)
        if requirement.name != "electra-tutorial":
            version = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{wanted} excludes {version}"


def test_the_package_asks_for_lower_bounds_only(project: dict[str, Any]) -> None:
    for wanted in project["dependencies"]:
        operators = [specifier.operator for specifier in Requirement(wanted).specifier]
        assert operators == [">="], wanted


def test_colab_installs_what_the_chapters_import(project: dict[str, Any]) -> None:
    """Colab gets the package's dependencies and the extra `chapters`; it has IPython itself."""
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(w for n in ("chapters", "export", "serve") for w in extras[n]),
    ]
    installed = {canonicalize_name(Requirement(name).name) for name in wanted} | {"ipython"}
    for name in installed - {"electra-tutorial"}:  # and what these need themselves
        needed = [Requirement(text) for text in importlib.metadata.requires(name) or []]
        installed = installed | {canonicalize_name(r.name) for r in needed if r.marker is None}
    homes = importlib.metadata.packages_distributions()
    for name, notebook in gates.Book().notebooks.items():
        for cell in gates.code_cells(notebook):
            for node in ast.walk(ast.parse(gates.source(cell))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [str(node.module)]
                for module in {name.partition(".")[0] for name in names} - sys.stdlib_module_names:
                    found = {canonicalize_name(home) for home in homes.get(module, [module])}
                    assert found & installed, f"{name} imports {module}, which Colab may not have"


@pytest.mark.skipif(not PINNED, reason="only `make` says that the environment is the pinned one")
def test_the_running_environment_is_the_pinned_one(pins: dict[str, str]) -> None:
    # Whoever imports setuptools gets its own copies of packages into sys.path; torch.compile does.
    installed = {
        canonicalize_name(found.metadata["Name"]): found.version.partition("+")[0]
        for found in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    }
    differing = {
        name: (version, installed.get(name))
        for name, version in pins.items()
        if installed.get(name) != version
    }
    assert not differing


def test_freezing_drops_what_other_machines_lack() -> None:
    frozen = "# x\nzlib_x==1.0\nnvidia-cublas==1\ntriton==3\ntorch==2.13.0+cpu\nAbc==2.0.post1\n"
    assert freeze.pins(frozen) == ["Abc==2.0.post1", "torch==2.13.0", "zlib_x==1.0"]
    with pytest.raises(ValueError, match="was not installed from an index"):
        freeze.pins("abc @ file:///tmp/abc.whl")


def test_the_limits_of_python_stand_in_one_place(project: dict[str, Any]) -> None:
    oldest = ".".join(map(str, environment.OLDEST_PYTHON))
    newest = ".".join(map(str, environment.NEWEST_PYTHON))
    assert project["requires-python"] == f">={oldest}"
    assert f"Python {oldest}" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    versions = json.loads(
        re.search(r"python: (\[.*\])", workflow).group(1)  # type: ignore[union-attr]
    )
    assert versions[0] == oldest
    assert versions[-1] == newest


@pytest.mark.parametrize(("version", "kind"), [((3, 10), "old"), ((3, 15), "new")])
def test_a_python_too_old_or_too_new_is_refused(version: tuple[int, int], kind: str) -> None:
    # The file runs on Pythons that know no imports from here, so it is loaded by its path.
    path = ROOT / "tools" / "check_python.py"
    spec = importlib.util.spec_from_file_location("check_python", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.read_limits() == (environment.OLDEST_PYTHON, environment.NEWEST_PYTHON)
    said = module.complaint(version)
    assert said.startswith(f"Python 3.{version[1]} is too {kind}: the book needs Python 3.11 to")
    assert "make PYTHON=" in said
    assert module.complaint((3, 11)) == ""


def test_the_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    assert project["version"] == __version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(__version__)}$", citation, re.MULTILINE)


@pytest.mark.slow
def test_a_wheel_brings_what_the_chapters_need(tmp_path: Path) -> None:
    """Data, recorded runs, profiles and run times travel along and are found where they land."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, str(copy_of_project(tmp_path))], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(target)
    package = ROOT / "electra_tutorial"
    expected = {
        f"electra_tutorial/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and (path.suffix in (".py", ".typed") or "builtin" in path.parts)
        if "__pycache__" not in path.parts
    }
    expected |= {f"electra_tutorial/results/{path.name}" for path in results()}
    records = [ROOT / "notebooks" / name for name in ("profiles.yml", "run_times.json")]
    expected |= {f"electra_tutorial/chapters/{path.name}" for path in records if path.is_file()}
    assert expected <= names, expected - names
    assert not [name for name in names if name.endswith(".ipynb")]
    look = (
        "from electra_tutorial import recorded\n"
        "print(recorded.names())\n"
        "recorded.show_run_time('01_background')\n"
        "print(recorded.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(target)]}\n{look}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    found, run_time, file = done.stdout.splitlines()
    assert file.startswith(str(target))
    assert found == str(sorted(path.stem for path in results()))
    assert run_time.startswith("Reference machine") == records[1].is_file()


def results() -> list[Path]:
    return sorted((ROOT / "experiments" / "results").glob("*.json"))


def copy_of_project(folder: Path) -> Path:
    """What a wheel is built from, so that building leaves no folder in the checkout."""
    import shutil

    target = folder / "project"
    leave = shutil.ignore_patterns("__pycache__", "*.ipynb", "*.egg-info")
    for name in ("electra_tutorial", "experiments", "notebooks"):
        shutil.copytree(ROOT / name, target / name, ignore=leave)
    for path in ROOT.iterdir():
        if path.name in ("pyproject.toml", "README.md") or path.name.startswith("LICENSE"):
            shutil.copy2(path, target / path.name)
    return target
