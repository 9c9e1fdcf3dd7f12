"""A fine-tuned model at work: measured on labelled rows, or asked about new texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from scipy.special import softmax
from seqeval.metrics.sequence_labeling import get_entities
from transformers import AutoConfig, AutoModel, PreTrainedModel

from electra_tutorial.checkpoints import find_checkpoint, load_pretrained
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.encoding import (
    Encoded,
    collate,
    encode,
    encode_questions,
    encode_words,
    length_of,
)
from electra_tutorial.heads import HEADS, AnyEvaluation, first_pieces, head_of
from electra_tutorial.questions import Answer, AnswerEvaluation, find_spans
from electra_tutorial.tokenization import load_tokenizer


@dataclass(frozen=True)
class Prediction:
    """The class that a model gives a text, and its probabilities for all classes by name."""

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Entity:
    """A name that a model finds in a sentence.

    Attributes:
        type: PER, for instance.
        words: the words of the name.
        start, end: numbers of its first word and of the word after its last.
        probability: that of its tags, multiplied over its words.
    """

    type: str
    words: tuple[str, ...]
    start: int
    end: int
    probability: float


def load_tuned(checkpoint: str | Path) -> tuple[PreTrainedModel, Any]:
    """Load what `fine_tune()` has saved, whatever its head: (model, tokenizer).

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it has no head for a task, or is no ELECTRA.
    """
    source = find_checkpoint(checkpoint)
    classes = {head.model_class.__name__: head.model_class for head in HEADS.values()}
    try:
        saved = AutoConfig.from_pretrained(source).architectures or []
    except (OSError, ValueError):
        saved = []  # load_pretrained() says why
    known = [classes[name] for name in saved if name in classes]
    model, new = load_pretrained(known[0] if known else AutoModel, source)
    if new or not known:
        raise ValueError(
            f"{checkpoint} has no head for a task in it: name a folder that `finetune` wrote."
        )
    return model, load_tokenizer(source)


@torch.no_grad()
def classify(
    model: torch.nn.Module, encoded: Sequence[Encoded], batch_size: int = 64
) -> list[np.ndarray]:
    """The model's logits for each item, in the order of `encoded`.

    Of shape (classes,) where the head answers for the whole text, (tokens, classes) where it
    answers for each token, (tokens, 2) where it looks for the start and the end of an answer, and
    (choices,) where an item is a choice.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    # Long items first: if a batch does not fit into memory, the first one shows it.
    lengths = [length_of(row) for row in encoded]
    order = np.argsort([-length for length in lengths], kind="stable")
    logits: dict[int, np.ndarray] = {}
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size].tolist()
        batch = collate([encoded[i] for i in places])
        output = model(**{k: v.to(device) for k, v in batch.items()})
        if "start_logits" in output:
            scores = torch.stack([output.start_logits, output.end_logits], dim=-1)
        else:
            scores = output.logits
        for place, answer in zip(places, scores.float().cpu().numpy(), strict=True):
            logits[place] = answer[: lengths[place]] if answer.ndim == 2 else answer
    model.train(was_training)
    return [logits[place] for place in range(len(encoded))]


def evaluate(
    model: torch.nn.Module,
    tokenizer: Any,
    dataset: Dataset,
    label_names: Sequence[str],
    *,
    max_length: int | None = None,
    window_overlap: int | None = None,
    batch_size: int = 64,
) -> AnyEvaluation:
    """Let a fine-tuned model answer a labelled split, and measure the answers.

    `max_length` cuts longer texts, and long contexts into windows, which share `window_overlap`
    tokens; default: 128 and 64 tokens, as in `FineTuningConfig`, or the model's positions where
    these are fewer. "No answer" is given above the threshold that fine-tuning has chosen and saved
    as no_answer_threshold in the model's configuration; without one, never.

    Raises:
        ValueError: if the model has another number of classes, a text is empty, or a label is out
            of range.
    """
    head, model_config = head_of(model), cast(Any, model.config)
    settings = head.settings(label_names)
    classes = len(settings["id2label"]) if "id2label" in settings else settings.get("num_labels")
    if classes not in (None, model_config.num_labels):
        raise ValueError(
            f"The model has {model_config.num_labels} classes, but there are {len(label_names)} "
            "label names: use the label names that it was trained with."
        )
    encoded, labels = head.encode(
        tokenizer,
        dataset,
        label_names,
        max_length or default_length(model_config),
        model_config,
        "the data",
        _overlap(window_overlap),
    )
    found = head.judge(classify(model, encoded, batch_size), labels, dataset, label_names)
    if isinstance(found, AnswerEvaluation):
        return found.at(getattr(model_config, "no_answer_threshold", None))
    return found


def predict(
    model: torch.nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    text_pairs: Sequence[str] | None = None,
    *,
    max_length: int | None = None,
    batch_size: int = 64,
) -> list[Prediction]:
    """Classify new texts; the names of the classes are those that the model was saved with.

    Raises:
        TypeError: if `texts` is one string instead of several, or holds something else.
        ValueError: if the model is no classifier, or a text is empty.
    """
    _require("classification", model, "predict()")
    if isinstance(texts, str):
        raise TypeError("predict() needs several texts, not one string: put it into a list.")
    model_config: Any = model.config
    columns = {"text": list(texts)} | (
        {} if text_pairs is None else {"text_pair": list(text_pairs)}
    )
    for column, values in columns.items():
        if not all(isinstance(value, str) for value in values):
            raise TypeError(f"Every {column} must be a string.")
    dataset = Dataset.from_dict(columns)
    encoded = encode(tokenizer, dataset, max_length or default_length(model_config), model_config)
    logits = torch.from_numpy(np.stack(classify(model, encoded, batch_size))).double()
    names = [model_config.id2label[i] for i in range(model_config.num_labels)]
    answers = []
    for shares in logits.softmax(dim=1).tolist():
        best = int(np.argmax(shares))
        answers.append(Prediction(names[best], shares[best], dict(zip(names, shares, strict=True))))
    return answers


def label_words(
    model: torch.nn.Module,
    tokenizer: Any,
    sentences: Sequence[Sequence[str]],
    *,
    max_length: int | None = None,
    batch_size: int = 64,
) -> list[list[Entity]]:
    """Find the names in sentences that are split into words.

    An entity that opens with I- counts as one, as in the measures. Words that were cut off belong
    to no entity.

    Raises:
        TypeError: if a sentence is one string instead of a list of words.
        ValueError: if the model labels no words, there is no sentence, or one has no word or an
            empty one.
    """
    _require("token-classification", model, "label_words()")
    if isinstance(sentences, str) or any(isinstance(words, str) for words in sentences):
        raise TypeError("label_words() needs sentences that are lists of words: split them.")
    rows = [list(words) for words in sentences]
    if not rows or not all(rows) or not all(word.strip() for words in rows for word in words):
        raise ValueError(
            "label_words() needs at least one sentence, at least one word in each, and no empty "
            "word: leave them out."
        )
    model_config: Any = model.config
    length = max_length or default_length(model_config)
    encoded, words_of_pieces = encode_words(tokenizer, rows, length, model_config)
    entities = []
    logits = classify(model, encoded, batch_size)
    for words, scores, owners in zip(rows, logits, words_of_pieces, strict=True):
        shares = softmax(scores[list(first_pieces(owners).values())].astype(np.float64), axis=1)
        tags = [model_config.id2label[i] for i in shares.argmax(axis=1).tolist()]
        sure = shares.max(axis=1)
        entities.append(
            [
                Entity(
                    name,
                    tuple(words[start : last + 1]),
                    start,
                    last + 1,
                    float(sure[start : last + 1].prod()),
                )
                for name, start, last in get_entities(tags)
            ]
        )
    return entities


def answer_questions(
    model: torch.nn.Module,
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    max_length: int | None = None,
    window_overlap: int | None = None,
    batch_size: int = 64,
) -> list[Answer]:
    """Answer each question with a part of its context, or with "no answer" (see `evaluate()`).

    Raises:
        TypeError: if an argument is one string instead of several, or holds something else.
        ValueError: if the model answers no questions, there are not as many contexts as questions,
            or a string is empty.
    """
    _require("question-answering", model, "answer_questions()")
    if isinstance(questions, str) or isinstance(contexts, str):
        raise TypeError(
            "answer_questions() needs several questions and contexts, not one string: put each "
            "into a list."
        )
    if len(questions) != len(contexts):
        raise ValueError(
            f"There are {len(questions)} questions and {len(contexts)} contexts; give each "
            "question its context."
        )
    model_config: Any = model.config
    encoded, windows = encode_questions(
        tokenizer,
        questions,
        contexts,
        None,
        max_length or default_length(model_config),
        _overlap(window_overlap),
        model_config,
    )
    spans, scores = find_spans(classify(model, encoded, batch_size), windows, contexts)
    threshold = getattr(model_config, "no_answer_threshold", None)
    return [
        Answer.of(best, score, threshold)
        for best, score in zip(spans, scores.tolist(), strict=True)
    ]


def kind_of(model: Any) -> str:
    """The kind of task that a model was fine-tuned for, a key of `HEADS`."""
    return next(kind for kind, head in HEADS.items() if head is head_of(model))


def _require(kind: str, model: Any, function: str) -> None:
    if kind_of(model) != kind:
        raise ValueError(
            f"{function} is for models for {kind}; this one is for {kind_of(model)}: use predict() "
            "for classes, label_words() for names, answer_questions() for answers, else evaluate()."
        )


def default_length(model_config: Any) -> int:
    """How many tokens are read where nobody says: the fine-tuning default, if positions allow."""
    return int(min(FineTuningConfig().max_length, model_config.max_position_embeddings))


def _overlap(window_overlap: int | None) -> int:
    return FineTuningConfig().window_overlap if window_overlap is None else window_overlap
