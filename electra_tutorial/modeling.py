"""Generator and discriminator as one model: what transformers has never had.

The two halves are transformers' own :class:`~transformers.ElectraForMaskedLM` and
:class:`~transformers.ElectraForPreTraining`. This module joins them as the paper does (section 2,
appendix A; ``run_pretraining.py`` of google-research/electra):

1. the generator reads x^masked and predicts the tokens at the chosen positions,
2. one token is sampled from each prediction: that makes x^corrupt,
3. the discriminator reads x^corrupt and says of every token whether it was replaced,
4. loss = L_MLM + lambda L_Disc; no gradient passes through the sampling.

:mod:`electra_tutorial.objectives` changes step 3, one class for each objective the paper compares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import ModelOutput

from electra_tutorial.config import ElectraSize, get_size
from electra_tutorial.halves import SavedInHalves
from electra_tutorial.halves import no_progress_bars as no_progress_bars
from electra_tutorial.losses import discriminator_loss, predict_tokens, sample_tokens, token_loss
from electra_tutorial.masking import IGNORED
from electra_tutorial.sharing import check_fit, share_weights, tied_names


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


@dataclass(frozen=True)
class JointBatch:
    """A batch as one of the networks reads it; ``(batch, seq_len)`` where no shape is given.

    Attributes:
        input_ids: x^masked for the generator, x^corrupt for the discriminator.
        is_replaced: where ``input_ids`` differ from x, boolean.
        labels: the original token at the chosen positions, -100 elsewhere.
        attention_mask: 1 at real tokens.
        positions: the chosen positions as indices into the flattened batch, ``(num_chosen,)``.
        token_type_ids: all 0 if absent.
        num_chosen: divisor of a loss over the chosen positions, if not their number here.
        num_tokens: divisor of a loss over the real tokens, if not their number here.
        loss_weights: how much each chosen position counts in a loss over them; all alike if absent.
        all_real: whether ``attention_mask`` is known to be 1 everywhere.
    """

    input_ids: Tensor
    is_replaced: Tensor
    labels: Tensor
    attention_mask: Tensor
    positions: Tensor
    token_type_ids: Tensor | None = None
    num_chosen: Tensor | float | None = None
    num_tokens: Tensor | float | None = None
    loss_weights: Tensor | None = None
    all_real: bool = False

    @property
    def network_mask(self) -> Tensor | None:
        """The mask for a network; none where no token is padding.

        transformers looks whether a mask hides anything, and on a GPU that waits for the device.
        """
        return None if self.all_real else self.attention_mask

    @property
    def original_ids(self) -> Tensor:
        """x, the tokens before masking."""
        return torch.where(self.labels != IGNORED, self.labels, self.input_ids)

    @property
    def targets(self) -> Tensor:
        """The original tokens at the chosen positions, ``(num_chosen,)``."""
        return self.labels.flatten()[self.positions]

    @property
    def target_weights(self) -> Tensor | None:
        """How much each of the targets counts, ``(num_chosen,)``."""
        return None if self.loss_weights is None else self.loss_weights.flatten()[self.positions]


@dataclass
class JointPreTrainingOutput(ModelOutput):
    """What one forward pass of both networks gives.

    Attributes:
        loss: L_MLM + lambda L_Disc, a scalar in nats. A frozen generator's loss is left out.
        generator_loss: L_MLM, mean over the chosen positions of the batch.
        discriminator_loss: L_Disc, mean over the real tokens of the batch; for another objective
            the loss of its own second network.
        generator_logits: predictions at the chosen positions only, ``(num_chosen, vocab)``, in
            the order of ``labels[labels != -100]``.
        discriminator_logits: ``(batch, seq_len)``; positive means "replaced". An objective that
            predicts tokens has a last dimension ``vocab`` and may hold the chosen positions only.
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
    """Two ELECTRA configurations and how the networks are trained together.

    Args:
        discriminator: the discriminator's :class:`~transformers.ElectraConfig` (or its dict).
        generator: the generator's.
        discriminator_weight: lambda (paper: 50).
        sampling_temperature: of the generator's sampling (paper: 1).
        sharing: which weights both have in common; see :mod:`electra_tutorial.sharing`.
        frozen_generator: whether the generator only samples and learns no more.
    """

    model_type = "electra_joint"

    def __init__(
        self,
        discriminator: ElectraConfig | dict[str, Any] | None = None,
        generator: ElectraConfig | dict[str, Any] | None = None,
        discriminator_weight: float = 50.0,
        sampling_temperature: float = 1.0,
        sharing: str = "embeddings",
        frozen_generator: bool = False,
        **kwargs: Any,
    ) -> None:
        def as_dict(half: ElectraConfig | dict[str, Any] | None) -> dict[str, Any]:
            config = half if isinstance(half, ElectraConfig) else ElectraConfig(**(half or {}))
            settings = config.to_dict()
            settings.pop("_name_or_path", None)  # a folder on the machine where it was loaded
            return settings

        self.discriminator = as_dict(discriminator)
        self.generator = as_dict(generator)
        self.discriminator_weight = discriminator_weight
        self.sampling_temperature = sampling_temperature
        self.sharing = sharing
        self.frozen_generator = frozen_generator
        super().__init__(**kwargs)


class ElectraForJointPreTraining(SavedInHalves, PreTrainedModel):
    """Replaced token detection: a generator and a discriminator trained together.

    ``model.generator`` and ``model.discriminator`` are ordinary transformers models; the
    discriminator is the network to keep. By default they share the whole embedding module (word,
    position, token type, LayerNorm), and the generator's output matrix is the word embedding
    matrix.

    Raises:
        ValueError: if the two networks do not fit together; see :mod:`electra_tutorial.sharing`.
    """

    config_class = ElectraJointConfig
    base_model_prefix = ""
    _supports_sdpa = True

    objective: ClassVar[str] = "electra"
    discriminator_class: ClassVar[Any] = ElectraForPreTraining
    has_generator: ClassVar[bool] = True
    predicts_tokens: ClassVar[bool] = False

    discriminator: Any
    generator: Any

    def __init__(self, config: ElectraJointConfig) -> None:
        super().__init__(config)
        config.objective = self.objective
        discriminator = ElectraConfig(**config.discriminator)
        generator = ElectraConfig(**config.generator)
        if self.has_generator:
            check_fit(discriminator, generator, config.sharing)
        self.discriminator = self.discriminator_class(discriminator)
        self.generator = ElectraForMaskedLM(generator) if self.has_generator else None
        if self.has_generator and config.sharing == "gradient-disentangled":
            if self.predicts_tokens:
                raise ValueError(
                    f"the objective {self.objective!r} predicts tokens with its embedding matrix, "
                    "and gradient-disentangled sharing is made for a discriminator: choose another "
                    "sharing."
                )
            # both start from the generator's tables: the differences start at zero
            tables = self.generator.electra.embeddings.state_dict()
            self.discriminator.electra.embeddings.load_state_dict(tables)
        self.share_weights()
        self._tied_weights_keys = tied_names(self)
        self.post_init()
        # a half's own ties name its embeddings, which may themselves be the other half's
        self.all_tied_weights_keys |= self._tied_weights_keys

    @classmethod
    def from_size(
        cls,
        size: str | ElectraSize,
        vocab_size: int | None = None,
        discriminator_weight: float = 50.0,
        sampling_temperature: float = 1.0,
        generator_fraction: float | None = None,
        sharing: str = "embeddings",
        **overrides: Any,
    ) -> ElectraForJointPreTraining:
        """Build a new, randomly initialised model.

        Args:
            size: a name in :data:`electra_tutorial.config.SIZES`, or an ``ElectraSize``.
            vocab_size: number of tokens, if it differs from the size's.
            discriminator_weight: lambda.
            sampling_temperature: of the generator's sampling.
            generator_fraction: generator width over discriminator width, if it differs.
            sharing: which weights both have in common; see :mod:`electra_tutorial.sharing`.
            overrides: passed to both :class:`~transformers.ElectraConfig`, for instance
                ``hidden_dropout_prob=0.0`` or ``initializer_range=0.1``.

        Raises:
            ValueError: if the size or the sharing is unknown, or the sizes do not fit.
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
                sharing=sharing,
            )
        )

    def share_weights(self) -> None:
        """Make the halves share what ``config.sharing`` names."""
        if self.has_generator:
            share_weights(self.discriminator, self.generator, self.config.sharing)

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Share and freeze again: transformers calls this after it has loaded the weights."""
        super().tie_weights(*args, **kwargs)
        self.share_weights()
        if self.config.frozen_generator:
            self.freeze_generator()

    def freeze_generator(self) -> None:
        """Let the generator sample, without dropout, and learn no more.

        Raises:
            ValueError: if it shares weights with the discriminator, which goes on learning.
        """
        learning = {id(parameter) for parameter in self.discriminator.parameters()}
        if any(id(parameter) in learning for parameter in self.generator.parameters()):
            raise ValueError(
                f"with sharing {self.config.sharing!r} the discriminator would change the frozen "
                "generator: choose sharing='none' or 'gradient-disentangled'."
            )
        self.config.frozen_generator = True
        self.generator.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ElectraForJointPreTraining:
        """Switch dropout on or off; a frozen generator's stays off."""
        super().train(mode)
        if self.config.frozen_generator:
            self.generator.eval()
        return self

    def predict_masked(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        chosen: Tensor,
        token_type_ids: Tensor | None = None,
        chosen_positions: Tensor | None = None,
    ) -> Tensor:
        """Return the generator's logits where ``chosen`` is true, ``(num_chosen, vocab)``."""
        if chosen_positions is None:
            chosen_positions = chosen.flatten().nonzero().squeeze(1)
        return predict_tokens(
            self.generator, input_ids, attention_mask, chosen_positions, token_type_ids
        )

    def corrupt(
        self,
        input_ids: Tensor,
        labels: Tensor,
        generator_logits: Tensor,
        sampling_generator: torch.Generator | None = None,
        sampling_uniform: Tensor | None = None,
        chosen_positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Put one sample at each chosen position.

        ``sampling_uniform``, ``(batch, seq_len)``, makes the draw follow from the position's own
        number; see :func:`sample_tokens`.

        Returns:
            x^corrupt, and where it differs from x: both ``(batch, seq_len)``. A sample that happens
            to be the original token counts as original (paper, section 2).
        """
        chosen = labels != IGNORED
        if chosen_positions is None:
            chosen_positions = chosen.flatten().nonzero().squeeze(1)
        uniform = None if sampling_uniform is None else sampling_uniform.flatten()[chosen_positions]
        samples = sample_tokens(
            generator_logits, self.config.sampling_temperature, sampling_generator, uniform
        ).to(input_ids.dtype)
        corrupted_ids = input_ids.flatten().scatter(0, chosen_positions, samples)
        corrupted_ids = corrupted_ids.view_as(input_ids)
        return corrupted_ids, chosen & (corrupted_ids != labels)

    def discriminator_objective(self, batch: JointBatch) -> tuple[Tensor, Tensor]:
        """Return what the discriminator says of a corrupted batch, and its loss.

        The one step in which the objectives differ; here the paper's: was this token replaced?
        """
        logits = self.discriminator(
            batch.input_ids,
            attention_mask=batch.network_mask,
            token_type_ids=batch.token_type_ids,
        ).logits
        return logits, discriminator_loss(
            logits, batch.is_replaced, batch.attention_mask, batch.num_tokens
        )

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
        chosen_positions: Tensor | None = None,
        loss_weights: Tensor | None = None,
        **_: Any,
    ) -> JointPreTrainingOutput:
        """Run both networks and compute both losses.

        Both losses are means over the batch. Where a step consists of several batches (gradient
        accumulation, several processes), give ``num_chosen`` and ``num_tokens`` of the whole step:
        the losses of the parts then add up to those of one large batch, and so do the gradients.

        Args:
            input_ids: x^masked, ``(batch, seq_len)``.
            attention_mask: 1 at real tokens, ``(batch, seq_len)``; all 1 if absent. On a GPU a mask
                makes the host wait for the device, once in each network; leaving it out doesn't.
            labels: original tokens at the chosen positions, -100 elsewhere, ``(batch, seq_len)``.
            token_type_ids: ``(batch, seq_len)``; all 0 if absent.
            sampling_generator: source of randomness for the samples.
            sampling_uniform: or the samples' random numbers themselves, in [0, 1), one for each
                position, ``(batch, seq_len)``.
            num_chosen: divisor of L_MLM; by default the number of chosen positions here.
            num_tokens: divisor of L_Disc; by default the number of real tokens here.
            chosen_positions: the chosen positions as indices into the flattened batch, ascending,
                ``(num_chosen,)``. Found from ``labels`` if absent; on a GPU that waits for the
                device, and giving them does not.
            loss_weights: how much each chosen position counts in the losses over them, for instance
                how often it was drawn, ``(batch, seq_len)``; all alike if absent. ``num_chosen`` is
                by default their sum.

        Raises:
            ValueError: if ``labels`` are missing, or the sequence is longer than the positions.
        """
        if labels is None:
            raise ValueError(
                "labels are missing: pass the original tokens at the masked positions and -100 "
                "elsewhere, as electra_tutorial.masking.mask_tokens returns them."
            )
        positions = self.config.discriminator["max_position_embeddings"]
        if self.has_generator:
            positions = min(positions, self.config.generator["max_position_embeddings"])
        if input_ids.shape[1] > positions:
            raise ValueError(
                f"the sequences have {input_ids.shape[1]} tokens and the model {positions} "
                "positions: shorten the sequences or build a model with more positions."
            )
        all_real = attention_mask is None
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if chosen_positions is None:
            chosen_positions = (labels != IGNORED).flatten().nonzero().squeeze(1)
        masked = JointBatch(
            input_ids=input_ids,
            is_replaced=(labels != IGNORED) & (input_ids != labels),
            labels=labels,
            attention_mask=attention_mask,
            positions=chosen_positions,
            token_type_ids=token_type_ids,
            num_chosen=num_chosen,
            num_tokens=num_tokens,
            loss_weights=loss_weights,
            all_real=all_real,
        )
        return self.joint_step(masked, sampling_generator, sampling_uniform)

    def joint_step(
        self,
        masked: JointBatch,
        sampling_generator: torch.Generator | None,
        sampling_uniform: Tensor | None,
    ) -> JointPreTrainingOutput:
        """Run the generator on a masked batch and the discriminator on what it makes of it."""
        frozen = self.config.frozen_generator
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            generator_logits = self.predict_masked(
                masked.input_ids,
                masked.network_mask,
                masked.labels != IGNORED,
                masked.token_type_ids,
                masked.positions,
            )
            generator_loss = token_loss(
                generator_logits, masked.targets, masked.num_chosen, masked.target_weights
            )
        corrupted_ids, is_replaced = self.corrupt(
            masked.input_ids,
            masked.labels,
            generator_logits,
            sampling_generator,
            sampling_uniform,
            masked.positions,
        )
        batch = replace(masked, input_ids=corrupted_ids, is_replaced=is_replaced)
        logits, disc_loss = self.discriminator_objective(batch)
        # Two losses over a vocabulary are of one kind and add up as they are; lambda lifts the
        # binary loss to their scale.
        weight = 1.0 if self.predicts_tokens else self.config.discriminator_weight
        loss = weight * disc_loss
        return JointPreTrainingOutput(
            loss=loss if frozen else generator_loss + loss,
            generator_loss=generator_loss,
            discriminator_loss=disc_loss,
            generator_logits=generator_logits,
            discriminator_logits=logits,
            corrupted_ids=corrupted_ids,
            is_replaced=is_replaced,
        )
