"""Masking: the official count, what may be chosen, and the distributions."""

from __future__ import annotations

from math import factorial, prod

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
    draw_positions,
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


@settings(deadline=None, max_examples=100)
@given(
    st.data(),
    st.integers(3, 128),
    st.sampled_from([0.0, 0.05, 0.15, 0.25, 0.5, 1.0]),
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


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=12),
    st.sampled_from(["exact", "coin"]),
    st.booleans(),
    st.sampled_from([0.0, 0.15, 1.0]),
    st.integers(0, 2**31),
)
def test_any_row_of_ids_is_masked_within_the_rules(row, method, replacement, p, seed):
    """Special tokens anywhere, rows of padding alone, nothing to choose: no rule is broken."""
    replacement = replacement and method == "exact"
    input_ids = torch.tensor([row, row])
    masked = mask_tokens(
        input_ids,
        special_ids=IDS,
        mask_probability=p,
        method=method,
        replacement=replacement,
        generator=torch.Generator().manual_seed(seed),
    )
    special = torch.isin(input_ids, torch.tensor([IDS.pad, IDS.cls, IDS.sep, IDS.mask]))
    assert not (masked.chosen & special).any()
    assert torch.equal(masked.original_ids, input_ids)
    changed = masked.input_ids != input_ids
    assert (masked.input_ids[changed] == IDS.mask).all()
    assert masked.chosen[changed].all()
    if method == "exact" and not special.all():
        assert masked.chosen.any(1).all()  # at least one position, even at p = 0
    if method == "coin" and p in (0.0, 1.0):
        assert torch.equal(masked.chosen, ~special & bool(p))


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(5, 64), st.integers(0, 2**31))
def test_draws_with_replacement_add_up_to_the_official_count(data, seq_len, seed):
    lengths = data.draw(st.lists(st.integers(3, seq_len), min_size=1, max_size=6))
    input_ids = batch_of(lengths, seq_len, seed % 1000)
    masked = mask_tokens(
        input_ids,
        special_ids=IDS,
        mask_token_probability=1.0,
        replacement=True,
        generator=torch.Generator().manual_seed(seed),
    )
    assert masked.draws.sum(1).tolist() == [official_count(n, seq_len, 0.15) for n in lengths]
    assert torch.equal(masked.draws > 0, masked.chosen)
    assert torch.equal(masked.input_ids == IDS.mask, masked.chosen)


def test_count_agrees_with_the_rule_in_plain_python():
    for seq_len in (16, 128, 512):
        lengths = torch.arange(1, seq_len + 1)
        for p in (0.1, 0.15, 0.25):
            expected = [official_count(n, seq_len, p) for n in lengths.tolist()]
            assert number_to_mask(lengths, seq_len, p).tolist() == expected


@pytest.mark.parametrize(("p", "seq_len"), [(0.15, 128), (0.15, 512), (0.25, 512)])
def test_count_agrees_with_the_official_arithmetic(p, seq_len):
    """pretrain_helpers.mask in float32, as TensorFlow computes it; three ties differ."""
    lengths = np.arange(1, seq_len + 1)
    wanted = np.round(lengths.astype(np.float32) * np.float32(p)).astype(np.int32)
    official = np.maximum(1, np.minimum(int((p + 0.005) * seq_len), wanted))
    ours = number_to_mask(torch.from_numpy(lengths), seq_len, p).numpy()
    ties = [190, 350, 390] if (p, seq_len) == (0.15, 512) else []
    assert lengths[ours != official].tolist() == ties
    assert (official - ours).sum() == len(ties)


def test_positions_are_chosen_uniformly():
    candidates = torch.ones(20_000, 12, dtype=torch.bool)
    candidates[:, [0, 11]] = False
    chosen = choose_positions(
        candidates, torch.full((20_000,), 3), torch.Generator().manual_seed(1)
    )
    assert (chosen.sum(1) == 3).all()
    counts = chosen.sum(0)[1:11].numpy()
    assert stats.chisquare(counts).pvalue > 0.001


def test_draws_with_replacement_are_uniform_and_collide_as_often_as_they_should():
    rows, draws, candidates = 20_000, 19, 126
    allowed = torch.ones(rows, 128, dtype=torch.bool)
    allowed[:, [0, 127]] = False
    times = draw_positions(allowed, torch.full((rows,), draws), torch.Generator().manual_seed(6))
    assert (times.sum(1) == draws).all()
    assert stats.chisquare(times.sum(0)[1:127].numpy()).pvalue > 0.001
    distinct = (times > 0).sum(1).double().numpy()
    expected = candidates * (1 - (1 - 1 / candidates) ** draws)
    assert expected == pytest.approx(17.7, abs=0.05)
    assert stats.ttest_1samp(distinct, expected).pvalue > 0.001


def test_a_position_drawn_twice_has_two_chances_to_be_hidden():
    input_ids = batch_of([128] * 2_000, 128)
    masked = mask_tokens(
        input_ids,
        special_ids=IDS,
        replacement=True,
        generator=torch.Generator().manual_seed(7),
    )
    hidden = masked.input_ids == IDS.mask
    for times in (1, 2):
        drawn = masked.draws == times
        share = 1 - 0.15**times
        assert stats.binomtest(int(hidden[drawn].sum()), int(drawn.sum()), share).pvalue > 0.001


def test_every_draw_of_a_position_is_its_own():
    """Three draws among three positions: 27 outcomes, all as likely."""
    allowed = torch.tensor([[False, True, False, True, True]]).expand(9_000, 5)
    times = draw_positions(allowed, torch.full((9_000,), 3), torch.Generator().manual_seed(8))
    outcomes, counts = np.unique(times[:, [1, 3, 4]].numpy(), axis=0, return_counts=True)
    ways = [factorial(3) / prod(map(factorial, row)) for row in outcomes.tolist()]
    assert sum(ways) == 27
    assert stats.chisquare(counts, [9_000 * way / 27 for way in ways]).pvalue > 0.001


@pytest.mark.parametrize("replacement", [False, True])
def test_processes_that_mask_the_whole_batch_agree_on_every_row(replacement):
    """A step's generator, seeded alike in each process; each takes its rows."""
    input_ids = batch_of([32, 20, 5, 32, 32, 31, 8, 3], 32)

    def masked_by_one_process():
        generator = torch.Generator().manual_seed(11)
        return mask_tokens(input_ids, special_ids=IDS, replacement=replacement, generator=generator)

    whole = masked_by_one_process()
    for processes in (2, 4, 8):
        parts = [
            masked_by_one_process().take(slice(rank, None, processes)).to("cpu")
            for rank in range(processes)
        ]
        for rank, part in enumerate(parts):
            assert torch.equal(part.input_ids, whole.input_ids[rank::processes])
            assert torch.equal(part.labels, whole.labels[rank::processes])
            assert torch.equal(part.attention_mask, whole.attention_mask[rank::processes])
            if replacement:
                assert torch.equal(part.draws, whole.draws[rank::processes])


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
    official = MaskingCollator(tokenizer, mask_probability=1.0, seed=5, replacement=True)
    assert (official(rows)["labels"][0, 1:21] == IGNORED).any()  # 20 draws do not hit all 20


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_probability": 1.5}, "mask_probability is a probability"),
        ({"mask_token_probability": -0.1}, "mask_token_probability is a probability"),
        ({"method": "dice"}, "unknown masking method 'dice'"),
        ({"method": "coin", "replacement": True}, "replacement belongs to the exact count"),
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
