"""What else one could train on the generator's samples: the objectives that the paper compares.

Table 5 asks where ELECTRA's gain comes from. Each objective changes one thing:

==================  ==================  ==============================  =======================
name                the network reads   it learns                       at which positions
==================  ==================  ==============================  =======================
``electra``         x^corrupt           was the token replaced?         all real tokens
``electra-15``      x^corrupt           was the token replaced?         the chosen 15 %
``replace-mlm``     x^corrupt           the original token              the chosen 15 %
``all-tokens-mlm``  x^corrupt           the original token, or a copy   all real tokens
``mlm``             x^masked            the original token              the chosen 15 %
==================  ==================  ==============================  =======================

All share one interface, that of :class:`~electra_tutorial.modeling.ElectraForJointPreTraining`:
``from_size``, ``forward``, ``save_halves``. The network to keep is always ``model.discriminator``.
Where it predicts tokens, its loss and the generator's are of one kind and are added unweighted; the
paper does not say what weight it used there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ElectraConfig, ElectraForMaskedLM

from electra_tutorial.losses import discriminator_loss, mean_over, predict_tokens, token_loss
from electra_tutorial.masking import IGNORED
from electra_tutorial.modeling import (
    ElectraForJointPreTraining,
    ElectraJointConfig,
    JointBatch,
    JointPreTrainingOutput,
)


class Electra15(ElectraForJointPreTraining):
    """ELECTRA 15 %: the discriminator's loss counts the chosen positions only.

    What is lost against ELECTRA is what learning from all tokens gives.
    """

    objective = "electra-15"

    def discriminator_objective(self, batch: JointBatch) -> tuple[Tensor, Tensor]:
        """Return the discriminator's logits and their loss at the chosen positions."""
        logits, _ = super().discriminator_objective(batch)
        chosen = batch.labels != IGNORED
        where = chosen if batch.loss_weights is None else chosen * batch.loss_weights
        return logits, discriminator_loss(logits, batch.is_replaced, where, batch.num_chosen)


class ReplaceMLM(ElectraForJointPreTraining):
    """Replace MLM: masked language modelling on samples of a generator in place of [MASK].

    What is gained against BERT's objective is what never seeing [MASK] gives.
    """

    objective = "replace-mlm"
    discriminator_class = ElectraForMaskedLM
    predicts_tokens = True

    def discriminator_objective(self, batch: JointBatch) -> tuple[Tensor, Tensor]:
        """Return the predictions at the chosen positions, ``(num_chosen, vocab)``, and the loss."""
        logits = predict_tokens(
            self.discriminator,
            batch.input_ids,
            batch.network_mask,
            batch.positions,
            batch.token_type_ids,
        )
        return logits, token_loss(logits, batch.targets, batch.num_chosen, batch.target_weights)


class ElectraForCopyMaskedLM(ElectraForMaskedLM):
    """A masked language model with a copy gate: one number for each token."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.copy_gate = nn.Linear(config.hidden_size, 1)
        self.post_init()


def copy_log_probabilities(logits: Tensor, gate: Tensor, input_ids: Tensor) -> Tensor:
    """Mix copying with predicting: log(D copy + (1 - D) softmax), D = sigmoid(gate).

    Computed from log-probabilities throughout, so that neither a gate of 100 nor a token of
    probability 1e-40 gives an infinite loss.

    Args:
        logits: ``(..., vocab)``.
        gate: ``(...)``; positive means "copy".
        input_ids: the tokens that may be copied, ``(...)``.

    Returns:
        Log-probabilities in nats, ``(..., vocab)``.
    """
    predict = F.logsigmoid(-gate)[..., None] + logits.log_softmax(-1)
    here = input_ids[..., None]
    copied = torch.logaddexp(F.logsigmoid(gate)[..., None], predict.gather(-1, here))
    return predict.scatter(-1, here, copied)


class AllTokensMLM(ElectraForJointPreTraining):
    """All-Tokens MLM: as Replace MLM, but every token is predicted, with a gate that may copy it.

    p = D copy + (1 - D) softmax, D the sigmoid of one number for each token. It needs ``batch x
    seq_len x vocab`` logits, where the other objectives need those of 15 %.
    """

    objective = "all-tokens-mlm"
    discriminator_class = ElectraForCopyMaskedLM
    predicts_tokens = True

    def discriminator_objective(self, batch: JointBatch) -> tuple[Tensor, Tensor]:
        """Return log-probabilities, ``(batch, seq_len, vocab)``, and the loss over real tokens."""
        network = self.discriminator
        hidden = network.electra(
            batch.input_ids,
            attention_mask=batch.network_mask,
            token_type_ids=batch.token_type_ids,
        ).last_hidden_state
        logits = network.generator_lm_head(network.generator_predictions(hidden)).float()
        gate = network.copy_gate(hidden).squeeze(-1).float()
        log_probabilities = copy_log_probabilities(logits, gate, batch.input_ids)
        losses = -log_probabilities.gather(-1, batch.original_ids[..., None]).squeeze(-1)
        return log_probabilities, mean_over(losses, batch.attention_mask, batch.num_tokens)


class MaskedLM(ReplaceMLM):
    """BERT's objective, the paper's control: predict the tokens behind [MASK]. No generator.

    The network reads x^masked as the generator of the other objectives does: 85 % of the chosen
    positions hold [MASK], the rest their own token, as in the control of the official code
    (``electra_objective=False`` in ``run_pretraining.py`` masks with the same
    ``pretrain_helpers.mask``). BERT itself also put random tokens there (80 / 10 / 10).
    """

    objective = "mlm"
    has_generator = False

    def joint_step(self, masked: JointBatch, *_: Any) -> JointPreTrainingOutput:
        """Run the one network; the loss of the generator that is not there is zero."""
        logits, loss = self.discriminator_objective(masked)
        return JointPreTrainingOutput(
            loss=loss,
            generator_loss=torch.zeros_like(loss),
            discriminator_loss=loss,
            discriminator_logits=logits,
            corrupted_ids=masked.input_ids,
            is_replaced=masked.is_replaced,
        )


OBJECTIVES: dict[str, type[ElectraForJointPreTraining]] = {
    kind.objective: kind
    for kind in (ElectraForJointPreTraining, Electra15, ReplaceMLM, AllTokensMLM, MaskedLM)
}
"""The objectives by name."""


def get_objective(name: str) -> type[ElectraForJointPreTraining]:
    """Return the class of an objective.

    Raises:
        ValueError: if no objective has that name.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}: choose one of {', '.join(OBJECTIVES)}.")
    return OBJECTIVES[name]


def second_stage(
    generator: Any, objective: str = "electra", **settings: Any
) -> ElectraForJointPreTraining:
    """Begin the second stage of two-stage training (section 3.2, figure 3 right).

    First a masked language model is trained alone (the objective ``mlm``). Then it becomes a frozen
    generator, and a discriminator that starts from its weights, and so has its size, is trained on
    its samples. Without that start, says the paper, a discriminator may learn nothing but the
    majority class.

    Args:
        generator: the :class:`~transformers.ElectraForMaskedLM` of the first stage, for instance
            ``result.model.discriminator`` of a run with the objective ``mlm``.
        objective: of the second stage.
        settings: ``discriminator_weight`` or ``sampling_temperature``.

    Raises:
        ValueError: if the objective is unknown or has no generator.
    """
    kind = get_objective(objective)
    if not kind.has_generator:
        raise ValueError(f"the objective {objective!r} has no generator: choose another.")
    config = ElectraJointConfig(generator.config, generator.config, sharing="none", **settings)
    model = kind(config)
    model.generator.load_state_dict(generator.state_dict())
    model.discriminator.electra.load_state_dict(generator.electra.state_dict())
    model.freeze_generator()
    return model
