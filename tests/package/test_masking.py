"""Masking: the official count, what may be chosen, and the distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from electra_tutorial.masking import (
    IGNORED,
    MaskingCollator,
    SpecialIds,
    choose_positions,
    mask_tokens,
    number_to_mask,
)

IDS = SpecialIds(pad=0, cls=2, sep=3, mask=4)
UNK = 1


def batch_of(lengths: list[int], seq_len: int, seed: int = 0) -> torch.Tensor:
    """Rows [CLS] tokens [SEP] [PAD]..., with an [UNK] now and then."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((len(lengths), seq_len), dtype=np.int64)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = rng.choice([UNK, *range(5, 50)], size=length)
        row[0], row[length - 1] = IDS.cls, IDS.sep
    return torch.from_numpy(rows)


def official_count(n: int, seq_len: int, p: float) -> int:
    """The rule in plain Python, as pretrain_helpers.mask has it."""
    return max(1, min(int((p + 0.005) * seq_len), round(p * n)))


@settings(deadline=None, max_examples=60)
@given(
    st.data(),
    st.integers(5, 128),
    st.sampled_from([0.05, 0.15, 0.25, 0.5]),
    st.integers(0, 2**31),
)
def test_exact_masking_properties(data, seq_len, p, seed):
    lengths = data.draw(st.lists(st.integers(3, seq_len), min_size=1, max_size=6))
    input_ids = batch_of(lengths, seq_len, seed % 1000)
    masked = mask_tokens(
        input_ids,
        special_ids=IDS,
        mask_probability=p,
        generator=torch.Generator().manual_seed(seed),
    )
    for row, n in enumerate(lengths):
        # never more than there are candidates: all tokens but [CLS] and [SEP]
        expected = min(official_count(n, seq_len, p), n - 2)
        assert int(masked.chosen[row].sum()) == expected
    special = (input_ids == IDS.cls) | (input_ids == IDS.sep) | (input_ids == IDS.pad)
    assert not (masked.chosen & special).any()
    assert torch.equal(masked.original_ids, input_ids)
    assert torch.equal(masked.input_ids[~masked.chosen], input_ids[~masked.chosen])
    visible = masked.chosen & (masked.input_ids != IDS.mask)
    assert torch.equal(masked.input_ids[visible], input_ids[visible])
    assert torch.equal(masked.attention_mask, (input_ids != IDS.pad).long())


def test_count_agrees_with_the_rule_in_plain_python():
    for seq_len in (16, 128, 512):
        lengths = torch.arange(1, seq_len + 1)
        for p in (0.1, 0.15, 0.25):
            expected = [official_count(n, seq_len, p) for n in lengths.tolist()]
            assert number_to_mask(lengths, seq_len, p).tolist() == expected


def test_positions_are_chosen_uniformly():
    candidates = torch.ones(20_000, 12, dtype=torch.bool)
    candidates[:, [0, 11]] = False
    chosen = choose_positions(
        candidates, torch.full((20_000,), 3), torch.Generator().manual_seed(1)
    )
    assert (chosen.sum(1) == 3).all()
    counts = chosen.sum(0)[1:11].numpy()
    assert stats.chisquare(counts).pvalue > 0.001


def test_85_percent_become_mask():
    input_ids = batch_of([128] * 400, 128)
    masked = mask_tokens(input_ids, special_ids=IDS, generator=torch.Generator().manual_seed(2))
    hidden = int((masked.input_ids == IDS.mask).sum())
    chosen = int(masked.chosen.sum())
    assert stats.binomtest(hidden, chosen, 0.85).pvalue > 0.001


def test_coin_masks_each_token_with_its_own_coin():
    input_ids = batch_of([64] * 500, 64)
    masked = mask_tokens(
        input_ids, special_ids=IDS, method="coin", generator=torch.Generator().manual_seed(3)
    )
    per_row = masked.chosen.sum(1)
    assert stats.binomtest(int(per_row.sum()), 500 * 62, 0.15).pvalue > 0.001
    assert per_row.float().var() == pytest.approx(62 * 0.15 * 0.85, rel=0.25)


def test_unknown_tokens_may_be_chosen():
    input_ids = torch.tensor([[IDS.cls, UNK, UNK, UNK, IDS.sep]])
    masked = mask_tokens(input_ids, special_ids=IDS, mask_probability=0.5)
    assert (masked.labels[masked.chosen] == UNK).all()
    assert masked.chosen.any()


def test_collator_pads_masks_anew_and_repeats_with_its_seed(tokenizer):
    rows = [{"input_ids": [2, *range(5, 25), 3]}, {"input_ids": [2, 6, 7, 8, 9, 3]}]
    collator, twin = MaskingCollator(tokenizer, seed=5), MaskingCollator(tokenizer, seed=5)
    first, second = collator(rows), collator(rows)
    assert first["input_ids"].shape == (2, 22)
    assert first["attention_mask"].sum(1).tolist() == [22, 6]
    assert not torch.equal(first["labels"], second["labels"])
    assert torch.equal(first["labels"], twin(rows)["labels"])
    assert (first["labels"][1, 6:] == IGNORED).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_probability": 1.5}, "mask_probability is a probability"),
        ({"mask_token_probability": -0.1}, "mask_token_probability is a probability"),
        ({"method": "dice"}, "unknown masking method 'dice'"),
        ({"input_ids": torch.arange(5)}, r"shape \(batch, seq_len\)"),
    ],
)
def test_bad_arguments(changes, words):
    arguments = {"input_ids": batch_of([8], 8), "special_ids": IDS} | changes
    with pytest.raises(ValueError, match=words):
        mask_tokens(arguments.pop("input_ids"), **arguments)


def test_a_tokenizer_without_mask_token_is_refused(tokenizer):
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match=r"no \[MASK\] token"):
        SpecialIds.from_tokenizer(tokenizer)
