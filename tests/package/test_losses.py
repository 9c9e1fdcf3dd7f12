"""Samples follow the distribution they are drawn from; losses worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from electra_tutorial.losses import discriminator_loss, mean_over, sample_tokens, token_loss


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


def test_discriminator_loss_by_hand():
    # sigmoid(0) = 1/2 costs log 2 whichever the label; the padded position does not count
    logits = torch.tensor([[0.0, 0.0, 9.0]])
    is_replaced = torch.tensor([[True, False, False]])
    loss = discriminator_loss(logits, is_replaced, torch.tensor([[1, 1, 0]]))
    assert loss.item() == pytest.approx(0.693147, abs=1e-6)


def test_token_loss_by_hand():
    # probabilities (1/2, 1/4, 1/4): the first token costs log 2, the second log 4
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log().expand(2, 3)
    targets = torch.tensor([0, 1])
    assert token_loss(logits, targets).item() == pytest.approx(1.5 * math.log(2))
    assert token_loss(logits, targets, 4).item() == pytest.approx(0.75 * math.log(2))
    assert token_loss(logits[:0], targets[:0]).item() == 0


def test_weighted_losses_by_hand():
    # as above, and the second target, which costs log 4, was drawn three times
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log().expand(2, 3)
    targets, draws = torch.tensor([0, 1]), torch.tensor([1, 3])
    loss = token_loss(logits, targets, weights=draws)
    assert loss.item() == pytest.approx((math.log(2) + 3 * math.log(4)) / 4)
    loss = token_loss(logits, targets, 14, draws)
    assert loss.item() == pytest.approx((math.log(2) + 3 * math.log(4)) / 14)
    assert token_loss(logits[:0], targets[:0], weights=draws[:0]).item() == 0


def test_where_nothing_was_chosen_the_loss_is_zero():
    none = torch.zeros(0, 3)
    for count in (0, torch.tensor(0)):
        assert token_loss(none, torch.zeros(0, dtype=torch.long), count).item() == 0
        assert mean_over(torch.ones(3), torch.zeros(3), count).item() == 0


def test_a_mean_may_divide_by_the_count_of_a_larger_batch():
    values, where = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1, 1, 0])
    assert mean_over(values, where).item() == 1.5
    assert mean_over(values, where, torch.tensor(6)).item() == 0.5
    assert mean_over(values, torch.zeros(3)).item() == 0


def test_errors():
    with pytest.raises(ValueError, match="temperature must be positive"):
        sample_tokens(torch.zeros(2), temperature=0)
    with pytest.raises(ValueError, match="one number for each row"):
        sample_tokens(torch.zeros(3, 4), uniform=torch.zeros(4))
