"""Pre-training in processes of its own: killed, asked to stop, and two of them together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from electra_tutorial.cli import main
from electra_tutorial.cli_pretraining import LAUNCHING
from electra_tutorial.run_log import CLOCK_FIELDS

pytestmark = pytest.mark.slow

RUN = """
import json, sys, time
sys.modules["datasets"] = None  # pre-training does without this package
from dataclasses import replace
from pathlib import Path
import numpy as np
import torch
from electra_tutorial import resuming, training
from electra_tutorial.config import PretrainingConfig
from electra_tutorial.corpora import Segments
from electra_tutorial.tokenization import train_wordpiece

folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
rows = np.random.default_rng(0).integers(5, 40, size=(50, 16)).astype(np.uint16)
rows[:, 0] = 2
for row, length in enumerate(np.random.default_rng(1).integers(5, 17, size=50)):
    rows[row, length - 1], rows[row, length:] = 3, 0
tokenizer = train_wordpiece(["the ferry left the harbour before dawn and came back late"], 60)
config = PretrainingConfig(
    size="nano", steps=8, batch_size=7, sequence_length=16, learning_rate=1e-3, warmup_steps=2,
    log_every=3, evaluate_every=4, save_every=2,
)
config = replace(config, **options.get("config", {}))
marker = folder.parent / (folder.name + ".marker")

def pause(*_):
    marker.touch()
    time.sleep(600)

def callback(entry):
    if entry["step"] == options.get("pause_at"):
        pause()
    if entry["step"] == options.get("wait_at"):
        marker.touch()
        time.sleep(5)

if "pause_in_save" in options:  # of this step, after the first file
    save_file = resuming.save_file
    def stop_between(tensors, path):
        save_file(tensors, path)
        if f"-{options['pause_in_save']:08d}" in str(path):
            pause()
    resuming.save_file = stop_between

if "gradients" in options:
    clip = torch.nn.utils.clip_grad_norm_
    def keep(parameters, norm):
        parameters = list(parameters)
        if training.PartialState().is_main_process:
            torch.save([p.grad.clone() for p in parameters], options["gradients"])
        return clip(parameters, norm)
    torch.nn.utils.clip_grad_norm_ = keep

segments = Segments(rows, 0, packing="official", sep_id=3)
result = training.pretrain(
    config, segments, tokenizer, folder, held_out=segments.take(slice(0, 8)),
    resume=options.get("resume", False), callback=callback, save=options.get("save", True),
)
sys.stdout.write(f"stopped by {result.stopped_by}\\n")  # whole, where two processes write at once
training.PartialState().destroy_process_group()
"""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def start(folder: Path, processes: int = 1, **options: object) -> subprocess.Popen[str]:
    """Start a run in one process, or in several by torchrun."""
    script = folder.parent / "run.py"
    script.write_text(RUN)
    command = [sys.executable]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command += [*launcher, "--master-port", str(20_000 + os.getpid() % 20_000)]
    return subprocess.Popen(
        [*command, str(script), str(folder), json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def log(folder: Path) -> list[dict[str, object]]:
    entries = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in entry.items() if k not in CLOCK_FIELDS} for entry in entries]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint-00000008" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(start(folder))
    return folder


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("two") / "run"
    finish(start(folder, processes=2))
    return folder


def same_run(folder: Path, whole: Path) -> bool:
    ours, theirs = weights(folder), weights(whole)
    return log(folder) == log(whole) and all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("options", "left"), [({"pause_at": 6}, "04"), ({"pause_in_save": 6}, "04")]
)
def test_a_killed_run_goes_on_bit_for_bit(whole, tmp_path, options, left):
    folder = tmp_path / "run"
    process = start(folder, **options)
    wait_for(tmp_path / "run.marker", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert max(p.name for p in folder.glob("checkpoint-*")) == f"checkpoint-000000{left}"
    assert len(list(folder.glob(".checkpoint-*.partial"))) == ("pause_in_save" in options)
    assert log(folder)[-1]["step"] == 6
    finish(start(folder, resume=True))
    assert same_run(folder, whole)
    assert not list(folder.glob(".checkpoint-*"))


def test_sigterm_from_outside_saves_and_ends_the_process(whole, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, wait_at=3)
    wait_for(tmp_path / "run.marker", process)
    process.terminate()
    assert "stopped by SIGTERM" in finish(process)
    assert (folder / "checkpoint-00000003").is_dir()
    assert not (folder / "final").exists()
    finish(start(folder, resume=True))
    assert same_run(folder, whole)


def test_two_processes_compute_the_gradient_of_one(tmp_path):
    """Seven rows of 5 to 16 tokens, so that neither rows nor counts divide evenly."""
    gradients, logs = [], []
    for processes, accumulation in ((1, 1), (2, 1), (2, 3)):
        folder = tmp_path / f"{processes}-{accumulation}"
        file = tmp_path / f"{folder.name}.pt"
        config = {"steps": 1, "dropout": 0.0, "gradient_accumulation": accumulation}
        finish(start(folder, processes, gradients=str(file), config=config, save=False))
        gradients.append(torch.load(file, weights_only=True))
        logs.append(log(folder))
    for one, *others in zip(*gradients, strict=True):
        for two in others:
            torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)
    for one, *others in zip(*logs, strict=True):
        for two in others:
            assert two == pytest.approx(one, rel=1e-5, abs=1e-6)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the processes in /proc")
def test_two_processes_go_on_bit_for_bit_after_a_signal_to_one_of_them(whole_of_two, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, processes=2, wait_at=3)
    wait_for(tmp_path / "run.marker", process)
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    workers = [int(pid) for pid in Path(children).read_text().split()]
    workers = [pid for pid in workers if b"run.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGTERM)
    assert finish(process).count("stopped by SIGTERM") == 2
    assert max(p.name for p in folder.glob("checkpoint-*")) in (
        "checkpoint-00000004",
        "checkpoint-00000005",
    )
    finish(start(folder, processes=2, resume=True))
    assert same_run(folder, whole_of_two)


def test_one_process_goes_on_where_two_were(whole_of_two, tmp_path):
    """Not bit for bit, for sums are taken in another order; without dropout it is the same run."""
    config = {"dropout": 0.0, "keep_checkpoints": 9}
    folder = tmp_path / "run"
    finish(start(folder, processes=2, config=config))
    two = log(folder)
    for step in (6, 8):
        (folder / f"checkpoint-0000000{step}").rename(tmp_path / str(step))
    finish(start(folder, resume=True, config=config))
    for a, b in zip(two, log(folder), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)


def test_the_documented_line_starts_two_processes_that_train_one_model(tmp_path, monkeypatch):
    """``accelerate launch --multi_gpu`` starts them without a GPU too; ``--cpu`` starts one."""
    documents = [f"Ferry {n} left at dawn.\nIts {n} lamps burned in the fog." for n in range(30)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    monkeypatch.setenv("ELECTRA_TUTORIAL_CACHE", str(tmp_path / "cache"))
    settings = {"size": "nano", "steps": 3, "batch-size": 7, "sequence-length": 16, "dropout": 0}
    settings |= {"log-every": 3, "evaluate-every": 3, "save-every": 2, "held-out": 0.2}

    def line(name: str) -> list[str]:
        options = [f"--{option}={value}" for option, value in settings.items()]
        files = ["--corpus", str(tmp_path / "text.txt"), "--output", str(tmp_path / name)]
        return ["pretrain", *files, *options]

    (documented,) = (row for row in LAUNCHING.splitlines() if "--num_processes 8" in row)
    launch = documented.replace("--num_processes 8", "--num_processes 2").split(" pretrain")[0]
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *launch.split()[1:]]
    command[4:4] = ["--main_process_port", "0"]  # any free one: other tests may hold the default
    environment = ENVIRONMENT | {"ELECTRA_TUTORIAL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, *line("two")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("The two halves are in") == 1
    state = json.loads((tmp_path / "two" / "checkpoint-00000002" / "state.json").read_text())
    assert len(state["sums"]["rows"]) == 2  # one for each process

    assert main(line("one")) == 0
    for two, one in zip(log(tmp_path / "two"), log(tmp_path / "one"), strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-5)
