"""Run the book's notebooks: a fresh kernel for each, its time and memory, its failures by name.

A notebook's `parameters` cell is the laptop profile itself. `notebooks/profiles.yml` holds what the
ci and gpu profiles change in it. The laptop profile passes no parameter, so that papermill adds no
cell and what it writes can be rendered as the book.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROFILES = ("ci", "laptop", "gpu")
PLAIN = (bool, int, float, str, list, type(None))  # what a parameter may be
CHECKOUT = Path(__file__).resolve().parents[1]
SECONDS_BETWEEN_SAMPLES = 0.2


@dataclass(frozen=True)
class NotebookRun:
    """One notebook's run. `error` is None where it passed; memory is in units of 10**6 bytes."""

    name: str
    seconds: float
    peak_memory_mb: float
    parameters: dict[str, Any]
    written_to: Path
    error: str | None = None


@dataclass(frozen=True)
class Report:
    """The runs of one command, in order."""

    profile: str
    machine: str
    python: str
    torch: str
    date: str
    runs: list[NotebookRun] = field(default_factory=list)

    @property
    def failed(self) -> list[NotebookRun]:
        return [run for run in self.runs if run.error is not None]

    def write(self, path: Path) -> None:
        """Write the report as JSON; paths are relative to its folder."""
        contents = asdict(self)
        for run in contents["runs"]:
            run["written_to"] = os.path.relpath(run["written_to"], path.parent)
        path.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def run_notebooks(
    chapters: Sequence[str] | None = None,
    profile: str = "laptop",
    output: str | Path = "_build/notebooks",
    *,
    notebooks: str | Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    say: Callable[[str], None] = print,
) -> Report:
    """Run chapters and write them, with `report.json`, into the folder `output`.

    Args:
        chapters: names, or beginnings that fit one chapter only ("04"); all chapters when absent.
        profile: "laptop" (the parameters cell as it stands), "ci" or "gpu".
        notebooks: the folder of the chapters; the checkout's when absent.
        parameters: values that replace those of the profile, in every chapter that is run.
        timeout: seconds after which a single cell counts as failed.
        say: is given one line for each notebook.

    Returns:
        The report. A notebook that failed is in `.failed`; what it had computed is written.

    Raises:
        ValueError: if a chapter, a profile or a parameter is unknown.
        TypeError: if a value has a wrong type.
        FileNotFoundError: if there is no folder of notebooks.
        ModuleNotFoundError: if papermill or psutil is not installed.
    """
    _need_papermill()
    _check_arguments(chapters, parameters)
    source = notebooks_directory(notebooks)
    paths = [find_chapter(name, source) for name in chapters or chapter_names(source)]
    # Everything that can be refused is refused before the first kernel starts.
    chosen = [(path, choose_parameters(path, profile, parameters or {})) for path in paths]
    target = Path(output).resolve()
    if target == source:
        raise ValueError(
            f"The output folder {output} holds the chapters themselves: choose another one."
        )
    target.mkdir(parents=True, exist_ok=True)
    report = _new_report(profile)
    started = time.perf_counter()
    # A chapter that was asked for data from the hub may go there.
    offline = profile != "gpu" and not parameters
    for number, (path, values) in enumerate(chosen, start=1):
        run = run_notebook(path, target, values, timeout=timeout, offline=offline)
        report.runs.append(run)
        outcome = "" if run.error is None else "  FAILED"
        say(
            f"[{number:2d}/{len(chosen)}] {run.name:<28} {run.seconds:6.1f} s  "
            f"{run.peak_memory_mb / 1000:4.1f} GB  (total {time.perf_counter() - started:.0f} s)"
            f"{outcome}"
        )
    report.write(target / "report.json")
    for run in report.failed:
        say(f"{run.name}: {run.error}")
    return report


def run_notebook(
    path: Path,
    output: Path,
    parameters: Mapping[str, Any],
    *,
    timeout: float | None = None,
    offline: bool = True,
) -> NotebookRun:
    """Run one notebook in a kernel of its own and write it to `output`/<its name>.

    It runs in an empty folder beside that file, so it cannot lean on where it lies; the folder
    stays only if the notebook wrote something there.
    """
    import papermill

    written_to = output / path.name
    folder = output / f"{path.stem}_files"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.perf_counter()
    error = None
    with _kernel_environment(offline), PeakMemory() as memory:
        try:
            papermill.execute_notebook(
                str(path),
                str(written_to),
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=str(folder),
                execution_timeout=None if timeout is None else math.ceil(timeout),
                extra_arguments=["--log-level=ERROR"],  # the kernel's, on the console
            )
        except Exception as raised:  # whatever stops a notebook is a finding, not the end of all
            error = _describe_failure(written_to, raised)
    seconds = time.perf_counter() - started
    if not any(folder.iterdir()):
        folder.rmdir()
    peak = round(memory.peak / 1e6, 1)
    return NotebookRun(path.stem, round(seconds, 1), peak, dict(parameters), written_to, error)


# --- which chapters, with which parameters ---------------------------------------------------


def notebooks_directory(directory: str | Path | None = None) -> Path:
    """The folder of the chapters: the one named, or the checkout's.

    Raises:
        FileNotFoundError: if it does not exist or holds no notebook.
    """
    path = CHECKOUT / "notebooks" if directory is None else Path(directory)
    if not path.is_dir() or not any(path.glob("*.ipynb")):
        raise FileNotFoundError(
            f"{path} holds no notebooks; run this in a checkout of the book, or name the folder "
            "with --notebooks."
        )
    return path.resolve()


def chapter_names(directory: Path) -> list[str]:
    """The names of all chapters in `directory`, in the book's order."""
    return sorted(path.stem for path in directory.glob("*.ipynb"))


def find_chapter(name: str, directory: Path) -> Path:
    """The chapter called `name`, or the only one whose name begins so.

    Raises:
        ValueError: if there is none, or more than one.
    """
    known = chapter_names(directory)
    wanted = Path(name).name.removesuffix(".ipynb")
    fitting = [wanted] if wanted in known else [stem for stem in known if stem.startswith(wanted)]
    if not wanted or len(fitting) != 1:
        kind = "Ambiguous" if wanted and fitting else "Unknown"
        choices = ", ".join(fitting if wanted and fitting else known)
        raise ValueError(f"{kind} chapter {name!r}: choose one of {choices}.")
    return directory / f"{fitting[0]}.ipynb"


def read_parameters(path: Path) -> dict[str, Any]:
    """Names and values of a notebook's `parameters` cell.

    Raises:
        ValueError: if there is not exactly one, or it holds more than assignments of plain values.
    """
    contents = json.loads(path.read_text(encoding="utf-8"))
    cells = [
        "".join(cell["source"])
        for cell in contents["cells"]
        if "parameters" in cell.get("metadata", {}).get("tags", [])
    ]
    if len(cells) != 1:
        raise ValueError(
            f"{path.name} has {len(cells)} cells tagged parameters; it needs exactly one."
        )
    values: dict[str, Any] = {}
    for statement in ast.parse(cells[0]).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                with contextlib.suppress(ValueError):
                    value = ast.literal_eval(expression)
                    if isinstance(value, PLAIN):
                        values[name] = value
                        continue
        raise ValueError(
            f"The parameters cell of {path.name} holds `{ast.unparse(statement)}`; only "
            "`name = value` with a number, a text, True, False, None or a list belongs there."
        )
    return values


def read_profiles(directory: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """`profiles.yml`: chapter -> profile (ci, gpu) -> the parameters that it changes.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not of that form.
    """
    import yaml

    path = directory / "profiles.yml"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; it says what the ci and gpu profiles change.")
    chapters = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for chapter, profiles in chapters.items():
        for profile, changes in (profiles or {}).items():
            if profile not in PROFILES or profile == "laptop":
                raise ValueError(
                    f"profiles.yml names the profile {profile!r} for {chapter}; only ci and gpu "
                    "belong there, for the parameters cell is the laptop profile."
                )
            if not isinstance(changes, dict):
                raise ValueError(
                    f"profiles.yml gives {changes!r} for {chapter}, {profile}; write "
                    "{parameter: value, ...}."
                )
    return {chapter: profiles or {} for chapter, profiles in chapters.items()}


def choose_parameters(path: Path, profile: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters to pass to the notebook `path`: the profile's changes, then those `given`.

    Raises:
        ValueError: if the profile, the chapter's entry in it or a parameter is unknown.
        TypeError: if a value has another type than the one in the parameters cell.
    """
    if profile not in PROFILES:
        raise ValueError(f"Unknown profile {profile!r}: choose one of {', '.join(PROFILES)}.")
    values: dict[str, Any] = {}
    if profile != "laptop":
        profiles = read_profiles(path.parent)
        if path.stem not in profiles:
            raise ValueError(
                f"{path.stem} is not in profiles.yml: add it, with {{}} if nothing changes."
            )
        values |= profiles[path.stem].get(profile, {})
    values |= given
    if values:
        defaults = read_parameters(path)
        for name, value in values.items():
            if name not in defaults:
                known = ", ".join(defaults)
                raise ValueError(f"{path.stem} has no parameter {name!r}: it has {known}.")
            _check_type(path.stem, name, value, defaults[name])
    return values


def parse_parameters(assignments: Sequence[str]) -> dict[str, Any]:
    """`["steps=20", "corpus=notes.txt"]` -> `{"steps": 20, "corpus": "notes.txt"}`.

    Raises:
        ValueError: if one is not of the form NAME=VALUE.
    """
    values = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ValueError(f"{assignment!r} is not NAME=VALUE, for example steps=20.")
        try:
            values[name.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            values[name.strip()] = text.strip()  # a text needs no quotes
    return values


def _check_arguments(chapters: Any, parameters: Any) -> None:
    """Refuse what would be read letter by letter, or fail deep inside."""
    listed = isinstance(chapters, Sequence) and not isinstance(chapters, str)
    if chapters is not None and not (listed and all(isinstance(name, str) for name in chapters)):
        raise TypeError(f"chapters must be a list of names like ['04', '05_2'], not {chapters!r}.")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a mapping like {{'steps': 20}}, not {parameters!r}.")


def _check_type(chapter: str, name: str, value: Any, default: Any) -> None:
    kinds: dict[type, tuple[tuple[type, ...], str]] = {
        bool: ((bool,), "True or False"),
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
        str: ((str,), "a text"),
        list: ((list,), "a list"),
        type(None): (PLAIN, "a plain value"),
    }
    allowed, words = kinds[type(default)]
    wrong = not isinstance(value, allowed)
    if isinstance(value, bool) and bool not in allowed:
        wrong = True  # to Python, True is a whole number
    if wrong:
        raise TypeError(
            f"The parameter {name} of {chapter} must be {words} like {default!r}, not {value!r}."
        )


# --- running ---------------------------------------------------------------------------------


class PeakMemory:
    """The most resident memory (bytes) that this process's children held together.

    While a notebook runs, these are its kernel and whatever the kernel started.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._stop.wait(SECONDS_BETWEEN_SAMPLES):
            total = 0
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it ended since it was listed
                    total += process.memory_info().rss
            self.peak = max(self.peak, total)


@contextlib.contextmanager
def _kernel_environment(offline: bool) -> Iterator[None]:
    """Variables that a kernel inherits; one that is already set stays as it is."""
    settings = {
        "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one in the home folder
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # no debugger warning on stderr
        "TQDM_DISABLE": "1",  # a progress bar in a stored output helps nobody
    }
    if offline:
        settings |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _describe_failure(path: Path, raised: Exception) -> str:
    """Which code cell stopped the notebook at `path`, and by what, in one line."""
    what = f"{getattr(raised, 'ename', type(raised).__name__)}: {getattr(raised, 'evalue', raised)}"
    if type(raised).__name__ == "DeadKernelError":
        what = "the death of its kernel, most often because memory ran out"
    if type(raised).__name__ == "CellTimeoutError":
        what = "its time: it ran for longer than --timeout allows"
    what = " ".join(what.split())
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return what  # it stopped before anything was written
    code = [
        cell
        for cell in cells
        if cell["cell_type"] == "code"
        and "injected-parameters" not in cell["metadata"].get("tags", [])
    ]
    for number, cell in enumerate(code, start=1):
        lines = "".join(cell["source"]).strip().splitlines()
        facts = cell["metadata"]
        raised_here = facts.get("papermill", {}).get("exception")
        # A cell whose kernel died, or that was interrupted, has no reply.
        if lines and (raised_here or "shell.execute_reply" not in facts.get("execution", {})):
            return f"code cell {number} of {len(code)}, beginning `{lines[0]}`, stopped by {what}"
    return what


def _need_papermill() -> None:
    try:
        import papermill
        import psutil
        import yaml
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Running notebooks needs {error.name}, which is not installed: "
            "pip install 'electra-tutorial[book]'."
        ) from None
    del papermill, psutil, yaml


def _new_report(profile: str) -> Report:
    from electra_tutorial import environment

    facts = environment.describe()
    gpu = "no GPU" if facts["gpu"] == "none" else facts["gpu"]
    cores = "1 core" if facts["cores"] == "1" else f"{facts['cores']} cores"
    return Report(
        profile=profile,
        machine=f"{cores}, {gpu}",
        python=facts["python"],
        torch=facts["torch"].partition("+")[0],
        date=datetime.date.today().isoformat(),
    )
