"""The checks of committed notebooks: each lets a good notebook pass and sees what it is for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gates
import pytest

Notebook = dict[str, Any]
NAME = "04_sample"


def findings(root: Path, check: gates.Check) -> list[str]:
    book = gates.Book(root)
    return check(NAME, book.notebooks[NAME], book)


def spoil(root: Path, change: Callable[[Notebook], None]) -> None:
    path = root / "notebooks" / f"{NAME}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook)
    path.write_text(json.dumps(notebook), encoding="utf-8")


def replace(root: Path, file: str, old: str, new: str) -> None:
    text = (root / file).read_text(encoding="utf-8")
    assert old in text
    (root / file).write_text(text.replace(old, new), encoding="utf-8")


def code(notebook: Notebook, number: int) -> dict[str, Any]:
    return gates.code_cells(notebook)[number]


def add_markdown(text: str) -> Callable[[Notebook], None]:
    def change(notebook: Notebook) -> None:
        cell = {"cell_type": "markdown", "metadata": {}, "source": text, "id": "added"}
        notebook["cells"].insert(5, cell)

    return change


def on_cell(number: int, **changes: Any) -> Callable[[Notebook], None]:
    return lambda notebook: code(notebook, number).update(changes)


def on_metadata(number: int, **changes: Any) -> Callable[[Notebook], None]:
    return lambda notebook: code(notebook, number)["metadata"].update(changes)


def on_output(number: int, **changes: Any) -> Callable[[Notebook], None]:
    return lambda notebook: code(notebook, number)["outputs"][0].update(changes)


STDERR = {"output_type": "stream", "name": "stderr", "text": "a warning"}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "bad", "traceback": []}
WIDGET = {
    "output_type": "display_data",
    "data": {"application/vnd.jupyter.widget-view+json": {}},
    "metadata": {},
}
SVG = {"output_type": "display_data", "data": {"image/svg+xml": "<svg/>"}, "metadata": {}}
COUNT, DOT, SUM = 3, 4, 5  # the code cells that count, show the figure, and add


def two_figures(notebook: Notebook) -> None:
    outputs = code(notebook, DOT)["outputs"]
    outputs.append(outputs[0])


def figure_without_numbers(notebook: Notebook) -> None:
    for number in (COUNT, DOT, SUM):
        code(notebook, number)["metadata"]["tags"] = ["nbval-ignore-output"]


def drop_closing(notebook: Notebook) -> None:
    del notebook["cells"][-1]


def same_ids(notebook: Notebook) -> None:
    notebook["cells"][1]["id"] = notebook["cells"][0]["id"]


def swap_cells(notebook: Notebook) -> None:
    cells = notebook["cells"]
    cells[5], cells[7] = cells[7], cells[5]


PLANTED: list[tuple[gates.Check, Callable[[Notebook], None], str]] = [
    (gates.is_executed, on_cell(COUNT, execution_count=None), "never executed"),
    (gates.is_executed, swap_cells, "not executed once, in order"),
    (gates.has_no_traces, lambda n: n["metadata"].update(widgets={}), "metadata holds 'widgets'"),
    (gates.has_no_traces, lambda n: n["metadata"].update(papermill={}), "holds 'papermill'"),
    (gates.has_no_traces, on_metadata(COUNT, papermill={}), "metadata 'papermill'"),
    (gates.has_no_traces, on_metadata(COUNT, execution={}), "metadata 'execution'"),
    (gates.has_no_traces, on_metadata(COUNT, tags=["injected-parameters"]), "was injected"),
    (gates.has_no_traces, on_cell(COUNT, outputs=[WIDGET]), "stores a widget"),
    (gates.has_no_errors, on_cell(COUNT, outputs=[ERROR]), "stores the error ValueError"),
    (gates.has_no_errors, on_cell(COUNT, outputs=[STDERR]), "went to stderr"),
    (gates.has_no_errors, on_output(COUNT, text="Traceback (most recent call last):"), "traceback"),
    (gates.has_no_absolute_paths, on_output(COUNT, text="in /home/ada/book"), "/home/ada"),
    (gates.has_no_absolute_paths, on_cell(COUNT, source='"/tmp/x"'), "/tmp/x"),
    (gates.has_no_absolute_paths, on_output(COUNT, text="C:\\Users"), "C:\\Users"),
    (gates.has_no_directives, add_markdown("```{note}\nx\n```"), "```{note}"),
    (gates.has_no_directives, add_markdown(":::{figure} x.png\n:::"), ":::{figure}"),
    (gates.has_no_directives, add_markdown("See {cite}`clark2020`."), "{cite}`clark2020`"),
    (gates.has_no_directives, add_markdown("(a-label)=\n"), "(a-label)="),
    (gates.has_alt_texts, on_output(DOT, metadata={"image/png": {"width": 3}}), "without alt text"),
    (gates.has_alt_texts, on_output(DOT, metadata={"image/png": {"alt": " "}}), "without alt text"),
    (gates.has_alt_texts, two_figures, "shows 2 figures"),
    (gates.has_alt_texts, on_cell(DOT, outputs=[SVG]), "use PNG alone"),
    (gates.has_alt_texts, add_markdown("![](x.png)"), "no alt text"),
    (gates.has_alt_texts, add_markdown('<img src="x.png">'), "no alt text"),
    (gates.has_short_cells, on_cell(COUNT, source="1\n" * 21), "has 21 lines; 20 are allowed"),
    (gates.has_short_cells, on_cell(COUNT, source="x = " + "1" * 99), "a line of 103 characters"),
    (gates.opens_as_agreed, lambda n: n["cells"].pop(0), "not a title"),
    (gates.opens_as_agreed, on_cell(0, source="import sys"), "colab cell differs"),
    (gates.opens_as_agreed, on_metadata(0, tags=[]), "not tagged colab"),
    (gates.opens_as_agreed, on_metadata(1, tags=[]), "not tagged parameters"),
    (gates.opens_as_agreed, on_cell(2, source='recorded.show_run_time("05")'), "does not call"),
    (gates.closes_as_agreed, drop_closing, "its last sections are"),
    (gates.closes_as_agreed, add_markdown("<details>"), "is not closed"),
    (gates.has_plain_parameters, on_cell(1, source="a = 1\nb = 2"), "has 2 values"),
    (gates.has_plain_parameters, on_cell(1, source="a = max(1, 2)"), "holds `a = max(1, 2)`"),
    (gates.has_plain_parameters, on_cell(1, source="a = 1\nb = 2\nc = 3"), "no parameter 'steps'"),
    (gates.has_plain_parameters, on_cell(1, source="steps = ''\nb = 2\nc = 3"), "must be a text"),
    (gates.is_compared, on_metadata(COUNT, tags=["nbval-skip"]), "tagged nbval-skip"),
    (gates.is_compared, on_cell(COUNT, source="# NBVAL_IGNORE_OUTPUT\n1"), "steers nbval"),
    (gates.is_compared, figure_without_numbers, "nbval compares 0 of its 4 cells"),
    (gates.figures_have_numbers, figure_without_numbers, "neither it nor the code cell"),
    (gates.equations_resolve, add_markdown("$$x \\tag{5.1}$$"), "does not begin with 4."),
    (gates.equations_resolve, add_markdown("$$x \\tag{4.1}$$"), "two equations have the number"),
    (gates.equations_resolve, add_markdown("$$\na &= b\n$$"), "outside an environment"),
    (gates.equations_resolve, add_markdown("By equation (4.7)."), "(4.7) is named but"),
    (gates.equations_resolve, add_markdown("By equations (4.1) and (4.7)."), "(4.7) is named but"),
    (gates.links_resolve, add_markdown("[x](../book/absent.md)"), "leads to no file"),
    (gates.links_resolve, add_markdown("[x](../book/intro.md#absent)"), "leads to no heading"),
    (gates.links_resolve, add_markdown("[x](../book/bibliography.md#a)"), "not in references.bib"),
    (gates.has_stable_ids, same_ids, "lack ids"),
]


def test_a_good_notebook_passes_every_check(executed_sample: Path) -> None:
    for check in gates.CHECKS:
        assert findings(executed_sample, check) == []
    assert gates.lists_are_sane(gates.Book(executed_sample)) == []


@pytest.mark.parametrize(
    ("check", "change", "finding"), PLANTED, ids=[f"{c.__name__}-{m}" for c, _, m in PLANTED]
)
def test_a_planted_fault_is_found(
    sample_book: Path, check: gates.Check, change: Callable[[Notebook], None], finding: str
) -> None:
    spoil(sample_book, change)
    assert any(finding in found for found in findings(sample_book, check))


def test_a_stripped_output_is_found(sample_book: Path) -> None:
    def strip(notebook: Notebook) -> None:
        for cell in gates.code_cells(notebook):
            cell.update(outputs=[], execution_count=None)

    spoil(sample_book, strip)
    found = findings(sample_book, gates.is_executed)
    assert any("never executed; run make refresh" in sentence for sentence in found)
    assert "no cell has an output." in found


@pytest.mark.parametrize(
    ("file", "old", "new", "finding"),
    [
        ("_toc.yml", "  - file: notebooks/04_sample\n", "", "not in _toc.yml"),
        ("notebooks/profiles.yml", "04_sample", "05_other", "not in profiles.yml"),
        ("notebooks/run_times.json", "04_sample", "05_other", "not in run_times.json"),
    ],
)
def test_a_notebook_missing_from_a_list_is_found(
    sample_book: Path, file: str, old: str, new: str, finding: str
) -> None:
    replace(sample_book, file, old, new)
    assert any(finding in found for found in findings(sample_book, gates.is_listed))


def test_an_entry_without_a_notebook_is_found(sample_book: Path) -> None:
    (sample_book / "notebooks" / f"{NAME}.ipynb").unlink()
    found = gates.lists_are_sane(gates.Book(sample_book))
    assert len(found) == 3
    assert all(f"{NAME}, which does not exist" in sentence for sentence in found)


def test_contents_out_of_order_are_found(sample_book: Path) -> None:
    notebooks = sample_book / "notebooks"
    shutil.copy2(notebooks / f"{NAME}.ipynb", notebooks / "03_other.ipynb")
    replace(
        sample_book, "_toc.yml", "  - file: book/", "  - file: notebooks/03_other\n  - file: book/"
    )
    assert "_toc.yml does not list the chapters in order." in gates.lists_are_sane(
        gates.Book(sample_book)
    )


def test_a_notebook_over_its_budget_is_found(sample_book: Path) -> None:
    path = sample_book / "notebooks" / "run_times.json"
    times = json.loads(path.read_text(encoding="utf-8"))
    times["notebooks"][NAME] |= {"seconds": 16.0, "peak_memory_mb": 2001.0}
    path.write_text(json.dumps(times), encoding="utf-8")
    assert findings(sample_book, gates.keeps_its_budget) == [
        "it took 16 s; 15 s are allowed.",
        "it took 2001 MB; 2000 are allowed.",
    ]


def test_another_address_in_the_configuration_is_found(sample_book: Path) -> None:
    replace(sample_book, "_config.yml", "OWNER/sample", "ada/sample")
    assert findings(sample_book, gates.opens_as_agreed) == [
        "its colab cell differs from the others', or from _config.yml's address."
    ]


def test_a_long_cell_may_have_forty_lines(sample_book: Path) -> None:
    spoil(sample_book, on_cell(COUNT, source="1\n" * 40, metadata={"tags": ["long-cell"]}))
    assert findings(sample_book, gates.has_short_cells) == []


def test_code_in_prose_is_no_directive(sample_book: Path) -> None:
    spoil(sample_book, add_markdown("```python\nx = {'a': 1}\n```\n\nThe set `{1}` and $\\{a\\}$."))
    assert findings(sample_book, gates.has_no_directives) == []


@pytest.mark.parametrize("text", ["https://example.org/home/ada", "a/b/tmp/c", "~/home/x", "1/2"])
def test_an_address_is_no_path(sample_book: Path, text: str) -> None:
    spoil(sample_book, on_output(COUNT, text=text))
    assert findings(sample_book, gates.has_no_absolute_paths) == []


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("04_mathematics", 15), ("05_2_pretraining", 200), ("05_1_environment", 75), ("06_1_x", 45)],
)
def test_budgets(name: str, seconds: int) -> None:
    assert gates.budget(name) == seconds


def test_the_command_prints_findings(
    sample_book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    book = gates.Book
    monkeypatch.setattr(gates, "Book", lambda: book(sample_book))
    assert gates.main([]) == 0
    assert capsys.readouterr().out == "Nothing found.\n"
    spoil(sample_book, same_ids)
    assert gates.main([f"notebooks/{NAME}.ipynb"]) == 1
    assert capsys.readouterr().out == f"{NAME}: its cells lack ids of their own.\n"
