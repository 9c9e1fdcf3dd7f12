"""Generator and discriminator as one model: what transformers has never had.

The two halves are transformers' own :class:`~transformers.ElectraForMaskedLM` and
:class:`~transformers.ElectraForPreTraining`. This module joins them as the paper does (section 2,
appendix A; ``run_pretraining.py`` of google-research/electra):

1. the generator reads x^masked and predicts the tokens at the chosen positions,
2. one token is sampled from each prediction: that makes x^corrupt,
3. the discriminator reads x^corrupt and says of every token whether it was replaced,
4. loss = L_MLM + lambda L_Disc; no gradient passes through the sampling.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import ModelOutput
from transformers.utils import logging as transformers_logging

from electra_tutorial.config import ElectraSize, get_size
from electra_tutorial.masking import IGNORED

HALVES = ("discriminator", "generator")
SHARED = "discriminator.electra.embeddings"
SHARED_PARTS = (
    "word_embeddings.weight",
    "position_embeddings.weight",
    "token_type_embeddings.weight",
    "LayerNorm.weight",
    "LayerNorm.bias",
)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars while it loads or saves: noise in a chapter's output."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def electra_config(size: ElectraSize, **overrides: Any) -> ElectraConfig:
    """Write a size as a transformers configuration; ``overrides`` go in as they are."""
    settings: dict[str, Any] = {
        "vocab_size": size.vocab_size,
        "embedding_size": size.embedding_size,
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.num_hidden_layers,
        "num_attention_heads": size.num_attention_heads,
        "intermediate_size": size.intermediate_size,
        "max_position_embeddings": size.max_position_embeddings,
    }
    return ElectraConfig(**settings | overrides)


def sample_tokens(
    logits: Tensor,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    uniform: Tensor | None = None,
) -> Tensor:
    """Draw one token from each row of softmax(logits / temperature).

    Without ``uniform`` by the Gumbel-max trick, as the official code: adding Gumbel noise to the
    logits and taking the largest is a draw from their softmax (Gumbel, 1954). It needs one random
    number for each token of the vocabulary.

    With ``uniform`` by inverting the cumulative distribution: the token drawn is the first whose
    cumulative probability exceeds the number. One random number for each position is less work,
    and it can be tied to the position: the same example gets the same noise however a batch is
    split over processes.

    Both compute in float32 whatever the logits come in: in float16 the Gumbel noise overflows
    (pytorch#41663). No gradient passes.

    Args:
        logits: ``(..., vocab)``.
        temperature: above 1 flattens the distribution, below 1 sharpens it.
        generator: source of randomness of the Gumbel noise.
        uniform: float32 numbers in [0, 1), ``(...)``.

    Returns:
        Token ids, ``(...)``.

    Raises:
        ValueError: if the temperature is not positive, or ``uniform`` has another shape.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature!r}.")
    logits = logits.detach().float()
    if uniform is not None:
        if uniform.shape != logits.shape[:-1]:
            raise ValueError(
                f"uniform has the shape {tuple(uniform.shape)} and the logits "
                f"{tuple(logits.shape)}: give one number for each row of logits."
            )
        cumulative = (logits / temperature).softmax(-1).cumsum(-1)
        # Rounding leaves the last sum a little off 1. Scaled by it and kept below it, the number
        # always meets a token, and one whose probability is above zero.
        total = cumulative[..., -1]
        reach = torch.minimum(uniform.float() * total, total.nextafter(torch.zeros_like(total)))
        tokens = torch.searchsorted(cumulative, reach[..., None], right=True).squeeze(-1)
        return tokens.clamp_max(logits.shape[-1] - 1)  # NaN logits: no id outside the vocabulary
    waiting_time = torch.empty_like(logits).exponential_(generator=generator)
    gumbel = -waiting_time.clamp_min(torch.finfo(torch.float32).tiny).log()
    return (logits / temperature + gumbel).argmax(-1)


def mean_over(values: Tensor, where: Tensor, count: Tensor | float | None = None) -> Tensor:
    """Mean of ``values`` at the positions where ``where`` is true; 0 if there is none.

    ``count`` replaces the number of those positions as divisor: a part of a batch, divided by the
    positions of the whole batch, gives its share of the whole batch's mean.
    """
    where = where.to(values.dtype)
    return (values * where).sum() / (where.sum().clamp_min(1.0) if count is None else count)


def discriminator_loss(
    logits: Tensor,
    is_replaced: Tensor,
    attention_mask: Tensor,
    num_tokens: Tensor | float | None = None,
) -> Tensor:
    """L_Disc: binary cross-entropy, mean over all real tokens of the batch, in nats.

    Args:
        logits: ``(batch, seq_len)``; positive means "replaced".
        is_replaced: ``(batch, seq_len)``, boolean.
        attention_mask: ``(batch, seq_len)``, 1 at real tokens. [CLS] and [SEP] count.
        num_tokens: divisor, if it is not the number of real tokens here; see :func:`mean_over`.
    """
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), is_replaced.float(), reduction="none"
    )
    return mean_over(losses, attention_mask, num_tokens)


@dataclass
class JointPreTrainingOutput(ModelOutput):
    """What one forward pass of both networks gives.

    Attributes:
        loss: L_MLM + lambda L_Disc, a scalar in nats.
        generator_loss: L_MLM, mean over the chosen positions of the batch.
        discriminator_loss: L_Disc, mean over the real tokens of the batch.
        generator_logits: predictions at the chosen positions only, ``(num_chosen, vocab)``, in
            the order of ``labels[labels != -100]``.
        discriminator_logits: ``(batch, seq_len)``; positive means "replaced".
        corrupted_ids: x^corrupt, ``(batch, seq_len)``.
        is_replaced: where x^corrupt differs from x, ``(batch, seq_len)``, boolean.
    """

    loss: Tensor | None = None
    generator_loss: Tensor | None = None
    discriminator_loss: Tensor | None = None
    generator_logits: Tensor | None = None
    discriminator_logits: Tensor | None = None
    corrupted_ids: Tensor | None = None
    is_replaced: Tensor | None = None


class ElectraJointConfig(PretrainedConfig):
    """Two ELECTRA configurations and the weight between their losses.

    Args:
        discriminator: the discriminator's :class:`~transformers.ElectraConfig` (or its dict).
        generator: the generator's.
        discriminator_weight: lambda (paper: 50).
        sampling_temperature: of the generator's sampling (paper: 1).
    """

    model_type = "electra_joint"

    def __init__(
        self,
        discriminator: ElectraConfig | dict[str, Any] | None = None,
        generator: ElectraConfig | dict[str, Any] | None = None,
        discriminator_weight: float = 50.0,
        sampling_temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        def as_dict(half: ElectraConfig | dict[str, Any] | None) -> dict[str, Any]:
            config = half if isinstance(half, ElectraConfig) else ElectraConfig(**(half or {}))
            return config.to_dict()

        self.discriminator = as_dict(discriminator)
        self.generator = as_dict(generator)
        self.discriminator_weight = discriminator_weight
        self.sampling_temperature = sampling_temperature
        super().__init__(**kwargs)


def _check_shareable(discriminator: ElectraConfig, generator: ElectraConfig) -> None:
    for name in ("vocab_size", "embedding_size", "max_position_embeddings", "type_vocab_size"):
        ours, theirs = getattr(discriminator, name), getattr(generator, name)
        if ours != theirs:
            raise ValueError(
                f"the two halves share their embeddings, so {name} must agree: the discriminator "
                f"has {ours}, the generator {theirs}."
            )


class ElectraForJointPreTraining(PreTrainedModel):
    """Replaced token detection: a generator and a discriminator trained together.

    ``model.generator`` and ``model.discriminator`` are ordinary transformers models. They share the
    whole embedding module (word, position, token type, LayerNorm; paper section 3.2), and the
    generator's output matrix is the word embedding matrix.
    """

    config_class = ElectraJointConfig
    base_model_prefix = ""
    _supports_sdpa = True
    _tied_weights_keys = {
        "generator.generator_lm_head.weight": f"{SHARED}.word_embeddings.weight",
        **{f"generator.electra.embeddings.{part}": f"{SHARED}.{part}" for part in SHARED_PARTS},
    }

    def __init__(self, config: ElectraJointConfig) -> None:
        super().__init__(config)
        discriminator = ElectraConfig(**config.discriminator)
        generator = ElectraConfig(**config.generator)
        _check_shareable(discriminator, generator)
        self.discriminator = ElectraForPreTraining(discriminator)
        self.generator = ElectraForMaskedLM(generator)
        self.share_embeddings()
        self.post_init()

    @classmethod
    def from_size(
        cls,
        size: str | ElectraSize,
        vocab_size: int | None = None,
        discriminator_weight: float = 50.0,
        sampling_temperature: float = 1.0,
        generator_fraction: float | None = None,
        **overrides: Any,
    ) -> ElectraForJointPreTraining:
        """Build a new, randomly initialised model.

        Args:
            size: a name in :data:`electra_tutorial.config.SIZES`, or an ``ElectraSize``.
            vocab_size: number of tokens, if it differs from the size's.
            discriminator_weight: lambda.
            sampling_temperature: of the generator's sampling.
            generator_fraction: generator width over discriminator width, if it differs.
            overrides: passed to both :class:`~transformers.ElectraConfig`, for instance
                ``hidden_dropout_prob=0.0`` or ``initializer_range=0.1``.

        Raises:
            ValueError: if the size is unknown.
        """
        shape = get_size(size)
        if vocab_size is not None:
            overrides["vocab_size"] = vocab_size
        if generator_fraction is not None:
            shape = ElectraSize(**{**shape.__dict__, "generator_fraction": generator_fraction})
        return cls(
            ElectraJointConfig(
                discriminator=electra_config(shape, **overrides),
                generator=electra_config(shape.generator(), **overrides),
                discriminator_weight=discriminator_weight,
                sampling_temperature=sampling_temperature,
            )
        )

    def share_embeddings(self) -> None:
        """Make the generator read from, and predict with, the discriminator's embeddings.

        Assigning the module shares all four parts; the output matrix must be pointed at the new
        word embeddings as well, or it would stay on the old ones.
        """
        embeddings = self.discriminator.electra.embeddings
        self.generator.electra.embeddings = embeddings
        self.generator.generator_lm_head.weight = embeddings.word_embeddings.weight

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Share the embeddings again: transformers calls this after it has loaded weights."""
        super().tie_weights(*args, **kwargs)
        self.share_embeddings()

    def predict_masked(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        chosen: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the generator's logits at the chosen positions only, ``(num_chosen, vocab)``.

        transformers' head computes ``(batch, seq_len, vocab)``: about seven times more than the
        loss needs.
        """
        hidden = self.generator.electra(
            input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        predictions = self.generator.generator_predictions(hidden[chosen])
        return self.generator.generator_lm_head(predictions)

    def corrupt(
        self,
        input_ids: Tensor,
        labels: Tensor,
        generator_logits: Tensor,
        sampling_generator: torch.Generator | None = None,
        sampling_uniform: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Put one sample at each chosen position.

        ``sampling_uniform``, ``(batch, seq_len)``, makes the draw follow from the position's own
        number; see :func:`sample_tokens`.

        Returns:
            x^corrupt, and where it differs from x: both ``(batch, seq_len)``. A sample that happens
            to be the original token counts as original (paper, section 2).
        """
        chosen = labels != IGNORED
        uniform = None if sampling_uniform is None else sampling_uniform[chosen]
        samples = sample_tokens(
            generator_logits, self.config.sampling_temperature, sampling_generator, uniform
        )
        corrupted_ids = input_ids.masked_scatter(chosen, samples.to(input_ids.dtype))
        return corrupted_ids, chosen & (corrupted_ids != labels)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        sampling_generator: torch.Generator | None = None,
        sampling_uniform: Tensor | None = None,
        num_chosen: Tensor | float | None = None,
        num_tokens: Tensor | float | None = None,
        **_: Any,
    ) -> JointPreTrainingOutput:
        """Run both networks and compute both losses.

        Both losses are means over the batch. Where a step consists of several batches (gradient
        accumulation, several processes), give ``num_chosen`` and ``num_tokens`` of the whole step:
        the losses of the parts then add up to those of one large batch, and so do the gradients.

        Args:
            input_ids: x^masked, ``(batch, seq_len)``.
            attention_mask: 1 at real tokens, ``(batch, seq_len)``; all 1 if absent.
            labels: original tokens at the chosen positions, -100 elsewhere, ``(batch, seq_len)``.
            token_type_ids: ``(batch, seq_len)``; all 0 if absent.
            sampling_generator: source of randomness for the samples.
            sampling_uniform: or the samples' random numbers themselves, in [0, 1), one for each
                position, ``(batch, seq_len)``.
            num_chosen: divisor of L_MLM; by default the number of chosen positions here.
            num_tokens: divisor of L_Disc; by default the number of real tokens here.

        Raises:
            ValueError: if ``labels`` are missing, or the sequence is longer than the positions.
        """
        if labels is None:
            raise ValueError(
                "labels are missing: pass the original tokens at the masked positions and -100 "
                "elsewhere, as electra_tutorial.masking.mask_tokens returns them."
            )
        positions = self.config.discriminator["max_position_embeddings"]
        if input_ids.shape[1] > positions:
            raise ValueError(
                f"the sequences have {input_ids.shape[1]} tokens and the model {positions} "
                "positions: shorten the sequences or build a model with more positions."
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)

        chosen = labels != IGNORED
        generator_logits = self.predict_masked(input_ids, attention_mask, chosen, token_type_ids)
        losses = F.cross_entropy(generator_logits.float(), labels[chosen], reduction="sum")
        generator_loss = losses / (chosen.sum().clamp_min(1) if num_chosen is None else num_chosen)

        corrupted_ids, is_replaced = self.corrupt(
            input_ids, labels, generator_logits, sampling_generator, sampling_uniform
        )
        discriminator_logits = self.discriminator(
            corrupted_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits
        disc_loss = discriminator_loss(
            discriminator_logits, is_replaced, attention_mask, num_tokens
        )

        return JointPreTrainingOutput(
            loss=generator_loss + self.config.discriminator_weight * disc_loss,
            generator_loss=generator_loss,
            discriminator_loss=disc_loss,
            generator_logits=generator_logits,
            discriminator_logits=discriminator_logits,
            corrupted_ids=corrupted_ids,
            is_replaced=is_replaced,
        )

    def save_halves(
        self, directory: str | Path, tokenizer: Any, dtype: torch.dtype = torch.float32
    ) -> None:
        """Save two ordinary Hugging Face folders: ``discriminator/`` and ``generator/``.

        Each opens with the Auto classes. ``config.json`` says float32 whatever the file holds:
        transformers 5 otherwise loads, and trains, in the file's own type. The folder is written
        under a temporary name and renamed when whole.

        Args:
            directory: where; replaced if it exists.
            tokenizer: saved with each half.
            dtype: type of the weights on disk (``torch.float16`` halves the file).
        """
        directory = Path(directory)
        temporary = directory.with_name(f".{directory.name}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        for name in HALVES:
            half: PreTrainedModel = getattr(self, name)
            folder = temporary / name
            state = {key: value.detach().to(dtype) for key, value in half.state_dict().items()}
            with no_progress_bars():
                half.save_pretrained(folder, state_dict=state)
            config = folder / "config.json"
            settings = json.loads(config.read_text()) | {"dtype": "float32"}
            config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
            tokenizer.save_pretrained(folder)
        shutil.rmtree(directory, ignore_errors=True)
        temporary.rename(directory)

    @classmethod
    def from_halves(
        cls,
        directory: str | Path,
        discriminator_weight: float = 50.0,
        sampling_temperature: float = 1.0,
    ) -> ElectraForJointPreTraining:
        """Load a folder that :meth:`save_halves` wrote, in float32, embeddings shared.

        The shared embeddings are the discriminator's.

        Raises:
            FileNotFoundError: if one of the two folders is missing.
        """
        directory = Path(directory)
        for name in HALVES:
            if not (directory / name / "config.json").is_file():
                raise FileNotFoundError(
                    f"{directory} holds no {name}/config.json: name a folder with discriminator/ "
                    "and generator/ in it."
                )
        with no_progress_bars():
            discriminator = ElectraForPreTraining.from_pretrained(
                directory / "discriminator", dtype=torch.float32
            )
            generator = ElectraForMaskedLM.from_pretrained(
                directory / "generator", dtype=torch.float32
            )
        model = cls(
            ElectraJointConfig(
                discriminator=discriminator.config,
                generator=generator.config,
                discriminator_weight=discriminator_weight,
                sampling_temperature=sampling_temperature,
            )
        )
        model.discriminator = discriminator
        model.generator = generator
        model.share_embeddings()
        return model
