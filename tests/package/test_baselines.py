from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import ElectraModel

from electra_tutorial.baselines import (
    fit_word_tagger,
    nearest_span,
    word_features,
    word_shape,
    word_tagger_baseline,
    word_vectors,
)
from electra_tutorial.checkpoints import find_checkpoint, load_pretrained
from electra_tutorial.tasks import Task, load_task
from electra_tutorial.tokenization import load_tokenizer

CONTEXT = "The bridge was built by Jane Ward in 1804. It fell in 1871, after a flood."


@pytest.fixture(scope="module")
def entities() -> Task:
    task = load_task("entities", quiet=True)
    return replace(task, train=task.train.select(range(60)), test=task.test.select(range(20)))


def test_a_shape_has_four_characters_at_most() -> None:
    assert [word_shape(word) for word in ("Rome", "McKay", "USA", "1804", "a")] == [
        "Xxxx",
        "XxXx",
        "XXX",
        "0000",
        "x",
    ]


def test_features_look_two_words_to_either_side() -> None:
    features = word_features(["In", "Rome", "it", "rains"], 1)
    assert [features[f"word {k}"] for k in range(-2, 3)] == ["-", "in", "rome", "it", "rains"]
    assert features["shape 0"] == "Xxxx"
    assert features["end"] == "ome"


def test_without_capitals_nothing_tells_them() -> None:
    upper, lower = (word_features([word], 0, capitals=False) for word in ("ROME", "rome"))
    assert upper == lower
    assert not any(name.startswith("shape") for name in upper)


def test_the_tagger_is_measured_on_the_test_split(entities: Task) -> None:
    found = word_tagger_baseline(entities)
    names = entities.label_names
    assert found.labels == [[names[tag] for tag in row] for row in entities.test["ner_tags"]]
    assert [len(row) for row in found.predictions] == [len(row) for row in found.labels]
    tagger = fit_word_tagger(entities)
    shares = tagger.probabilities([entities.test[0]["tokens"]])
    called = tagger.model.classes_[shares.argmax(axis=1)]
    assert [names[tag] for tag in called] == found.predictions[0]
    assert 0 < found.metrics["f1"] < 1
    assert math.isfinite(found.metrics["loss"])


def test_vectors_can_tell_what_features_cannot(entities: Task) -> None:
    tags = {
        tuple(row["tokens"]): row["ner_tags"]
        for split in (entities.train, entities.test)
        for row in split
    }

    def truth(sentences: Sequence[Sequence[str]]) -> list[np.ndarray]:
        return [np.eye(9)[tags[tuple(words)]] for words in sentences]

    plain, told = (word_tagger_baseline(entities, False, vectors) for vectors in (None, truth))
    assert plain.metrics["f1"] < 0.6 < 0.8 < told.metrics["f1"]


def test_a_word_has_the_vector_of_its_first_piece() -> None:
    tokenizer = load_tokenizer("mini")
    model, _ = load_pretrained(ElectraModel, find_checkpoint("mini"))
    sentence = ["Samarkand", "fell", "."]
    _, vectors = word_vectors(model, tokenizer, [["It", "rains"], sentence], layer=2)
    pieces = tokenizer(sentence, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        alone = model(**pieces, output_hidden_states=True).hidden_states[2][0].numpy()
    places = [pieces.word_ids().index(word) for word in range(3)]
    assert places != [1, 2, 3], "the first word should have several pieces"
    np.testing.assert_allclose(vectors, alone[places], atol=1e-5)


def test_a_word_that_was_cut_off_has_the_vector_0() -> None:
    tokenizer = load_tokenizer("mini")
    model, _ = load_pretrained(ElectraModel, find_checkpoint("mini"))
    (vectors,) = word_vectors(model, tokenizer, [["rain"] * 200])
    assert np.abs(vectors[:126]).min(axis=1).max() > 0
    assert not vectors[126:].any()


def test_the_nearest_run_of_words_is_the_answer() -> None:
    span = nearest_span("Who built the bridge?", CONTEXT)
    assert span.text == CONTEXT[span.start : span.end] == "Jane Ward"
    # "bridge" stands four words before, "built" two; each occurs once.
    assert span.score == pytest.approx(math.log(2) * (1 / 4 + 1 / 2))


def test_a_run_ends_at_punctuation_and_after_five_words() -> None:
    assert nearest_span("What fell?", "red, green fell").text == "green"
    assert nearest_span("?", "one1 two2 three3 four4 five5 six6").text.count(" ") == 4


def test_an_answer_is_found_where_every_word_is_a_function_word_or_asked() -> None:
    assert nearest_span("Is it Rome?", "it is Rome").text == "it is Rome"


def test_a_context_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no word"):
        nearest_span("Who?", "...")
