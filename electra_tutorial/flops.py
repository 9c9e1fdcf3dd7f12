"""What training costs: floating-point operations of a step and of a run, hours and money.

A product of an (a, b) with a (b, c) matrix is 2abc operations: a multiplication and an addition
count as two. Each matrix product of the forward pass has two in the backward pass, one for the
gradient of its input and one for that of its weights, so a training step costs three forward
passes. Everything else in a step (softmax, GELU, LayerNorm, dropout, the optimiser) does few
operations and moves much memory: it takes time, but hardly any operations, and is not counted.

These are the conventions `"products"`. The script that was released with ELECTRA
(``flops_computation.py`` of google-research/electra) has others, which are `"official"` here:
with them this module prints the figures of that script.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from electra_tutorial.config import ElectraSize, PretrainingConfig, get_size
from electra_tutorial.masking import number_to_mask

HEADS = ("discriminator", "generator", "copy", "none")

# Operations of one number, as the official script counts them.
DROPOUT, LAYER_NORM, GELU, SOFTMAX = 4, 5, 8, 5


@dataclass(frozen=True)
class Convention:
    """How operations are counted.

    Attributes:
        backward: the backward pass, in forward passes.
        dense_lookups: count an embedding look-up as a product with a one-hot vector, 2eV
            operations a token; else it is free.
        elementwise: count biases, activations, dropout, LayerNorm and softmax as well.
        output_share: the share of positions at which the softmax over the vocabulary is counted;
            by default it is counted where it is computed.
    """

    backward: float = 2.0
    dense_lookups: bool = False
    elementwise: bool = False
    output_share: float | None = None


CONVENTIONS: dict[str, Convention] = {
    "products": Convention(),
    "official": Convention(
        backward=1.0, dense_lookups=True, elementwise=True, output_share=0.15625
    ),
}

# Settings of the paper's runs (table 6); the masks of Large are 25 %. The learning rates are given
# for completeness: they cost nothing.
PAPER_RUNS: dict[str, PretrainingConfig] = {
    "small": PretrainingConfig(),
    "base": PretrainingConfig(
        size="base", steps=766_000, batch_size=256, sequence_length=512, learning_rate=2e-4
    ),
    "large": PretrainingConfig(
        size="large",
        steps=400_000,
        batch_size=2048,
        sequence_length=512,
        learning_rate=2e-4,
        mask_probability=0.25,
    ),
}


@dataclass(frozen=True)
class TrainingFlops:
    """Operations of a training run.

    Attributes:
        generator: in one step; 0 for an objective without a generator.
        main: in one step, of the network that is kept: the discriminator, or in the Table 5
            objectives the network in its place.
        steps: how many steps.
    """

    generator: float
    main: float
    steps: int

    @property
    def step(self) -> float:
        """Operations of one step."""
        return self.generator + self.main

    @property
    def run(self) -> float:
        """Operations of all steps."""
        return self.step * self.steps

    @property
    def generator_share(self) -> float:
        """The generator's part, between 0 and 1."""
        return self.generator / self.step


@dataclass(frozen=True)
class TrainingCost:
    """What a run takes: ``hours`` on the clock, ``device_hours`` on the bill, ``price``."""

    hours: float
    device_hours: float
    price: float


def get_convention(convention: str | Convention) -> Convention:
    """Return the convention called ``convention`` (a :class:`Convention` is returned as it is).

    Raises:
        ValueError: if none has that name.
    """
    if isinstance(convention, Convention):
        return convention
    if convention not in CONVENTIONS:
        raise ValueError(
            f"unknown convention {convention!r}: choose one of {', '.join(CONVENTIONS)}, or pass "
            "a Convention."
        )
    return CONVENTIONS[convention]


def layer_flops(size: ElectraSize, sequence_length: int, elementwise: bool = False) -> int:
    """Forward operations of one Transformer layer for one token."""
    h, f, L, heads = (
        size.hidden_size,
        size.intermediate_size,
        sequence_length,
        size.num_attention_heads,
    )
    products = 8 * h * h + 4 * L * h + 4 * h * f  # q, k, v, output; scores, weighted sum; FFN
    if not elementwise:
        return products
    attention = (SOFTMAX + DROPOUT + 1) * L * heads  # 1: the scaling
    biases = 3 * h + h + f + h
    residuals_and_dropout = 2 * (1 + DROPOUT) * h
    # The script counts the first of the two LayerNorms once, not for each unit: 5 instead of 5h.
    norms = LAYER_NORM + LAYER_NORM * h
    return products + attention + biases + residuals_and_dropout + norms + GELU * f


def embedding_flops(size: ElectraSize, sequence_length: int, convention: Convention) -> int:
    """Forward operations of one token's way from its id to the first layer."""
    e, h = size.embedding_size, size.hidden_size
    count = 2 * e * size.vocab_size if convention.dense_lookups else 0
    if e != h:
        count += 2 * e * h + (h if convention.elementwise else 0)
    if convention.elementwise:
        # Position and token type are looked up by a product too; two additions; LayerNorm, dropout.
        count += 2 * e * (sequence_length + 2) + (2 + LAYER_NORM + DROPOUT) * e
    return count


def head_flops(size: ElectraSize, head: str, elementwise: bool = False) -> int:
    """Forward operations of a head at one position.

    Args:
        size: the network under it.
        head: ``"discriminator"`` (dense, then one logit), ``"generator"`` (down to the embedding
            size, then a logit for each token of the vocabulary), ``"copy"`` (the generator's head
            and the copy gate of All-Tokens MLM), or ``"none"``.
        elementwise: see :class:`Convention`.

    Raises:
        ValueError: if the head is unknown.
    """
    e, h, V = size.embedding_size, size.hidden_size, size.vocab_size
    if head == "discriminator":
        return 2 * h * h + 2 * h + ((1 + GELU) * h if elementwise else 0)
    if head in ("generator", "copy"):
        count = 2 * h * e + 2 * e * V + (2 * h if head == "copy" else 0)
        if elementwise:
            count += (1 + GELU + LAYER_NORM) * e + (SOFTMAX + 2) * V
        return count
    if head == "none":
        return 0
    raise ValueError(f"unknown head {head!r}: choose one of {', '.join(HEADS)}.")


def forward_flops(
    size: str | ElectraSize,
    sequence_length: int,
    head: str = "discriminator",
    num_outputs: float | None = None,
    convention: str | Convention = "products",
) -> float:
    """Operations of one sequence's forward pass through one network.

    Args:
        size: the network's own shape: pass ``size.generator()`` for a generator.
        sequence_length: L, tokens.
        head: see :func:`head_flops`.
        num_outputs: positions at which the head is computed; all if absent.
        convention: a name in :data:`CONVENTIONS`, or a :class:`Convention`.

    Raises:
        ValueError: if a name is unknown or a number of positions impossible.
    """
    shape, rule = get_size(size), get_convention(convention)
    if sequence_length < 1:
        raise ValueError(f"sequence_length must be at least 1, not {sequence_length}.")
    outputs = sequence_length if num_outputs is None else num_outputs
    if not 0 <= outputs <= sequence_length:
        raise ValueError(
            f"num_outputs must lie between 0 and the {sequence_length} tokens of a sequence, not "
            f"{outputs}."
        )
    if rule.output_share is not None and head == "generator":
        outputs = rule.output_share * sequence_length
    layer = layer_flops(shape, sequence_length, rule.elementwise)
    token = embedding_flops(shape, sequence_length, rule) + shape.num_hidden_layers * layer
    return token * sequence_length + head_flops(shape, head, rule.elementwise) * outputs


def number_chosen(sequence_length: int, mask_probability: float) -> int:
    """Positions that are chosen in a sequence without padding: the official count."""
    lengths = torch.tensor([sequence_length])
    return int(number_to_mask(lengths, sequence_length, mask_probability))


# Objective -> does it have a generator; head of the main network; is that head computed at the
# chosen positions only. ELECTRA 15 % computes all logits and leaves most out of its loss.
OBJECTIVE_HEADS: dict[str, tuple[bool, str, bool]] = {
    "electra": (True, "discriminator", False),
    "electra-15": (True, "discriminator", False),
    "replace-mlm": (True, "generator", True),
    "all-tokens-mlm": (True, "copy", False),
    "mlm": (False, "generator", True),
}


def count_training_flops(
    run: str | ElectraSize | PretrainingConfig,
    *,
    objective: str | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    sequence_length: int | None = None,
    mask_probability: float | None = None,
    generator_fraction: float | None = None,
    vocab_size: int | None = None,
    convention: str | Convention = "products",
) -> TrainingFlops:
    """Count the operations of a training step and of a run.

    Args:
        run: settings; or a name in :data:`PAPER_RUNS` for the paper's own; or another size, which
            needs ``steps``, ``batch_size`` and ``sequence_length`` besides.
        objective: ``"electra"`` or one of the paper's Table 5: ``"electra-15"``,
            ``"replace-mlm"``, ``"all-tokens-mlm"``, ``"mlm"``; by default the settings' own.
        steps: this and the following replace what the settings say.
        batch_size: sequences in a step, over all devices.
        sequence_length: L, tokens.
        mask_probability: share of positions that are chosen.
        generator_fraction: generator width over discriminator width.
        vocab_size: V, tokens in the vocabulary.
        convention: a name in :data:`CONVENTIONS`, or a :class:`Convention`.

    Raises:
        ValueError: if a name is unknown, or a size that the paper does not have comes without its
            steps, batch and length.
    """
    rule = get_convention(convention)
    if isinstance(run, PretrainingConfig):
        settings, size = run, get_size(run.size)
    else:
        size = get_size(run)
        if size.name in PAPER_RUNS:
            settings = PAPER_RUNS[size.name]
        elif None in (steps, batch_size, sequence_length):
            raise ValueError(
                f"the paper has no run of size {size.name!r}: give steps, batch_size and "
                "sequence_length, or pass a PretrainingConfig."
            )
        else:
            settings = PretrainingConfig()
    objective = objective or getattr(settings, "objective", "electra")
    if objective not in OBJECTIVE_HEADS:
        raise ValueError(
            f"unknown objective {objective!r}: choose one of {', '.join(OBJECTIVE_HEADS)}."
        )
    fraction = generator_fraction or settings.generator_fraction or size.generator_fraction
    size = replace(size, generator_fraction=fraction, vocab_size=vocab_size or size.vocab_size)
    L = sequence_length or settings.sequence_length
    probability = settings.mask_probability if mask_probability is None else mask_probability
    chosen = number_chosen(L, probability)

    has_generator, head, chosen_only = OBJECTIVE_HEADS[objective]
    sequences = batch_size or settings.batch_size
    passes = (1 + rule.backward) * sequences
    generator = forward_flops(size.generator(), L, "generator", chosen, rule)
    main = forward_flops(size, L, head, chosen if chosen_only else None, rule)
    return TrainingFlops(
        generator=passes * generator if has_generator else 0.0,
        main=passes * main,
        steps=steps or settings.steps,
    )


def training_cost(
    flops: float,
    *,
    peak: float,
    share_of_peak: float,
    devices: int = 1,
    price_per_hour: float = 0.0,
) -> TrainingCost:
    """Turn operations into time and money.

    hours = flops / (devices * peak * share_of_peak) / 3600; price = hours * devices *
    price_per_hour.

    Args:
        flops: operations of the run, for instance ``count_training_flops("small").run``.
        peak: what one device could do at most, operations per second.
        share_of_peak: what a training step reaches of it, above 0, at most 1. Measure it: it is
            far below 1 for a small model on a large device.
        devices: how many work in parallel. What communication costs belongs into
            ``share_of_peak``.
        price_per_hour: of one device, in any currency.

    Raises:
        ValueError: if a number is out of range.
    """
    for name, value in (("peak", peak), ("share_of_peak", share_of_peak), ("devices", devices)):
        if not value > 0:
            raise ValueError(f"{name} must be greater than 0, not {value!r}.")
    if share_of_peak > 1:
        raise ValueError(f"share_of_peak is a part of 1, not {share_of_peak!r}: write 30 % as 0.3.")
    for name, value in (("flops", flops), ("price_per_hour", price_per_hour)):
        if not value >= 0:
            raise ValueError(f"{name} cannot be negative: {value!r}.")
    hours = flops / (devices * peak * share_of_peak) / 3600
    return TrainingCost(hours, hours * devices, hours * devices * price_per_hour)
