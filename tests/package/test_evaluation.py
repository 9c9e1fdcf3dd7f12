"""Evaluation of every objective, against transformers' and scikit-learn's own figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from electra_tutorial import evaluation
from electra_tutorial.config import ElectraSize
from electra_tutorial.corpora import Segments
from electra_tutorial.evaluation import (
    Corruptions,
    MaskedSegments,
    corrupt_segments,
    describe_corruptions,
    discriminate,
    evaluate_corruptions,
    evaluate_pretraining,
    fixed_corruptions,
    frequency_corruptions,
    mask_segments,
)
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.objectives import OBJECTIVES

TINY = ElectraSize("tiny", 1, 32, 2, 128, 16, 100, 24, generator_fraction=1 / 2)
SEGMENTS = 70  # more than one batch of 64
JUDGED = {"auc", "precision", "recall", "accuracy", "base_rate"}
PREDICTED = {"kept_loss", "kept_masked_accuracy"}
OWN = {"generator_loss", "masked_accuracy"}


def tiny(objective: str = "electra", vocab_size: int = 100) -> ElectraForJointPreTraining:
    torch.manual_seed(0)
    size = {"vocab_size": vocab_size, "initializer_range": 0.3}
    return OBJECTIVES[objective].from_size(TINY, **size).train()


@pytest.fixture
def segments(tokenizer) -> Segments:
    """Segments of 8 to 20 real tokens."""
    rng = np.random.default_rng(0)
    rows = rng.integers(5, len(tokenizer), size=(SEGMENTS, 20)).astype(np.uint16)
    lengths = rng.integers(8, 21, size=SEGMENTS)
    rows[:, 0] = tokenizer.cls_token_id
    rows[np.arange(SEGMENTS), lengths - 1] = tokenizer.sep_token_id
    rows[np.arange(20) >= lengths[:, None]] = tokenizer.pad_token_id
    return Segments(rows, tokenizer.pad_token_id)


@pytest.fixture
def masked(segments, tokenizer) -> MaskedSegments:
    return mask_segments(segments, tokenizer)


def test_electra_is_judged_as_scikit_learn_would(masked, tokenizer):
    model = tiny(vocab_size=len(tokenizer))
    figures = evaluate_pretraining(model, masked, seed=3)
    assert figures.keys() == OWN | JUDGED
    corruptions, _ = corrupt_segments(model, masked, seed=3)
    model.eval()
    with torch.no_grad():
        expected = model.generator(
            masked.input_ids, attention_mask=masked.attention_mask, labels=masked.labels
        )
        logits = model.discriminator(
            corruptions.corrupted_ids, attention_mask=masked.attention_mask
        ).logits
    assert figures["generator_loss"] == pytest.approx(expected.loss.item(), abs=1e-5)
    right = expected.logits.argmax(-1) == masked.labels
    assert figures["masked_accuracy"] == pytest.approx(right[masked.chosen].float().mean().item())
    real = masked.attention_mask.bool()
    replaced, scores = corruptions.is_replaced[real].numpy(), logits[real].numpy()
    assert figures["base_rate"] == pytest.approx(replaced.mean())
    assert figures["auc"] == pytest.approx(roc_auc_score(replaced, scores))
    assert figures["precision"] == pytest.approx(precision_score(replaced, scores > 0))
    assert figures["recall"] == pytest.approx(recall_score(replaced, scores > 0))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_evaluated_in_its_own_terms(objective, masked, tokenizer):
    model = tiny(objective, len(tokenizer))
    figures = evaluate_pretraining(model, masked)
    own = OWN if model.has_generator else set()
    assert figures.keys() == own | (PREDICTED if model.predicts_tokens else JUDGED)
    assert figures == evaluate_pretraining(model, masked)
    fixed = frequency_corruptions(masked, Segments(masked.original_ids.numpy(), 0), tokenizer)
    assert evaluate_corruptions(model, fixed).keys() == figures.keys()


@pytest.mark.parametrize("objective", ["replace-mlm", "all-tokens-mlm", "mlm"])
def test_kept_loss_and_accuracy_are_those_of_one_forward_pass(objective, masked, tokenizer):
    model = tiny(objective, len(tokenizer)).eval()
    uniform = torch.rand(masked.labels.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = model(
            masked.input_ids,
            attention_mask=masked.attention_mask,
            labels=masked.labels,
            sampling_uniform=uniform,
        )
    figures = discriminate(model, Corruptions(masked, output.corrupted_ids, output.is_replaced))
    assert figures["kept_loss"] == pytest.approx(output.discriminator_loss.item(), abs=1e-5)
    predicted = output.discriminator_logits.argmax(-1)
    predicted = predicted[masked.chosen] if predicted.dim() == 2 else predicted
    right = predicted == masked.labels[masked.chosen]
    assert figures["kept_masked_accuracy"] == pytest.approx(right.float().mean().item())


def test_evaluating_leaves_no_trace(masked, tokenizer):
    model = tiny(vocab_size=len(tokenizer))
    state = torch.get_rng_state()
    evaluate_pretraining(model, masked)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
    broken = Corruptions(masked, masked.input_ids + 1000, masked.chosen)
    with pytest.raises(IndexError):
        discriminate(model, broken)
    assert model.training


def test_token_types_are_read_where_a_set_has_them(masked, tokenizer):
    model = tiny(vocab_size=len(tokenizer))
    types = (torch.arange(20) >= 6).long().expand(SEGMENTS, -1)
    typed = replace(masked, token_type_ids=types)
    without, figures = (evaluate_pretraining(model, kind) for kind in (masked, typed))
    assert figures["generator_loss"] != without["generator_loss"]
    assert figures["auc"] != without["auc"]
    model.eval()
    with torch.no_grad():
        expected = model.generator(
            masked.input_ids,
            attention_mask=masked.attention_mask,
            labels=masked.labels,
            token_type_ids=types,
        ).loss.item()
    assert figures["generator_loss"] == pytest.approx(expected, abs=1e-5)


def test_a_model_without_generator_corrupts_nothing(masked, segments, tokenizer):
    model = tiny("mlm", len(tokenizer))
    with pytest.raises(ValueError, match="'mlm' has no generator to corrupt segments with"):
        corrupt_segments(model, masked)
    corruptions = fixed_corruptions(tiny(vocab_size=len(tokenizer)), segments, tokenizer)
    assert discriminate(model, corruptions).keys() == PREDICTED


def test_a_set_is_known_by_its_fingerprint(segments, masked, tokenizer, monkeypatch):
    fixed = frequency_corruptions(masked, segments, tokenizer)
    described = describe_corruptions(fixed)
    real = masked.attention_mask.bool()
    assert described["segments"] == SEGMENTS
    assert described["tokens"] == int(real.sum())
    assert described["base_rate"] == pytest.approx(fixed.is_replaced[real].float().mean().item())
    monkeypatch.setattr(evaluation, "DRAWN_AT_ONCE", 7)  # the same draws, a few at a time
    assert describe_corruptions(frequency_corruptions(masked, segments, tokenizer)) == described
    other = frequency_corruptions(masked, segments, tokenizer, seed=1)
    assert describe_corruptions(other)["fingerprint"] != described["fingerprint"]
