"""A hint for small encoders: which words of the context does the question have, too?

To answer a question an encoder must compare two texts, and a small one learns that late. The
comparison can be made for it: of the two token types, which otherwise tell question and context
apart, the first then marks every token that belongs to the question or occurs in it. Chen et al.
(2017) gave their reader such a feature, the exact match of words, and found it helpful. ELECTRA and
BERT have none; it is this book's addition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from electra_tutorial.encoding import Encoded, Window
from electra_tutorial.heads import HEADS
from electra_tutorial.questions import QuestionHead

KIND = "question-answering"


class HintedQuestionHead(QuestionHead):
    """The head for questions, whose rows carry the hint in their token types."""

    def encode(
        self,
        tokenizer: Any,
        dataset: Dataset,
        label_names: Sequence[str],
        max_length: int,
        model_config: Any,
        name: str,
        overlap: int = 64,
    ) -> tuple[list[Encoded], list[Window]]:
        rows, windows = super().encode(
            tokenizer, dataset, label_names, max_length, model_config, name, overlap
        )
        without = uninformative(tokenizer)
        for row, window in zip(rows, windows, strict=True):
            ids = row["input_ids"]
            asked = set(ids[1 : window.first - 1]) - without
            context = [int(piece not in asked) for piece in ids[window.first :]]
            row["token_type_ids"] = [0] * window.first + context
        return rows, windows


def uninformative(tokenizer: Any) -> set[int]:
    """The ids of function words, punctuation and [UNK]: that both texts have them says nothing."""
    pieces = [*sorted(ENGLISH_STOP_WORDS), *".,;:?!'\"()-", "s", tokenizer.unk_token]
    return set(tokenizer.convert_tokens_to_ids(pieces))


def separate_token_types(model: Any, scale: float = 0.1, seed: int = 0) -> None:
    """Draw the second token type anew, at the distance `scale` (per number) from the first.

    In `mini` the two hardly differ, so a hint would be faint; 0.1 is the scale of its word
    embeddings.
    """
    weight = model.electra.embeddings.token_type_embeddings.weight
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        noise = torch.randn(weight.shape[1], generator=generator)
        weight[1] = weight[0] + scale * noise.to(weight)


@contextmanager
def hinted_questions() -> Iterator[HintedQuestionHead]:
    """Within it, `fine_tune()` and `evaluate()` read questions with the hint."""
    usual, hinted = HEADS[KIND], HintedQuestionHead()
    HEADS[KIND] = hinted
    try:
        yield hinted
    finally:
        HEADS[KIND] = usual
