"""The comparison with transformers' Trainer: both sides hand over the model of their best epoch."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from electra_tutorial.tasks import load_task


@pytest.fixture
def trainer(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(root / "experiments"))
    return importlib.import_module("trainer")


@pytest.mark.slow
def test_the_trainer_s_model_is_that_of_its_best_epoch(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, weights = iter([0.5, 0.75, 0.25]), []
    evaluate = trainer.Trainer.evaluate

    def remember(self: Any, *arguments: object, **settings: object) -> dict[str, float]:
        weights.append(self.model.classifier.out_proj.weight.detach().clone())
        found: dict[str, float] = evaluate(self, *arguments, **settings)
        return found

    monkeypatch.setattr(trainer.Trainer, "evaluate", remember)
    monkeypatch.setattr(trainer, "accuracy", lambda *_: next(scores))
    task = load_task("messages", quiet=True)
    few = replace(task, train=task.train.select(range(32)), validation=task.test.select(range(8)))
    model, _, validation = trainer.by_trainer(few, replace(trainer.CONFIG, epochs=3))
    assert validation == 0.75
    assert len(weights) == 3
    assert torch.equal(model.classifier.out_proj.weight, weights[1])
    assert not torch.equal(weights[1], weights[2])
