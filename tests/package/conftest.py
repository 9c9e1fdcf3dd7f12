"""Small things that the package tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertTokenizer,
    ElectraConfig,
    ElectraForPreTraining,
    ElectraForSequenceClassification,
    PreTrainedTokenizerFast,
)

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


def save_checkpoint(
    folder: Path,
    words: Sequence[str],
    model_class: Any = ElectraForPreTraining,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> Path:
    """Write a random ELECTRA of 2 layers, and a tokenizer of these word pieces, into `folder`.

    `changes` go to `ElectraConfig`, for example max_position_embeddings.
    """
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=len(vocabulary),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        **changes,
    )
    model_class(config).to(dtype).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable[..., Path]:
    """`save_checkpoint()`, for tests that need a model but nothing that it learned."""
    return save_checkpoint


@pytest.fixture(scope="session")
def classifier_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier for sea, land and sky, with weights that tell texts apart."""
    names = ("sea", "land", "sky")
    return save_checkpoint(
        tmp_path_factory.mktemp("torch") / "classifier",
        ["ferry", "fog", "lamp", "red", "apple", "##s", "harbour", "the", "a", ".", "dawn"],
        ElectraForSequenceClassification,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        max_position_embeddings=24,
        initializer_range=0.3,
    )


@pytest.fixture(scope="session")
def exported_classifier(
    classifier_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same as ONNX, in full and in eight bits. Exporting takes seconds, so it is done once."""
    from electra_tutorial.export import export_onnx, quantize_int8

    folder = tmp_path_factory.mktemp("onnx") / "classifier"
    export_onnx(classifier_checkpoint, None, folder)
    quantize_int8(folder)
    return folder
