"""Co-occurrence embeddings and sinusoids, against small cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from electra_tutorial.initialization import (
    cooccurrence_counts,
    cooccurrence_embeddings,
    positive_pmi,
    sinusoid_positions,
    start_embeddings,
)
from electra_tutorial.modeling import ElectraForJointPreTraining

ROWS = np.array([[0, 5, 6, 5, 0], [0, 7, 6, 5, 0]])


def test_counts_by_hand():
    counts = cooccurrence_counts(ROWS, 8, window=2, ignore_ids=[0]).toarray()
    # 5 and 6 touch three times; 5 and 7, 5 and 5 once, at distance 2
    assert counts[5, 6] == counts[6, 5] == 3
    assert counts[5, 7] == counts[7, 5] == 0.5
    assert counts[6, 7] == 1
    assert counts[5, 5] == 1  # 1/2 in each direction
    assert not counts[0].any()


def test_counts_do_not_depend_on_the_chunks(monkeypatch):
    rows = np.random.default_rng(0).integers(0, 9, size=(50, 7))
    whole = cooccurrence_counts(rows, 9).toarray()
    monkeypatch.setattr("electra_tutorial.initialization.CHUNK", 14)
    np.testing.assert_allclose(cooccurrence_counts(rows, 9).toarray(), whole)


def test_ppmi_equals_the_formula():
    counts = cooccurrence_counts(ROWS, 8, window=2, ignore_ids=[0])
    dense = counts.toarray()
    context = dense.sum(0) ** 0.75
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.log(dense / np.outer(dense.sum(1), context / context.sum()))
    expected = np.where(np.isfinite(expected), np.maximum(expected, 0), 0)
    np.testing.assert_allclose(positive_pmi(counts).toarray(), expected, atol=1e-12)


def test_words_of_one_context_get_similar_vectors():
    # 5 and 6 stand between 10 and 11, 7 and 8 between 12 and 13
    rng = np.random.default_rng(0)
    first = [[10, rng.choice([5, 6]), 11] for _ in range(300)]
    second = [[12, rng.choice([7, 8]), 13] for _ in range(300)]
    vectors = cooccurrence_embeddings(np.array(first + second), 14, dim=4, window=1)

    def cosine(a: int, b: int) -> float:
        return torch.cosine_similarity(vectors[a], vectors[b], dim=0).item()

    assert cosine(5, 6) > 0.95
    assert cosine(7, 8) > 0.95
    assert cosine(5, 7) < 0.5
    again = cooccurrence_embeddings(np.array(first + second), 14, dim=4, window=1)
    assert torch.equal(vectors, again)
    seen = vectors[[5, 6, 7, 8, 10, 11, 12, 13]]
    assert seen.std(correction=0).item() == pytest.approx(0.1, rel=1e-4)
    assert not vectors[[0, 1, 2, 3, 4, 9]].any()


def test_sinusoids():
    table = sinusoid_positions(10, 6, scale=0.5)
    assert table.shape == (10, 6)
    assert table[0].tolist() == [0, 0.5, 0, 0.5, 0, 0.5]
    assert table[3, 0].item() == pytest.approx(0.5 * np.sin(3))
    assert table[3, 5].item() == pytest.approx(0.5 * np.cos(3 * 10_000 ** (-4 / 6)))


def test_starting_embeddings_leaves_unseen_rows_alone():
    model = ElectraForJointPreTraining.from_size("nano", vocab_size=20)
    weight = model.discriminator.electra.embeddings.word_embeddings.weight
    before = weight.detach().clone()
    words = torch.zeros(20, 128)
    words[7:] = 1.0
    start_embeddings(model, words=words, positions=sinusoid_positions(64, 128))
    assert torch.equal(weight[:7], before[:7])
    assert (weight[7:] == 1).all()
    assert model.generator.generator_lm_head.weight is weight


def test_errors():
    with pytest.raises(ValueError, match="dim must lie between"):
        cooccurrence_embeddings(ROWS, 8, dim=8)
    with pytest.raises(ValueError, match="no two tokens"):
        cooccurrence_embeddings(ROWS, 8, dim=2, ignore_ids=[0, 5, 6, 7])
    with pytest.raises(ValueError, match="dim must be even"):
        sinusoid_positions(4, 3)
    model = ElectraForJointPreTraining.from_size("nano", vocab_size=20)
    with pytest.raises(ValueError, match="position_embeddings of this model"):
        start_embeddings(model, positions=torch.zeros(4, 4))
