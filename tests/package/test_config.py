"""Sizes and settings: the paper's numbers, and what is refused."""

from __future__ import annotations

import pytest

from electra_tutorial.config import SIZES, FineTuningConfig, PretrainingConfig, get_size


@pytest.mark.parametrize(
    ("size", "hidden", "feed_forward", "heads"),
    [("small", 64, 256, 1), ("base", 256, 1024, 4), ("large", 256, 1024, 4)],
)
def test_generators_have_the_papers_shapes(size, hidden, feed_forward, heads):
    generator = get_size(size).generator()
    assert (generator.hidden_size, generator.intermediate_size) == (hidden, feed_forward)
    assert generator.num_attention_heads == heads
    assert generator.num_hidden_layers == SIZES[size].num_hidden_layers
    assert generator.embedding_size == SIZES[size].embedding_size


def test_defaults_are_small_of_table_6_and_7():
    pre, fine = PretrainingConfig(), FineTuningConfig()
    assert (pre.steps, pre.batch_size, pre.sequence_length) == (1_000_000, 128, 128)
    assert (pre.learning_rate, pre.warmup_steps, pre.discriminator_weight) == (5e-4, 10_000, 50)
    assert (fine.learning_rate, fine.layerwise_decay, fine.batch_size) == (3e-4, 0.8, 32)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"size": "huge"}, ValueError, "unknown size 'huge'"),
        ({"steps": 0}, ValueError, "steps must lie between"),
        ({"mask_probability": 1.5}, ValueError, "mask_probability must lie between 0 and 1"),
        ({"steps": "many"}, TypeError, "steps must be of type int, not str"),
        ({"steps": True}, TypeError, "steps must be of type int, not bool"),
        ({"precision": "fp8"}, ValueError, "precision must be one of fp32, bf16, fp16"),
        ({"masking": "official"}, ValueError, "masking must be one of exact, with-replacement, c"),
        ({"embeddings": "word2vec"}, ValueError, "embeddings must be one of"),
        ({"size": "nano", "sequence_length": 65}, ValueError, "longer than the 64 positions"),
    ],
)
def test_pretraining_settings_are_checked(settings, error, words):
    with pytest.raises(error, match=words):
        PretrainingConfig(**settings)


def test_finetuning_settings_are_checked():
    with pytest.raises(ValueError, match="layerwise_decay must lie between 0 and 1"):
        FineTuningConfig(layerwise_decay=1.2)
    with pytest.raises(TypeError, match="epochs must be of type int"):
        FineTuningConfig(epochs=2.5)


@pytest.mark.parametrize(("rows", "epochs"), [(1, 20), (80, 20), (317, 5), (400, 4), (9000, 3)])
def test_a_small_set_gets_a_hundred_steps_in_three_to_twenty_epochs(rows, epochs):
    config = FineTuningConfig.small_set(rows)
    assert config.epochs == epochs
    assert (config.learning_rate, config.layerwise_decay, config.dropout) == (5e-4, 1.0, 0.0)
    assert config.max_length == FineTuningConfig().max_length


def test_settings_of_a_small_set_can_be_changed():
    assert FineTuningConfig.small_set(317, epochs=2, seed=3).epochs == 2
    assert FineTuningConfig.small_set(317, batch_size=32).epochs == 10
    with pytest.raises(ValueError, match="batch_size must lie between 1"):
        FineTuningConfig.small_set(317, batch_size=0)
    with pytest.raises(ValueError, match="at least one row to train on, not 0"):
        FineTuningConfig.small_set(0)
