"""What simple methods give on real tasks, beside the networks of `real_tasks.py`.

Each takes a `Task`, learns from its training rows, may choose a setting on its validation rows, and
returns the evaluation of its test rows in the same form as `prediction.evaluate()`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from electra_tutorial.baselines import word_tagger_baseline
from electra_tutorial.finetuning import bag_of_words_baseline
from electra_tutorial.heads import AnyEvaluation, EntityEvaluation, Evaluation, RegressionEvaluation
from electra_tutorial.metrics import correlations, entity_metrics
from electra_tutorial.questions import AnswerEvaluation, Span
from electra_tutorial.tasks import Task


def bag_of_words(task: Task) -> AnyEvaluation:
    """TF-IDF of words and word pairs; the two texts of a pair are joined.

    A logistic regression on it for classes (`finetuning.bag_of_words_baseline`), a ridge regression
    for numbers; the strength of the penalty is chosen on validation.
    """
    if task.kind == "classification":
        return bag_of_words_baseline(task)
    models = []
    for penalty in (0.1, 1.0, 10.0, 100.0):
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), Ridge(penalty)
        )
        model.fit(_joined(task.train), list(task.train["label"]))
        called = model.predict(_joined(task.validation))
        models.append((spearmanr(task.validation["label"], called)[0], model))
    best = max(models, key=lambda pair: pair[0])[1]
    return _regression(task.test, best.predict(_joined(task.test)))


def word_overlap(task: Task) -> AnyEvaluation:
    """One number for a pair, twice the shared words over the words of both, and a regression on it.

    Logistic for classes, linear for numbers. A bag of words of the joined texts cannot see whether
    the two agree; this one sees nothing else.
    """

    def shares_of(split: Dataset) -> np.ndarray:
        pairs = zip(split["text"], split["text_pair"], strict=True)
        words = [(_words(first), _words(second)) for first, second in pairs]
        return np.array([[2 * len(a & b) / max(1, len(a) + len(b))] for a, b in words])

    labels = list(task.train["label"])
    if task.kind == "regression":
        line = LinearRegression().fit(shares_of(task.train), labels)
        return _regression(task.test, line.predict(shares_of(task.test)))
    model = LogisticRegression(C=1000.0).fit(shares_of(task.train), labels)
    shares = np.zeros((len(task.test), len(task.label_names)))
    shares[:, model.classes_] = model.predict_proba(shares_of(task.test))
    return Evaluation.of(list(task.test["label"]), shares, task.label_names)


def commonest_tags(task: Task) -> EntityEvaluation:
    """For each word, as it is written, the tag that it has most often in training; else O."""
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for words, tags in zip(task.train["tokens"], task.train["ner_tags"], strict=True):
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    # Of two tags that a word has equally often, the one with the lower number.
    common = {word: min(tags, key=lambda t: (-tags[t], t)) for word, tags in counts.items()}
    outside = task.label_names.index("O")
    known = [[task.label_names[tag] for tag in tags] for tags in task.test["ner_tags"]]
    called = [
        [task.label_names[common.get(word, outside)] for word in words]
        for words in task.test["tokens"]
    ]
    return EntityEvaluation(known, called, entity_metrics(known, called) | {"loss": float("nan")})


def best_sentences(task: Task) -> AnswerEvaluation:
    """The whole sentence of the context that shares most with the question.

    Each word of the question that occurs in the sentence counts with its weight, log(n / df) over
    the n contexts of the training rows, df of which hold it. Sentences end after . ! or ? before a
    space.
    """
    contexts = sorted(set(task.train["context"]))
    holding = Counter(word for context in contexts for word in _words(context))
    spans = []
    for question, context in zip(task.test["question"], task.test["context"], strict=True):
        asked = _words(question)
        found = [
            Span(
                context[start:end],
                start,
                end,
                sum(
                    np.log(len(contexts) / holding[w]) if w in holding else np.log(len(contexts))
                    for w in sorted(asked & _words(context[start:end]))
                ),
            )
            for start, end in _sentences(context)
        ]
        spans.append(sorted(found, key=lambda span: -span.score))
    accepted = [list(answers["text"]) for answers in task.test["answers"]]
    return AnswerEvaluation.of(accepted, spans, np.zeros(len(spans)), float("nan"))


BASELINES = {
    "classification": {"bag_of_words": bag_of_words},
    "regression": {"bag_of_words": bag_of_words},
    "token-classification": {
        "commonest_tags": commonest_tags,
        "word_features": word_tagger_baseline,
    },
    "question-answering": {"best_sentences": best_sentences},
}


def baselines_of(task: Task) -> dict[str, object]:
    """The baselines of a task, by name; of pairs also `word_overlap`."""
    pairs = {"word_overlap": word_overlap} if "text_pair" in task.text_columns else {}
    return BASELINES[task.kind] | pairs


def _joined(split: Dataset) -> list[str]:
    return [" ".join(pair) for pair in zip(split["text"], split["text_pair"], strict=True)]


def _regression(split: Dataset, called: Sequence[float]) -> RegressionEvaluation:
    known, numbers = np.asarray(split["label"], dtype=np.float64), np.asarray(called)
    measured = correlations(known, numbers) | {"loss": float(((known - numbers) ** 2).mean())}
    return RegressionEvaluation(known, numbers, measured)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence starts and ends."""
    ends = [match.start() for match in re.finditer(r"(?<=[.!?])\s+", text)]
    starts = [0, *(match.end() for match in re.finditer(r"(?<=[.!?])\s+", text))]
    return [(a, b) for a, b in zip(starts, [*ends, len(text)], strict=True) if b > a]
