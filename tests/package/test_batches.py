"""What a step reads: every segment once an epoch, the same in every process, cut without loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from electra_tutorial.batches import (
    MASKING,
    draw_batch,
    dropout_seed,
    rows_of_micro_batches,
    rows_of_step,
    take_rows,
)
from electra_tutorial.config import PretrainingConfig
from electra_tutorial.corpora import Segments
from electra_tutorial.masking import IGNORED, SpecialIds, mask_tokens

CONFIG = PretrainingConfig(size="nano", batch_size=6, sequence_length=16)
SPECIAL = SpecialIds(pad=0, cls=2, sep=3, mask=4)


def some_segments(packing: str = "dense") -> Segments:
    rows = np.random.default_rng(0).integers(5, 90, size=(20, 16)).astype(np.uint16)
    rows[:, 0], rows[:, 7], rows[:, 12], rows[:, 13:] = 2, 3, 3, 0
    return Segments(rows, 0, packing=packing, sep_id=3)


@given(st.integers(1, 30), st.integers(1, 50), st.integers(0, 5))
def test_every_epoch_visits_every_segment_once(batch_size, num_segments, seed):
    rows = np.concatenate(
        [
            rows_of_step(step, batch_size, num_segments, seed)
            for step in range(-(-2 * num_segments // batch_size))
        ]
    )
    for epoch in range(2):
        visited = rows[epoch * num_segments : (epoch + 1) * num_segments]
        assert sorted(visited) == list(range(num_segments))


def test_a_batch_follows_from_seed_and_step():
    segments = some_segments()
    batch = draw_batch(3, CONFIG, segments, SPECIAL)
    again = draw_batch(3, CONFIG, segments, SPECIAL)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    for other in (
        draw_batch(4, CONFIG, segments, SPECIAL),
        draw_batch(3, replace(CONFIG, seed=1), segments, SPECIAL),
    ):
        for name in ("labels", "sampling_uniform"):
            assert not torch.equal(batch[name], other[name])
    rows = rows_of_step(3, 6, 20, 0)
    original = torch.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
    assert torch.equal(original, torch.as_tensor(segments.input_ids[rows].astype(np.int64)))
    assert "token_type_ids" not in batch


def test_the_default_draws_what_it_always_drew():
    """Exact count without replacement, then the samples' numbers, from one stream."""
    segments = some_segments()
    batch = draw_batch(3, CONFIG, segments, SPECIAL)
    stream = torch.Generator().manual_seed(int(np.random.SeedSequence((0, 3)).generate_state(1)[0]))
    rows = torch.as_tensor(segments.input_ids[rows_of_step(3, 6, 20, 0)].astype(np.int64))
    masked = mask_tokens(rows, special_ids=SPECIAL, mask_probability=0.15, generator=stream)
    assert batch.keys() == {"input_ids", "attention_mask", "labels", "sampling_uniform"}
    assert torch.equal(batch["input_ids"], masked.input_ids)
    assert torch.equal(batch["labels"], masked.labels)
    assert torch.equal(batch["sampling_uniform"], torch.rand(6, 16, generator=stream))


def test_every_way_of_masking_reaches_the_batch():
    rows = np.random.default_rng(0).integers(5, 90, size=(200, 64)).astype(np.uint16)
    segments = Segments(rows, 0)
    numbers = {}
    for masking in MASKING:
        config = PretrainingConfig(masking=masking, batch_size=200, sequence_length=64)
        batch = draw_batch(0, config, segments, SPECIAL)
        chosen = batch["labels"] != IGNORED
        numbers[masking] = chosen.sum(1).float()
        if masking != "with-replacement":
            assert "loss_weights" not in batch
            continue
        # 9 draws in each of 200 rows; the weights are draws in units of their mean
        weights = batch["loss_weights"]
        assert torch.equal(weights > 0, chosen)
        assert weights.sum().item() == pytest.approx(chosen.sum().item(), rel=1e-5)
        draws = weights * 1800 / chosen.sum()
        torch.testing.assert_close(draws.sum(1), torch.full((200,), 9.0))
        torch.testing.assert_close(draws, draws.round())
    assert (numbers["exact"] == 9).all()
    expected = 64 * (1 - (1 - 1 / 64) ** 9)  # different positions among 64, of 9 draws
    assert numbers["with-replacement"].mean().item() == pytest.approx(expected, abs=0.2)
    assert numbers["coin"].mean().item() == pytest.approx(9.6, abs=1)
    assert numbers["coin"].std() > 2


def test_official_packing_brings_its_token_types():
    batch = draw_batch(0, CONFIG, some_segments("official"), SPECIAL)
    assert batch["token_type_ids"].tolist() == [[0] * 8 + [1] * 5 + [0] * 3] * 6


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 8))
def test_parts_cover_the_batch_in_order_and_differ_by_one_row(batch_size, each, processes):
    config = replace(CONFIG, batch_size=batch_size, gradient_accumulation=each)
    if batch_size < each * processes:
        with pytest.raises(ValueError, match="use a larger batch_size"):
            rows_of_micro_batches(config, 0, processes)
        return
    parts = [part for p in range(processes) for part in rows_of_micro_batches(config, p, processes)]
    assert [row for part in parts for row in range(batch_size)[part]] == list(range(batch_size))
    sizes = {part.stop - part.start for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_rows_come_with_the_places_of_their_chosen_positions():
    batch = draw_batch(0, CONFIG, some_segments(), SPECIAL)
    part = take_rows(batch, slice(2, 5), torch.device("cpu"))
    assert torch.equal(part["labels"], batch["labels"][2:5])
    chosen = part["labels"].flatten()[part["chosen_positions"]]
    assert torch.equal(chosen, part["labels"][part["labels"] != IGNORED])


def test_a_mask_comes_only_with_rows_that_hold_padding():
    segments = some_segments()
    rows = np.array(segments.input_ids)
    rows[:10, 12:] = 7
    batch = draw_batch(0, replace(CONFIG, batch_size=20), Segments(rows, 0), SPECIAL)
    full = batch["attention_mask"].all(1)
    assert full.sum() == 10
    for row in range(20):
        part = take_rows(batch, slice(row, row + 1), torch.device("cpu"))
        assert ("attention_mask" in part) != bool(full[row])
    part = take_rows(batch, slice(0, 20), torch.device("cpu"))
    assert torch.equal(part["attention_mask"], batch["attention_mask"])


def test_dropout_is_another_in_every_process_and_step_and_not_the_noise():
    seeds = [dropout_seed(step, CONFIG, process) for step in range(3) for process in range(3)]
    assert len(set(seeds)) == 9
    noise = draw_batch(0, CONFIG, some_segments(), SPECIAL)["sampling_uniform"]
    for process in range(3):
        generator = torch.Generator().manual_seed(dropout_seed(0, CONFIG, process))
        numbers = torch.rand(1000, generator=generator)
        assert not torch.isin(noise, numbers).any()
