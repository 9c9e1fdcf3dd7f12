"""Which weights generator and discriminator have in common.

=========================  ====================================================================
mode                       shared
=========================  ====================================================================
``none``                   nothing
``token-embeddings``       the word embeddings
``embeddings``             the whole embedding module: word, position, token type, LayerNorm
``all``                    the whole encoder; both networks then have one size
``gradient-disentangled``  the generator's embedding tables, without the discriminator's gradient
=========================  ====================================================================

The paper compares none, token embeddings and all weights (section 3.2); its code shares the whole
embedding module, the default here. The last mode is DeBERTaV3's (He et al., 2021, section 3.3). In
every mode the generator's output matrix is its word embedding matrix, and the heads are never
shared.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ElectraConfig

_TOKENS = ("vocab_size", "embedding_size")
_EMBEDDINGS = (*_TOKENS, "max_position_embeddings", "type_vocab_size")
_ENCODER = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
)
MUST_AGREE: dict[str, tuple[str, ...]] = {
    "none": ("vocab_size",),
    "token-embeddings": _TOKENS,
    "embeddings": _EMBEDDINGS,
    "all": (*_EMBEDDINGS, *_ENCODER),
    "gradient-disentangled": _EMBEDDINGS,
}
"""The modes, and what the two configurations must have in common for each."""

TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


class DisentangledEmbedding(nn.Module):
    """An embedding table E = sg(B) + delta: another table B, through which no gradient passes.

    Both networks read the same B, but only the generator's loss moves it; the discriminator's loss
    moves ``delta``. DeBERTaV3's code does so for words and positions, this book also for the token
    types.

    Args:
        base: the table B. It stays the generator's: here it is neither a parameter nor saved.
        own: the table that this one replaces; ``delta`` starts as its difference from B.
    """

    delta: nn.Parameter

    def __init__(self, base: nn.Embedding, own: nn.Embedding) -> None:
        super().__init__()
        self.delta = nn.Parameter((own.weight - base.weight).detach())
        self.padding_idx = own.padding_idx
        self.follow(base)

    def follow(self, base: nn.Embedding) -> None:
        """Take B from this module."""
        self._base = (base,)  # a tuple hides it from nn.Module: it is no submodule of this one

    @property
    def weight(self) -> Tensor:
        """The whole table, ``(rows, embedding_size)``; writing into it has no effect."""
        (base,) = self._base
        return base.weight.detach() + self.delta

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ``ids``, ``(...)``; returns ``(..., embedding_size)``."""
        (base,) = self._base
        return F.embedding(ids, base.weight.detach()) + F.embedding(
            ids, self.delta, padding_idx=self.padding_idx
        )


def check_fit(discriminator: ElectraConfig, generator: ElectraConfig, sharing: str) -> None:
    """Check that two networks of these shapes can share their weights.

    Raises:
        ValueError: if the mode is unknown, or the shapes do not agree where they must.
    """
    if sharing not in MUST_AGREE:
        raise ValueError(f"unknown sharing {sharing!r}: choose one of {', '.join(MUST_AGREE)}.")
    for name in MUST_AGREE[sharing]:
        ours, theirs = getattr(discriminator, name), getattr(generator, name)
        if ours == theirs:
            continue
        advice = "or share less (sharing='none' asks only for one vocabulary)"
        if name == "vocab_size":
            advice = "both must use one tokenizer"
        elif name in _ENCODER:
            advice = "build the generator with generator_fraction=1 or share less"
        raise ValueError(
            f"with sharing {sharing!r} of the two halves, {name} must agree: the discriminator has "
            f"{ours}, the generator {theirs}; {advice}."
        )


def share_weights(discriminator: Any, generator: Any, sharing: str) -> None:
    """Make two networks share weights, in place; doing it again changes nothing.

    What they share holds the discriminator's values; with ``gradient-disentangled`` both keep
    theirs.

    Args:
        discriminator: a model with an ``electra`` encoder.
        generator: an :class:`~transformers.ElectraForMaskedLM`.
        sharing: a key of :data:`MUST_AGREE`.
    """
    if sharing == "all":
        generator.electra = discriminator.electra
    elif sharing == "embeddings":
        generator.electra.embeddings = discriminator.electra.embeddings
    elif sharing == "token-embeddings":
        words = discriminator.electra.embeddings.word_embeddings
        generator.electra.embeddings.word_embeddings = words
    elif sharing == "gradient-disentangled":
        for name in TABLES:
            base = getattr(generator.electra.embeddings, name)
            table = getattr(discriminator.electra.embeddings, name)
            if isinstance(table, DisentangledEmbedding):
                table.follow(base)
            else:
                table = DisentangledEmbedding(base, table)
                setattr(discriminator.electra.embeddings, name, table)
    # Both output matrices must follow, or they would stay on the embeddings they had before.
    for network in (discriminator, generator):
        if hasattr(network, "generator_lm_head"):
            words = network.electra.embeddings.word_embeddings
            network.generator_lm_head.weight = words.weight


def tied_names(model: nn.Module) -> dict[str, str]:
    """Name each parameter that occurs twice: ``{second name: first name}``, as transformers asks.

    ``save_pretrained`` writes a shared weight once, ``from_pretrained`` looks for it once.
    """
    first: dict[int, str] = {}
    tied = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        source = first.setdefault(id(parameter), name)
        if source != name:
            tied[name] = source
    return tied
