"""What both networks are made of beside their layers: predictions, samples and losses.

All losses are in nats and are means over the batch, as in the official code (the paper's formulas
write sums). Each takes its divisor from outside if asked to: the parts of a batch, divided by the
counts of the whole, add up to the whole batch's loss.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


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

    ``where`` may also hold weights: the mean is then the weighted one. ``count`` replaces the
    number of those positions (the sum of the weights) as divisor: a part of a batch, divided by the
    positions of the whole batch, gives its share of the whole batch's mean. A divisor below 1
    counts as 1.
    """
    where = where.to(values.dtype)
    return (values * where).sum() / _at_least_one(where.sum() if count is None else count)


def _at_least_one(count: Tensor | float) -> Tensor | float:
    """Return a divisor above zero: a batch in which nothing was chosen has a loss of zero."""
    return count.clamp_min(1) if isinstance(count, Tensor) else max(count, 1)


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
        attention_mask: ``(batch, seq_len)``, 1 at the tokens that count, real tokens in the paper,
            [CLS] and [SEP] among them; or weights.
        num_tokens: divisor, if it is not the number of real tokens here; see :func:`mean_over`.
    """
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), is_replaced.float(), reduction="none"
    )
    return mean_over(losses, attention_mask, num_tokens)


def predict_tokens(
    network: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    positions: Tensor,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """Return the logits of a masked language model at some positions, ``(num_positions, vocab)``.

    transformers' own forward computes ``(batch, seq_len, vocab)``: about seven times more than a
    loss at 15 % of the positions needs.

    Args:
        network: an :class:`~transformers.ElectraForMaskedLM`.
        input_ids: ``(batch, seq_len)``.
        attention_mask: ``(batch, seq_len)``; every token is real if absent.
        positions: indices into the flattened batch, ``(num_positions,)``.
        token_type_ids: ``(batch, seq_len)``.
    """
    hidden = network.electra(
        input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
    ).last_hidden_state
    hidden = hidden.flatten(0, 1).index_select(0, positions)
    return network.generator_lm_head(network.generator_predictions(hidden))


def token_loss(
    logits: Tensor,
    targets: Tensor,
    num_targets: Tensor | float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy in nats, mean over the targets; 0 if there is none.

    Args:
        logits: ``(num_targets, vocab)``.
        targets: token ids, ``(num_targets,)``.
        num_targets: divisor, if it is not the number of targets here; see :func:`mean_over`.
        weights: how much each target counts, ``(num_targets,)``; the mean is then the weighted one.
    """
    if weights is not None:
        return mean_over(
            F.cross_entropy(logits.float(), targets, reduction="none"), weights, num_targets
        )
    losses = F.cross_entropy(logits.float(), targets, reduction="sum")
    return losses / _at_least_one(len(targets) if num_targets is None else num_targets)
