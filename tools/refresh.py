"""Run chapters and store their outputs and run times in notebooks/: what `make refresh` does.

What is stored is cleaned of everything that differs from run to run without meaning anything.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from electra_tutorial import recorded, runner


def refresh(
    chapters: Sequence[str] | None = None,
    output: str | Path = "_build/refresh",
    *,
    notebooks: str | Path | None = None,
    timeout: float | None = None,
    say: Callable[[str], None] = print,
) -> runner.Report:
    """Run chapters in the laptop profile and store their outputs in the folder of the chapters.

    A chapter that fails is left as it was. Times and memory go to `run_times.json` there.
    """
    source = runner.notebooks_directory(notebooks)
    report = runner.run_notebooks(
        chapters, "laptop", output, notebooks=source, timeout=timeout, say=say
    )
    passed = [run for run in report.runs if run.error is None]
    write_run_times(report, source)
    for run in passed:
        notebook = json.loads(run.written_to.read_text(encoding="utf-8"))
        _renew_run_time(notebook, source)
        text = json.dumps(clean(notebook), indent=1, ensure_ascii=False, sort_keys=True)
        (source / f"{run.name}.ipynb").write_text(text + "\n", encoding="utf-8", newline="\n")
    return report


def write_run_times(report: runner.Report, directory: Path) -> None:
    """Put the report's times into `directory`/run_times.json; forget notebooks that are gone."""
    path = directory / "run_times.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    entries = {
        name: entry
        for name, entry in old.get("notebooks", {}).items()
        if name in runner.chapter_names(directory)
    }
    for run in report.runs:
        if run.error is None:
            entries[run.name] = {
                "seconds": run.seconds,
                "peak_memory_mb": run.peak_memory_mb,
                "machine": report.machine,
                "python": report.python,
                "torch": report.torch,
                "date": report.date,
            }
    contents = {"machine": report.machine, "notebooks": dict(sorted(entries.items()))}
    path.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def clean(notebook: dict[str, Any]) -> dict[str, Any]:
    """A copy of `notebook` without what differs from run to run: times, widgets, tool's notes."""
    result = copy.deepcopy(notebook)
    result["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {
            key: value
            for key, value in result["metadata"].get("language_info", {"name": "python"}).items()
            if key in ("name", "file_extension", "mimetype", "pygments_lexer")
        },
    }
    for cell in result["cells"]:
        for key in ("papermill", "execution", "collapsed", "scrolled", "ExecuteTime"):
            cell["metadata"].pop(key, None)
        if not cell["metadata"].get("tags", True):
            del cell["metadata"]["tags"]
        if "outputs" in cell:
            cell["outputs"] = join_streams(cell["outputs"])
    return result


def join_streams(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join what one stream printed in pieces, whose borders are a matter of timing."""
    joined: list[dict[str, Any]] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output["output_type"] == "stream" and output["name"] == last.get("name"):
            last["text"] = "".join(last["text"]) + "".join(output["text"])
        else:
            joined.append(output)
    for output in joined:
        if output["output_type"] == "stream":
            output["text"] = "".join(output["text"]).splitlines(keepends=True)
    return joined


def _renew_run_time(notebook: dict[str, Any], directory: Path) -> None:
    """Store the time that was just measured in the cell that shows it.

    The cell ran before its notebook's time was known, and printed the one before.
    """
    if directory != runner.CHECKOUT / "notebooks":
        return  # show_run_time() reads the checkout's file and no other
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        found = re.search(r"recorded\.show_run_time\(\s*[\"'](\w+)[\"']\s*\)", source)
        if cell["cell_type"] == "code" and found:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                recorded.show_run_time(found.group(1))
            lines = printed.getvalue().splitlines(keepends=True)
            cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="default: all")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a single cell")
    options = parser.parse_args(arguments)
    try:
        report = refresh(options.chapters, timeout=options.timeout)
    except (ValueError, TypeError, FileNotFoundError, ModuleNotFoundError) as error:
        print(f"refresh: {error}", file=sys.stderr)
        return 2
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
