"""A joint model as two folders: the Auto classes open them, and they join again."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
)

from electra_tutorial.config import ElectraSize
from electra_tutorial.modeling import ElectraForJointPreTraining

TINY = ElectraSize("tiny", 2, 32, 2, 128, 16, 100, 24, generator_fraction=1 / 2)
IDS = torch.arange(60).view(3, 20)


def tiny(**settings) -> ElectraForJointPreTraining:
    torch.manual_seed(0)
    return ElectraForJointPreTraining.from_size(TINY, initializer_range=0.3, **settings).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_plain_load_of_either_half_is_float32(tokenizer, tmp_path, dtype):
    model = tiny()
    model.save_halves(tmp_path / "run", tokenizer, dtype)
    for name in ("discriminator", "generator"):
        stored = load_file(tmp_path / "run" / name / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {dtype}
        assert "generator_lm_head.weight" not in stored  # the word embeddings, stored once
        config = json.loads((tmp_path / "run" / name / "config.json").read_text())
        assert config["dtype"] == "float32"
    generator = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "generator").eval()
    classifier = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "run" / "discriminator", num_labels=4
    )
    assert generator.dtype == classifier.dtype == torch.float32
    atol = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(
        generator(IDS).logits, model.generator(IDS).logits, atol=atol, rtol=0
    )
    torch.testing.assert_close(
        classifier.electra.eval()(IDS).last_hidden_state,
        model.discriminator.electra(IDS).last_hidden_state,
        atol=atol,
        rtol=0,
    )
    assert not list(tmp_path.glob(".*partial"))


def test_halves_join_again_with_their_settings(tokenizer, tmp_path):
    model = tiny(discriminator_weight=7.0, sampling_temperature=2.0, sharing="token-embeddings")
    model.save_halves(tmp_path / "run", tokenizer)
    again = ElectraForJointPreTraining.from_halves(tmp_path / "run")
    assert again.config.discriminator_weight == 7
    assert again.config.sampling_temperature == 2
    assert again.config.sharing == "token-embeddings"
    again.save_halves(tmp_path / "again", tokenizer)
    assert str(tmp_path) not in (tmp_path / "again" / "config.json").read_text()
    changed = ElectraForJointPreTraining.from_halves(tmp_path / "run", discriminator_weight=3.0)
    assert changed.config.discriminator_weight == 3


def test_a_folder_of_two_halves_alone_is_joined_as_the_paper_does(tokenizer, tmp_path):
    tiny().save_halves(tmp_path / "run", tokenizer)
    (tmp_path / "run" / "config.json").unlink()
    again = ElectraForJointPreTraining.from_halves(tmp_path / "run")
    assert (again.config.discriminator_weight, again.config.sharing) == (50, "embeddings")


def save_pair(folder, generator_config: ElectraConfig, same_embeddings: bool = True) -> None:
    """Write a pair as it lies on the hub: two folders that know nothing of each other."""
    discriminator = ElectraForPreTraining(
        ElectraConfig(vocab_size=50, num_hidden_layers=1, max_position_embeddings=32)
    )
    generator = ElectraForMaskedLM(generator_config)
    if same_embeddings:
        tables = discriminator.electra.embeddings.state_dict()
        generator.electra.embeddings.load_state_dict(tables)
    discriminator.save_pretrained(folder / "discriminator")
    generator.save_pretrained(folder / "generator")


def generator_config(**settings) -> ElectraConfig:
    shape = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256}
    common = {"vocab_size": 50, "num_hidden_layers": 1, "max_position_embeddings": 32}
    return ElectraConfig(**common | shape | settings)


def pair(folder, **settings) -> ElectraForJointPreTraining:
    return ElectraForJointPreTraining.from_pair(
        folder / "discriminator", folder / "generator", **settings
    )


def test_a_pair_shaped_as_the_papers_is_continued_without_a_word(tmp_path):
    save_pair(tmp_path, generator_config())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = pair(tmp_path, discriminator_weight=20.0)
    assert model.config.discriminator_weight == 20
    expected = ElectraForMaskedLM.from_pretrained(tmp_path / "generator").eval()
    ids = IDS % 50
    torch.testing.assert_close(model.eval().generator(ids).logits, expected(ids).logits)


def test_a_generator_as_wide_as_the_discriminator_is_called_the_wrong_size(tmp_path):
    # the shape of google/electra-small-generator: 256 wide, four heads
    wide = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    save_pair(tmp_path, generator_config(**wide))
    with pytest.warns(UserWarning, match=r"256 units, 4 heads.*google/electra-small-generator"):
        pair(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair(tmp_path, sharing="none", frozen_generator=True)  # a frozen one costs no training
    with pytest.warns(UserWarning, match="as wide as the discriminator"):
        ElectraForJointPreTraining.from_halves(tmp_path)  # the same two, in one folder


def test_a_pair_trained_apart_is_not_shared_in_silence(tmp_path):
    save_pair(tmp_path, generator_config(), same_embeddings=False)
    with pytest.warns(UserWarning, match="word_embeddings.weight is not the discriminator's"):
        pair(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = pair(tmp_path, sharing="gradient-disentangled")
    expected = ElectraForMaskedLM.from_pretrained(tmp_path / "generator").eval()
    torch.testing.assert_close(model.eval().generator(IDS % 50).logits, expected(IDS % 50).logits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 51}, "vocab_size must agree: the discriminator has 50, the generator 51"),
        ({"embedding_size": 64}, "embedding_size must agree"),
        ({"max_position_embeddings": 16}, "max_position_embeddings must agree"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(tmp_path, settings, message):
    save_pair(tmp_path, generator_config(**settings), same_embeddings=False)
    with pytest.raises(ValueError, match=message):
        pair(tmp_path)


def test_a_folder_that_lacks_a_half_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="discriminator/config.json"):
        ElectraForJointPreTraining.from_halves(tmp_path)
