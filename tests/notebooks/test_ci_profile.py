"""Every notebook runs from top to bottom in the ci profile; its own assertions speak."""

from __future__ import annotations

from pathlib import Path

import gates
import pytest

from electra_tutorial import runner

NOTEBOOKS = gates.ROOT / "notebooks"


@pytest.mark.slow
@pytest.mark.parametrize("name", runner.chapter_names(NOTEBOOKS))
def test_notebook_runs(name: str, tmp_path: Path) -> None:
    report = runner.run_notebooks(
        [name], "ci", tmp_path, notebooks=NOTEBOOKS, timeout=300, say=lambda _: None
    )
    (run,) = report.runs
    assert run.error is None, f"{name}: {run.error}"
    assert run.peak_memory_mb <= gates.MOST_MEMORY_MB
