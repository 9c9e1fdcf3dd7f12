"""The experiments' arms, compute and intervals, without training anything."""

from __future__ import annotations

import importlib
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from electra_tutorial.masking import MaskedBatch

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
NAMES = (
    "objectives",
    "starting_embeddings",
    "discriminator_weight",
    "generator_size",
    "mask_rate",
    "sharing",
)


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    for name in ("sweep", "quality", "language", *NAMES):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("sweep")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["language", "cpu", "gpu"])
def test_every_arm_is_a_run_of_its_own(sweep: Any, tmp_path: Path, name: str, scale: str) -> None:
    experiment = importlib.import_module(name).EXPERIMENT
    assert experiment.name == name
    arms = experiment.arms(sweep.SCALES[scale].base)
    assert experiment.reference in arms
    files = {sweep.run_file(tmp_path, config) for config in arms.values()}
    assert len(files) == len(arms) >= 2


def test_experiments_share_the_base_arm(sweep: Any, tmp_path: Path) -> None:
    base = sweep.SCALES["cpu"].base
    for name in ("objectives", "discriminator_weight", "generator_size", "mask_rate", "sharing"):
        experiment = importlib.import_module(name).EXPERIMENT
        reference = experiment.arms(base)[experiment.reference]
        assert sweep.run_file(tmp_path, reference) == sweep.run_file(tmp_path, base)


@pytest.mark.parametrize("scale", ["language", "cpu", "gpu"])
def test_equal_compute_gives_bert_more_steps(sweep: Any, scale: str) -> None:
    experiment = importlib.import_module("objectives").EXPERIMENT
    chosen = sweep.SCALES[scale]
    arms = sweep.plan(experiment, chosen, chosen.vocab_size)
    costs = {
        name: sweep.count_training_flops(config, vocab_size=chosen.vocab_size).run
        for name, config in arms.items()
    }
    assert arms["electra"] == chosen.base
    assert arms["mlm"].steps > chosen.base.steps > arms["all-tokens-mlm"].steps
    np.testing.assert_allclose(list(costs.values()), costs["electra"], rtol=2e-3)


def test_the_interval_is_students(sweep: Any) -> None:
    values = [0.70, 0.72, 0.71, 0.75, 0.69]
    expected = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    np.testing.assert_allclose(sweep.spread(values)["interval"], expected)
    assert "interval" not in sweep.spread([0.7])


def _made(config: Any, auc: float | None) -> dict[str, Any]:
    point = {"step": 8, "tokens": 80, "flops": 1.0, "tokens_per_second": 40.0, "fixed_auc": auc}
    start = point | {"step": 0, "tokens": 0, "flops": 0.0, "fixed_auc": auc and 0.5}
    return {
        "config": asdict(config),
        "parameters": 5,
        "flops_per_step": {"generator": 1.0, "kept": 2.0},
        "fine_tuning": None,
        "points": [start, point],
    }


def test_arms_are_compared_seed_by_seed(sweep: Any) -> None:
    base = sweep.SCALES["cpu"].base
    runs = {
        "50": [_made(base, 0.6), _made(base, 0.7)],
        "1": [_made(replace(base, discriminator_weight=1.0), auc) for auc in (0.5, 0.65)],
        "mlm": [_made(replace(base, objective="mlm"), None)] * 2,
    }
    results, curves = sweep.analyse(runs, "50", {"cooccurrence_seconds": 4.0})
    difference = results["arms"]["1"]["fixed_auc"]["difference"]
    np.testing.assert_allclose(difference["values"], [-0.1, -0.05])
    assert results["arms"]["1"]["differs"] == {"discriminator_weight": 1.0}
    assert "difference" not in results["arms"]["50"]["fixed_auc"]
    assert "fixed_auc" not in results["arms"]["mlm"]
    assert results["arms"]["50"]["reached"]["0.7"] == [None, {"step": 8, "seconds": 6.0}]
    # the statistics of the text are part of what a start from them costs
    assert curves["50"]["seconds"] == [4.0, 6.0]


def test_a_run_without_labelled_rows_does_not_count_where_they_are_asked(
    sweep: Any, tmp_path: Path
) -> None:
    base = sweep.SCALES["cpu"].base
    path = sweep.run_file(tmp_path, base)
    path.parent.mkdir()
    path.write_text(sweep.json.dumps(_made(base, 0.6)))
    assert sweep.read_run(tmp_path, base, None) is not None
    assert sweep.read_run(tmp_path, base, sweep.SCALES["cpu"].tuning) is None
    assert sweep.read_run(tmp_path, replace(base, seed=1), None) is None


def test_missing_data_is_one_sentence(sweep: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name the text with --text"):
        sweep.prepare(sweep.SCALES["cpu"], tmp_path / "data", None, None)


def test_the_language_is_judged_by_its_own_probabilities(sweep: Any) -> None:
    """The forward-backward algorithm against the sum over all walks, for short texts."""
    language = importlib.import_module("language").Language.draw()
    states, symbols = language.sample(5, 3, seed=1)
    walks = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for text, found in zip(symbols, language.posterior(symbols), strict=True):
        weights = language.start[walks[:, 0]]
        for place in range(3):
            weights = weights * language.emissions[walks[:, place], text[place]]
            if place:
                weights = weights * language.transitions[walks[:, place - 1], walks[:, place]]
        for place in range(3):
            sums = np.bincount(walks[:, place], weights, minlength=16)
            np.testing.assert_allclose(found[place], sums / sums.sum(), atol=1e-12)
    bounds = language.bounds(*language.sample(500, 14, seed=2))
    assert 0.8 < bounds["symbol_alone"] < 0.95 < bounds["ceiling"] < 1


def test_the_language_needs_no_text(sweep: Any, tmp_path: Path) -> None:
    scale = replace(sweep.SCALES["language"], held_out=8, rows=(5, 7))
    facts = sweep.prepare(scale, tmp_path, None, None)
    assert facts["vocabulary"] == scale.vocab_size
    rows = sweep.LabelledRows.open(tmp_path / "labelled.npz", *scale.rows)
    assert rows.train_ids.shape == rows.train_labels.shape == (5, 16)
    assert (rows.test_labels[:, [0, -1]] == sweep.IGNORED).all()
    assert rows.test_labels[:, 1:-1].min() >= 0
    assert sweep.prepare(scale, tmp_path, None, None) == facts


def test_words_that_do_not_fit_their_neighbours_are_found_without_a_network(sweep: Any) -> None:
    words = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])  # 3 is the stranger
    ids = torch.tensor([[0, 1, 2, 3, 1, 0], [0, 1, 1, 2, 1, 0]])
    masked = MaskedBatch(ids, torch.ones_like(ids), ids.masked_fill(ids != 3, -100))
    corruptions = sweep.Corruptions(masked, ids, ids == 3)
    assert sweep.auc_without_network(words, corruptions, [0]) == 1.0
    # Nothing to go by: all vectors are equal.
    assert sweep.auc_without_network(torch.ones(4, 2), corruptions, [0]) == 0.5
