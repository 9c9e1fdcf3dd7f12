from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from transformers import ElectraForQuestionAnswering

from electra_tutorial.checkpoints import find_checkpoint, load_pretrained
from electra_tutorial.heads import HEADS
from electra_tutorial.hints import hinted_questions, separate_token_types, uninformative
from electra_tutorial.questions import QuestionHead
from electra_tutorial.tokenization import load_tokenizer

QUESTION = "Who built the old bridge?"
CONTEXT = "The bridge at York was built by Jane Ward. She built it for the king."
ROW = Dataset.from_dict(
    {
        "question": [QUESTION],
        "context": [CONTEXT],
        "answers": [{"text": ["Jane Ward"], "answer_start": [CONTEXT.index("Jane")]}],
    }
)


def test_a_hint_marks_what_the_question_has() -> None:
    tokenizer = load_tokenizer("mini")
    model, _ = load_pretrained(ElectraForQuestionAnswering, find_checkpoint("mini"))
    usual = HEADS["question-answering"].encode(tokenizer, ROW, (), 64, model.config, "the row")
    with hinted_questions() as head:
        assert HEADS["question-answering"] is head
        ((row,), (window,)) = head.encode(tokenizer, ROW, (), 64, model.config, "the row")
    assert type(HEADS["question-answering"]) is QuestionHead
    assert row["input_ids"] == usual[0][0]["input_ids"]
    assert (window.start, window.end) == (usual[1][0].start, usual[1][0].end)
    pieces = tokenizer.convert_ids_to_tokens(row["input_ids"])
    hinted = [
        piece
        for place, (piece, kind) in enumerate(zip(pieces, row["token_type_ids"], strict=True))
        if place >= window.first and kind == 0
    ]
    assert hinted == ["bridge", "built", "built"]
    assert not any(row["token_type_ids"][: window.first])


def test_the_usual_head_returns_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="stop"), hinted_questions():
        raise RuntimeError("stop")
    assert type(HEADS["question-answering"]) is QuestionHead


def test_function_words_and_unknown_pieces_give_no_hint() -> None:
    tokenizer = load_tokenizer("mini")
    without = uninformative(tokenizer)
    assert all(tokenizer.convert_tokens_to_ids(word) in without for word in ("the", "?"))
    assert tokenizer.unk_token_id in without
    assert tokenizer.convert_tokens_to_ids("bridge") not in without


def test_token_types_are_set_apart_in_the_same_way_each_time() -> None:
    models = [
        load_pretrained(ElectraForQuestionAnswering, find_checkpoint("mini"))[0] for _ in range(2)
    ]
    before = models[0].electra.embeddings.token_type_embeddings.weight.detach().clone()
    for model in models:
        separate_token_types(model)
    first, second = (m.electra.embeddings.token_type_embeddings.weight.detach() for m in models)
    assert torch.equal(first, second)
    assert torch.equal(first[0], before[0])
    assert (first[1] - first[0]).std() == pytest.approx(0.1, rel=0.2)
