"""The pre-training loop: it learns, it repeats, it resumes bit for bit, it refuses nonsense."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from electra_tutorial.config import PretrainingConfig
from electra_tutorial.corpora import Segments
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.training import (
    evaluate_corruptions,
    evaluate_pretraining,
    fixed_corruptions,
    frequency_corruptions,
    learning_rate_factor,
    mask_segments,
    parameter_groups,
    pretrain,
    rows_of_step,
)

CONFIG = PretrainingConfig(
    size="nano",
    steps=6,
    batch_size=4,
    sequence_length=16,
    learning_rate=1e-3,
    warmup_steps=2,
    discriminator_weight=10.0,
    log_every=2,
    evaluate_every=4,
    save_every=2,
)


@pytest.fixture
def segments(tokenizer) -> Segments:
    """An artificial text: token b follows token a, always."""
    rng = np.random.default_rng(0)
    rows = np.zeros((40, 16), dtype=np.uint16)
    first = rng.integers(5, len(tokenizer), size=(40, 1))
    rows[:] = 5 + (first + np.arange(16)) % (len(tokenizer) - 5)
    rows[:, 0], rows[:, -1] = 2, 3
    return Segments(rows, 0)


def test_a_run_writes_its_log_checkpoints_and_both_halves(segments, tokenizer, tmp_path):
    result = pretrain(CONFIG, segments, tokenizer, tmp_path, held_out=segments.take(slice(0, 8)))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == result.log
    assert [entry["step"] for entry in lines] == [0, 2, 4, 6]
    assert result.finished
    assert {"held_out_auc", "held_out_masked_accuracy", "learning_rate"} <= lines[-1].keys()
    assert lines[-1]["tokens"] == 6 * 4 * 16
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-00000004",
        "checkpoint-00000006",
    ]
    again = ElectraForJointPreTraining.from_halves(tmp_path / "final").eval()
    masked = mask_segments(segments, tokenizer)
    expected = evaluate_pretraining(result.model, masked)
    assert evaluate_pretraining(again, masked) == pytest.approx(expected)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(segments, tokenizer, tmp_path):
    def losses(seed: int) -> list[float]:
        config = replace(CONFIG, seed=seed)
        result = pretrain(config, segments, tokenizer, tmp_path / str(seed), save=False)
        return [entry["loss"] for entry in result.log[1:]]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_an_interrupted_run_continues_bit_for_bit(segments, tokenizer, tmp_path):
    config = replace(CONFIG, dropout=0.1)
    whole = pretrain(config, segments, tokenizer, tmp_path / "whole")

    class Interrupted(Exception):
        pass

    def interrupt(entry):
        if entry["step"] == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        pretrain(config, segments, tokenizer, tmp_path / "cut", callback=interrupt)
    resumed = pretrain(config, segments, tokenizer, tmp_path / "cut", resume=True)

    def without_clock(log):
        return [{k: v for k, v in entry.items() if k != "seconds"} for entry in log]

    assert without_clock(resumed.log) == without_clock(whole.log)
    for (name, a), b in zip(
        whole.model.named_parameters(), resumed.model.parameters(), strict=True
    ):
        assert torch.equal(a, b), name


def test_time_limit_stops_early_and_resumes(segments, tokenizer, tmp_path):
    stopped = pretrain(CONFIG, segments, tokenizer, tmp_path, max_seconds=1e-9)
    assert not stopped.finished
    assert list(tmp_path.glob("checkpoint-*"))
    assert pretrain(CONFIG, segments, tokenizer, tmp_path, resume=True).finished


def test_gradient_accumulation_gives_the_same_discriminator_labels_shape(
    segments, tokenizer, tmp_path
):
    config = replace(CONFIG, gradient_accumulation=2)
    result = pretrain(config, segments, tokenizer, tmp_path, save=False)
    assert result.log[-1]["loss"] < result.log[1]["loss"] * 1.2


@pytest.mark.slow
def test_a_generator_learns_a_regular_text(segments, tokenizer, tmp_path):
    config = replace(
        CONFIG,
        steps=300,
        batch_size=16,
        warmup_steps=20,
        evaluate_every=300,
        log_every=300,
        dropout=0.0,
        positions="sinusoid",
        initializer_range=0.1,
    )
    result = pretrain(
        config, segments, tokenizer, tmp_path, held_out=segments.take(slice(0, 16)), save=False
    )
    assert (
        result.log[-1]["held_out_generator_loss"] < 0.8 * result.log[0]["held_out_generator_loss"]
    )


def test_fixed_corruptions_compare_models(segments, tokenizer):
    torch.manual_seed(0)
    first = ElectraForJointPreTraining.from_size("nano", vocab_size=len(tokenizer))
    second = ElectraForJointPreTraining.from_size("nano", vocab_size=len(tokenizer))
    corruptions = fixed_corruptions(first, segments, tokenizer)
    original = corruptions.masked.original_ids
    assert torch.equal(corruptions.is_replaced, corruptions.corrupted_ids != original)
    a, b = (evaluate_corruptions(model, corruptions) for model in (first, second))
    assert a["base_rate"] == b["base_rate"] > 0.05
    assert a["auc"] != b["auc"]


def test_frequency_corruptions_follow_the_counts_and_are_judged_during_a_run(
    segments, tokenizer, tmp_path
):
    rows = np.full((50, 16), 7, dtype=np.uint16)
    rows[:, :4] = 9  # three quarters 7, one quarter 9
    text = Segments(rows, 0)
    masked = mask_segments(segments, tokenizer, 0.5)
    corruptions = frequency_corruptions(masked, text, tokenizer)
    drawn = corruptions.corrupted_ids[masked.chosen]
    assert set(drawn.tolist()) == {7, 9}
    assert (drawn == 7).float().mean().item() == pytest.approx(0.75, abs=0.1)
    result = pretrain(CONFIG, segments, tokenizer, tmp_path, corruptions=corruptions, save=False)
    assert 0 <= result.log[-1]["fixed_auc"] <= 1


@given(st.integers(1, 30), st.integers(1, 50), st.integers(0, 5))
def test_every_epoch_visits_every_segment_once(batch_size, num_segments, seed):
    rows = np.concatenate(
        [
            rows_of_step(step, batch_size, num_segments, seed)
            for step in range(-(-2 * num_segments // batch_size))
        ]
    )
    for epoch in range(2):
        visited = rows[epoch * num_segments : (epoch + 1) * num_segments]
        assert sorted(visited) == list(range(num_segments))


def test_schedule_multiplies_warmup_and_decay():
    factors = [learning_rate_factor(step, 10, 4) for step in range(11)]
    assert factors[0] == pytest.approx(0.25)
    assert factors[3] == pytest.approx(0.7)
    assert factors[10] == 0
    assert learning_rate_factor(0, 10, 0) == 1


def test_biases_and_layer_norms_do_not_decay():
    model = ElectraForJointPreTraining.from_size("nano")
    decayed, exempt = parameter_groups(model, 0.01)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.01, 0.0)
    assert all(p.dim() == 2 for p in decayed["params"])
    assert all(p.dim() == 1 for p in exempt["params"])
    total = sum(1 for _ in model.parameters())
    assert len(decayed["params"]) + len(exempt["params"]) == total


def test_errors(segments, tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        pretrain(CONFIG, segments, tokenizer, tmp_path, resume=True)
    wrong = Segments(np.full((4, 16), 999, dtype=np.uint16), 0)
    with pytest.raises(ValueError, match="hold token 999"):
        pretrain(CONFIG, wrong, tokenizer, tmp_path)
    other = ElectraForJointPreTraining.from_size("nano", vocab_size=len(tokenizer) + 1)
    with pytest.raises(ValueError, match="the tokenizer that the model was trained with"):
        pretrain(CONFIG, segments, tokenizer, tmp_path, model=other)
    pretrain(replace(CONFIG, steps=2), segments, tokenizer, tmp_path)
    with pytest.raises(ValueError, match="another steps"):
        pretrain(replace(CONFIG, steps=3), segments, tokenizer, tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(segments, tokenizer, tmp_path):
    model = ElectraForJointPreTraining.from_size("nano", vocab_size=len(tokenizer))
    with torch.no_grad():
        model.discriminator.discriminator_predictions.dense_prediction.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite near step 2"):
        pretrain(CONFIG, segments, tokenizer, tmp_path, model=model)
    assert not list(tmp_path.glob("checkpoint-*"))
