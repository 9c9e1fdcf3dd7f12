"""Fine-tuning in two processes on the CPU: the run of one, by its losses, scores and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

WORDS = ["good", "great", "bad", "poor", "film", "play", "the", "was", "very"]
# 49 rows to train on: each epoch has a last batch of one row, which leaves nothing to the second.
ROWS = [
    (f"{'the ' * (i // 8)}{'very ' * (i % 3)}{('bad', 'good', 'poor', 'great')[i % 4]}", i % 2)
    for i in range(54)
]
SETTINGS = "--learning-rate 3e-3 --epochs 3 --batch-size 8 --max-length 16 --dropout 0"


@pytest.fixture(scope="module")
def line(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """A command that lacks its output."""
    folder = tmp_path_factory.mktemp("start")
    checkpoint = make_checkpoint(folder / "toy", WORDS, initializer_range=0.1)
    path = folder / "my.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    return [*f"finetune --train {path} --checkpoint {checkpoint}".split(), *SETTINGS.split()]


# The command, but evaluating for the second time fails.
STOPPED = """
import sys
from electra_tutorial import cli, finetuning
evaluate, calls = finetuning.evaluate, []
def stop(*arguments, **settings):
    calls.append(1)
    if len(calls) == 2:
        raise OSError("stopped on purpose")
    return evaluate(*arguments, **settings)
finetuning.evaluate = stop
sys.exit(cli.main(sys.argv[1:]))
"""


def run(
    line: list[str], processes: int, program: Sequence[str] = ("-m", "electra_tutorial.cli")
) -> subprocess.CompletedProcess[str]:
    launcher: list[str] = []
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        launcher += ["--master-port", str(20_000 + os.getpid() % 20_000)]
    return subprocess.run(
        [sys.executable, *launcher, *program, *line],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )


def history(folder: Path) -> list[dict[str, Any]]:
    rows = json.loads((folder / "fine_tuning.json").read_text())["history"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_two_processes_make_the_run_of_one(line: list[str], tmp_path: Path) -> None:
    said = {}
    for processes in (1, 2):
        done = run([*line, "--output", str(tmp_path / str(processes))], processes)
        assert done.returncode == 0, done.stderr
        said[processes] = done.stdout.splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    one, two = (history(tmp_path / name) for name in "12")
    assert len(one) == 3
    for row, other in zip(one, two, strict=True):
        assert other == pytest.approx(row, rel=1e-4, abs=1e-5)
    assert len(said[2]) == len(said[1])  # the second process says nothing
    assert said[1][0].startswith("my: 49 train, 5 validation")
    assert said[2][:2] == said[1][:2]


def test_a_run_of_two_processes_goes_on_bit_for_bit(line: list[str], tmp_path: Path) -> None:
    """With dropout, of which each process has its own."""
    stopped = tmp_path / "stopped.py"
    stopped.write_text(STOPPED)
    whole = [*line, "--dropout", "0.1", "--output", str(tmp_path / "whole")]
    cut = [*line, "--dropout", "0.1", "--output", str(tmp_path / "cut")]
    assert run(whole, 2).returncode == 0
    done = run(cut, 2, [str(stopped)])
    assert "stopped on purpose" in done.stderr
    assert (tmp_path / "cut.epochs").is_dir()
    done = run([*cut, "--resume"], 2)
    assert done.returncode == 0, done.stderr
    assert history(tmp_path / "cut") == history(tmp_path / "whole")
