from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertTokenizer, ElectraForMaskedLM, ElectraForPreTraining

from electra_tutorial.detection import detect_replacements, rank_candidates

WORDS = ["the", "chef", "cook", "##ed", "ate", "meal", "a", "soup", "."]


def save(make: Callable[..., Path], folder: Path, model_class: Any = ElectraForPreTraining) -> Path:
    """A random ELECTRA with 12 positions, far enough from zero that its answers differ."""
    return make(folder, WORDS, model_class, max_position_embeddings=12, initializer_range=0.3)


@pytest.fixture(scope="module")
def checkpoint(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return save(make_checkpoint, tmp_path_factory.mktemp("checkpoint") / "discriminator")


@pytest.fixture(scope="module")
def pair(checkpoint: Path) -> tuple[Any, Any]:
    tokenizer = BertTokenizer.from_pretrained(checkpoint)
    return ElectraForPreTraining.from_pretrained(checkpoint).eval(), tokenizer


def test_every_token_has_its_place_and_the_models_probability(pair: tuple[Any, Any]) -> None:
    text = "The chef  cooked the meal."
    scores = detect_replacements(text, *pair)
    assert [score.token for score in scores] == [
        "the",
        "chef",
        "cook",
        "##ed",
        "the",
        "meal",
        ".",
    ]
    pieces = ["The", "chef", "cook", "ed", "the", "meal", "."]
    assert [text[score.start : score.end] for score in scores] == pieces
    model, tokenizer = pair
    with torch.no_grad():
        expected = model(**tokenizer(text, return_tensors="pt")).logits[0, 1:-1].sigmoid()
    assert [score.probability for score in scores] == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_checkpoint_brings_its_tokenizer(checkpoint: Path, pair: tuple[Any, Any]) -> None:
    assert detect_replacements("the chef", checkpoint) == detect_replacements("the chef", *pair)
    assert detect_replacements("the chef", str(checkpoint))[0].token == "the"


def test_candidates_are_ranked_by_their_own_tokens(pair: tuple[Any, Any]) -> None:
    template, candidates = "the chef {} the meal .", ["ate", "cooked", "soup"]
    ranked = rank_candidates(template, candidates, *pair)
    assert sorted(score.candidate for score in ranked) == sorted(candidates)
    assert [s.probability for s in ranked] == sorted((s.probability for s in ranked), reverse=True)
    for score in ranked:
        assert score.text == template.replace("{}", score.candidate)
        tokens = detect_replacements(score.text, *pair)[2 : 4 if score.candidate == "cooked" else 3]
        logs = [math.log(1 - token.probability) for token in tokens]
        assert score.probability == pytest.approx(math.exp(sum(logs) / len(logs)), rel=1e-4)


def test_asking_leaves_the_model_as_it_was(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    model.train()
    first, second = (detect_replacements("the chef ate", model, tokenizer) for _ in range(2))
    assert first == second  # dropout was off
    assert model.training
    model.eval()


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_refused(text: str, pair: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="text is empty"):
        detect_replacements(text, *pair)


def test_a_text_longer_than_the_positions_is_refused(
    pair: tuple[Any, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="13 tokens .* 12 positions"):
        detect_replacements("the " * 11, *pair)
    assert len(detect_replacements("the " * 10, *pair)) == 10
    with pytest.raises(ValueError, match="shorten the text"):
        rank_candidates("the {}", ["meal", "meal " * 12], *pair)
    assert capfd.readouterr().err == ""


def test_wrong_types_are_refused(pair: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError, match="must be a string, not list"):
        detect_replacements(["the"], *pair)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs its tokenizer"):
        detect_replacements("the", pair[0])
    for candidates in ("meal", 3):
        with pytest.raises(TypeError, match="list of candidates"):
            rank_candidates("the {}", candidates, *pair)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("template", "candidates", "message"),
    [
        ("the meal", ["a"], "0 places {}"),
        ("{} {}", ["a"], "2 places {}"),
        ("the {}", [], "no candidate"),
        ("the {}", ["a", " "], "empty one"),
    ],
)
def test_bad_templates_and_candidates_are_refused(
    template: str, candidates: list[str], message: str, pair: tuple[Any, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_candidates(template, candidates, *pair)


def test_a_checkpoint_without_the_discriminators_head_is_refused(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = save(make_checkpoint, tmp_path / "generator", ElectraForMaskedLM)
    with pytest.raises(ValueError, match="no discriminator head"):
        detect_replacements("the chef", folder)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        detect_replacements("the chef", tmp_path / "absent")
