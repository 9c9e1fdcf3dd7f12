"""Choose positions and mask them, as the official code does or as a per-token coin.

The official rule (``pretrain_helpers.mask`` of google-research/electra): in a sequence with n real
tokens, [CLS] and [SEP] counted, inside a length of L,

    k = max(1, min(int((p + 0.005) L), round(p n)))

positions are chosen among those that hold an ordinary token. Of the chosen ones 85 % are
overwritten by [MASK]; the rest stay visible, and the generator must predict them all the same. The
official code draws with replacement, so that some positions are drawn twice and fewer than k are
chosen; here they are drawn without, unless ``replacement=True`` (in pre-training: the setting
``masking="with-replacement"``) asks for the official way.

Everything random in a batch follows from one generator. With a generator on the CPU that is seeded
anew for each step, every process can mask the whole batch of the step and take its own rows: which
positions are masked then does not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""Label of the positions that take no part in the loss: PyTorch's cross-entropy skips it."""


@dataclass(frozen=True)
class SpecialIds:
    """The ids that masking must know: what to write, and what to leave alone."""

    pad: int
    cls: int
    sep: int
    mask: int

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> SpecialIds:
        """Read the ids from a transformers tokenizer.

        Raises:
            ValueError: if the tokenizer lacks one of the four tokens.
        """
        ids: dict[str, int] = {}
        missing = []
        for name in ("pad", "cls", "sep", "mask"):
            token_id = getattr(tokenizer, f"{name}_token_id", None)
            if token_id is None:
                missing.append(f"[{name.upper()}]")
            else:
                ids[name] = token_id
        if missing:
            raise ValueError(
                f"the tokenizer has no {', '.join(missing)} token: masking needs [PAD], [CLS], "
                "[SEP] and [MASK]; choose a BERT-style tokenizer."
            )
        return cls(**ids)


@dataclass(frozen=True)
class MaskedBatch:
    """One masked batch; every tensor is ``(batch, seq_len)``.

    Attributes:
        input_ids: x^masked, the tokens with [MASK] written over most of the chosen positions.
        attention_mask: 1 at real tokens, 0 at padding.
        labels: the original token at the chosen positions, -100 everywhere else.
        draws: with replacement only: how often each position was drawn. In the official code a
            position that was drawn twice counts twice in the generator's loss.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    draws: Tensor | None = None

    @property
    def chosen(self) -> Tensor:
        """The chosen positions, ``(batch, seq_len)``, boolean: the paper's m."""
        return self.labels != IGNORED

    @property
    def original_ids(self) -> Tensor:
        """The tokens before masking, ``(batch, seq_len)``: the paper's x."""
        return torch.where(self.chosen, self.labels, self.input_ids)

    def take(self, rows: slice | Sequence[int] | Tensor) -> MaskedBatch:
        """Return some of the rows: those of one process, or of one micro-batch."""
        draws = None if self.draws is None else self.draws[rows]
        return MaskedBatch(
            self.input_ids[rows], self.attention_mask[rows], self.labels[rows], draws
        )

    def to(self, device: torch.device | str) -> MaskedBatch:
        """Return the batch on another device."""
        draws = None if self.draws is None else self.draws.to(device)
        return MaskedBatch(
            self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device), draws
        )


def number_to_mask(lengths: Tensor, sequence_length: int, mask_probability: float) -> Tensor:
    """Return how many positions the official code draws in each sequence, ``(batch,)``.

    The product p n is taken in float64. The official code multiplies in float32, where 0.15 is a
    little more than 0.15: up to a length of 512 that turns three ties, at n = 190, 350 and 390,
    into one position more.

    Args:
        lengths: real tokens of each sequence, [CLS] and [SEP] included, ``(batch,)``.
        sequence_length: L, the length that the sequences are padded to.
        mask_probability: p.
    """
    at_most = int((mask_probability + 0.005) * sequence_length)
    # float64, and round half to even, as Python's and TensorFlow's round do
    wanted = torch.round(lengths.double() * mask_probability).long()
    return wanted.clamp(max=at_most).clamp(min=1)


def choose_positions(
    candidates: Tensor, counts: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Choose ``counts[i]`` of the candidates of row i, uniformly and without replacement.

    Every candidate gets a random number; the k largest of a row win. A row with fewer candidates
    than its count gives all it has.

    Args:
        candidates: positions that may be chosen, ``(batch, seq_len)``, boolean.
        counts: how many to choose, ``(batch,)``.
        generator: source of randomness.

    Returns:
        The chosen positions, ``(batch, seq_len)``, boolean.
    """
    score = torch.rand(candidates.shape, generator=generator, device=candidates.device)
    score = torch.where(candidates, score, -1.0)
    most = int(counts.max()) if counts.numel() else 0
    top = score.topk(min(most, score.shape[1]), dim=1)
    ranks = torch.arange(top.indices.shape[1], device=candidates.device)
    wins = (ranks < counts[:, None]) & (top.values >= 0)
    return torch.zeros_like(candidates).scatter(1, top.indices, wins)


def draw_positions(
    candidates: Tensor, counts: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw ``counts[i]`` times among the candidates of row i, uniformly and with replacement.

    Of c candidates, k draws hit c (1 - (1 - 1/c)^k) different ones on average: 17.7 of 19 in a full
    sequence of 128. A row without candidates gives none.

    Args:
        candidates: positions that may be drawn, ``(batch, seq_len)``, boolean.
        counts: how often to draw, ``(batch,)``.
        generator: source of randomness.

    Returns:
        How often each position was drawn, ``(batch, seq_len)``, integer.
    """
    device = candidates.device
    ordinals = candidates.cumsum(1)  # the candidates of a row are its 1st, 2nd, 3rd, ...
    available = ordinals[:, -1:]
    most = int(counts.max()) if counts.numel() else 0
    uniform = torch.rand((len(candidates), most), generator=generator, device=device)
    drawn = (uniform * available).long() + 1
    positions = torch.searchsorted(ordinals, drawn).clamp(max=candidates.shape[1] - 1)
    counted = (torch.arange(most, device=device) < counts[:, None]) & (available > 0)
    return torch.zeros_like(ordinals).scatter_add(1, positions, counted.long())


def mask_tokens(
    input_ids: Tensor,
    *,
    special_ids: SpecialIds,
    mask_probability: float = 0.15,
    method: str = "exact",
    mask_token_probability: float = 0.85,
    replacement: bool = False,
    generator: torch.Generator | None = None,
) -> MaskedBatch:
    """Mask a batch of token ids.

    [CLS], [SEP], [MASK] and padding are never chosen; [UNK] may be, as in the official code.

    Args:
        input_ids: x, the original tokens, ``(batch, seq_len)``.
        special_ids: the ids of the special tokens.
        mask_probability: p, the share of real tokens to choose (paper: 0.15; Large: 0.25).
        method: ``"exact"``, the official count in every sequence, or ``"coin"``: each candidate is
            chosen with probability p, independently.
        mask_token_probability: share of the chosen positions that become [MASK] (official: 0.85).
        replacement: draw with replacement, as the official code does: of the official count some
            draws hit the same position. Each draw has its own chance to write [MASK]; how often a
            position was drawn is in :attr:`MaskedBatch.draws`.
        generator: source of randomness; give one, seeded, to repeat a masking.

    Raises:
        ValueError: if ``input_ids`` is not a matrix, a probability lies outside [0, 1], the method
            is unknown, or ``replacement`` is asked of coins.
    """
    if input_ids.dim() != 2:
        raise ValueError(
            f"input_ids must have the shape (batch, seq_len), not {tuple(input_ids.shape)}: "
            "add a batch dimension or stack the sequences."
        )
    for name, value in (
        ("mask_probability", mask_probability),
        ("mask_token_probability", mask_token_probability),
    ):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is a probability between 0 and 1, not {value!r}.")

    input_ids = input_ids.long()
    real = input_ids != special_ids.pad
    candidates = real.clone()
    for special in (special_ids.cls, special_ids.sep, special_ids.mask):
        candidates &= input_ids != special

    if replacement and method != "exact":
        raise ValueError(
            f"replacement belongs to the exact count, not to method {method!r}: choose "
            "method='exact' or leave replacement out."
        )

    draws = None
    if method == "exact":
        counts = number_to_mask(real.sum(1), input_ids.shape[1], mask_probability)
        if replacement:
            draws = draw_positions(candidates, counts, generator)
            chosen = draws > 0
        else:
            chosen = choose_positions(candidates, counts, generator)
    elif method == "coin":
        coin = torch.rand(input_ids.shape, generator=generator, device=input_ids.device)
        chosen = candidates & (coin < mask_probability)
    else:
        raise ValueError(f"unknown masking method {method!r}: choose 'exact' or 'coin'.")

    hide = torch.rand(input_ids.shape, generator=generator, device=input_ids.device)
    share: float | Tensor = mask_token_probability
    if draws is not None:  # visible only if none of its draws wrote [MASK]
        share = 1 - (1 - mask_token_probability) ** draws
    hidden = chosen & (hide < share)
    # masked_fill branches at every position; where does not, and takes a fraction of the time
    return MaskedBatch(
        input_ids=torch.where(hidden, special_ids.mask, input_ids),
        attention_mask=real.long(),
        labels=torch.where(chosen, input_ids, IGNORED),
        draws=draws,
    )


class MaskingCollator:
    """Turn a list of segments into a masked batch: a ``collate_fn`` for a ``DataLoader``.

    Masking is dynamic: each call masks anew. The randomness is the collator's own and seeded, so
    that the same segments in the same order are masked the same way.

    Args:
        tokenizer: a tokenizer with [PAD], [CLS], [SEP] and [MASK].
        mask_probability: see :func:`mask_tokens`.
        method: see :func:`mask_tokens`.
        mask_token_probability: see :func:`mask_tokens`.
        seed: where the randomness starts.
        replacement: see :func:`mask_tokens`.
    """

    def __init__(
        self,
        tokenizer: Any,
        mask_probability: float = 0.15,
        method: str = "exact",
        mask_token_probability: float = 0.85,
        seed: int = 0,
        replacement: bool = False,
    ) -> None:
        self.special_ids = SpecialIds.from_tokenizer(tokenizer)
        self.mask_probability = mask_probability
        self.method = method
        self.mask_token_probability = mask_token_probability
        self.replacement = replacement
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(
        self, rows: Sequence[Mapping[str, Any] | Sequence[int] | Tensor]
    ) -> dict[str, Tensor]:
        """Pad the rows to the longest of them, mask, and return the model's arguments."""
        sequences = [row["input_ids"] if isinstance(row, Mapping) else row for row in rows]
        tensors = [torch.as_tensor(sequence).long() for sequence in sequences]
        input_ids = torch.nn.utils.rnn.pad_sequence(
            tensors, batch_first=True, padding_value=self.special_ids.pad
        )
        masked = mask_tokens(
            input_ids,
            special_ids=self.special_ids,
            mask_probability=self.mask_probability,
            method=self.method,
            mask_token_probability=self.mask_token_probability,
            replacement=self.replacement,
            generator=self.generator,
        )
        return {
            "input_ids": masked.input_ids,
            "attention_mask": masked.attention_mask,
            "labels": masked.labels,
        }
