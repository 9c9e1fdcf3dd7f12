"""Settings shared by all tests: no network, few threads, and what the markers mean."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def hub_dir() -> Path:
    """The directory of data sets laid out by hub id, for tests marked `mirror`."""
    return Path(os.environ["ELECTRA_TUTORIAL_HUB_DIR"]).resolve()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `mirror` where no directory is named; fail where it is named wrongly."""
    named = os.environ.get("ELECTRA_TUTORIAL_HUB_DIR")
    if named and not Path(named).is_dir():
        raise pytest.UsageError(
            f"ELECTRA_TUTORIAL_HUB_DIR names {named!r}, which is not a directory; "
            "name one that is laid out by hub id, or unset the variable."
        )
    if named:
        return
    skip = pytest.mark.skip(reason="ELECTRA_TUTORIAL_HUB_DIR is not set")
    for item in items:
        if item.get_closest_marker("mirror"):
            item.add_marker(skip)


# --- a book of one chapter, for tests of the runner, the gates and the site --------------------

FIGURE = """\
from base64 import b64decode

from IPython.display import Image, display

dot = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
display(Image(b64decode(dot), format="png", alt="A single dot."))
print("1 dot")"""


def markdown_cell(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code_cell(text: str, *tags: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "metadata": {"tags": list(tags)} if tags else {},
        "source": text,
        "execution_count": None,
        "outputs": [],
    }


def as_notebook(cells: list[dict[str, Any]]) -> dict[str, Any]:
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return {
        "cells": cells,
        "metadata": {"kernelspec": {"display_name": "Python 3", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def sample_cells(name: str) -> list[dict[str, Any]]:
    """The cells of a chapter that is as it should be, not yet executed."""
    import gates

    number = name.split("_")[0].lstrip("0")
    return [
        markdown_cell(f"# {number}. Sample\n\nAfter this chapter you can count."),
        code_cell(gates.COLAB_CELL.format(address="https://github.com/OWNER/sample"), "colab"),
        code_cell('steps = 3  # how often\nrate = 0.5\nword = "dot"', "parameters"),
        code_cell(
            f'from electra_tutorial import recorded\n\nrecorded.show_run_time("{name}")',
            "nbval-ignore-output",
        ),
        markdown_cell(
            f"## Counting\n\nAs in [Clark et al., 2020](../book/bibliography.md#clark2020):\n\n"
            f"$$\n\\begin{{aligned}} a&=b \\\\ c &= d \\end{{aligned}} \\tag{{{number}.1}}\n$$\n\n"
            f"See equation ({number}.1)."
        ),
        code_cell("for step in range(steps):\n    print(step, word)"),
        code_cell(FIGURE),
        code_cell("rate + 1"),
        markdown_cell(
            "## Exercises\n\nCount to two.\n\n"
            "<details><summary>Solution</summary>\n\nOne, two.\n\n</details>"
        ),
        markdown_cell("## Summary\n\nDots can be counted."),
        markdown_cell("## Further reading\n\n[The intro](../book/intro.md#counting)."),
    ]


@pytest.fixture(scope="session")
def executed_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one chapter, `04_sample`, executed as `make refresh` does it."""
    import refresh

    root = tmp_path_factory.mktemp("executed") / "book"
    for folder in ("book/_static", "notebooks", "tools"):
        (root / folder).mkdir(parents=True)
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    slug = re.search(r"https://github\.com/([\w.-]+/[\w.-]+)", config)
    assert slug
    files = {
        "_config.yml": config.replace(slug.group(1), "OWNER/sample"),
        "_toc.yml": "format: jb-book\nroot: book/intro\nchapters:\n"
        "  - file: notebooks/04_sample\n  - file: book/bibliography\n",
        "CHANGELOG.md": "# Changes\n",
        "book/intro.md": "# Sample\n\n## Counting\n\n[Chapter](../notebooks/04_sample.ipynb)\n\n"
        "[The changes](../CHANGELOG.md)\n",
        "book/bibliography.md": "# Bibliography\n\n## clark2020\n\nELECTRA.\n",
        "book/references.bib": "@article{clark2020,\n  title = {ELECTRA}\n}\n",
        "notebooks/profiles.yml": "04_sample:\n  ci: {steps: 2}\n",
        "notebooks/04_sample.ipynb": json.dumps(as_notebook(sample_cells("04_sample"))),
    }
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    for name in ("book/_static/book.css", "book/_static/logo.svg", "tools/book_extension.py"):
        shutil.copy2(ROOT / name, root / name)
    report = refresh.refresh(
        None, root / "_build" / "refresh", notebooks=root / "notebooks", say=lambda line: None
    )
    assert not report.failed
    return root


@pytest.fixture
def sample_book(executed_sample: Path, tmp_path: Path) -> Path:
    """A copy of that repository, to be spoiled."""
    return Path(shutil.copytree(executed_sample, tmp_path / "book"))
