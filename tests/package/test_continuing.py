"""A run that starts from a model records what the model has, and changes what it can."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from electra_tutorial.config import CUSTOM, ElectraSize, PretrainingConfig
from electra_tutorial.continuing import (
    dropout_of,
    generator_fraction,
    set_dropout,
    settings_for,
    size_name,
)
from electra_tutorial.corpora import build_segments
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.objectives import get_objective, second_stage
from electra_tutorial.training import model_of_checkpoint, pretrain

CONFIG = PretrainingConfig(steps=1, batch_size=2, sequence_length=16, warmup_steps=0)
TINY = ElectraSize("tiny", 2, 32, 2, 128, 16, 100, 24, generator_fraction=1 / 2)


def nano(objective: str = "electra", **settings) -> ElectraForJointPreTraining:
    torch.manual_seed(0)
    return get_objective(objective).from_size("nano", vocab_size=100, **settings)


def rates(half: nn.Module) -> set[float]:
    return {layer.p for layer in half.modules() if isinstance(layer, nn.Dropout)}


def test_what_was_not_chosen_is_what_the_model_has():
    model = nano(
        sharing="none",
        generator_fraction=0.5,
        discriminator_weight=7.0,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.2,
        initializer_range=0.05,
    )
    assert settings_for(model, CONFIG) == replace(
        CONFIG,
        size="nano",
        sharing="none",
        generator_fraction=0.5,
        discriminator_weight=7.0,
        dropout=0.2,
        initializer_range=0.05,
    )
    assert settings_for(nano("mlm"), CONFIG).objective == "mlm"
    assert settings_for(nano(), CONFIG).generator_fraction is None  # the size's own


def test_settings_that_fit_the_model_are_left_as_they_are():
    config = replace(CONFIG, size="nano", generator_fraction=0.25)
    assert settings_for(nano(), config) == config
    again = settings_for(nano(sharing="none"), CONFIG)
    assert settings_for(nano(sharing="none"), again) == again


def test_a_shape_without_a_name_is_recorded_as_custom():
    model = ElectraForJointPreTraining.from_size(TINY)
    assert (size_name(model), generator_fraction(model)) == (CUSTOM, 0.5)
    found = settings_for(model, CONFIG)
    assert (found.size, found.generator_fraction) == (CUSTOM, 0.5)
    with pytest.raises(ValueError, match="has size 'custom', and 'mini' is asked for"):
        settings_for(model, replace(CONFIG, size="mini"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sharing": "none"}, "has sharing 'embeddings', and 'none' is asked for"),
        ({"size": "mini"}, "has size 'nano', and 'mini' is asked for: leave size out"),
        ({"generator_fraction": 0.5}, r"generator_fraction 0\.25 \(32 of 128 units\), and 0\.5"),
        ({"objective": "electra-15"}, "has objective 'electra', and 'electra-15' is asked for"),
        ({"initializer_range": 0.1}, r"has initializer_range 0\.02"),
        ({"sequence_length": 65}, "longer than the 64 positions of the model"),
    ],
)
def test_what_contradicts_the_model_is_refused(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        settings_for(nano(), replace(CONFIG, **changes))
    assert "\n" not in str(refused.value)


def test_a_default_that_was_chosen_is_a_choice():
    model = nano(sharing="none", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    with pytest.raises(ValueError, match="has sharing 'none', and 'embeddings' is asked for"):
        settings_for(model, CONFIG, ["sharing"])
    assert settings_for(model, CONFIG).dropout == 0
    assert settings_for(model, CONFIG, ["dropout"]).dropout == CONFIG.dropout == 0.1
    assert rates(model.discriminator) == rates(model.generator) == {0.1}


def test_dropout_and_the_weight_of_the_loss_are_set_in_the_model(tokenizer, tmp_path):
    model = nano()
    settings_for(model, replace(CONFIG, dropout=0.3, discriminator_weight=20.0))
    assert model.config.discriminator_weight == 20
    assert rates(model.discriminator) == rates(model.generator) == {0.3}
    model.save_halves(tmp_path / "run", tokenizer)
    again = ElectraForJointPreTraining.from_halves(tmp_path / "run")
    assert dropout_of(again) == 0.3
    assert rates(again.discriminator) == {0.3}
    assert rates(again.generator) == {0.3}


def test_dropout_is_felt_in_training():
    model = nano().train()
    ids = torch.arange(5, 20)[None]
    set_dropout(model, 0.0)
    assert torch.equal(model.discriminator(ids).logits, model.discriminator(ids).logits)
    set_dropout(model, 0.5)
    assert not torch.equal(model.discriminator(ids).logits, model.discriminator(ids).logits)


def test_several_dropouts_must_become_one():
    model = nano(hidden_dropout_prob=0.2)  # and 0.1 in the attention
    with pytest.raises(ValueError, match=r"several dropout probabilities \(0\.1, 0\.2\)"):
        settings_for(model, CONFIG)
    assert settings_for(model, replace(CONFIG, dropout=0.3)).dropout == 0.3


def test_a_frozen_generator_has_no_say_in_dropout():
    second = second_stage(nano("mlm", hidden_dropout_prob=0.1).discriminator)
    second.config.generator["hidden_dropout_prob"] = 0.4
    found = settings_for(second, CONFIG)
    assert (found.dropout, found.sharing, found.generator_fraction) == (0.1, "none", 1.0)


def test_a_run_records_the_model_and_its_checkpoint_builds_it_again(corpus, tokenizer, tmp_path):
    segments = build_segments(corpus, tokenizer, 16)
    first = ElectraForJointPreTraining.from_size(TINY, len(tokenizer), sharing="none")
    first.freeze_generator()
    result = pretrain(replace(CONFIG, dropout=0.0), segments, tokenizer, tmp_path, model=first)
    folder = tmp_path / "checkpoint-00000001"
    recorded = json.loads((folder / "state.json").read_text())["config"]
    assert recorded["size"] == CUSTOM
    assert (recorded["sharing"], recorded["generator_fraction"]) == ("none", 0.5)
    assert (recorded["dropout"], dropout_of(result.model)) == (0, 0)
    again = model_of_checkpoint(folder)
    assert again.config.frozen_generator
    assert not any(p.requires_grad for p in again.generator.parameters())
    expected = dict(result.model.named_parameters())
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, expected[name]), name
    # and the settings of the run that it came from fit it
    assert settings_for(again, PretrainingConfig(**recorded)) == PretrainingConfig(**recorded)
