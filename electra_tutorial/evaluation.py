"""How good is a joint model: on held-out text with its own corruptions, or on a fixed set.

A run judged on its own corruptions shows both halves at work, but the task changes as its generator
learns. On a **fixed** set, masked and corrupted once and for all, the curves of different runs
compare.

Everything here takes the model itself, not one wrapped for several processes, and asks nothing of
other processes: one of them can evaluate while the others wait.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from electra_tutorial.corpora import Segments
from electra_tutorial.losses import sample_tokens, token_loss
from electra_tutorial.masking import IGNORED, MaskedBatch, SpecialIds, mask_tokens
from electra_tutorial.metrics import discriminator_metrics
from electra_tutorial.modeling import ElectraForJointPreTraining, JointBatch

DRAWN_AT_ONCE = 1024  # positions, so that noise for a vocabulary of 30,522 takes 125 MB


@dataclass(frozen=True)
class MaskedSegments(MaskedBatch):
    """Segments masked once; ``token_type_ids``, ``(num_segments, seq_len)``, if they have any."""

    token_type_ids: Tensor | None = None


@dataclass(frozen=True)
class Corruptions:
    """A set of segments masked and corrupted once and for all, so that models compare.

    Every tensor is ``(num_segments, seq_len)``.
    """

    masked: MaskedBatch
    corrupted_ids: Tensor
    is_replaced: Tensor


def mask_segments(
    segments: Segments, tokenizer: Any, mask_probability: float = 0.15, seed: int = 0
) -> MaskedSegments:
    """Mask segments once, reproducibly."""
    masked = mask_tokens(
        torch.as_tensor(np.asarray(segments.input_ids).astype(np.int64)),
        special_ids=SpecialIds.from_tokenizer(tokenizer),
        mask_probability=mask_probability,
        generator=torch.Generator().manual_seed(seed),
    )
    types = None
    if segments.packing == "official":
        types = torch.as_tensor(segments.token_type_ids())
    return MaskedSegments(**vars(masked), token_type_ids=types)


@contextmanager
def _evaluating(model: ElectraForJointPreTraining) -> Iterator[None]:
    """Without dropout and gradients; afterwards as before."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _batches(
    model: ElectraForJointPreTraining,
    masked: MaskedBatch,
    input_ids: Tensor,
    is_replaced: Tensor,
    size: int = 64,
) -> Iterator[JointBatch]:
    """Cut a set into batches on the model's device; their losses add up to the whole set's."""
    types = getattr(masked, "token_type_ids", None)
    num_chosen, num_tokens = int(masked.chosen.sum()), int(masked.attention_mask.sum())
    for start in range(0, len(input_ids), size):
        rows = slice(start, start + size)

        def here(tensor: Tensor, rows: slice = rows) -> Tensor:
            return tensor[rows].to(model.device)

        yield JointBatch(
            input_ids=here(input_ids),
            is_replaced=here(is_replaced),
            labels=here(masked.labels),
            attention_mask=here(masked.attention_mask),
            positions=here(masked.chosen).flatten().nonzero().squeeze(1),
            token_type_ids=None if types is None else here(types),
            num_chosen=max(num_chosen, 1),
            num_tokens=max(num_tokens, 1),
        )


def corrupt_segments(
    model: ElectraForJointPreTraining, masked: MaskedBatch, seed: int = 0
) -> tuple[Corruptions, dict[str, float]]:
    """Fill masked segments with samples of the model's generator.

    Returns:
        the corruptions, and the generator's own figures on them: ``generator_loss`` in nats and
        ``masked_accuracy`` (share of chosen positions whose most probable token is the original).

    Raises:
        ValueError: if the model's objective has no generator.
    """
    if not model.has_generator:
        raise ValueError(
            f"the objective {model.objective!r} has no generator to corrupt segments with: take "
            "corruptions of another model, or frequency_corruptions."
        )
    sampling = torch.Generator(device=model.device).manual_seed(seed)
    corrupted, replaced = [], []
    loss = correct = 0.0
    hidden = masked.input_ids != masked.original_ids
    with _evaluating(model):
        for batch in _batches(model, masked, masked.input_ids, hidden):
            logits = model.predict_masked(
                batch.input_ids,
                batch.attention_mask,
                batch.labels != IGNORED,
                batch.token_type_ids,
                batch.positions,
            )
            loss += token_loss(logits, batch.targets, 1.0).item()
            correct += (logits.argmax(-1) == batch.targets).sum().item()
            ids, is_replaced = model.corrupt(batch.input_ids, batch.labels, logits, sampling)
            corrupted.append(ids.cpu())
            replaced.append(is_replaced.cpu())
    chosen = max(int(masked.chosen.sum()), 1)
    figures = {"generator_loss": loss / chosen, "masked_accuracy": correct / chosen}
    return Corruptions(masked, torch.cat(corrupted), torch.cat(replaced)), figures


def discriminate(model: ElectraForJointPreTraining, corruptions: Corruptions) -> dict[str, float]:
    """Judge the network to keep on corruptions.

    Returns:
        of a discriminator what :func:`~electra_tutorial.metrics.discriminator_metrics` measures
        (AUC, precision, recall, accuracy, base rate); of a network that predicts tokens
        ``kept_loss``, its own loss in nats, and ``kept_masked_accuracy``, the share of chosen
        positions whose most probable token is the original.
    """
    masked = corruptions.masked
    scores, loss, correct = [], 0.0, 0.0
    with _evaluating(model):
        size = 16 if model.predicts_tokens else 64  # its logits have a dimension more
        sets = (corruptions.corrupted_ids, corruptions.is_replaced)
        for batch in _batches(model, masked, *sets, size=size):
            logits, part = model.discriminator_objective(batch)
            if not model.predicts_tokens:
                scores.append(logits.float().cpu())
                continue
            if logits.dim() == 3:
                logits = logits.flatten(0, 1)[batch.positions]
            loss += part.item()
            correct += (logits.argmax(-1) == batch.targets).sum().item()
    if model.predicts_tokens:
        chosen = max(int(masked.chosen.sum()), 1)
        return {"kept_loss": loss, "kept_masked_accuracy": correct / chosen}
    return discriminator_metrics(torch.cat(scores), corruptions.is_replaced, masked.attention_mask)


def evaluate_pretraining(
    model: ElectraForJointPreTraining, masked: MaskedBatch, seed: int = 0
) -> dict[str, float]:
    """Judge both halves on held-out segments whose masks are fixed.

    The corruptions are the model's own: a better generator makes them harder to see. A model
    without generator is judged on the masked segments.

    Returns:
        the figures of :func:`corrupt_segments` and :func:`discriminate`.
    """
    if not model.has_generator:
        hidden = masked.input_ids != masked.original_ids
        return discriminate(model, Corruptions(masked, masked.input_ids, hidden))
    corruptions, figures = corrupt_segments(model, masked, seed)
    return figures | discriminate(model, corruptions)


def fixed_corruptions(
    model: ElectraForJointPreTraining,
    segments: Segments,
    tokenizer: Any,
    mask_probability: float = 0.15,
    seed: int = 0,
) -> Corruptions:
    """Mask and corrupt segments once, with this model's generator, to compare others on them."""
    masked = mask_segments(segments, tokenizer, mask_probability, seed)
    return corrupt_segments(model, masked, seed)[0]


def frequency_corruptions(
    masked: MaskedBatch, segments: Segments, tokenizer: Any, seed: int = 0
) -> Corruptions:
    """Fill masked segments with tokens drawn by their frequency in a text.

    The paper's weakest generator (section 3.2, figure 3: a unigram model). It belongs to no run,
    so the same set judges the discriminators of all of them.
    """
    counts = np.bincount(np.asarray(segments.input_ids).ravel(), minlength=len(tokenizer))
    frequencies = torch.as_tensor(counts).double()
    frequencies[tokenizer.all_special_ids] = 0
    noise = torch.Generator().manual_seed(seed)
    logits = frequencies.log()
    # some positions at a time: a row of noise has a number for each token of the vocabulary
    samples = torch.cat(
        [
            sample_tokens(logits.expand(len(part), -1), generator=noise)
            for part in torch.arange(int(masked.chosen.sum())).split(DRAWN_AT_ONCE)
        ]
    )
    corrupted_ids = masked.original_ids.masked_scatter(masked.chosen, samples)
    return Corruptions(masked, corrupted_ids, corrupted_ids != masked.original_ids)


def describe_corruptions(corruptions: Corruptions) -> dict[str, Any]:
    """Say which set this is: figures of two runs compare if their sets have one fingerprint.

    Returns:
        ``segments``, ``tokens`` (real ones), ``base_rate`` (the share of them that was replaced),
        and ``fingerprint``, a hash of the tokens before and after.
    """
    masked = corruptions.masked
    digest = hashlib.sha256()
    for ids in (masked.original_ids, corruptions.corrupted_ids):
        digest.update(f"{tuple(ids.shape)}".encode() + ids.to(torch.int64).numpy().tobytes())
    tokens = int(masked.attention_mask.sum())
    return {
        "segments": len(masked.original_ids),
        "tokens": tokens,
        "base_rate": int(corruptions.is_replaced.sum()) / max(tokens, 1),
        "fingerprint": digest.hexdigest()[:16],
    }


def evaluate_corruptions(
    model: ElectraForJointPreTraining, corruptions: Corruptions
) -> dict[str, float]:
    """Judge the generator on a set's masked segments, and the network to keep on its corruptions.

    A network that predicts tokens behind [MASK] is judged on the masked segments alone.
    """
    if not model.has_generator:
        return evaluate_pretraining(model, corruptions.masked)
    _, figures = corrupt_segments(model, corruptions.masked)
    return figures | discriminate(model, corruptions)
