"""The scaling page: its tables say what was recorded, its calculator what the package computes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gates
import pytest
import scaling_page
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from electra_tutorial import flops, recorded

PAGE = (gates.ROOT / "book" / "scaling.md").read_text(encoding="utf-8")
SCRIPT = (gates.ROOT / "book" / "_static" / "calculator.js").read_text(encoding="utf-8")
INCLUDED = re.findall(r"\{include\} _generated/scaling_(\w+)\.md", PAGE)


def cells(text: str) -> list[list[str]]:
    """The rows of a Markdown table below its head."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_the_page_shows_every_part() -> None:
    figures = [f"{name}_figure" for name in scaling_page.FIGURES]
    assert sorted(INCLUDED) == sorted([*scaling_page.PARTS, *figures])


def test_the_parts_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "_generated"
    folder.mkdir()
    scaling_page.write(folder)
    for name in INCLUDED:
        assert (folder / f"scaling_{name}.md").read_text(encoding="utf-8").strip()
    for name in scaling_page.FIGURES:
        text = (folder / f"scaling_{name}_figure.md").read_text(encoding="utf-8")
        alt, picture = re.fullmatch(r"!\[([^]]+)\]\((.+)\)\n", text).groups()  # type: ignore[union-attr]
        assert len(alt) > 80
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_no_measured_number_is_typed() -> None:
    """Times, speeds and memory stand in the generated parts only."""
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    found = re.findall(r"\d[\d.,]*\s*(?:ms|s|MB|GB/s|TFLOP/s|GFLOP/s|tokens/s|times)\b", prose)
    assert found == []


def test_operations_are_those_of_the_package() -> None:
    rows = {row[0].lower(): row for row in cells(scaling_page.operations())}
    for name in ("small", "base", "large"):
        count = flops.count_training_flops(name)
        assert rows[name][3] == scaling_page.power(count.step)
        assert rows[name][5] == f"{count.generator_share:.0%}"
    assert scaling_page.power(1.294e18) == "1.29 · 10¹⁸"
    assert rows["small"][6] == "1.29 · 10¹⁸"


@pytest.mark.parametrize(
    ("part", "run"),
    [("training_step", "training_step"), ("masked_batch", "masked_batch"), ("grid", "scaling_cpu")],
)
def test_measurements_are_those_of_the_recorded_run(part: str, run: str) -> None:
    text = scaling_page.PARTS[part]()
    recording = recorded.load(f"benchmark_{run}")
    assert f"`{recording['command']}`" in text
    assert recording["hardware"]["processor"] in text
    results = recording["results"]
    if part == "training_step":
        figures = [f for f in results.values() if isinstance(f, dict)]
        expected = [f"{f['times_as_fast']['ours']['median']:.2f}" for f in figures]
        expected += [f"{f['peak_memory_mb']['ours']:,.0f} MB" for f in figures]
    elif part == "masked_batch":
        expected = [f"{value:.2f} ms" for value in results["milliseconds"].values()]
    else:
        points = [p for v in ("size", "sequence_length", "batch_size") for p in results[v]]
        expected = [f"{1e3 * point['seconds']:,.0f} ms" for point in points]
    for number in expected:
        assert number in text


def test_a_roofline_that_was_not_run_says_so() -> None:
    found = scaling_page.rooflines()
    for name, title in scaling_page.ROOFLINES.items():
        rows = [row for row in cells(scaling_page.roofline()) if row[0].startswith(title)]
        if name not in found:
            assert rows == [[title, *[scaling_page.NOT_RUN] * 6]]
            continue
        steps = found[name]["results"]["steps"].values()
        assert [row[3] for row in rows] == [f"{step['seconds']:.3g} s" for step in steps]
        shares = [f"{100 * step['share_of_peak']['median']:.0f} %" for step in steps]
        assert [row[5] for row in rows] == shares


# ---------------------------------------------------------------- the calculator


def line_of_script(name: str) -> str:
    """The expression that the script gives to `name`, which is Python as well."""
    (expression,) = re.findall(rf"const {name} = ([a-z_0-9 ()*/]+);", SCRIPT)
    return expression


@given(
    operations=st.floats(1e9, 1e24),
    peak=st.floats(1e9, 1e16),
    share=st.floats(1e-4, 1.0),
    devices=st.integers(1, 4096),
    price=st.floats(0, 1e3),
)
def test_the_script_computes_what_the_package_computes(
    operations: float, peak: float, share: float, devices: int, price: float
) -> None:
    cost = flops.training_cost(
        operations, peak=peak, share_of_peak=share, devices=devices, price_per_hour=price
    )
    names: dict[str, Any] = {"flops": operations, "peak": peak, "share_of_peak": share}
    names |= {"devices": devices, "price_per_hour": price}
    names["hours"] = eval(line_of_script("hours"), {}, names)
    assert names["hours"] == pytest.approx(cost.hours, rel=1e-12)
    assert eval(line_of_script("price"), {}, names) == pytest.approx(cost.price, rel=1e-12)


def test_the_form_knows_the_package_s_operations() -> None:
    form = BeautifulSoup(scaling_page.calculator(), "html.parser")
    found = form.find(id="calculator-constants")
    assert found is not None
    runs = json.loads(found.get_text())["runs"]
    assert set(runs) == set(flops.PAPER_RUNS)
    for name, run in runs.items():
        count = flops.count_training_flops(name)
        assert (run["step"], run["steps"]) == (count.step, count.steps)


def test_the_form_can_be_used_with_keyboard_and_reader() -> None:
    form = BeautifulSoup(scaling_page.calculator(), "html.parser")
    fields = form.find_all(["input", "select"])
    assert len(fields) == 6
    for field in fields:
        assert form.find("label", attrs={"for": field["id"]}).get_text().strip()  # type: ignore[union-attr]
        assert f'field("{str(field["id"]).removeprefix("calculator-")}")' in SCRIPT or (
            f'"{str(field["id"]).removeprefix("calculator-")}"' in SCRIPT
        )
    assert form.find("output", attrs={"aria-live": "polite"})


def test_the_form_starts_with_the_table_s_inputs() -> None:
    form = BeautifulSoup(scaling_page.calculator(), "html.parser")
    for name, value in scaling_page.START.items():
        assert form.find(id=f"calculator-{name}")["value"] == str(value)  # type: ignore[index]
    rows = cells(scaling_page.costs())
    hours = flops.training_cost(
        flops.count_training_flops("small").run,
        peak=1e12 * scaling_page.START["peak"],
        share_of_peak=scaling_page.START["share"] / 100,
        devices=8,
    ).hours
    assert rows[0][2] == scaling_page.duration(hours)


def test_the_paper_s_days_come_back() -> None:
    (rate,) = re.findall(r"Put ([\d.]+) in as the peak", scaling_page.costs())
    run = flops.count_training_flops("small").run
    cost = flops.training_cost(run, peak=1e12 * float(rate), share_of_peak=1.0)
    assert scaling_page.duration(cost.hours) == "4.0 days"


def test_the_snippet_runs_and_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(snippet, {})
    printed = capsys.readouterr().out
    row = cells(scaling_page.costs())[0]
    assert f"{row[2].removesuffix(' h')} h, price {row[4]}" in printed
