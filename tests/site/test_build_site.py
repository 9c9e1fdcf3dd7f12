"""Staging and the strict build, on a book of one chapter."""

from __future__ import annotations

import subprocess
from pathlib import Path

import build_site
import gates
import pytest
from bs4 import BeautifulSoup


def build(root: Path) -> subprocess.CompletedProcess[str]:
    build_site.stage(root, root / "notebooks", root / "_build" / "source")
    return build_site.build(root / "_build" / "source", root / "_build" / "work", root / "site")


@pytest.mark.slow
def test_a_good_book_is_built(sample_book: Path) -> None:
    done = build(sample_book)
    assert done.returncode == 0, done.stdout
    path = sample_book / "site" / "notebooks" / "04_sample.html"
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    (figure,) = page.select(".cell_output img")
    assert figure["alt"] == "A single dot."
    (equation,) = page.select("div.math")
    assert "\\begin{equation}" in equation.get_text()
    assert "\\begin{split}" not in equation.get_text()
    changes = (sample_book / "site" / "book" / "intro.html").read_text(encoding="utf-8")
    assert "https://github.com/OWNER/sample/blob/main/CHANGELOG.md" in changes
    assert "unpkg" not in changes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "finding"),
    [
        (
            "_toc.yml",
            "  - file: notebooks/04_sample\n",
            "",
            "document isn't included in any toctree",
        ),
        ("book/intro.md", "../notebooks/04_sample.ipynb", "absent.md", "target not found"),
        ("book/intro.md", "04_sample.ipynb", "04_sample.ipynb#absent", "local id not found"),
        ("book/intro.md", "## Counting", "## Counting\n\n{nosuchrole}`x`", "nosuchrole"),
    ],
)
def test_a_planted_fault_stops_the_build(
    sample_book: Path, file: str, old: str, new: str, finding: str
) -> None:
    path = sample_book / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    done = build(sample_book)
    assert done.returncode != 0
    assert finding in done.stdout
    assert not (sample_book / "site").exists()


def lead_out(root: Path, text: str) -> str:
    return build_site.lead_out(text, Path("book/intro.md"), root)


@pytest.mark.parametrize(
    "text",
    [
        "[a](../notebooks/04_sample.ipynb#x)",
        "[a](bibliography.md#clark2020)",
        "[a](#counting)",
        "[a](https://example.org/x.py)",
        "[a](absent.py)",
        "![a](_static/logo.svg)",
        "```\n[a](../CHANGELOG.md)\n```",
    ],
)
def test_a_link_on_the_site_stays(executed_sample: Path, text: str) -> None:
    assert lead_out(executed_sample, text) == text


def test_a_link_off_the_site_leads_to_the_repository(executed_sample: Path) -> None:
    address = "https://github.com/OWNER/sample"
    code = "\n\n```\n[x](../tools)\n```"
    text = "[a [b]](../CHANGELOG.md#x), [t](../tools) and [r](references.bib)" + code
    assert lead_out(executed_sample, text) == (
        f"[a [b]]({address}/blob/main/CHANGELOG.md#x), [t]({address}/tree/main/tools) and "
        f"[r]({address}/blob/main/book/references.bib){code}"
    )


def test_the_table_of_run_times(sample_book: Path) -> None:
    book = gates.Book(sample_book)
    book.run_times["04_sample"].update(seconds=90.0, peak_memory_mb=512.0, date="2026-01-02")
    table = build_site.run_time_table(book)
    assert "| [4. Sample](../notebooks/04_sample.ipynb) | 90.0 s | 15 s | 0.5 GB |" in table
    assert "**1.5 min**" in table
    assert ", 2026-01-02." in table
    del book.run_times["04_sample"]
    assert "not timed" in build_site.run_time_table(book)


def test_a_missing_mathjax_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_site.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="needs sphinx-mathjax-offline, which is not"):
        build_site.copy_mathjax(tmp_path)


def test_what_was_printed_in_pieces_is_one_line_on_the_page() -> None:
    pieces = [
        {"output_type": "stream", "name": "stdout", "text": [t]} for t in ("a", " b\n", "c\n")
    ]
    cell = {"cell_type": "code", "metadata": {}, "source": [], "outputs": pieces}
    build_site.prepare_notebook({"cells": [cell]}, Path("notebooks/one.ipynb"), Path())
    assert [output["text"] for output in cell["outputs"]] == [["a b\n", "c\n"]]
