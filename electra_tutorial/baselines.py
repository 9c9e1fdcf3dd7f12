"""What names and answers can be found without a network: features of words, and one rule.

A fine-tuned encoder is worth its trouble only where it beats these. For whole texts there is
`finetuning.bag_of_words_baseline()`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
from datasets import Dataset
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from electra_tutorial.heads import EntityEvaluation
from electra_tutorial.metrics import entity_metrics
from electra_tutorial.questions import Span
from electra_tutorial.tasks import Task

WORD = re.compile(r"\w+(?:[.,'’-]\w+)*")
LONGEST_RUN = 5  # words of an answer that `nearest_span()` gives


def word_shape(word: str) -> str:
    """The first four characters as X (capital), x (small letter) or 0 (any other)."""
    return "".join("X" if c.isupper() else "x" if c.islower() else "0" for c in word[:4])


def word_features(words: Sequence[str], place: int, capitals: bool = True) -> dict[str, str]:
    """What tells the tag of a word: itself, two neighbours to either side, its last three letters.

    With `capitals` also the shapes of the five words. Without them the features see what an
    encoder with a lower-case vocabulary sees.
    """
    around = {k: words[place + k] if 0 <= place + k < len(words) else "-" for k in range(-2, 3)}
    features = {f"word {k}": word.lower() for k, word in around.items()}
    features["end"] = words[place][-3:] if capitals else words[place][-3:].lower()
    if capitals:
        features |= {f"shape {k}": word_shape(word) for k, word in around.items()}
    return features


def fit_word_tagger(task: Task, capitals: bool = True) -> Pipeline:
    """A logistic regression over `word_features()`, trained on the training split.

    Every word is tagged for itself; nothing sees to it that the tags of neighbours fit together.
    """
    tags = [tag for numbers in task.train["ner_tags"] for tag in numbers]
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=10.0, max_iter=500))
    return model.fit(list(_places(task.train, capitals)), tags)


def word_tagger_baseline(task: Task, capitals: bool = True) -> EntityEvaluation:
    """`fit_word_tagger()`, evaluated once on the test split."""
    model = fit_word_tagger(task, capitals)
    shares = model.predict_proba(list(_places(task.test, capitals)))
    numbers = np.array([tag for row in task.test["ner_tags"] for tag in row])
    ends = np.cumsum([len(row) for row in task.test["ner_tags"]])[:-1]
    names = np.array(task.label_names)
    known, called = (
        [part.tolist() for part in np.split(names[tags], ends)]
        for tags in (numbers, model.classes_[shares.argmax(axis=1)])
    )
    # A tag that no training row has gets probability 0; the floor keeps its loss finite.
    given = np.full((len(numbers), len(names)), 1e-12)
    given[:, model.classes_] = shares.clip(1e-12)
    loss = float(-np.log(given[np.arange(len(numbers)), numbers]).mean())
    return EntityEvaluation(known, called, entity_metrics(known, called) | {"loss": loss})


def _places(split: Dataset, capitals: bool) -> Iterator[dict[str, str]]:
    for words in split["tokens"]:
        for place in range(len(words)):
            yield word_features(words, place, capitals)


def nearest_span(question: str, context: str) -> Span:
    """The words of `context` that stand nearest to the words of `question`: an answer by rule.

    A candidate is a run of at most five neighbouring words of which none is a function word or
    stands in the question. Every other word that the question has gives it
    ``log(1 + 1 / n) / distance``, n being how often that word occurs in the context and distance
    counted in words. The idea is the sliding window of Richardson, Burges and Renshaw (2013), with
    whose weights SQuAD's authors measured a first baseline; their candidates came from a parser.

    Raises:
        ValueError: if the context holds no word.
    """
    words = list(WORD.finditer(context))
    if not words:
        raise ValueError("The context holds no word; give a text to look for the answer in.")
    small = [word.group().lower() for word in words]
    asked = {word.lower() for word in WORD.findall(question)} - ENGLISH_STOP_WORDS
    weights = {
        place: math.log(1 + 1 / small.count(word))
        for place, word in enumerate(small)
        if word in asked
    }
    free = [word not in asked and word not in ENGLISH_STOP_WORDS for word in small]
    best = (-1.0, 0, 1)
    for first, last in _runs(free, context, words) or [(0, min(LONGEST_RUN, len(words)))]:
        score = sum(
            weight / (first - place if place < first else place - last + 1)
            for place, weight in weights.items()
            if not first <= place < last
        )
        best = max(best, (score, first, last), key=lambda run: run[0])
    start, end = words[best[1]].start(), words[best[2] - 1].end()
    return Span(context[start:end], start, end, best[0])


def _runs(
    free: Sequence[bool], context: str, words: Sequence[re.Match[str]]
) -> list[tuple[int, int]]:
    """First and last + 1 of the longest runs of free words with nothing but a space between."""
    runs: list[tuple[int, int]] = []
    for place, is_free in enumerate(free):
        if not is_free:
            continue
        if runs and runs[-1][1] == place and place - runs[-1][0] < LONGEST_RUN:
            between = context[words[place - 1].end() : words[place].start()]
            if between == " ":
                runs[-1] = (runs[-1][0], place + 1)
                continue
        runs.append((place, place + 1))
    return runs
