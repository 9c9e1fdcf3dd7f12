"""Small things that the package tests share."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from electra_tutorial.corpora import Corpus
from electra_tutorial.tokenization import train_wordpiece

DOCUMENTS = (
    "The ferry left the harbour before dawn.\nIts lamps burned in the fog until noon.",
    "A gardener counted the apples.\nThe apples were red, and the gardener was tired.",
    "Dawn came late to the harbour in winter.\nThe lamps of the town burned all day.",
    "Red apples and winter fog: the ferry carried both.",
)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Four tiny documents, written for these tests."""
    return Corpus("ferry", DOCUMENTS)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of 100 tokens at most, trained on the tiny documents."""
    return train_wordpiece(DOCUMENTS, vocab_size=100)
