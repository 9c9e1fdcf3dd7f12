"""An artificial language: what is to be learnt is known, and a minute of one core learns it.

Part of the experiments on pre-training (`sweep.py`). Two layers do not learn in a minute of a core
what makes English hard, and the differences between objectives then drown. This language is small
enough. It is a hidden Markov model: a walk over 16 states, from each of which two others can
follow; each state writes one of its own symbols, and each of the 64 symbols belongs to two states.
The symbol alone leaves a doubt about the state, which its neighbours resolve.

That is the labelled task too: name the state behind each symbol. The best possible answer follows
from the model by the forward-backward algorithm (Rabiner, 1989), so that a network's accuracy has a
known ceiling; the best answer from a symbol alone gives the floor.

It is no English. What holds here need not hold there, and wherever a result is shown, it says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from electra_tutorial.tokenization import train_characters

STATES = 16
SYMBOLS = 64
NEXT = (0.8, 0.2)  # probabilities of the two states that can follow
OWNERS = 2  # states that write a symbol
FIRST_SYMBOL = 0x4E00  # any letters would do; these are not changed by lower-casing


@dataclass(frozen=True)
class Language:
    """The hidden Markov model.

    Attributes:
        start: probabilities of the first state, ``(states,)``: those of a walk that has gone on
            for long.
        transitions: of the next state, ``(states, states)``, a row for each state.
        emissions: of the symbol, ``(states, symbols)``.
    """

    start: np.ndarray
    transitions: np.ndarray
    emissions: np.ndarray

    @classmethod
    def draw(cls, seed: int = 0) -> Language:
        """Draw who follows whom and who writes what."""
        random = np.random.default_rng(seed)
        transitions = np.zeros((STATES, STATES))
        for state in range(STATES):
            others = [other for other in range(STATES) if other != state]
            transitions[state, random.choice(others, len(NEXT), replace=False)] = NEXT
        emissions = np.zeros((STATES, SYMBOLS))
        for symbol in range(SYMBOLS):
            for state in random.choice(STATES, OWNERS, replace=False):
                emissions[state, symbol] = random.gamma(0.5) + 0.02
        emissions /= emissions.sum(axis=1, keepdims=True)
        start = np.linalg.matrix_power(transitions, 1_000).mean(axis=0)
        return cls(start, transitions, emissions)

    def sample(self, rows: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Write texts; returns their states and their symbols, each ``(rows, length)``."""
        random = np.random.default_rng(seed)
        steps, writes = self.transitions.cumsum(axis=1), self.emissions.cumsum(axis=1)
        states, symbols = np.zeros((2, rows, length), dtype=np.int64)
        state = random.choice(STATES, rows, p=self.start)
        for place in range(length):
            if place:
                state = _draw(steps[state], random)
            states[:, place] = state
            symbols[:, place] = _draw(writes[state], random)
        return states, symbols

    def posterior(self, symbols: np.ndarray) -> np.ndarray:
        """Probability of each state at each place, given the whole text.

        The forward-backward algorithm, rescaled at each place; ``(rows, length, states)``.
        """
        rows, length = symbols.shape
        seen = self.emissions.T[symbols]  # (rows, length, states)
        forward, backward = np.ones((2, rows, length, len(self.start)))
        forward[:, 0] = _shares(self.start * seen[:, 0])
        for place in range(1, length):
            arrived = forward[:, place - 1] @ self.transitions
            forward[:, place] = _shares(arrived * seen[:, place])
        for place in range(length - 2, -1, -1):
            leaving = backward[:, place + 1] * seen[:, place + 1]
            backward[:, place] = _shares(leaving @ self.transitions.T)
        return _shares(forward * backward)

    def bounds(self, states: np.ndarray, symbols: np.ndarray) -> dict[str, float]:
        """Accuracy of the best answer from the whole text, and of the best from a symbol alone."""
        alone = (self.start[:, None] * self.emissions).argmax(axis=0)
        return {
            "ceiling": float((self.posterior(symbols).argmax(axis=2) == states).mean()),
            "symbol_alone": float((alone[symbols] == states).mean()),
        }


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each symbol."""
    return train_characters([letters(np.arange(SYMBOLS))], SYMBOLS)


def letters(symbols: np.ndarray) -> str:
    """The symbols as characters."""
    return "".join(chr(FIRST_SYMBOL + symbol) for symbol in symbols.tolist())


def token_ids(symbols: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """[CLS], the symbols, [SEP], for each row: ``(rows, length + 2)``."""
    known = tokenizer.convert_tokens_to_ids(list(letters(np.arange(SYMBOLS))))
    ids = np.asarray(known)[symbols]
    ends = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    return np.pad(ids, ((0, 0), (1, 1)), constant_values=(ends,)).astype(np.uint16)


def _draw(cumulative: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One draw for each row of cumulative probabilities."""
    drawn = (random.random(len(cumulative))[:, None] > cumulative).sum(axis=1)
    return np.minimum(drawn, cumulative.shape[1] - 1)  # their sum may miss 1 by rounding


def _shares(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(axis=-1, keepdims=True)
