"""The joint model against transformers' own classes, and what the paper says of its gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra_tutorial.config import ElectraSize
from electra_tutorial.masking import IGNORED, MaskedBatch, SpecialIds, mask_tokens
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.objectives import OBJECTIVES

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


def the_same(network, kind):
    """Build transformers' own class anew with the weights of one of ours."""
    twin = kind(ElectraConfig(**network.config.to_dict())).eval()
    twin.load_state_dict(network.state_dict())
    return twin


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(3, 24), min_size=1, max_size=4),
    padding=st.integers(0, 5),
    heads=st.sampled_from([1, 2, 4]),
    fraction=st.sampled_from([0.25, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_both_halves_equal_transformers(lengths, padding, heads, fraction, seed):
    torch.manual_seed(seed)
    shape = replace(TINY, num_attention_heads=heads, generator_fraction=fraction)
    model = ElectraForJointPreTraining.from_size(shape, initializer_range=0.3).eval()
    input_ids = torch.zeros(len(lengths), min(24, max(lengths) + padding), dtype=torch.long)
    for row, length in enumerate(lengths):
        input_ids[row, :length] = torch.randint(5, 100, (length,))
        input_ids[row, 0], input_ids[row, length - 1] = 2, 3
    masked = mask_tokens(input_ids, special_ids=SpecialIds(0, 2, 3, 4), mask_probability=0.3)
    output = run(model, masked, seed)

    generator = the_same(model.generator, ElectraForMaskedLM)(
        masked.input_ids, attention_mask=masked.attention_mask, labels=masked.labels
    )
    discriminator = the_same(model.discriminator, ElectraForPreTraining)(
        output.corrupted_ids,
        attention_mask=masked.attention_mask,
        labels=output.is_replaced.long(),
    )
    close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)
    close(output.generator_logits, generator.logits[masked.chosen])
    close(output.generator_loss, generator.loss)
    close(output.discriminator_logits, discriminator.logits)
    close(output.discriminator_loss, discriminator.loss)
    close(output.loss, generator.loss + 50 * discriminator.loss)


def test_without_an_attention_mask_every_token_is_real(model, masked):
    first = slice(0, 1)  # the row without padding
    output = model(masked.input_ids[first], labels=masked.labels[first])
    generator = model.generator(masked.input_ids[first], labels=masked.labels[first])
    torch.testing.assert_close(output.generator_loss, generator.loss, atol=1e-5, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_mask_that_hides_nothing_may_be_left_out(objective, attention, masked):
    torch.manual_seed(0)
    model = OBJECTIVES[objective].from_size(TINY, initializer_range=0.3).eval()
    for half in filter(None, (model.generator, model.discriminator)):
        half.set_attn_implementation(attention)
    labels = torch.cat([masked.labels[:1], masked.labels[:1].roll(3)])
    ids = masked.input_ids[:1].expand(2, -1)
    given = {"labels": labels, "sampling_uniform": torch.full(labels.shape, 0.4)}
    gradients = []
    for mask in (torch.ones_like(ids), None):
        model.zero_grad()
        output = model(ids, attention_mask=mask, **given)
        output.loss.backward()
        weights = model.discriminator.electra.parameters()
        gradients.append([output.loss.detach(), *(p.grad.clone() for p in weights)])
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-6)


def test_token_types_reach_both_halves(model, masked):
    uniform = torch.full(masked.labels.shape, 0.5)
    types = (torch.arange(20) >= 6).long().expand(3, -1)
    given = {"attention_mask": masked.attention_mask, "token_type_ids": types}
    output = model(masked.input_ids, labels=masked.labels, sampling_uniform=uniform, **given)
    expected = model.generator(masked.input_ids, **given).logits[masked.chosen]
    torch.testing.assert_close(output.generator_logits, expected, atol=1e-5, rtol=0)
    expected = model.discriminator(output.corrupted_ids, **given).logits
    torch.testing.assert_close(output.discriminator_logits, expected, atol=1e-5, rtol=0)


def run_uniform(model, masked, uniform, **settings):
    return model(
        masked.input_ids,
        attention_mask=masked.attention_mask,
        labels=masked.labels,
        sampling_uniform=uniform,
        **settings,
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


def test_every_chosen_position_gets_a_sample_whether_hidden_or_visible(model):
    """15 % of the chosen positions show their own token, and are resampled all the same."""
    input_ids = torch.randint(5, 99, (40, 20), generator=torch.Generator().manual_seed(2))
    masked = mask_tokens(
        input_ids,
        special_ids=SpecialIds(0, 2, 3, 4),
        mask_probability=0.3,
        generator=torch.Generator().manual_seed(3),
    )
    visible = masked.chosen & (masked.input_ids != 4)
    assert 0.1 < visible.sum() / masked.chosen.sum() < 0.2
    always_99 = torch.full((int(masked.chosen.sum()), TINY.vocab_size), -1e4)
    always_99[:, 99] = 1e4  # a token that stands nowhere in the text
    model.predict_masked = lambda *_: always_99
    output = run(model, masked)
    assert torch.equal(output.corrupted_ids, torch.where(masked.chosen, 99, input_ids))
    assert torch.equal(output.is_replaced, masked.chosen)


@pytest.mark.parametrize("objective", ["electra", "electra-15", "replace-mlm", "all-tokens-mlm"])
def test_samples_are_drawn_at_the_models_temperature(objective, masked):
    """Cold, the most probable token; hot, each token alike: the number times the vocabulary."""
    uniform = torch.rand(masked.labels.shape, generator=torch.Generator().manual_seed(4))
    drawn, logits = {}, None
    for temperature in (1e-9, 1.0, 1e9):
        torch.manual_seed(0)
        model = OBJECTIVES[objective].from_size(
            TINY, sampling_temperature=temperature, initializer_range=0.3
        )
        output = run_uniform(model.eval(), masked, uniform)
        drawn[temperature] = output.corrupted_ids[masked.chosen]
        logits = output.generator_logits
    assert torch.equal(drawn[1e-9], logits.argmax(-1))
    assert torch.equal(drawn[1e9], (uniform[masked.chosen] * TINY.vocab_size).long())
    assert not torch.equal(drawn[1.0], drawn[1e-9])
    assert not torch.equal(drawn[1.0], drawn[1e9])


def test_discriminator_sends_no_gradient_into_the_generators_own_weights(model, masked):
    run(model, masked).discriminator_loss.backward()
    shared = {id(p) for p in model.discriminator.electra.embeddings.parameters()}
    own = [p for p in model.generator.parameters() if id(p) not in shared]
    assert own
    assert all(p.grad is None or not p.grad.any() for p in own)
    assert model.discriminator.electra.embeddings.word_embeddings.weight.grad.any()


def test_positions_given_are_the_positions_found(model, masked):
    uniform = torch.rand(masked.labels.shape)
    found = run_uniform(model, masked, uniform)
    positions = masked.chosen.flatten().nonzero().squeeze(1)
    given = run_uniform(model, masked, uniform, chosen_positions=positions)
    assert torch.equal(found.loss, given.loss)
    assert torch.equal(found.corrupted_ids, given.corrupted_ids)


def test_a_generator_of_ones_own_may_take_the_place_of_the_models(model, masked):
    """Chapter 4 puts logits worked out by hand there."""
    certain = torch.full((int(masked.chosen.sum()), TINY.vocab_size), -1e4)
    certain.scatter_(1, masked.labels[masked.chosen][:, None], 1e4)
    model.predict_masked = lambda *_: certain
    output = run(model, masked)
    assert output.generator_loss.item() == 0
    assert torch.equal(output.corrupted_ids, masked.original_ids)


def test_the_whole_embedding_module_is_shared(model):
    embeddings = model.discriminator.electra.embeddings
    assert model.generator.electra.embeddings is embeddings
    assert model.generator.generator_lm_head.weight is embeddings.word_embeddings.weight


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


def test_nothing_chosen_gives_a_generator_loss_of_zero(model, masked):
    output = model(masked.original_ids, labels=torch.full_like(masked.labels, IGNORED))
    assert output.generator_loss.item() == 0
    assert not output.is_replaced.any()
    output.loss.backward()  # in several processes every weight needs a gradient, if only of zeros
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_errors(model, masked):
    with pytest.raises(ValueError, match="labels are missing"):
        model(masked.input_ids)
    long = torch.ones(1, 25, dtype=torch.long)
    with pytest.raises(ValueError, match="25 tokens and the model 24 positions"):
        model(long, labels=long)
    with pytest.raises(ValueError, match="unknown size"):
        ElectraForJointPreTraining.from_size("gigantic")
