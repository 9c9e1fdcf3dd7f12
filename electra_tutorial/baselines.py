"""What names and answers can be found without fine-tuning: features of words, and one rule.

A fine-tuned encoder is worth its trouble only where it beats these. For whole texts there is
`finetuning.bag_of_words_baseline()`. The features can take in what a frozen encoder says about each
word, the way in which BERT's authors used theirs without training it (Devlin et al., 2019, section
5.3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn.linear_model import LogisticRegression

from electra_tutorial.encoding import collate, encode_words
from electra_tutorial.heads import EntityEvaluation, first_pieces
from electra_tutorial.metrics import entity_metrics
from electra_tutorial.questions import Span
from electra_tutorial.tasks import Task

WORD = re.compile(r"\w+(?:[.,'’-]\w+)*")
LONGEST_RUN = 5  # words of an answer that `nearest_span()` gives
BATCH = 64  # sentences that `word_vectors()` reads at once
# How much the vectors weigh beside the features, whose values are 0 and 1. Twice as much is worse
# on the validation split of the built-in entities.
VECTOR_SCALE = 0.1

# From sentences to an array (words, numbers) for each.
VectorsOf = Callable[[Sequence[Sequence[str]]], list[np.ndarray]]


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


@dataclass(frozen=True)
class WordTagger:
    """A logistic regression that tags every word for itself; see `fit_word_tagger()`.

    Attributes:
        names: of the features.
        model: the logistic regression over them.
        capitals: whether the features see capitals.
        vectors: gives what is added to the features of each word, or None.
        centre, spread: of the added numbers in the training split, each of shape (numbers,).
    """

    names: DictVectorizer
    model: LogisticRegression
    capitals: bool
    vectors: VectorsOf | None
    centre: np.ndarray
    spread: np.ndarray

    def probabilities(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """Of the tags that training has seen, for all words in order: shape (words, tags)."""
        columns = self.names.transform(_places(sentences, self.capitals))
        if self.vectors is not None:
            columns = self._with_vectors(columns, np.concatenate(self.vectors(sentences)))
        return np.asarray(self.model.predict_proba(columns))

    def _with_vectors(self, columns: sparse.spmatrix, added: np.ndarray) -> sparse.spmatrix:
        scaled = (added - self.centre) / self.spread * VECTOR_SCALE
        return sparse.hstack([columns, scaled]).tocsr()


def fit_word_tagger(
    task: Task, capitals: bool = True, vectors: VectorsOf | None = None
) -> WordTagger:
    """A logistic regression over `word_features()`, trained on the training split.

    `vectors` adds numbers to the features of each word, for instance those of `word_vectors()`: it
    takes sentences and returns one array (words, numbers) for each. Nothing sees to it that the
    tags of neighbouring words fit together.
    """
    sentences = list(task.train["tokens"])
    names, model = DictVectorizer(), LogisticRegression(C=10.0, max_iter=150)
    columns = names.fit_transform(_places(sentences, capitals))
    centre, spread = np.zeros(1), np.ones(1)
    if vectors is not None:
        added = np.concatenate(vectors(sentences))
        centre, spread = added.mean(axis=0), added.std(axis=0).clip(1e-6)
    tagger = WordTagger(names, model, capitals, vectors, centre, spread)
    if vectors is not None:
        columns = tagger._with_vectors(columns, added)
    model.fit(columns, [tag for numbers in task.train["ner_tags"] for tag in numbers])
    return tagger


def word_tagger_baseline(
    task: Task, capitals: bool = True, vectors: VectorsOf | None = None
) -> EntityEvaluation:
    """`fit_word_tagger()`, evaluated once on the test split."""
    tagger = fit_word_tagger(task, capitals, vectors)
    shares, seen = tagger.probabilities(list(task.test["tokens"])), tagger.model.classes_
    numbers = np.array([tag for row in task.test["ner_tags"] for tag in row])
    ends = np.cumsum([len(row) for row in task.test["ner_tags"]])[:-1]
    names = np.array(task.label_names)
    known, called = (
        [part.tolist() for part in np.split(names[tags], ends)]
        for tags in (numbers, seen[shares.argmax(axis=1)])
    )
    # A tag that no training row has gets probability 0; the floor keeps its loss finite.
    given = np.full((len(numbers), len(names)), 1e-12)
    given[:, seen] = shares.clip(1e-12)
    loss = float(-np.log(given[np.arange(len(numbers)), numbers]).mean())
    return EntityEvaluation(known, called, entity_metrics(known, called) | {"loss": loss})


@torch.no_grad()
def word_vectors(
    model: Any, tokenizer: Any, sentences: Sequence[Sequence[str]], layer: int = -1
) -> list[np.ndarray]:
    """What a frozen encoder says about each word: its first piece's vector after `layer`.

    Args:
        model: an `ElectraModel`, or a model that holds one as ``.electra``.
        tokenizer: the one it reads with.
        sentences: split into words.
        layer: 0 is the embeddings, 1 the first layer, -1 the last.

    Returns:
        For each sentence an array (words, hidden size); 0 where a word was cut off because the
        sentence has more pieces than the model has positions.
    """
    encoder = getattr(model, "electra", model)
    was_training = encoder.training
    encoder.eval()
    longest = encoder.config.max_position_embeddings
    rows, owners = encode_words(tokenizer, sentences, longest, encoder.config)
    device = next(encoder.parameters()).device
    found: list[np.ndarray] = []
    for start in range(0, len(rows), BATCH):
        batch = {k: v.to(device) for k, v in collate(rows[start : start + BATCH]).items()}
        states = encoder(**batch, output_hidden_states=True).hidden_states[layer]
        for place, hidden in enumerate(states.float().cpu().numpy(), start=start):
            vectors = np.zeros((len(sentences[place]), hidden.shape[1]), dtype=np.float32)
            for word, piece in first_pieces(owners[place]).items():
                vectors[word] = hidden[piece]
            found.append(vectors)
    encoder.train(was_training)
    return found


def _places(sentences: Sequence[Sequence[str]], capitals: bool) -> Iterator[dict[str, str]]:
    for words in sentences:
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
