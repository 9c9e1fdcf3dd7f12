from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForTokenClassification,
    ElectraForPreTraining,
)

from electra_tutorial.config import FineTuningConfig
from electra_tutorial.encoding import collate
from electra_tutorial.finetuning import evaluate, fine_tune
from electra_tutorial.heads import HEADS, first_pieces, head_of
from electra_tutorial.prediction import classify
from electra_tutorial.tasks import Task, load_task
from electra_tutorial.tokenization import load_tokenizer

WORDS = ["ada", "ba", "##bb", "##age", "met", "in", "paris", "rome", "bob", "was", "late", "."]
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SETTINGS = FineTuningConfig(
    learning_rate=1e-2, layerwise_decay=0.9, epochs=6, batch_size=8, max_length=16, dropout=0.0
)


@pytest.fixture(scope="module")
def checkpoint(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A random discriminator with 16 positions."""
    folder = tmp_path_factory.mktemp("checkpoint") / "discriminator"
    return make_checkpoint(folder, WORDS, max_position_embeddings=16, initializer_range=0.1)


def sentences(*rows: tuple[list[str], list[str]]) -> Dataset:
    """Rows as the sets of the field hold them."""
    return Dataset.from_dict(
        {
            "tokens": [words for words, _ in rows],
            "ner_tags": [[TAGS.index(tag) for tag in tags] for _, tags in rows],
        }
    )


BABBAGE = (["Ada", "Babbage", "met", "Bob", "."], ["B-PER", "I-PER", "O", "B-PER", "O"])


def encoded(checkpoint: Path, dataset: Dataset, max_length: int = 16) -> Any:
    config = ElectraForPreTraining.from_pretrained(checkpoint).config
    head = HEADS["token-classification"]
    return head.encode(load_tokenizer(checkpoint), dataset, TAGS, max_length, config, "train")


def test_the_first_piece_of_a_word_carries_its_tag(checkpoint: Path) -> None:
    rows, labels = encoded(checkpoint, sentences(BABBAGE))
    tokenizer = load_tokenizer(checkpoint)
    pieces = tokenizer.convert_ids_to_tokens(rows[0]["input_ids"])
    assert pieces == ["[CLS]", "ada", "ba", "##bb", "##age", "met", "bob", ".", "[SEP]"]
    assert labels[0] == [-100, 1, 2, -100, -100, 0, 1, 0, -100]


def test_a_word_that_the_tokenizer_drops_keeps_its_place(checkpoint: Path) -> None:
    rows, labels = encoded(checkpoint, sentences((["Ada", "\u200b", "Bob"], ["B-PER", "O", "O"])))
    pieces = load_tokenizer(checkpoint).convert_ids_to_tokens(rows[0]["input_ids"])
    assert pieces == ["[CLS]", "ada", "[UNK]", "bob", "[SEP]"]
    assert labels[0] == [-100, 1, 0, 0, -100]


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=20))
def test_first_pieces_are_those_that_nothing_precedes(words: list[int | None]) -> None:
    expected = {w: i for i, w in enumerate(words) if w is not None and w not in words[:i]}
    assert first_pieces(words) == expected


def test_the_loss_is_that_of_transformers_over_first_pieces(checkpoint: Path) -> None:
    rows, labels = encoded(checkpoint, sentences(BABBAGE, (["Rome", "."], ["B-LOC", "O"])))
    batch = collate(rows, labels)
    assert batch["labels"][1].tolist() == [-100, 3, 0, -100] + 5 * [-100]  # padding teaches nothing
    model = AutoModelForTokenClassification.from_pretrained(checkpoint, num_labels=5).eval()
    with torch.no_grad():
        output = model(**batch)
    log_p = output.logits.log_softmax(-1)
    taught = batch["labels"] != -100
    by_hand = -log_p[taught].gather(1, batch["labels"][taught][:, None]).mean()
    torch.testing.assert_close(output.loss, by_hand)
    judged = HEADS["token-classification"].judge(
        [
            row[: len(ids["input_ids"])].numpy()
            for row, ids in zip(output.logits, rows, strict=True)
        ],
        labels,
        sentences(BABBAGE, (["Rome", "."], ["B-LOC", "O"])),
        TAGS,
    )
    assert math.isclose(judged.metrics["loss"], by_hand.item(), rel_tol=1e-5)


def test_words_that_were_cut_off_count_as_no_entity(checkpoint: Path) -> None:
    dataset = sentences((["Ada", "met", "Bob"], ["B-PER", "O", "B-PER"]))
    rows, labels = encoded(checkpoint, dataset, max_length=4)  # [CLS] ada met [SEP]
    logits = np.full((len(rows[0]["input_ids"]), len(TAGS)), -9.0)
    logits[1, 1] = logits[2, 0] = 9.0
    judged = HEADS["token-classification"].judge([logits], labels, dataset, TAGS)
    assert judged.predictions == [["B-PER", "O", "O"]]
    assert judged.metrics["precision"] == 1.0
    assert judged.metrics["recall"] == 0.5


def test_entities_are_learnt_saved_and_evaluated(checkpoint: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        person, place = random.choice(["Ada", "Bob", "Babbage"]), random.choice(["Paris", "Rome"])
        rows.append(([person, "was", "in", place, "."], ["B-PER", "O", "O", "B-LOC", "O"]))
        if random.random() < 0.5:
            rows[-1] = ([place, "was", "late", "."], ["B-LOC", "O", "O", "O"])
    split = sentences(*rows)
    task = Task(
        "toy", "token-classification", TAGS, ("tokens",), split, split, split, "builtin", "0", "f1"
    )
    result = fine_tune(checkpoint, task, SETTINGS, tmp_path / "tagger")
    assert result.validation.metrics["f1"] > 0.95
    assert "PER" in result.validation.report
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "tagger")
    assert head_of(loaded) is HEADS["token-classification"]
    again = evaluate(loaded, result.tokenizer, split, TAGS, max_length=16)
    assert again.predictions == result.validation.predictions


def test_a_number_is_learnt(checkpoint: Path) -> None:
    random = np.random.default_rng(1)
    texts, labels = [], []
    for _ in range(64):
        late = random.integers(0, 5)
        texts.append(" ".join(random.permutation(["ada", "was", *["late"] * late])))
        labels.append(float(late))
    split = Dataset.from_dict({"text": texts, "label": labels})
    task = Task("toy", "regression", (), ("text",), split, split, split, "builtin", "0", "spearman")
    result = fine_tune(checkpoint, task, SETTINGS)
    judged = evaluate(result.model, result.tokenizer, split, (), max_length=16)
    assert judged.metrics["pearson"] == pytest.approx(
        pearsonr(judged.labels, judged.predictions).statistic
    )
    assert judged.metrics["pearson"] > 0.9
    low, high = judged.metrics["spearman_interval"]
    assert low <= judged.metrics["spearman"] <= high
    assert judged.report.startswith("pearson 0.9")


def test_the_loss_of_guessing_by_hand() -> None:
    classes = HEADS["classification"].guessing_loss([0, 0, 0, 2])
    assert classes == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    tags = HEADS["token-classification"].guessing_loss([[-100, 0, 1, -100], [0, -100], [1, 0, 0]])
    assert tags == pytest.approx(-2 / 3 * math.log(2 / 3) - 1 / 3 * math.log(1 / 3))
    assert HEADS["regression"].guessing_loss([1.0, 2.0, 3.0]) is None
    assert HEADS["multiple-choice"].guessing_loss([0, 1]) is None
    assert HEADS["question-answering"].guessing_loss([]) is None


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [
        ("token-classification", {"tokens": [["a"]], "ner_tags": [[0, 1]]}, "1 tokens and 2 tags"),
        ("token-classification", {"tokens": [["a"]], "ner_tags": [[9]]}, "from 0 to 4"),
        ("token-classification", {"text": ["a"]}, "train has no column tokens; it has text"),
        ("classification", {"text": ["a"], "label": [5]}, "from 0 to 4"),
        ("regression", {"text": ["a"], "label": ["b"]}, "expected a number"),
    ],
)
def test_bad_rows_get_one_clear_sentence(
    kind: str, columns: dict[str, Any], message: str, checkpoint: Path
) -> None:
    config = ElectraForPreTraining.from_pretrained(checkpoint).config
    with pytest.raises(ValueError, match=message):
        HEADS[kind].encode(
            load_tokenizer(checkpoint), Dataset.from_dict(columns), TAGS, 16, config, "train"
        )


def test_a_model_without_a_task_head_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="no head that can be evaluated"):
        head_of(ElectraForPreTraining.from_pretrained(checkpoint))


# --- choices --------------------------------------------------------------------------------------


def choices(*rows: tuple[list[str], list[str], int]) -> Dataset:
    columns = {
        name: [row[i] for row in rows] for i, name in enumerate(("turns", "choices", "label"))
    }
    return Dataset.from_dict({"id": [str(i) for i in range(len(rows))]} | columns)


def read_choices(checkpoint: Path, dataset: Dataset, max_length: int = 16) -> Any:
    config = ElectraForPreTraining.from_pretrained(checkpoint).config
    head = HEADS["multiple-choice"]
    return head.encode(load_tokenizer(checkpoint), dataset, (), max_length, config, "train")


TWO = choices(
    (["Ada was late.", "In Rome."], ["Bob met Ada.", "Paris."], 1),
    (["Bob."], ["Ada.", "Rome was late."], 0),
)


def test_each_choice_is_a_pair_with_the_dialogue(checkpoint: Path) -> None:
    items, labels = read_choices(checkpoint, TWO)
    assert labels == [1, 0]
    tokenizer = load_tokenizer(checkpoint)
    first = [tokenizer.convert_ids_to_tokens(ids) for ids in items[0]["input_ids"]]
    dialogue = ["[CLS]", "ada", "was", "late", ".", "[SEP]", "in", "rome", ".", "[SEP]"]
    assert first == [
        [*dialogue, "bob", "met", "ada", ".", "[SEP]"],
        [*dialogue, "paris", ".", "[SEP]"],
    ]
    assert items[0]["token_type_ids"][1] == 10 * [0] + 3 * [1]
    batch = collate(items, labels)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 2, 15)
    assert batch["input_ids"][0, 1].tolist() == items[0]["input_ids"][1] + 2 * [0]
    assert batch["labels"].tolist() == [1, 0]


def test_of_a_long_dialogue_the_end_is_read(checkpoint: Path) -> None:
    items, _ = read_choices(checkpoint, TWO, max_length=10)
    tokenizer = load_tokenizer(checkpoint)
    tokens = tokenizer.convert_ids_to_tokens(items[0]["input_ids"][1])
    dialogue = ["[CLS]", ".", "[SEP]", "in", "rome", ".", "[SEP]"]
    assert tokens == [*dialogue, "paris", ".", "[SEP]"]
    assert tokenizer.truncation_side == "right"


def test_the_loss_of_choices_is_that_of_transformers(checkpoint: Path) -> None:
    items, labels = read_choices(checkpoint, TWO)
    torch.manual_seed(0)
    model = AutoModelForMultipleChoice.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        output = model(**collate(items, labels))
    judged = HEADS["multiple-choice"].judge(classify(model, items), labels, TWO, ())
    assert judged.metrics["loss"] == pytest.approx(output.loss.item(), rel=1e-5)
    assert judged.probabilities.sum(axis=1) == pytest.approx([1, 1])
    assert head_of(model) is HEADS["multiple-choice"]


def test_choices_are_learnt(checkpoint: Path) -> None:
    random = np.random.default_rng(2)
    made = []
    for _ in range(48):
        place, label = random.choice(["Paris", "Rome"]), int(random.integers(2))
        right, wrong = f"In {place}.", "Ada met Bob."
        made.append(([f"Was Bob in {place}"], [right, wrong][:: 1 - 2 * label], label))
    split = choices(*made)
    task = Task(
        "toy", "multiple-choice", (), ("turns", "choices"), split, split, split, "builtin", "0"
    )
    result = fine_tune(checkpoint, task, SETTINGS)
    judged = evaluate(result.model, result.tokenizer, split, (), max_length=16)
    assert judged.metrics == result.validation.metrics
    assert judged.metrics["accuracy"] > 0.95
    low, high = judged.metrics["accuracy_interval"]
    assert low <= judged.metrics["accuracy"] <= high
    assert judged.report.endswith("by chance 0.500")


def test_a_set_without_training_rows_is_not_trained_on(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="'replies' has no rows to train on"):
        fine_tune(checkpoint, load_task("replies", quiet=True), SETTINGS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((["Ada."], ["Bob."], 0), "1 turns and 1 choices; expected .* 2 choices"),
        (([], ["Bob.", "Ada."], 0), "has 0 turns"),
        ((["Ada."], ["Bob.", " "], 0), "choices in row 0 of train is empty"),
        ((["Ada."], ["Bob.", "Rome."], 2), "expected the number of the right choice, from 0 to 1"),
    ],
)
def test_bad_choices_get_one_clear_sentence(
    row: tuple[list[str], list[str], int], message: str, checkpoint: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_choices(checkpoint, choices(row))
