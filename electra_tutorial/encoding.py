"""Texts as a model reads them: token ids, padding, batches of similar length.

What a text becomes is the same in training and in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler

from electra_tutorial.config import FineTuningConfig
from electra_tutorial.masking import IGNORED

# input_ids, token_type_ids and attention_mask of one item: each a list of numbers, or, where an
# item is a choice between several texts, a list of such lists.
Encoded = dict[str, list[Any]]

MOST_QUESTION_TOKENS = 64  # as in the official code


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a context that is read together with the question: [CLS] question [SEP] part [SEP].

    Attributes:
        row: number of the question.
        first: place of the part's first token in the window.
        offsets: of shape (tokens of the part, 2): where each starts and ends in the context, in
            characters.
        start, end: places of the answer's first and last token in the window; both 0, which is
            [CLS], where the window does not hold the whole answer.
    """

    row: int
    first: int
    offsets: np.ndarray
    start: int = 0
    end: int = 0


def column_of(dataset: Dataset, column: str, name: str) -> list[Any]:
    """A column as a list.

    Raises:
        ValueError: if `dataset`, which the error calls `name`, has no such column.
    """
    if column not in dataset.column_names:
        raise ValueError(
            f"{name} has no column {column}; it has {', '.join(dataset.column_names)}."
        )
    return list(dataset[column])


def encode(
    tokenizer: Any, dataset: Dataset, max_length: int, model_config: Any, name: str = "the data"
) -> list[Encoded]:
    """Turn texts, or pairs, into token ids, cut after `max_length` tokens.

    Raises:
        TypeError: if a text is not a string.
        ValueError: if there is no text, one is empty, or max_length exceeds the positions.
    """
    _check_length(max_length, model_config)
    columns = [column for column in ("text", "text_pair") if column in dataset.column_names]
    if "text" not in columns or not len(dataset):
        raise ValueError(f"{name} has no text: give at least one row with the column text.")
    texts = [list(dataset[column]) for column in columns]
    for column, values in zip(columns, texts, strict=True):
        for row, value in enumerate(values):
            _check_text(value, column, row, name)
    return _rows(tokenizer(*texts, truncation=True, max_length=max_length))


def encode_words(
    tokenizer: Any, sentences: Sequence[Sequence[str]], max_length: int, model_config: Any
) -> tuple[list[Encoded], list[list[int | None]]]:
    """Turn sentences that are split into words into token ids, cut after `max_length` tokens.

    A word that the tokenizer drops (a lone control character, for instance) is read as [UNK], so
    that every word which was not cut off has a word piece.

    Returns:
        The rows, and of each word piece the number of its word, or None for [CLS] and [SEP].
    """
    _check_length(max_length, model_config)
    settings = {"is_split_into_words": True, "truncation": True, "max_length": max_length}
    words = sorted({word for sentence in sentences for word in sentence})
    pieces = tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
    dropped = {word for word, ids in zip(words, pieces, strict=True) if not ids}
    readable = [
        [tokenizer.unk_token if word in dropped else word for word in sentence]
        for sentence in sentences
    ]
    encoded = tokenizer(readable, **settings)
    return _rows(encoded), [encoded.word_ids(i) for i in range(len(readable))]


def encode_choices(
    tokenizer: Any,
    dialogues: Sequence[Sequence[str]],
    choices: Sequence[Sequence[str]],
    max_length: int,
    model_config: Any,
    name: str = "the data",
) -> list[Encoded]:
    """Turn dialogues and what might follow into token ids: one pair (dialogue, choice) a choice.

    [SEP] stands between the turns. Of what is longer than `max_length` tokens the beginning is
    cut, for the last turns say most about the next.

    Returns:
        Of each dialogue the ids of all its pairs, each of shape (choices, tokens).

    Raises:
        TypeError: if a turn or a choice is not a string.
        ValueError: if there is no row, a row has no turn or fewer than two choices or more or fewer
            than the others, or a string is empty.
    """
    _check_length(max_length, model_config)
    if not len(dialogues):
        raise ValueError(f"{name} has no row: give at least one.")
    count = len(choices[0])
    for row, (turns, replies) in enumerate(zip(dialogues, choices, strict=True)):
        for column, values in (("turns", turns), ("choices", replies)):
            for value in values:
                _check_text(value, column, row, name)
        if not turns or len(replies) != count or count < 2:
            raise ValueError(
                f"Row {row} of {name} has {len(turns)} turns and {len(replies)} choices; expected "
                f"at least one turn and {max(2, count)} choices, as many in every row."
            )
    before = [f" {tokenizer.sep_token} ".join(turns) for turns in dialogues for _ in range(count)]
    after = [reply for replies in choices for reply in replies]
    side = tokenizer.truncation_side
    try:
        tokenizer.truncation_side = "left"
        pairs = _rows(tokenizer(before, after, truncation=True, max_length=max_length))
    finally:
        tokenizer.truncation_side = side
    return [
        {key: [pair[key] for pair in pairs[start : start + count]] for key in pairs[0]}
        for start in range(0, len(pairs), count)
    ]


def encode_questions(
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    answers: Sequence[Mapping[str, Any]] | None,
    max_length: int,
    overlap: int,
    model_config: Any,
    name: str = "the data",
) -> tuple[list[Encoded], list[Window]]:
    """Turn questions and contexts into windows of at most `max_length` tokens.

    A question is cut after 64 tokens, or half of `max_length` if that is less. The context is cut
    into parts that fit beside it; two neighbours share `overlap` tokens, but at most half of a
    part, so that no context takes more than twice its length.

    Args:
        answers: of each question the lists text and answer_start, as SQuAD has them, both empty
            where there is no answer. The first answer is the one to learn. None: unknown.

    Returns:
        The rows and, for each, its window; windows of one question stand together, in order.

    Raises:
        TypeError: if a question or a context is not a string.
        ValueError: if there is no row, a string is empty, or max_length exceeds the positions or
            leaves no room for a context.
    """
    _check_length(max_length, model_config)
    if not len(questions):
        raise ValueError(f"{name} has no question: give at least one row.")
    if max_length < 8:
        raise ValueError(
            f"max_length {max_length} has no room for question and context: use 8 or more."
        )
    for row, pair in enumerate(zip(questions, contexts, strict=True)):
        for column, value in zip(("question", "context"), pair, strict=True):
            _check_text(value, column, row, name)
    plain = {"add_special_tokens": False, "return_attention_mask": False}
    asked = tokenizer(list(questions), **plain)["input_ids"]
    distinct = list(dict.fromkeys(contexts))
    read = tokenizer(distinct, return_offsets_mapping=True, verbose=False, **plain)
    pieces = {
        context: (ids, np.asarray(offsets, dtype=np.int32).reshape(-1, 2))
        for context, ids, offsets in zip(
            distinct, read["input_ids"], read["offset_mapping"], strict=True
        )
    }
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    rows: list[Encoded] = []
    windows: list[Window] = []
    for row, context in enumerate(contexts):
        ids, offsets = pieces[context]
        if not ids:
            raise ValueError(f"context in row {row} of {name} holds nothing that can be read.")
        head = [cls, *asked[row][: min(MOST_QUESTION_TOKENS, max_length // 2)], sep]
        room = max_length - len(head) - 1
        wanted = None if answers is None else _answer_tokens(answers[row], offsets)
        for begin in _window_starts(len(ids), room, min(overlap, room // 2)):
            part = ids[begin : begin + room]
            rows.append(
                {
                    "input_ids": [*head, *part, sep],
                    "token_type_ids": [0] * len(head) + [1] * (len(part) + 1),
                    "attention_mask": [1] * (len(head) + len(part) + 1),
                }
            )
            start = end = 0
            if wanted is not None and begin <= wanted[0] and wanted[1] < begin + len(part):
                start, end = (len(head) + token - begin for token in wanted)
            view = offsets[begin : begin + room]
            windows.append(Window(row, len(head), view, start, end))
    return rows, windows


def _window_starts(length: int, room: int, overlap: int) -> range:
    """Where parts of at most `room` of `length` tokens start, so that the last reaches the end."""
    step = room - overlap
    return range(0, max(1, length - overlap), step)


def _answer_tokens(answers: Mapping[str, Any], offsets: np.ndarray) -> tuple[int, int] | None:
    """The first and the last token of the first answer; None without one that can be read."""
    if not answers["text"]:
        return None
    start = answers["answer_start"][0]
    end = start + len(answers["text"][0])
    first = int(np.searchsorted(offsets[:, 1], start, side="right"))
    last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
    return (first, last) if first <= last else None


def _check_text(value: Any, column: str, row: int, name: str) -> None:
    if not isinstance(value, str):
        kind = type(value).__name__
        raise TypeError(f"{column} in row {row} of {name} must be a string, not {kind}.")
    if not value.strip():
        raise ValueError(f"{column} in row {row} of {name} is empty: remove or complete the row.")


def _check_length(max_length: int, model_config: Any) -> None:
    positions = model_config.max_position_embeddings
    if max_length > positions:
        raise ValueError(
            f"max_length {max_length} exceeds the {positions} positions of this model: use "
            f"max_length={positions} or less."
        )


def _rows(encoded: Any) -> list[Encoded]:
    keys = ("input_ids", "token_type_ids", "attention_mask")
    return [
        dict(zip(keys, row, strict=True)) for row in zip(*(encoded[k] for k in keys), strict=True)
    ]


def length_of(row: Encoded) -> int:
    """How many tokens an item has; of a choice between several texts, the longest of them."""
    ids = row["input_ids"]
    return max(map(len, ids)) if isinstance(ids[0], list) else len(ids)


def collate(rows: Sequence[Encoded], labels: Sequence[Any] | None = None) -> dict[str, Tensor]:
    """Pad to the longest of `rows`: each tensor (batch, seq_len), or (batch, choices, seq_len).

    `labels` are one number for each row, (batch,), or one for each token of each row: these are
    padded with -100, which the loss skips. A `Window` gives start_positions and end_positions,
    (batch,). Other padding is 0: where attention_mask is 0, input_ids have no effect.
    """
    batch = {key: _padded([row[key] for row in rows]) for key in rows[0]}
    if labels is None:
        return batch
    if isinstance(labels[0], Window):
        return {
            **batch,
            "start_positions": torch.tensor([window.start for window in labels]),
            "end_positions": torch.tensor([window.end for window in labels]),
        }
    if isinstance(labels[0], list):
        pieces = [torch.tensor(row) for row in labels]
        return {**batch, "labels": pad_sequence(pieces, batch_first=True, padding_value=IGNORED)}
    return {**batch, "labels": torch.tensor(labels)}


def _padded(values: Sequence[list[Any]]) -> Tensor:
    if not isinstance(values[0][0], list):
        return pad_sequence([torch.tensor(row) for row in values], batch_first=True)
    flat = pad_sequence([torch.tensor(row) for item in values for row in item], batch_first=True)
    return flat.view(len(values), len(values[0]), -1)


def share_of_batch(
    rows: Sequence[tuple[Encoded, Any]], rank: int, processes: int
) -> tuple[dict[str, Tensor], float]:
    """What one of several processes learns from a batch, and the weight of its loss.

    The loss of each is the mean over the labels of its own rows, of which another process may have
    more (the words of its sentences, for instance); and the gradients of all are averaged. With its
    weight, the process's labels times the processes divided by all labels, that average is the
    gradient of the whole batch. A process for which no row is left reads the first, with weight 0.
    """
    mine = rows[rank::processes]
    total, own = (sum(_teaching(label) for _, label in part) for part in (rows, mine))
    mine = mine or rows[:1]
    batch = collate([row for row, _ in mine], [label for _, label in mine])
    return batch, processes * own / total


def _teaching(label: Any) -> int:
    """How many labels an item has in its loss: one, or one for each word that was read."""
    return sum(tag != IGNORED for tag in label) if isinstance(label, list) else 1


class LengthGroupedBatches(Sampler[list[int]]):
    """Batches of items of similar length, in random order: less padding, so less work.

    The items are shuffled, cut into pools of 16 batches, sorted by length inside a pool and cut
    into batches, whose order is shuffled. All of it follows from the seed and `epoch`, which the
    training loop sets. (Accelerate would call a `set_epoch()`, but on a single process only.)
    """

    POOL = 16

    def __init__(self, lengths: Sequence[int], config: FineTuningConfig) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = config.batch_size
        self.seed = config.seed
        self.epoch = 0
        self.drop_last = False

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        pool = self.POOL * self.batch_size
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            order[start : start + pool] = part[np.argsort(self.lengths[part], kind="stable")]
        starts = np.arange(0, len(order), self.batch_size)
        for start in random.permutation(starts):
            yield order[start : start + self.batch_size].tolist()
