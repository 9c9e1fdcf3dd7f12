"""A run that starts from a model: what of its settings the model has fixed already.

A new model is built as the settings say. A model that is there has its size, its generator's width
and its sharing, whatever the settings say; a run's record must not claim others. Dropout and the
discriminator's weight can still be chosen: they act on training and not on the weights' shapes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any

from torch import nn

from electra_tutorial.config import CUSTOM, SIZES, PretrainingConfig
from electra_tutorial.modeling import ElectraForJointPreTraining

_SHAPE = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "embedding_size",
    "max_position_embeddings",
)


def size_name(model: ElectraForJointPreTraining) -> str:
    """Return the name of the discriminator's size, or ``"custom"`` if it has none."""
    shape = model.config.discriminator
    for name, size in SIZES.items():
        if all(getattr(size, key) == shape[key] for key in _SHAPE):
            return name
    return CUSTOM


def generator_fraction(model: ElectraForJointPreTraining) -> float | None:
    """Return the generator's width over the discriminator's; None if it is that of the size."""
    width = model.config.discriminator["hidden_size"]
    theirs: int = model.config.generator["hidden_size"]
    size = SIZES.get(size_name(model))
    return None if size and size.generator().hidden_size == theirs else theirs / width


def _halves(model: ElectraForJointPreTraining) -> list[dict[str, Any]]:
    return [model.config.discriminator, model.config.generator][: 1 + model.has_generator]


def _learning_halves(model: ElectraForJointPreTraining) -> list[dict[str, Any]]:
    return _halves(model)[:1] if model.config.frozen_generator else _halves(model)


def dropout_of(model: ElectraForJointPreTraining) -> float:
    """Return the one dropout probability of a model; a frozen generator has none.

    Raises:
        ValueError: if it has several.
    """
    kinds = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    rates = sorted({float(half[kind]) for half in _learning_halves(model) for kind in kinds})
    if len(rates) > 1:
        raise ValueError(
            f"the model has several dropout probabilities ({', '.join(map(str, rates))}): choose "
            "one for all of it, with --dropout or set_dropout(model, rate)."
        )
    return rates[0]


def set_dropout(model: ElectraForJointPreTraining, rate: float) -> None:
    """Give all layers of both halves one dropout probability, in place.

    A frozen generator still samples without dropout.
    """
    for half in (model.discriminator, model.generator):
        if half is None:
            continue
        half.config.hidden_dropout_prob = half.config.attention_probs_dropout_prob = rate
        for layer in half.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = rate
    for config in (model.config.discriminator, model.config.generator):
        config["hidden_dropout_prob"] = config["attention_probs_dropout_prob"] = rate


def settings_for(
    model: ElectraForJointPreTraining,
    config: PretrainingConfig,
    given: Collection[str] | None = None,
) -> PretrainingConfig:
    """Make a model and the settings of its further training agree; return these settings.

    A setting that was not given becomes what the model has. One that was given is set in the model
    where that is possible (``dropout``, ``discriminator_weight``); of what is fixed it must be what
    the model has.

    Args:
        model: changed in place.
        config: the settings that are asked for.
        given: names of the settings that somebody chose; by default those that differ from
            :class:`~electra_tutorial.config.PretrainingConfig`'s own.

    Raises:
        ValueError: if a chosen setting contradicts the model, the model is too short for the
            sequence length, or it has several dropout probabilities and none was chosen.
    """
    if given is None:
        defaults = PretrainingConfig()
        names = [field.name for field in fields(config)]
        given = [n for n in names if getattr(config, n) != getattr(defaults, n)]
    spread = float(model.config.discriminator["initializer_range"])
    has: dict[str, Any] = {"objective": model.objective, "size": size_name(model)}
    has |= {"initializer_range": spread}
    if model.has_generator:
        has |= {"sharing": model.config.sharing, "generator_fraction": generator_fraction(model)}
    for name, fixed in has.items():
        asked = getattr(config, name)
        if name not in given or asked == fixed:
            continue
        shown = repr(fixed)
        if name == "generator_fraction":
            width, theirs = (half["hidden_size"] for half in _halves(model))
            if round(width * asked) == theirs:
                continue
            shown = f"{theirs / width:.3g} ({theirs} of {width} units)"
        raise ValueError(
            f"the model to start from has {name} {shown}, and {asked!r} is asked for: leave {name} "
            "out, or start a new model."
        )
    longest = min(half["max_position_embeddings"] for half in _halves(model))
    if config.sequence_length > longest:
        raise ValueError(
            f"sequence_length {config.sequence_length} is longer than the {longest} positions of "
            "the model to start from: shorten it."
        )
    if "dropout" in given:
        set_dropout(model, config.dropout)
    if "discriminator_weight" in given:
        model.config.discriminator_weight = config.discriminator_weight
    kept = {name: value for name, value in has.items() if name not in given}
    weight = float(model.config.discriminator_weight)
    return replace(config, **kept, dropout=dropout_of(model), discriminator_weight=weight)
