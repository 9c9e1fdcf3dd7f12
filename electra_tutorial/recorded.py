"""Results of runs that are too long for a chapter, read from the files that their scripts wrote.

A script `experiments/<name>.py` calls `write()` at its end; a chapter calls `load()`. Nothing here
computes a result. The run times that a chapter's first cell shows come from `run_times.json`,
written by the runner:

    {"machine": "2 cores, no GPU",
     "notebooks": {"01_background": {"seconds": 5.8, "peak_memory_mb": 912.0}}}
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_tutorial import environment

PACKAGE = Path(__file__).resolve().parent
PROJECT = PACKAGE.parent
# What every file holds: key -> the types of its value. Besides, `results` holds final numbers and
# `curves` what was logged on the way; one of them is there.
SCHEMA: dict[str, tuple[type, ...]] = {
    "command": (str,),
    "code_version": (str,),
    "package_versions": (dict,),
    "hardware": (dict,),
    "seeds": (list,),
    "data": (dict,),
    "seconds": (int, float),
}


def load(name: str) -> dict[str, Any]:
    """Read and check the recorded run `name`.

    Raises:
        FileNotFoundError: if it was not recorded.
        ValueError: if its file lacks something. Both name the command that records it.
    """
    path = results_directory() / f"{_checked(name)}.json"
    again = f"record it with `python experiments/{name}.py`."
    if not path.is_file():
        known = ", ".join(names()) or "none"
        raise FileNotFoundError(f"There is no recorded run {name!r} (recorded: {known}); {again}")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not valid JSON ({error}); {again}") from None
    if not isinstance(run, dict):
        raise ValueError(f"{path.name} holds no JSON object; {again}")
    missing = [key for key, kind in SCHEMA.items() if not isinstance(run.get(key), kind)]
    if not any(isinstance(run.get(key), dict) and run[key] for key in ("results", "curves")):
        missing.append("results or curves")
    if missing:
        raise ValueError(f"{path.name} lacks a valid {', '.join(missing)}; {again}")
    return run


def names() -> list[str]:
    """The names of all recorded runs, sorted."""
    return sorted(path.stem for path in results_directory().glob("*.json"))


def write(
    name: str,
    *,
    seeds: Sequence[int],
    data: Mapping[str, str | Path | Mapping[str, Any]],
    seconds: float,
    results: Mapping[str, Any] | None = None,
    curves: Mapping[str, Any] | None = None,
    command: str | None = None,
    directory: Path | None = None,
) -> Path:
    """Write the run `name` whole or not at all, and return the file's path.

    `data` names each data set: a path to a file, of which the size and SHA-256 are stored, or a
    mapping that already says what it was (`hash_texts()` helps). `command` is taken from the
    running script when absent; versions, hardware and threads are those of this process.

    Raises:
        ValueError: if there is neither a result nor a curve, or a number is NaN or infinite.
    """
    import torch  # reading a run does not need it

    if not results and not curves:
        raise ValueError(f"The run {name!r} has neither results nor curves; give at least one.")
    run: dict[str, Any] = {
        "command": command or _running_command(),
        "code_version": code_version(),
        "package_versions": {"python": sys.version.split()[0]}
        | {package: importlib.metadata.version(package) for package in environment.PACKAGES},
        # A run may use fewer cores than there are.
        "hardware": environment.hardware() | {"threads": str(torch.get_num_threads())},
        "seeds": list(seeds),
        "data": {
            key: dict(value) if isinstance(value, Mapping) else hash_file(value)
            for key, value in data.items()
        },
        "seconds": round(float(seconds), 1),
    }
    run |= {"results": dict(results)} if results else {}
    run |= {"curves": dict(curves)} if curves else {}
    path = (directory or results_directory()) / f"{_checked(name)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".json.unfinished")
    # A run that ended in NaN must fail here, not write a file that other readers cannot parse.
    text = json.dumps(run, indent=1, allow_nan=False, ensure_ascii=False)
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)
    return path


def run_time(notebook: str) -> dict[str, Any] | None:
    """How long `notebook` took on the reference machine, or None where it was not timed.

    The result has at least the keys machine, seconds and peak_memory_mb.
    """
    path = _chapters_directory() / "run_times.json"
    if not path.is_file():
        return None
    times = json.loads(path.read_text(encoding="utf-8"))
    entry = times.get("notebooks", {}).get(Path(notebook).stem)
    return None if entry is None else {"machine": times.get("machine", "unnamed machine"), **entry}


def show_run_time(notebook: str) -> None:
    """Print on one line how long `notebook` takes and how much memory it needs."""
    entry = run_time(notebook)
    if entry is None:
        print(f"{notebook} has not been timed yet.")
        return
    memory = entry["peak_memory_mb"] / 1000
    print(f"Reference machine ({entry['machine']}): {entry['seconds']:.0f} s, {memory:.1f} GB.")


def results_directory() -> Path:
    """Where recorded runs lie: inside an installed package, else in the checkout."""
    packaged = PACKAGE / "results"
    return packaged if packaged.is_dir() else PROJECT / "experiments" / "results"


def _chapters_directory() -> Path:
    packaged = PACKAGE / "chapters"
    return packaged if packaged.is_dir() else PROJECT / "notebooks"


def hash_file(path: str | Path) -> dict[str, Any]:
    """Name, size in bytes and SHA-256 of a file."""
    path = Path(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}


def hash_texts(texts: Sequence[str]) -> dict[str, Any]:
    """Number and SHA-256 of texts, for data that do not lie in one file."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8") + b"\0")
    return {"texts": len(texts), "sha256": digest.hexdigest()}


def code_version() -> str:
    """`git describe` of a checkout, with -dirty where files changed; else the package's version."""
    git = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--tags"]
    if (PROJECT / ".git").exists():
        try:
            done = subprocess.run(git, capture_output=True, text=True, check=True, timeout=20)
            return done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass  # git is not installed or has no commit yet: the version says enough
    try:
        return importlib.metadata.version("electra-tutorial")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _checked(name: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name!r} is not the name of a run; use letters, digits, _ and - only.")
    return name


def _running_command() -> str:
    """The running script and its arguments without this machine's directories."""
    words = []
    for word in [sys.argv[0] or "-", *sys.argv[1:]]:
        path = Path(word)
        if path.is_absolute() or path.exists():
            path = path.resolve()
            inside = path.is_relative_to(PROJECT)
            word = str(path.relative_to(PROJECT)) if inside else f"DIR/{path.name}"
        words.append(word)
    return " ".join(["python", *words])
