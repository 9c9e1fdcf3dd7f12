"""What lets a small budget learn: embeddings that start from the text's own statistics.

From random embeddings a small ELECTRA spends its first millions of tokens on a plateau: the
generator predicts token frequencies and nothing else, so the discriminator has nothing to learn.
Starting the word embeddings from co-occurrence statistics (positive pointwise mutual information
and a truncated SVD: Levy and Goldberg, 2014; Levy et al., 2015) and the positions from sinusoids
(Vaswani et al., 2017) shortens the plateau. This is the book's departure from the paper, off by
default.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import Tensor

from electra_tutorial.sharing import DisentangledEmbedding

CHUNK = 2_000_000  # tokens counted at once: bounds the memory


def cooccurrence_counts(
    input_ids: np.ndarray, vocab_size: int, window: int = 4, ignore_ids: Collection[int] = ()
) -> sparse.csr_matrix:
    """Count how often two tokens stand near each other, ``(vocab, vocab)``, symmetric.

    A pair at distance d counts 1/d, up to ``window``; pairs with an ignored token do not count.

    Args:
        input_ids: segments, ``(num_segments, seq_len)``; no pair reaches across two segments.
        vocab_size: number of tokens.
        window: largest distance.
        ignore_ids: special tokens.
    """
    counts = sparse.csr_matrix((vocab_size, vocab_size), dtype=np.float64)
    rows = max(1, CHUNK // input_ids.shape[1])
    for start in range(0, len(input_ids), rows):
        chunk = np.asarray(input_ids[start : start + rows]).astype(np.int64)
        kept = ~np.isin(chunk, list(ignore_ids))
        for distance in range(1, min(window, chunk.shape[1] - 1) + 1):
            both = kept[:, :-distance] & kept[:, distance:]
            left, right = chunk[:, :-distance][both], chunk[:, distance:][both]
            weights = np.full(len(left), 1 / distance)
            counts += sparse.coo_matrix((weights, (left, right)), shape=counts.shape).tocsr()
    return counts + counts.T


def positive_pmi(counts: sparse.csr_matrix, smoothing: float = 0.75) -> sparse.csr_matrix:
    """Positive pointwise mutual information, max(0, log p(a, b) / (p(a) p(b))), in nats.

    Context counts are raised to ``smoothing`` first, which lowers the weight of rare contexts
    (Levy et al., 2015).
    """
    pairs = counts.tocoo()
    token = np.asarray(counts.sum(1)).ravel()
    context = np.asarray(counts.sum(0)).ravel() ** smoothing
    with np.errstate(divide="ignore"):
        pmi = (
            np.log(pairs.data)
            - np.log(token[pairs.row])
            - np.log(context[pairs.col])
            + np.log(context.sum())
        )
    positive = pmi > 0
    return sparse.csr_matrix(
        (pmi[positive], (pairs.row[positive], pairs.col[positive])), shape=counts.shape
    )


def cooccurrence_embeddings(
    segments: Any,
    vocab_size: int,
    dim: int = 128,
    window: int = 4,
    smoothing: float = 0.75,
    std: float = 0.1,
    ignore_ids: Collection[int] = (),
) -> Tensor:
    """Return word embeddings made from co-occurrence statistics, ``(vocab, dim)``.

    Rows of the rank-``dim`` SVD of the positive PMI matrix, U sqrt(S), centred, scaled to one
    standard deviation. Tokens that never occur get the mean, zero.

    Args:
        segments: :class:`~electra_tutorial.segments.Segments`, or an array of token ids
            ``(num_segments, seq_len)``.
        vocab_size: number of tokens.
        dim: embedding size; at most ``vocab_size - 1``.
        window: see :func:`cooccurrence_counts`.
        smoothing: see :func:`positive_pmi`.
        std: standard deviation of the result.
        ignore_ids: special tokens, left at zero.

    Raises:
        ValueError: if ``dim`` is too large for the vocabulary, or no two tokens occur together.
    """
    input_ids = getattr(segments, "input_ids", segments)
    if not 1 <= dim < vocab_size:
        raise ValueError(
            f"dim must lie between 1 and vocab_size - 1 = {vocab_size - 1}, not {dim}."
        )
    ppmi = positive_pmi(cooccurrence_counts(input_ids, vocab_size, window, ignore_ids), smoothing)
    if ppmi.nnz == 0:
        raise ValueError("no two tokens of this text occur together: give more text.")
    start = np.random.default_rng(0).normal(size=vocab_size)  # svds starts here: repeatable
    left, values, _ = svds(ppmi, k=dim, v0=start)
    order = np.argsort(-values)
    left, values = left[:, order], values[order]
    # an SVD is unique up to signs: make the largest entry of each column positive
    left *= np.sign(left[np.abs(left).argmax(0), np.arange(dim)])
    vectors = left * np.sqrt(np.maximum(values, 0))
    occurs = np.asarray(ppmi.sum(1)).ravel() > 0
    vectors[occurs] -= vectors[occurs].mean(0)
    vectors[~occurs] = 0
    vectors *= std / vectors[occurs].std()
    return torch.tensor(vectors, dtype=torch.float32)


def sinusoid_positions(length: int, dim: int, scale: float = 0.1) -> Tensor:
    """Return the sinusoids of Vaswani et al. (2017, section 3.5), ``(length, dim)``.

    Args:
        length: number of positions.
        dim: embedding size, even.
        scale: multiplies the sines and cosines.

    Raises:
        ValueError: if ``dim`` is odd.
    """
    if dim % 2:
        raise ValueError(f"dim must be even, a sine and a cosine for each frequency, not {dim}.")
    position = torch.arange(length, dtype=torch.float64)[:, None]
    frequency = 10_000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = position * frequency
    table = torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(length, dim)
    return (scale * table).float()


def start_embeddings(
    model: Any, words: Tensor | None = None, positions: Tensor | None = None
) -> None:
    """Copy word or position embeddings into both halves of a joint model, in place.

    Args:
        model: an :class:`~electra_tutorial.modeling.ElectraForJointPreTraining`.
        words: ``(vocab, embedding_size)``; rows of zeros keep their random start.
        positions: ``(max_position_embeddings, embedding_size)``.

    Raises:
        ValueError: if a shape does not fit.
    """
    halves = [half for half in (model.discriminator, model.generator) if half is not None]
    for name, start in (("word_embeddings", words), ("position_embeddings", positions)):
        if start is None:
            continue
        for half in halves:
            table = getattr(half.electra.embeddings, name)
            if isinstance(table, DisentangledEmbedding):
                continue  # it follows the generator's
            if start.shape != table.weight.shape:
                raise ValueError(
                    f"{name} of this model have the shape {tuple(table.weight.shape)}, the start "
                    f"given has {tuple(start.shape)}: build it for this vocabulary and embedding "
                    "size."
                )
            with torch.no_grad():
                given = start.abs().sum(1, keepdim=True) > 0
                table.weight.copy_(torch.where(given, start.to(table.weight), table.weight))
