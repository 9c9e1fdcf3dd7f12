"""Use a discriminator as it is, without fine-tuning.

It answers one question, for every token: was this one replaced? So it can point at words that do
not fit, and rank candidates for a place in a text by how much each looks as if it belonged there
(Xia et al., 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import ElectraForPreTraining

from electra_tutorial.checkpoints import find_checkpoint, load_pretrained
from electra_tutorial.encoding import collate
from electra_tutorial.tokenization import load_tokenizer


@dataclass(frozen=True)
class TokenScore:
    """One token of a text.

    Attributes:
        token: the word piece, as the vocabulary writes it.
        start, end: where it stands: text[start:end].
        probability: of having been replaced, as the discriminator sees it.
    """

    token: str
    start: int
    end: int
    probability: float


@dataclass(frozen=True)
class CandidateScore:
    """One candidate in its place.

    Attributes:
        candidate: the candidate.
        text: the template with the candidate in it.
        probability: of its tokens being original: the geometric mean over them, so that candidates
            of several tokens compare with those of one.
    """

    candidate: str
    text: str
    probability: float


def detect_replacements(text: str, model: Any = None, tokenizer: Any = None) -> list[TokenScore]:
    """Say of every token of `text` how likely it was replaced.

    Args:
        text: one text; [CLS] and [SEP] are added, and left out of the answer.
        model: an `ElectraForPreTraining`, a checkpoint's folder or hub id; default: the bundled
            "mini".
        tokenizer: needed beside a model object, taken from the checkpoint otherwise.

    Raises:
        TypeError: if `text` is not a string, or a model object came without its tokenizer.
        ValueError: if it is empty or longer than the model's positions.
    """
    model, tokenizer = _load(model, tokenizer)
    logits, encoded = _logits([text], model, tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    return [
        TokenScore(token, start, end, probability)
        for token, (start, end), probability in zip(
            tokens, encoded["offset_mapping"][0], logits[0].sigmoid().tolist(), strict=False
        )
        if end > start  # special tokens have no place in the text
    ]


def rank_candidates(
    template: str, candidates: Sequence[str], model: Any = None, tokenizer: Any = None
) -> list[CandidateScore]:
    """Put each candidate where the template has {} and rank them, the most fitting first.

    A candidate's score is its tokens' mean log-probability of being original. `model` and
    `tokenizer` are as in `detect_replacements()`.

    Raises:
        TypeError: if template or candidates have the wrong type.
        ValueError: if there is not exactly one {}, no candidate, an empty one, or too long a text.
    """
    listed = isinstance(candidates, Sequence) and not isinstance(candidates, str)
    if not isinstance(template, str) or not listed:
        raise TypeError("rank_candidates() needs a template string and a list of candidates.")
    if template.count("{}") != 1:
        raise ValueError(f"The template has {template.count('{}')} places {{}}: give it exactly 1.")
    if not candidates or not all(isinstance(c, str) and c.strip() for c in candidates):
        raise ValueError("There is no candidate, or an empty one: give at least one word.")
    model, tokenizer = _load(model, tokenizer)
    before = template.index("{}")
    texts = [template.replace("{}", candidate) for candidate in candidates]
    logits, encoded = _logits(texts, model, tokenizer)
    scores = []
    for candidate, text, row, offsets in zip(
        candidates, texts, logits, encoded["offset_mapping"], strict=True
    ):
        after = before + len(candidate)
        inside = [i for i, (start, end) in enumerate(offsets) if start < after and end > before]
        # The logit speaks of "replaced"; original is its complement.
        original = logsigmoid(-row[inside]).mean().exp()
        scores.append(CandidateScore(candidate, text, float(original)))
    return sorted(scores, key=lambda score: -score.probability)


@torch.no_grad()
def _logits(texts: Sequence[str], model: Any, tokenizer: Any) -> tuple[Tensor, Any]:
    """Logits (texts, seq_len) of "was replaced", and what the tokenizer said."""
    positions = model.config.max_position_embeddings
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"The text must be a string, not {type(text).__name__}.")
        if not text.strip():
            raise ValueError("The text is empty: give at least one word.")
    encoded = tokenizer(list(texts), return_offsets_mapping=True, verbose=False)
    longest = max(map(len, encoded["input_ids"]))
    if longest > positions:
        raise ValueError(
            f"The text has {longest} tokens with [CLS] and [SEP], the model {positions} positions: "
            "shorten the text or split it."
        )
    keys = ("input_ids", "token_type_ids", "attention_mask")
    rows = [{key: encoded[key][i] for key in keys} for i in range(len(texts))]
    device = next(model.parameters()).device
    batch = {key: value.to(device) for key, value in collate(rows).items()}
    was_training = model.training
    model.eval()
    logits = model(**batch).logits.float().cpu()
    model.train(was_training)
    return logits, encoded


def _load(model: Any, tokenizer: Any) -> tuple[Any, Any]:
    if model is None or isinstance(model, (str, Path)):
        loaded, own = _from_checkpoint(find_checkpoint("mini" if model is None else model))
        return loaded, own if tokenizer is None else tokenizer
    if tokenizer is None:
        raise TypeError("A model object needs its tokenizer: pass tokenizer= as well.")
    return model, tokenizer


@lru_cache(maxsize=2)
def _from_checkpoint(source: str) -> tuple[Any, Any]:
    """Load a discriminator once; a chapter asks it many times."""
    model, new = load_pretrained(ElectraForPreTraining, source)
    if new:
        raise ValueError(
            f"The checkpoint {source} has no discriminator head, only an encoder: name the folder "
            "discriminator/ of a pre-training run."
        )
    return model.eval(), load_tokenizer(source)
