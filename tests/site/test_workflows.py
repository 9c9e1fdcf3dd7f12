"""Workflows, .ci/run and the documentation call make targets that exist, and no other command."""

from __future__ import annotations

import os
import re
from pathlib import Path

import gates
import pytest
import yaml

ROOT = gates.ROOT
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert phony
    return set(phony.group(1).replace("\\", " ").split())


def test_every_target_has_a_rule() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in targets():
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_help_lists_what_contributing_explains() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    helped = set(re.findall(r'@echo "make ([\w-]+)', makefile))
    assert helped <= targets()
    # The steps stand twice: as make targets, and as plain commands for Windows.
    with_make, without = contributing.split("### On Windows, or without make")
    for text, left_out in ((with_make, set()), (without, {"venv"})):
        explained = set(re.findall(r"^\| `make ([\w-]+)", text, re.MULTILINE))
        assert explained <= targets()
        assert helped - explained == left_out
    assert targets() - helped <= {"help", "nbval-copies", "nbval-note"}


def test_there_are_three_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "colab", "pages"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_that_exist(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    called = []
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
        for step in job["steps"]:
            if "uses" in step:
                assert re.search(r"@v\d+$", step["uses"]), step["uses"]
            called += re.findall(r"\bmake ((?:[A-Z]+=\S+ )*)([\w-]+)", step.get("run", ""))
    assert called
    for _, target in called:
        assert target in targets(), target
    assert workflow["permissions"], "what a workflow may do is stated"


def test_ci_run_calls_make_test() -> None:
    path = ROOT / ".ci" / "run"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert text.rstrip().splitlines()[-1] == "make test"
    if os.name == "posix":
        assert os.access(path, os.X_OK)


def test_contributing_says_which_workflow_never_ran() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in WORKFLOWS:
        assert f"`{path.name}`" in text
    assert "has ever run" in text
