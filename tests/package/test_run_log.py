"""The figures of training batches against scikit-learn; the log's lines; trackers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn import metrics

from electra_tutorial import run_log
from electra_tutorial.modeling import JointPreTrainingOutput
from electra_tutorial.run_log import Meter, RunLog, Sums, check_trackers, memory_figures, read_log

CPU = torch.device("cpu")


def an_output(seed: int, loss: float = 1.0) -> tuple[JointPreTrainingOutput, dict]:
    """What a model might return for 4 rows of 10 tokens, the last three of them padding."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.full((4, 10), -100)
    labels[:, 2:5] = torch.randint(0, 7, (4, 3), generator=rng)
    mask = torch.ones(4, 10)
    mask[:, 7:] = 0
    part = {"labels": labels, "attention_mask": mask}
    part["chosen_positions"] = (labels != -100).flatten().nonzero().squeeze(1)
    return JointPreTrainingOutput(
        loss=torch.tensor(loss),
        generator_loss=torch.tensor(loss / 2),
        discriminator_loss=torch.tensor(loss / 4),
        generator_logits=torch.randn(12, 7, generator=rng),
        discriminator_logits=torch.randn(4, 10, generator=rng),
        is_replaced=torch.rand(4, 10, generator=rng) < 0.4,
    ), part


def test_figures_are_those_of_scikit_learn():
    meter, verdicts, truths, hits = Meter(CPU), [], [], []
    for seed in range(4):  # two steps of two micro-batches
        output, part = an_output(seed, loss=seed + 1.0)
        meter.add(output, part)
        if seed % 2:
            meter.end_step(seed // 2 + 1, torch.tensor(1.0))
        real = part["attention_mask"].bool()
        verdicts.append((output.discriminator_logits > 0)[real])
        truths.append(output.is_replaced[real])
        targets = part["labels"][part["labels"] != -100]
        hits.append(output.generator_logits.argmax(-1) == targets)
    called, replaced = torch.cat(verdicts), torch.cat(truths)
    sums = meter.read(lambda rows: rows)
    assert sums.first_bad == math.inf
    assert sums.figures() == pytest.approx(
        {
            "loss": (1 + 2 + 3 + 4) / 2,
            "generator_loss": 10 / 4,
            "discriminator_loss": 10 / 8,
            "masked_accuracy": torch.cat(hits).double().mean().item(),
            "precision": metrics.precision_score(replaced, called),
            "recall": metrics.recall_score(replaced, called),
            "base_rate": replaced.double().mean().item(),
        }
    )
    assert meter.restart() == Sums()
    assert meter.read(lambda rows: rows).rows == [[0.0] * 9]


def test_without_a_mask_every_token_is_real():
    figures = []
    for given in (True, False):
        output, part = an_output(0)
        part["attention_mask"] = torch.ones(4, 10)
        if not given:
            del part["attention_mask"]
        meter = Meter(CPU)
        meter.add(output, part)
        meter.end_step(1, None)
        figures.append(meter.read(lambda rows: rows).figures())
    assert figures[0] == figures[1]


def test_an_objective_without_generator_has_no_verdicts():
    meter = Meter(CPU)
    output, part = an_output(0)
    output.discriminator_logits, output.generator_logits = output.generator_logits, None
    meter.add(output, part)
    meter.end_step(1, None)
    figures = meter.read(lambda rows: rows).figures()
    assert "precision" not in figures
    assert 0 <= figures["masked_accuracy"] <= 1


@pytest.mark.parametrize(
    ("losses", "norms", "first"),
    [
        ((1.0, math.nan, 1.0), (1.0, 1.0, 1.0), 2),
        ((1.0, 1.0, math.inf), (1.0, 1.0, 1.0), 3),
        ((1.0, 1.0, 1.0), (math.inf, math.nan, 1.0), 1),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), math.inf),
    ],
)
def test_the_first_step_that_was_not_finite_is_kept(losses, norms, first):
    meter = Meter(CPU)
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1):
        meter.add(*an_output(0, loss))
        meter.end_step(step, torch.tensor(norm))
        if step == 2:
            meter.restart()  # a new window does not forget
    assert meter.read(lambda rows: rows).first_bad == first


def test_sums_go_on_from_a_checkpoint_with_as_many_processes_or_others():
    rows = [[float(i) for i in range(9)], [10.0] * 9]
    for process in range(2):
        meter = Meter(CPU)
        meter.load(Sums(3, rows), process, 2)
        assert (meter.steps, meter.sums.tolist()) == (3, rows[process])
    alone, third = Meter(CPU), Meter(CPU)
    alone.load(Sums(3, rows), 0, 1)
    third.load(Sums(3, rows), 2, 3)
    assert alone.sums.tolist() == [10.0 + i for i in range(9)]
    assert third.sums.tolist() == [0.0] * 9


def test_the_log_keeps_eight_digits_and_writes_null_for_what_is_no_number(tmp_path):
    seen = []
    log = RunLog(tmp_path, [], 64, callbacks=[seen.append])
    log.record(3, {"loss": 1 / 3, "learning_rate": 1e-9 / 3, "auc": math.nan})
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line) == log.entries[0] == seen[0]
    entry = seen[0] | {"seconds": 0}
    assert entry == {
        "step": 3,
        "tokens": 192,
        "seconds": 0,
        "loss": 0.33333333,
        "learning_rate": 3.3333333e-10,
        "auc": None,
    }


def test_a_log_is_read_up_to_a_step_and_a_torn_line_is_left_out(tmp_path):
    assert read_log(tmp_path, 5) == []
    log = RunLog(tmp_path, [], 1)
    for step in (0, 2, 4):
        log.record(step, {"loss": 1.0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    assert [entry["step"] for entry in read_log(tmp_path, 9)] == [0, 2, 4]
    again = RunLog(tmp_path, read_log(tmp_path, 2), 1, earlier=100.0)
    again.record(4, {"loss": 2.0})
    assert [entry["step"] for entry in read_log(tmp_path, 9)] == [0, 2, 4]
    assert again.entries[-1]["seconds"] >= 100


def test_only_the_first_process_writes(tmp_path):
    log = RunLog(tmp_path, [], 1, writes=False, callbacks=[lambda entry: pytest.fail("called")])
    log.record(1, {"loss": 1.0})
    assert len(log.entries) == 1
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    log = RunLog(tmp_path, [], 1)
    monkeypatch.setattr(
        run_log.json, "dumps", lambda _: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(OSError, match="log entry of step 7 could not be written .*No space left"):
        log.record(7, {"loss": 1.0})


def test_memory_is_that_of_the_process():
    memory = memory_figures(CPU)["memory_mb"]
    assert 50 < memory < 100_000
    block = np.ones(40_000_000)  # 320 MB, touched
    assert memory_figures(CPU)["memory_mb"] >= memory
    assert block[0] == 1


def test_unknown_and_absent_trackers_are_refused(monkeypatch):
    check_trackers([])
    with pytest.raises(
        ValueError, match="unknown tracker 'tensorbord': choose one of .*tensorboard"
    ):
        check_trackers(["tensorbord"])
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(ModuleNotFoundError, match="'pip install tensorboard', or train without"):
        check_trackers(["tensorboard"])
