from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    ElectraForMultipleChoice,
    ElectraForQuestionAnswering,
    ElectraForTokenClassification,
)

from electra_tutorial.prediction import Entity, answer_questions, label_words, load_tuned, predict
from electra_tutorial.tokenization import load_tokenizer

WORDS = ["ada", "ba", "##bb", "##age", "met", "in", "paris", "rome", "bob", "was", "late", "."]
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


class Tagger(ElectraForTokenClassification):
    """Says of every word piece what its place in `SAID` says, with the same logit of 3."""

    SAID = dict.fromkeys(WORDS, "O") | {"ada": "B-PER", "ba": "I-PER", "paris": "I-LOC"}

    def forward(self, input_ids: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        # The further pieces of a word would be another name: only the first counts.
        said = {i: self.SAID.get(token, "B-PER") for i, token in enumerate(tokens)}
        said |= {tokens.index("##bb"): "B-LOC", tokens.index("##age"): "B-LOC"}
        places = [[TAGS.index(said[i]) for i in row] for row in input_ids.tolist()]
        logits = 3.0 * torch.nn.functional.one_hot(torch.tensor(places), len(TAGS))
        return type("Output", (dict,), {"logits": logits})()


@pytest.fixture(scope="module")
def tagger(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tagger") / "model"
    return make_checkpoint(folder, WORDS, Tagger, id2label=dict(enumerate(TAGS)))


def test_names_are_found_with_their_words_and_probability(tagger: Path) -> None:
    model, tokenizer = Tagger.from_pretrained(tagger), load_tokenizer(tagger)
    sentences = [["Ada", "Babbage", "met", "Bob", "in", "Paris", "."], ["Rome", "."]]
    share = torch.tensor([3.0, 0, 0, 0, 0]).softmax(0)[0].item()
    assert label_words(model, tokenizer, sentences) == [
        [
            Entity("PER", ("Ada", "Babbage"), 0, 2, pytest.approx(share**2)),
            Entity("LOC", ("Paris",), 5, 6, pytest.approx(share)),
        ],
        [],
    ]
    # [CLS] ada ba ##bb ##age met [SEP]: what is cut off is no name.
    cut = label_words(model, tokenizer, sentences, max_length=7)
    assert [entity.type for entity in cut[0]] == ["PER"]


def test_sentences_that_are_not_lists_of_words_are_refused(tagger: Path) -> None:
    model, tokenizer = Tagger.from_pretrained(tagger), load_tokenizer(tagger)
    with pytest.raises(TypeError, match="lists of words: split them"):
        label_words(model, tokenizer, ["Ada met Bob."])
    for bad in ([], [[]], [["Ada", " "]]):
        with pytest.raises(ValueError, match="at least one word in each, and no empty word"):
            label_words(model, tokenizer, bad)


def test_each_function_says_which_model_it_needs(tagger: Path) -> None:
    model, tokenizer = Tagger.from_pretrained(tagger), load_tokenizer(tagger)
    with pytest.raises(
        ValueError, match="for classification; this one is for token-classification"
    ):
        predict(model, tokenizer, ["Ada"])
    with pytest.raises(
        ValueError, match=r"answer_questions\(\) is for models for question-answering"
    ):
        answer_questions(model, tokenizer, ["Who?"], ["Ada."])


def test_a_saved_model_comes_back_with_its_head(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    for name, model_class in (
        ("tags", ElectraForTokenClassification),
        ("answers", ElectraForQuestionAnswering),
        ("choices", ElectraForMultipleChoice),
    ):
        model, _ = load_tuned(make_checkpoint(tmp_path / name, WORDS, model_class))
        assert type(model) is model_class
    with pytest.raises(ValueError, match="has no head for a task in it"):
        load_tuned(make_checkpoint(tmp_path / "discriminator", WORDS))
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_tuned(tmp_path / "absent")
