"""The joint model against transformers' own classes, and what the paper says of its gradients."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, ElectraConfig

from electra_tutorial.config import ElectraSize
from electra_tutorial.masking import IGNORED, MaskedBatch, SpecialIds, mask_tokens
from electra_tutorial.modeling import (
    ElectraForJointPreTraining,
    ElectraJointConfig,
    discriminator_loss,
    sample_tokens,
)

TINY = ElectraSize("tiny", 2, 32, 2, 64, 16, 100, 24, generator_fraction=1 / 2)


@pytest.fixture
def model() -> ElectraForJointPreTraining:
    torch.manual_seed(0)
    return ElectraForJointPreTraining.from_size(TINY).eval()


@pytest.fixture
def masked() -> MaskedBatch:
    """Three rows of 20, 14 and 8 real tokens."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(5, 100, (3, 20), generator=generator)
    for row, length in enumerate((20, 14, 8)):
        input_ids[row, 0], input_ids[row, length - 1] = 2, 3
        input_ids[row, length:] = 0
    return mask_tokens(
        input_ids, special_ids=SpecialIds(0, 2, 3, 4), mask_probability=0.3, generator=generator
    )


def run(model, masked, seed=3):
    return model(
        masked.input_ids,
        attention_mask=masked.attention_mask,
        labels=masked.labels,
        sampling_generator=torch.Generator().manual_seed(seed),
    )


def test_both_halves_equal_transformers(model, masked):
    output = run(model, masked)
    generator = model.generator(
        masked.input_ids, attention_mask=masked.attention_mask, labels=masked.labels
    )
    torch.testing.assert_close(
        output.generator_logits, generator.logits[masked.chosen], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(output.generator_loss, generator.loss, atol=1e-5, rtol=0)
    discriminator = model.discriminator(
        output.corrupted_ids,
        attention_mask=masked.attention_mask,
        labels=output.is_replaced.long(),
    )
    torch.testing.assert_close(output.discriminator_loss, discriminator.loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        output.loss, generator.loss + 50 * discriminator.loss, atol=1e-4, rtol=0
    )


def test_corruption_changes_chosen_positions_only_and_labels_follow_the_change(model, masked):
    output = run(model, masked)
    original = masked.original_ids
    assert torch.equal(output.corrupted_ids[~masked.chosen], original[~masked.chosen])
    assert torch.equal(output.is_replaced, output.corrupted_ids != original)


def test_a_sampled_original_counts_as_original(model, masked):
    certain = torch.full((int(masked.chosen.sum()), TINY.vocab_size), -1e4)
    certain.scatter_(1, masked.labels[masked.chosen][:, None], 1e4)
    corrupted_ids, is_replaced = model.corrupt(masked.input_ids, masked.labels, certain)
    assert torch.equal(corrupted_ids, masked.original_ids)
    assert not is_replaced.any()


def test_discriminator_sends_no_gradient_into_the_generators_own_weights(model, masked):
    run(model, masked).discriminator_loss.backward()
    shared = {id(p) for p in model.discriminator.electra.embeddings.parameters()}
    own = [p for p in model.generator.parameters() if id(p) not in shared]
    assert own
    assert all(p.grad is None or not p.grad.any() for p in own)
    assert model.discriminator.electra.embeddings.word_embeddings.weight.grad.any()


def test_the_whole_embedding_module_is_shared(model):
    embeddings = model.discriminator.electra.embeddings
    assert model.generator.electra.embeddings is embeddings
    assert model.generator.generator_lm_head.weight is embeddings.word_embeddings.weight


def test_joint_folder_keeps_the_sharing(model, masked, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = ElectraForJointPreTraining.from_pretrained(tmp_path).eval()
    test_the_whole_embedding_module_is_shared(loaded)
    torch.testing.assert_close(run(loaded, masked).loss, run(model, masked).loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_halves_open_with_the_auto_classes_as_float32(model, masked, tokenizer, tmp_path, dtype):
    model.save_halves(tmp_path / "run", tokenizer, dtype)
    generator = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "generator").eval()
    classifier = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "run" / "discriminator", num_labels=4
    )
    assert generator.dtype == classifier.dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(
        generator(masked.input_ids, attention_mask=masked.attention_mask).logits,
        model.generator(masked.input_ids, attention_mask=masked.attention_mask).logits,
        atol=tolerance,
        rtol=0,
    )
    again = ElectraForJointPreTraining.from_halves(tmp_path / "run").eval()
    test_the_whole_embedding_module_is_shared(again)
    torch.testing.assert_close(
        run(again, masked).generator_loss, run(model, masked).generator_loss, atol=1e-2, rtol=0
    )
    config = json.loads((tmp_path / "run" / "generator" / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert not list(tmp_path.glob(".*partial"))


def test_samples_follow_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    draws = sample_tokens(logits.expand(40_000, 4), generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(draws, minlength=4).numpy()
    expected = 40_000 * logits.double().softmax(0).numpy()
    assert stats.chisquare(counts, expected).pvalue > 0.001
    cold = sample_tokens(logits.expand(1000, 4), temperature=0.01)
    assert (cold == 0).all()


def test_sampling_half_precision_logits_stays_finite():
    logits = torch.full((1000, 50), -60_000.0, dtype=torch.float16)
    logits[:, 7] = 0
    assert (sample_tokens(logits) == 7).all()


def test_one_uniform_number_draws_from_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, float("-inf")])
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    for temperature in (1.0, 2.0):
        draws = sample_tokens(logits.expand(40_000, 5), temperature, uniform=uniform)
        counts = torch.bincount(draws, minlength=5).numpy()
        expected = 40_000 * (logits[:4].double() / temperature).softmax(0).numpy()
        assert counts[4] == 0
        assert stats.chisquare(counts[:4], expected).pvalue > 0.001


def test_inverse_cumulative_draw_by_hand():
    # probabilities 1/2, 1/4, 1/4: sums 0.5, 0.75, 1; a number on a boundary takes the next token
    logits = torch.tensor([0.5, 0.25, 0.25]).log().expand(6, 3)
    uniform = torch.tensor([0.0, 0.49, 0.5, 0.74, 0.76, 1 - 2**-24])
    assert sample_tokens(logits, uniform=uniform).tolist() == [0, 0, 1, 1, 2, 2]


@given(st.integers(1, 2000), st.floats(-80, 80), st.integers(0, 2**32 - 1))
def test_a_uniform_draw_stays_in_the_vocabulary_and_on_possible_tokens(vocab, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(3, 4, vocab, generator=generator)
    logits[..., -1] = float("-inf") if vocab > 1 else 0.0
    for uniform in (torch.zeros(3, 4), torch.full((3, 4), 1 - 2**-24)):
        tokens = sample_tokens(logits, uniform=uniform)
        probabilities = logits.softmax(-1).gather(-1, tokens[..., None])
        assert (probabilities > 0).all()


def test_no_sample_leaves_the_vocabulary_even_where_logits_are_not_numbers():
    assert sample_tokens(torch.full((2, 5), float("nan")), uniform=torch.rand(2)).max() < 5


def parts(masked: MaskedBatch, uniform: torch.Tensor, sizes: list[int]) -> list[dict]:
    tensors = {
        "input_ids": masked.input_ids,
        "attention_mask": masked.attention_mask,
        "labels": masked.labels,
        "sampling_uniform": uniform,
    }
    split = {name: tensor.split(sizes) for name, tensor in tensors.items()}
    return [{name: split[name][i] for name in tensors} for i in range(len(sizes))]


def test_parts_of_a_batch_with_global_counts_add_up_to_the_whole_batch(model, masked):
    uniform = torch.rand(masked.labels.shape, generator=torch.Generator().manual_seed(2))
    counts = {"num_chosen": masked.chosen.sum(), "num_tokens": masked.attention_mask.sum()}
    whole = model(**parts(masked, uniform, [3])[0])
    whole.loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    outputs = [model(**part, **counts) for part in parts(masked, uniform, [1, 2])]
    for output in outputs:
        output.loss.backward()
    assert torch.equal(torch.cat([o.corrupted_ids for o in outputs]), whole.corrupted_ids)
    torch.testing.assert_close(sum(o.loss for o in outputs), whole.loss, atol=1e-5, rtol=0)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], atol=1e-5, rtol=0, msg=name)


def test_discriminator_loss_by_hand():
    # sigmoid(0) = 1/2 costs log 2 whichever the label; the padded position does not count
    logits = torch.tensor([[0.0, 0.0, 9.0]])
    is_replaced = torch.tensor([[True, False, False]])
    loss = discriminator_loss(logits, is_replaced, torch.tensor([[1, 1, 0]]))
    assert loss.item() == pytest.approx(0.693147, abs=1e-6)


def test_nothing_chosen_gives_a_generator_loss_of_zero(model, masked):
    output = model(masked.original_ids, labels=torch.full_like(masked.labels, IGNORED))
    assert output.generator_loss.item() == 0
    assert not output.is_replaced.any()


def test_errors(model, masked, tmp_path):
    with pytest.raises(ValueError, match="labels are missing"):
        model(masked.input_ids)
    long = torch.ones(1, 25, dtype=torch.long)
    with pytest.raises(ValueError, match="25 tokens and the model 24 positions"):
        model(long, labels=long)
    with pytest.raises(ValueError, match="unknown size"):
        ElectraForJointPreTraining.from_size("gigantic")
    with pytest.raises(FileNotFoundError, match="discriminator/config.json"):
        ElectraForJointPreTraining.from_halves(tmp_path)
    with pytest.raises(ValueError, match="temperature must be positive"):
        sample_tokens(torch.zeros(2), temperature=0)
    with pytest.raises(ValueError, match="one number for each row"):
        sample_tokens(torch.zeros(3, 4), uniform=torch.zeros(4))
    small, other = ElectraConfig(embedding_size=16), ElectraConfig(embedding_size=32)
    with pytest.raises(ValueError, match="embedding_size must agree"):
        ElectraForJointPreTraining(ElectraJointConfig(small, other))
