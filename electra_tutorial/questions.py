"""Answers cut out of a text: spans and their scores, "no answer", and SQuAD's measures.

The head scores every token as the start and as the end of the answer. A span's score is the sum of
its two logits; that of "no answer" is the sum of [CLS]'s. The official code has a larger head, in
which the end depends on the start; this is the one of transformers, and of BERT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.special import log_softmax
from transformers import ElectraForQuestionAnswering

from electra_tutorial.encoding import Encoded, Window, column_of, encode_questions
from electra_tutorial.metrics import answer_scores, best_no_answer_threshold, question_metrics

BEST_SPANS = 20  # how many are kept, and how long one may be, in tokens: as in the official code
LONGEST_ANSWER = 30


@dataclass(frozen=True)
class Span:
    """A part of a context: its text, where it starts and ends (in characters), and its score."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Answer:
    """What a model answers to a question.

    Attributes:
        text: cut out of the context as it stands there; empty for "no answer".
        score: how far the best span's score lies above that of "no answer".
        start, end: the characters of the context from which and up to which the text reaches; None
            for "no answer".
        spans: the best spans, best first.
    """

    text: str
    score: float
    start: int | None
    end: int | None
    spans: tuple[Span, ...]

    @classmethod
    def of(
        cls, spans: Sequence[Span], no_answer_score: float, threshold: float | None = None
    ) -> Answer:
        """The first of `spans`; no answer if `no_answer_score` is above `threshold`."""
        best = spans[0]
        if threshold is not None and no_answer_score > threshold:
            return cls("", -no_answer_score, None, None, tuple(spans))
        return cls(best.text, -no_answer_score, best.start, best.end, tuple(spans))


@dataclass(frozen=True)
class AnswerEvaluation:
    """What a model answered to questions, in their order.

    Attributes:
        labels: the accepted answers of each question; none where it has no answer.
        predictions: the answers given; empty for "no answer".
        spans: the best spans of each question, best first.
        no_answer_scores: of shape (questions,): the score of "no answer" less that of the best
            span.
        threshold: no answer is given where no_answer_scores is above it; None: one is always given.
        metrics: exact_match and f1 (each with its 95 % interval over the questions), answerable and
            unanswerable (see `metrics.question_metrics`), and loss (over the windows).
    """

    labels: list[list[str]]
    predictions: list[str]
    spans: list[list[Span]]
    no_answer_scores: np.ndarray
    threshold: float | None
    metrics: dict[str, Any]

    @classmethod
    def of(
        cls,
        labels: list[list[str]],
        spans: list[list[Span]],
        no_answer_scores: np.ndarray,
        loss: float,
        threshold: float | None = None,
    ) -> AnswerEvaluation:
        """Evaluate the best of `spans`, or "no answer", for each question."""
        given = [
            Answer.of(best, float(score), threshold).text
            for best, score in zip(spans, no_answer_scores, strict=True)
        ]
        measured = question_metrics(labels, given) | {"loss": loss}
        return cls(labels, given, spans, no_answer_scores, threshold, measured)

    def at(self, threshold: float | None) -> AnswerEvaluation:
        """The same spans with another threshold."""
        if threshold == self.threshold:
            return self
        return self.of(
            self.labels, self.spans, self.no_answer_scores, self.metrics["loss"], threshold
        )

    def best_threshold(self) -> float | None:
        """The threshold with the highest F1 on these questions; None if each has an answer.

        Choose it on a validation split: chosen on the questions that are reported, as SQuAD's
        script does for its "best" figures, it flatters the model.
        """
        if all(self.labels):
            return None
        scores = [
            answer_scores(accepted, best[0].text)[1]
            for accepted, best in zip(self.labels, self.spans, strict=True)
        ]
        answerable = [bool(accepted) for accepted in self.labels]
        return best_no_answer_threshold(scores, answerable, self.no_answer_scores)[0]

    @property
    def report(self) -> str:
        """A table of exact match and F1, of all questions and of those with and without answer."""
        rows = {"all": self.metrics | {"support": len(self.labels)}}
        for name in ("answerable", "unanswerable"):
            if name in self.metrics:
                rows[name] = self.metrics[name]
        lines = [f"{'':12} {'exact match':>12} {'f1':>8} {'questions':>10}"]
        for name, row in rows.items():
            line = f"{name:12} {row['exact_match']:12.3f} {row['f1']:8.3f} {row['support']:10,}"
            lines.append(line)
        return "\n".join(lines)


class QuestionHead:
    """The span of a context that answers a question, read off every token of its windows."""

    model_class = ElectraForQuestionAnswering

    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {"num_labels": 2}

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
        questions, contexts, answers = (
            column_of(dataset, column, name) for column in ("question", "context", "answers")
        )
        return encode_questions(
            tokenizer, questions, contexts, answers, max_length, overlap, model_config, name
        )

    def judge(
        self,
        logits: Sequence[np.ndarray],
        labels: list[Window],
        dataset: Dataset,
        label_names: Sequence[str],
    ) -> AnswerEvaluation:
        losses = []
        for scores, window in zip(logits, labels, strict=True):
            log_p = log_softmax(scores.astype(np.float64), axis=0)
            losses.append(-(log_p[window.start, 0] + log_p[window.end, 1]) / 2)
        spans, no_answer_scores = find_spans(logits, labels, list(dataset["context"]))
        accepted = [list(answers["text"]) for answers in dataset["answers"]]
        return AnswerEvaluation.of(accepted, spans, no_answer_scores, float(np.mean(losses)))

    def guessing_loss(self, labels: list[Window]) -> float | None:
        return None


def find_spans(
    logits: Sequence[np.ndarray], windows: Sequence[Window], contexts: Sequence[str]
) -> tuple[list[list[Span]], np.ndarray]:
    """The best spans of each question over all its windows.

    A span lies inside the context, starts before it ends and has at most 30 tokens. One that
    several windows hold counts with its highest score.

    Args:
        logits: of each window, of shape (tokens, 2): for the start and for the end of the answer.
        windows: those that `encode_questions()` returned.
        contexts: of each question.

    Returns:
        At most 20 spans of each question, best first, and of each question the score of "no answer"
        less that of the best span, of shape (questions,). The score of "no answer" is the lowest of
        its windows: the question has no answer if no window holds one.
    """
    found: list[dict[tuple[int, int], float]] = [{} for _ in contexts]
    nothing = np.full(len(contexts), np.inf)
    for scores, window in zip(logits, windows, strict=True):
        nothing[window.row] = min(nothing[window.row], float(scores[0].sum()))
        known = found[window.row]
        for first, last, score in best_pairs(scores, window):
            place = int(window.offsets[first, 0]), int(window.offsets[last, 1])
            known[place] = max(score, known.get(place, -np.inf))
    spans = []
    for context, known in zip(contexts, found, strict=True):
        best = sorted(known.items(), key=lambda item: -item[1])[:BEST_SPANS]
        spans.append([Span(context[a:b], a, b, score) for (a, b), score in best])
    return spans, nothing - np.array([best[0].score for best in spans])


def best_pairs(scores: np.ndarray, window: Window) -> list[tuple[int, int, float]]:
    """The best (first token, last token, score) of one window; tokens counted in its part."""
    part = scores[window.first : window.first + len(window.offsets)].astype(np.float64)
    beyond = np.full(LONGEST_ANSWER - 1, -np.inf)
    # Row i holds the end logits of the 30 tokens from token i on: the ends that it may have.
    ends = np.lib.stride_tricks.sliding_window_view(
        np.concatenate([part[:, 1], beyond]), LONGEST_ANSWER
    )
    sums = part[:, :1] + ends
    count = min(BEST_SPANS, int(np.isfinite(sums).sum()))
    best = np.argpartition(-sums, count - 1, axis=None)[:count]
    pairs = []
    for place in best.tolist():
        first, further = divmod(place, LONGEST_ANSWER)
        pairs.append((first, first + further, float(sums[first, further])))
    return pairs
