"""Sizes and hyper-parameters, as frozen dataclasses whose defaults are the paper's.

Sources: ELECTRA (Clark et al., 2020), appendix tables 6 (pre-training) and 7 (fine-tuning);
``configure_pretraining.py`` and ``optimization.py`` of google-research/electra.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class ElectraSize:
    """The shape of a discriminator, and how much narrower its generator is.

    Attributes:
        name: what the size is called.
        num_hidden_layers: Transformer layers, the same in generator and discriminator.
        hidden_size: width of the discriminator's residual stream.
        num_attention_heads: heads of the discriminator.
        intermediate_size: width of the feed-forward layer.
        embedding_size: width of the shared embeddings.
        vocab_size: number of tokens.
        max_position_embeddings: longest sequence, in tokens.
        generator_fraction: generator width divided by discriminator width (table 6).
    """

    name: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    embedding_size: int
    vocab_size: int = 30_522
    max_position_embeddings: int = 512
    generator_fraction: float = 0.25

    def generator(self) -> ElectraSize:
        """Return the generator's shape: narrower by ``generator_fraction``, just as deep.

        Hidden size, feed-forward size and heads shrink, depth and embeddings do not
        (``get_generator_config`` of the official code: one head for each 64 hidden units). A
        discriminator whose heads are narrower than 64 keeps the width of its heads.
        """
        hidden = round(self.hidden_size * self.generator_fraction)
        head_size = min(64, self.hidden_size // self.num_attention_heads)
        return replace(
            self,
            name=f"{self.name}-generator",
            hidden_size=hidden,
            num_attention_heads=max(1, hidden // head_size),
            intermediate_size=4 * hidden,
            generator_fraction=1.0,
        )


SIZES: dict[str, ElectraSize] = {
    size.name: size
    for size in (
        # This book's own: small enough to learn something on two CPU cores.
        ElectraSize("nano", 2, 128, 4, 512, 128, 4_096, 64, generator_fraction=1 / 4),
        ElectraSize("mini", 4, 256, 4, 1024, 128, 8_192, 128, generator_fraction=1 / 4),
        # The paper's (table 6).
        ElectraSize("small", 12, 256, 4, 1024, 128, generator_fraction=1 / 4),
        ElectraSize("base", 12, 768, 12, 3072, 768, generator_fraction=1 / 3),
        ElectraSize("large", 24, 1024, 16, 4096, 1024, generator_fraction=1 / 4),
    )
}


CUSTOM = "custom"
"""What is recorded as the size of a run that started from a model of no named size."""


def get_size(size: str | ElectraSize) -> ElectraSize:
    """Return the size called ``size`` (an :class:`ElectraSize` is returned as it is).

    Raises:
        ValueError: if no size has that name.
    """
    if isinstance(size, ElectraSize):
        return size
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}.")
    return SIZES[size]


def _check_types(settings: Any) -> None:
    """Refuse a value whose type is not its field's, before it fails somewhere far away."""
    accepts = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    for name, field in settings.__dataclass_fields__.items():
        value = getattr(settings, name)
        types = accepts.get(field.type.split(" |")[0], (object,))
        optional = "None" in field.type and value is None
        if optional or (
            isinstance(value, types) and (bool in types or not isinstance(value, bool))
        ):
            continue
        raise TypeError(
            f"{name} must be of type {field.type}, not {type(value).__name__} ({value!r})."
        )


def _check_range(settings: Any, **bounds: tuple[float, float]) -> None:
    for name, (low, high) in bounds.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} must lie between {low:g} and {high:g}, not {value!r}.")


@dataclass(frozen=True)
class PretrainingConfig:
    """Settings of a pre-training run. Defaults: ELECTRA-Small of table 6.

    ``embeddings`` and ``positions`` say where the embeddings start: ``"random"`` as in the paper,
    or ``"cooccurrence"`` and ``"sinusoid"`` (see :mod:`electra_tutorial.initialization`), which
    are this book's departure from it. ``objective`` is a name in
    :data:`electra_tutorial.objectives.OBJECTIVES`, ``sharing`` one of the modes of
    :mod:`electra_tutorial.sharing`. ``precision`` is ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    ``bias_correction``: AdamW corrects its moments for their start at 0, as PyTorch's does; the
    official code doesn't (``--no-bias-correction``). ``warmup_multiplies_decay``: linear warm-up
    times linear decay, as in the official code; false: the decay begins after the warm-up. The
    first step of a warm-up has the rate ``learning_rate / warmup_steps``; in the official code it
    has the rate 0 and changes nothing (see
    :func:`electra_tutorial.optimization.learning_rate_factor`).
    ``masking`` says how the positions to mask are drawn: ``"exact"``, the official count without
    replacement; ``"with-replacement"``, as the official code draws them, a position that is drawn
    twice counting twice in the losses over the chosen positions; ``"coin"``, each token with
    ``mask_probability``, independently (:data:`electra_tutorial.batches.MASKING`, which says what
    still differs from the official code). Held-out text is always masked by the exact count.
    ``attention`` is ``"sdpa"``, ``"eager"`` or ``"auto"``: the one measured faster (see
    :func:`electra_tutorial.training.choose_attention`). ``compile`` runs the encoders through
    ``torch.compile``. ``onednn`` gives the float32 products on a CPU to oneDNN, which is twice as
    fast on some (see :mod:`electra_tutorial.products`, which measures it).
    """

    size: str = "small"
    steps: int = 1_000_000
    batch_size: int = 128
    sequence_length: int = 128
    learning_rate: float = 5e-4
    warmup_steps: int = 10_000
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-6
    max_grad_norm: float = 1.0
    bias_correction: bool = True
    warmup_multiplies_decay: bool = True
    mask_probability: float = 0.15
    masking: str = "exact"
    objective: str = "electra"
    sharing: str = "embeddings"
    discriminator_weight: float = 50.0
    generator_fraction: float | None = None
    dropout: float = 0.1
    initializer_range: float = 0.02
    embeddings: str = "random"
    positions: str = "random"
    gradient_accumulation: int = 1
    precision: str = "fp32"
    attention: str = "auto"
    compile: bool = False
    onednn: bool = False
    seed: int = 0
    log_every: int = 100
    evaluate_every: int = 1_000
    save_every: int = 10_000
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        _check_types(self)
        if self.size != CUSTOM:
            get_size(self.size)
        infinity = float("inf")
        _check_range(
            self,
            steps=(1, infinity),
            batch_size=(1, infinity),
            sequence_length=(3, infinity),
            learning_rate=(0, infinity),
            warmup_steps=(0, infinity),
            mask_probability=(0, 1),
            discriminator_weight=(0, infinity),
            generator_fraction=(0, 1),
            dropout=(0, 1),
            gradient_accumulation=(1, infinity),
            log_every=(1, infinity),
            evaluate_every=(1, infinity),
            save_every=(1, infinity),
            keep_checkpoints=(1, infinity),
        )
        for name, choices in (
            ("masking", ("exact", "with-replacement", "coin")),
            ("objective", ("electra", "electra-15", "replace-mlm", "all-tokens-mlm", "mlm")),
            (
                "sharing",
                ("none", "token-embeddings", "embeddings", "all", "gradient-disentangled"),
            ),
            ("embeddings", ("random", "cooccurrence")),
            ("positions", ("random", "sinusoid")),
            ("precision", ("fp32", "bf16", "fp16")),
            ("attention", ("auto", "sdpa", "eager")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}."
                )
        if self.size == CUSTOM:
            return
        longest = get_size(self.size).max_position_embeddings
        if self.sequence_length > longest:
            raise ValueError(
                f"sequence_length {self.sequence_length} is longer than the {longest} positions of "
                f"size {self.size!r}: shorten it or choose another size."
            )


@dataclass(frozen=True)
class FineTuningConfig:
    """Settings of a fine-tuning run. Defaults: ELECTRA-Small of table 7.

    The paper takes 10 epochs for RTE and STS-B and 2 for SQuAD; its code reads SQuAD with
    ``max_length`` 512. ``window_overlap``: tokens that two neighbouring windows of a long context
    share, in question answering. ``official_layer_decay_exponent``: count one level too many below
    the head, as the released code does (see :func:`electra_tutorial.finetuning.layer_rates`).
    ``bias_correction``: false is the released code's Adam, whose early steps are larger.
    ``onednn``: on a CPU, give the float32 products to oneDNN where that is measured to be faster.

    These settings are for thousands of rows. For fewer: :meth:`small_set`.
    """

    learning_rate: float = 3e-4
    layerwise_decay: float = 0.8
    official_layer_decay_exponent: bool = False
    epochs: int = 3
    batch_size: int = 32
    warmup_fraction: float = 0.1
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-6
    bias_correction: bool = True
    max_grad_norm: float = 1.0
    dropout: float = 0.1
    max_length: int = 128
    window_overlap: int = 64
    onednn: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        infinity = float("inf")
        _check_range(
            self,
            learning_rate=(0, infinity),
            layerwise_decay=(0, 1),
            epochs=(1, infinity),
            batch_size=(1, infinity),
            warmup_fraction=(0, 1),
            weight_decay=(0, infinity),
            max_grad_norm=(0, infinity),
            dropout=(0, 1),
            max_length=(3, infinity),
            window_overlap=(0, infinity),
        )

    @classmethod
    def small_set(cls, rows: int, **changes: Any) -> FineTuningConfig:
        """Settings for a set of a few dozen to a few thousand rows, which the paper never saw.

        Its settings suit GLUE. On 300 rows, 3 epochs of batches of 32 are 30 steps, in which a new
        head does not get away from guessing. What matters here is the number of steps: batches of
        16 and as many epochs as make 100 steps, though at least 3 and at most 20. All layers learn
        at one rate, 5e-4 (``layerwise_decay`` 1.0), and without dropout, which both slow the start
        down. Chapters 5.3 to 6.4 find such settings for the bundled ``mini``, and
        ``experiments/instability.py`` counts 0 of 10 runs at chance with this rate on 32 rows, and
        10 of 10 with the paper's settings. For a larger checkpoint, try 3e-4 and dropout 0.1 too.

        Args:
            rows: of the training split.
            changes: settings that are to differ, by name.

        Raises:
            ValueError: if there is no row.
        """
        if rows < 1:
            raise ValueError(f"A small set has at least one row to train on, not {rows!r}.")
        settings: dict[str, Any] = {
            "learning_rate": 5e-4,
            "layerwise_decay": 1.0,
            "batch_size": 16,
            "dropout": 0.0,
        } | changes
        config = cls(**settings)
        if "epochs" in changes:
            return config
        steps_per_epoch = -(-rows // config.batch_size)
        return replace(config, epochs=min(20, max(3, -(-100 // steps_per_epoch))))
