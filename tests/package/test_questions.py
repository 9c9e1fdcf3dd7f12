from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ElectraForPreTraining, ElectraForQuestionAnswering

from electra_tutorial.config import FineTuningConfig
from electra_tutorial.encoding import Window, collate, encode_questions
from electra_tutorial.finetuning import fine_tune
from electra_tutorial.heads import HEADS, head_of
from electra_tutorial.prediction import answer_questions, classify, evaluate
from electra_tutorial.questions import AnswerEvaluation, Span, best_pairs, find_spans
from electra_tutorial.tasks import Task, load_task
from electra_tutorial.tokenization import load_tokenizer

WORDS = ["who", "where", "met", "ada", "bob", "eve", "in", "paris", "rome", "oslo", "to", "##day"]
WORDS += ["then", "and", "saw", "the", "old", "man", ".", "?"]
CONTEXT = "Ada met Bob in Paris today. Then Bob saw the old man."
SETTINGS = FineTuningConfig(
    learning_rate=1e-2,
    layerwise_decay=0.9,
    epochs=8,
    batch_size=8,
    max_length=16,
    window_overlap=4,
    dropout=0.0,
)


@pytest.fixture(scope="module")
def checkpoint(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A random discriminator with 32 positions."""
    folder = tmp_path_factory.mktemp("checkpoint") / "discriminator"
    return make_checkpoint(folder, WORDS, max_position_embeddings=32, initializer_range=0.1)


def answers(*pairs: tuple[str, int]) -> dict[str, list[Any]]:
    return {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}


def rows(*questions: tuple[str, str, dict[str, list[Any]]]) -> Dataset:
    names = ("question", "context", "answers")
    columns = {name: [row[i] for row in questions] for i, name in enumerate(names)}
    return Dataset.from_dict({"id": [str(i) for i in range(len(questions))]} | columns)


def read(checkpoint: Path, dataset: Dataset, max_length: int = 16, overlap: int = 4) -> Any:
    config = ElectraForPreTraining.from_pretrained(checkpoint).config
    head = HEADS["question-answering"]
    return head.encode(
        load_tokenizer(checkpoint), dataset, (), max_length, config, "train", overlap
    )


def test_windows_by_hand(checkpoint: Path) -> None:
    man = CONTEXT.index("the old man")
    dataset = rows(("Who met Bob?", CONTEXT, answers(("the old man", man), ("man", man + 8))))
    items, windows = read(checkpoint, dataset)
    tokenizer = load_tokenizer(checkpoint)
    pieces = [tokenizer.convert_ids_to_tokens(item["input_ids"]) for item in items]
    question = ["[CLS]", "who", "met", "bob", "?", "[SEP]"]
    # 15 tokens of context, 9 beside the question, of which 4 are shared.
    assert pieces == [
        [*question, "ada", "met", "bob", "in", "paris", "to", "##day", ".", "then", "[SEP]"],
        [*question, "to", "##day", ".", "then", "bob", "saw", "the", "old", "man", "[SEP]"],
        [*question, "saw", "the", "old", "man", ".", "[SEP]"],
    ]
    assert items[2]["token_type_ids"] == [0] * 6 + [1] * 6
    assert items[2]["attention_mask"] == [1] * 12
    # The first answer is learnt; where it is not whole, [CLS] is.
    assert [(w.start, w.end) for w in windows] == [(0, 0), (12, 14), (7, 9)]
    assert [w.row for w in windows] == [0, 0, 0]
    assert windows[1].offsets[6:9].tolist() == [[man, man + 3], [man + 4, man + 7]] + [
        [man + 8, man + 11]
    ]
    batch = collate(items, windows)
    assert batch["start_positions"].tolist() == [0, 12, 7]
    assert batch["end_positions"].tolist() == [0, 14, 9]


@settings(deadline=None, max_examples=25)
@given(length=st.integers(1, 60), overlap=st.integers(0, 7))
def test_windows_are_those_of_transformers(length: int, overlap: int) -> None:
    tokenizer = load_tokenizer("mini")
    context = " ".join(
        ["the", "ferry", "left", "unbelievably", "late", "."][i % 6] for i in range(length)
    )
    config = ElectraForPreTraining.config_class()
    items, windows = encode_questions(
        tokenizer, ["Who left?"], [context], None, 20, overlap, config
    )
    theirs = tokenizer(
        "Who left?",
        context,
        truncation="only_second",
        max_length=20,
        stride=overlap,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert [item["input_ids"] for item in items] == theirs["input_ids"]
    assert [item["token_type_ids"] for item in items] == theirs["token_type_ids"]
    for window, offsets in zip(windows, theirs["offset_mapping"], strict=True):
        assert [tuple(pair) for pair in window.offsets.tolist()] == offsets[window.first : -1]


def test_the_built_in_answers_are_found_again_by_their_tokens() -> None:
    task = load_task("passages", quiet=True)
    config = ElectraForPreTraining.config_class()
    items, windows = HEADS["question-answering"].encode(
        load_tokenizer("mini"), task.validation, (), 128, config, "validation", 64
    )
    held = set()
    for window in windows:
        if window.end:
            begin = window.offsets[window.start - window.first, 0]
            end = window.offsets[window.end - window.first, 1]
            context = task.validation["context"][window.row]
            assert context[begin:end] == task.validation["answers"][window.row]["text"][0]
            held.add(window.row)
    answered = {i for i, given in enumerate(task.validation["answers"]) if given["text"]}
    assert held == answered
    assert len(items) > len(task.validation)


def test_the_loss_is_that_of_transformers(checkpoint: Path) -> None:
    man = CONTEXT.index("the old man")
    dataset = rows(
        ("Who met Bob?", CONTEXT, answers(("the old man", man))),
        ("Who saw Eve?", CONTEXT, answers()),
    )
    items, windows = read(checkpoint, dataset)
    torch.manual_seed(1)
    model = ElectraForQuestionAnswering.from_pretrained(checkpoint).eval()
    # transformers scores padding too, so that only windows without any can be compared.
    losses = []
    with torch.no_grad():
        for item, window in zip(items, windows, strict=True):
            losses.append(model(**collate([item], [window])).loss.item())
    judged = HEADS["question-answering"].judge(classify(model, items), windows, dataset, ())
    assert judged.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def window(tokens: int, first: int = 3, row: int = 0, begin: int = 0) -> Window:
    """A window whose every token has two characters and a space after it."""
    starts = 3 * np.arange(begin, begin + tokens)
    return Window(row, first, np.stack([starts, starts + 2], axis=1))


@settings(deadline=None, max_examples=40)
@given(tokens=st.integers(1, 45), seed=st.integers(0, 99))
def test_the_best_pairs_are_those_of_a_double_loop(tokens: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(tokens + 4, 2))
    found = best_pairs(scores, window(tokens))
    every = [
        (i, j, scores[3 + i, 0] + scores[3 + j, 1])
        for i in range(tokens)
        for j in range(i, min(tokens, i + 30))
    ]
    best = sorted(every, key=lambda pair: -pair[2])[:20]
    assert sorted(found, key=lambda pair: -pair[2]) == best


def test_spans_over_windows_by_hand() -> None:
    context = "aa bb cc dd ee"
    first, second = window(3), window(3, begin=2)
    low = np.zeros((7, 2))
    one, two = low.copy(), low.copy()
    one[0] = [4, 1]  # [CLS] of the first window: 5
    two[0] = [1, 1]  # and of the second: 2
    one[1] = [99, 99]  # the question is no answer
    one[6] = [99, 99]  # neither is [SEP]
    one[5, 0], one[5, 1] = 1.0, 1.0  # "cc" in the first window: 2
    two[3, 0], two[4, 1] = 3.0, 4.0  # "cc dd" in the second: 7; "cc" alone 3
    spans, nothing = find_spans([one, two], [first, second], [context])
    assert spans[0][0] == Span("cc dd", 6, 11, 7.0)
    assert nothing.tolist() == [2 - 7]
    assert {span.text: span.score for span in spans[0]}["cc"] == 3.0  # once, with the higher score
    assert len({(span.start, span.end) for span in spans[0]}) == len(spans[0])
    assert all(span.start < span.end for span in spans[0])


def evaluation(threshold: float | None = None) -> AnswerEvaluation:
    spans = [[Span(text, 0, len(text), 0.0)] for text in ("in Paris", "Bob", "rome", "the man")]
    labels = [["Paris"], ["Bob", "old Bob"], [], []]
    return AnswerEvaluation.of(labels, spans, np.array([-3.0, -1.0, 2.0, 4.0]), 0.5, threshold)


def test_the_threshold_is_chosen_and_used() -> None:
    always = evaluation()
    assert always.predictions == ["in Paris", "Bob", "rome", "the man"]
    assert always.metrics["exact_match"] == 0.25
    assert always.metrics["f1"] == pytest.approx((2 / 3 + 1) / 4)
    # By rising score: Paris 2/3, Bob 1, rome -1, man -1; from 2 unanswered that are right.
    assert always.best_threshold() == -1.0
    chosen = always.at(-1.0)
    assert chosen.predictions == ["in Paris", "Bob", "", ""]
    assert chosen.metrics["f1"] == pytest.approx((2 / 3 + 1 + 1 + 1) / 4)
    assert chosen.metrics["unanswerable"] == {"exact_match": 1.0, "f1": 1.0, "support": 2}
    assert chosen.metrics["answerable"]["f1"] == pytest.approx(5 / 6)
    assert chosen.metrics["loss"] == 0.5
    assert chosen.report.splitlines()[1].split() == ["all", "0.750", "0.917", "4"]
    assert chosen.report.splitlines()[3].split() == ["unanswerable", "1.000", "1.000", "2"]
    assert chosen.at(-1.0) is chosen


def make_task() -> Task:
    """Where somebody met somebody, in contexts of two windows; a third is not told."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(40):
        place = str(random.choice(["Paris", "Rome", "Oslo"]))
        told = random.random() < 0.7
        met = f"Ada met Bob in {place}." if told else "Ada met the old man."
        rest = ["Then Eve saw the man.", "The old man saw Eve and Bob."]
        context = " ".join(random.permutation([met, *rest]))
        given = answers((place, context.index(place))) if told else answers()
        made.append(("Where?", context, given))
    split = rows(*made)
    return Task(
        "toy",
        "question-answering",
        (),
        ("context", "question"),
        split,
        split,
        split,
        "b",
        "0",
        "f1",
    )


def test_answers_are_learnt_saved_and_given(checkpoint: Path, tmp_path: Path) -> None:
    task = make_task()
    result = fine_tune(checkpoint, task, SETTINGS, tmp_path / "model")
    judged = result.validation
    assert isinstance(judged, AnswerEvaluation)
    assert judged.metrics["f1"] > 0.9
    assert judged.metrics["unanswerable"]["f1"] > 0.8
    low, high = judged.metrics["f1_interval"]
    assert low <= judged.metrics["f1"] <= high
    loaded = ElectraForQuestionAnswering.from_pretrained(tmp_path / "model")
    assert head_of(loaded) is HEADS["question-answering"]
    assert loaded.config.no_answer_threshold == judged.threshold
    reading: dict[str, Any] = {"max_length": 16, "window_overlap": 4}
    again = evaluate(loaded, result.tokenizer, task.test, (), **reading)
    assert again.predictions == judged.predictions
    given = answer_questions(
        loaded, result.tokenizer, task.test["question"], task.test["context"], **reading
    )
    assert [answer.text for answer in given] == judged.predictions
    for answer, context in zip(given, task.test["context"], strict=True):
        if answer.text:
            assert context[answer.start : answer.end] == answer.text
        else:
            assert answer.start is answer.end is None
        assert answer.spans[0].score >= answer.spans[-1].score


def test_bad_rows_get_one_clear_sentence(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="question in row 0 of train is empty"):
        read(checkpoint, rows((" ", CONTEXT, answers())))
    with pytest.raises(ValueError, match="max_length 64 exceeds the 32 positions"):
        read(checkpoint, rows(("Who?", CONTEXT, answers())), max_length=64)
    with pytest.raises(ValueError, match="max_length 7 has no room"):
        read(checkpoint, rows(("Who?", CONTEXT, answers())), max_length=7)
    with pytest.raises(ValueError, match="train has no column question"):
        read(checkpoint, Dataset.from_dict({"context": ["a"]}))
    with pytest.raises(ValueError, match="context in row 0 of train holds nothing that can be"):
        read(checkpoint, rows(("Who?", "\u200b", answers())))
    with pytest.raises(ValueError, match="train has no question"):
        read(checkpoint, rows(("Who?", CONTEXT, answers())).select([]))
    model = ElectraForQuestionAnswering.from_pretrained(checkpoint)
    tokenizer = load_tokenizer(checkpoint)
    with pytest.raises(TypeError, match="put each into a list"):
        answer_questions(model, tokenizer, "Who?", CONTEXT)
    with pytest.raises(ValueError, match="1 questions and 2 contexts"):
        answer_questions(model, tokenizer, ["Who?"], [CONTEXT, CONTEXT])


def test_a_question_longer_than_its_half_is_cut(checkpoint: Path) -> None:
    dataset = rows(("who met bob ? " * 9, CONTEXT, answers()))
    items, windows = read(checkpoint, dataset)
    assert all(len(item["input_ids"]) <= 16 for item in items)
    assert {w.first for w in windows} == {8 + 2}
