"""Operations counted by formula, against torch's own count and the paper's script."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import ElectraForMaskedLM, ElectraForPreTraining

from electra_tutorial import flops
from electra_tutorial.config import SIZES, ElectraSize, PretrainingConfig
from electra_tutorial.flops import Convention, count_training_flops, training_cost
from electra_tutorial.modeling import electra_config
from electra_tutorial.objectives import OBJECTIVES

TINY = ElectraSize("tiny", 2, 32, 2, 128, 16, 90, 24, generator_fraction=0.5)
SAME_WIDTH = replace(TINY, embedding_size=32)  # no projection between embeddings and layers


def counted(step: nn.Module | object, *arguments: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        step(*arguments)  # type: ignore[operator]
    return counter.get_total_flops()


def batch(size: ElectraSize, sequences: int, length: int, chosen: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(5, size.vocab_size, (sequences, length))
    labels = torch.full_like(ids, -100)
    labels[:, :chosen] = ids[:, :chosen]
    return ids, labels


# ---------------------------------------------------------------- worked by hand


def test_a_layer_by_hand() -> None:
    # h = 2, f = 3, L = 5, one head. q, k, v and output: four 2 x 2 products, 8 each. Scores and
    # weighted sum: 5 products of 2, 20 each. Feed-forward: 2 x 3 and 3 x 2, 12 each.
    size = ElectraSize("hand", 1, 2, 1, 3, 2, 7, 8)
    assert flops.layer_flops(size, 5) == 4 * 8 + 2 * 20 + 2 * 12
    # Biases 3 h + h + f + h = 13; softmax, scale, dropout 10 L = 50; GELU 8 f = 24; dropout and
    # residual twice 5 h = 20; LayerNorms 5 and 5 h = 15.
    assert flops.layer_flops(size, 5, elementwise=True) == 96 + 13 + 50 + 24 + 20 + 15


def test_heads_by_hand() -> None:
    size = ElectraSize("hand", 1, 2, 1, 3, 4, 7, 8)
    assert flops.head_flops(size, "discriminator") == 2 * 2 * 2 + 2 * 2
    assert flops.head_flops(size, "generator") == 2 * 2 * 4 + 2 * 4 * 7
    assert flops.head_flops(size, "copy") == flops.head_flops(size, "generator") + 2 * 2
    assert flops.head_flops(size, "none") == 0


def test_a_run_by_hand() -> None:
    size = ElectraSize("hand", 1, 2, 1, 3, 2, 7, 8)  # e = h: no projection
    run = count_training_flops(
        size, objective="mlm", steps=10, batch_size=4, sequence_length=5, mask_probability=0.2
    )
    # One position of five is chosen: 96 a token, and one head of 2 x 2 and 2 x 7.
    assert run.step == 3 * 4 * (5 * 96 + 8 + 28)
    assert run.run == 10 * run.step
    assert run.generator == 0
    assert run.generator_share == 0


# ---------------------------------------------------------------- against torch's own count


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("size", [TINY, SAME_WIDTH, replace(TINY, num_hidden_layers=3)])
def test_a_joint_step_is_what_torch_counts(size: ElectraSize, objective: str) -> None:
    torch.manual_seed(0)
    # Eager attention: plain products, nothing recomputed in the backward pass.
    model = OBJECTIVES[objective].from_size(size, attn_implementation="eager").train()
    ids, labels = batch(size, sequences=3, length=20, chosen=3)

    def step() -> None:
        model(ids, labels=labels).loss.backward()

    assert flops.number_chosen(20, 0.15) == 3
    run = count_training_flops(size, objective=objective, steps=7, batch_size=3, sequence_length=20)
    assert counted(step) == run.step


def test_both_networks_of_electra_small_are_what_torch_counts() -> None:
    small, length, chosen = SIZES["small"], 128, 19
    networks = (
        (ElectraForPreTraining, small, "discriminator"),
        (ElectraForMaskedLM, small.generator(), "generator"),
    )
    for kind, size, head in networks:
        with torch.device("meta"):  # shapes only: nothing is computed
            network = kind(electra_config(size, attn_implementation="eager"))
            ids = torch.zeros(1, length, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            hidden = network.electra(ids, attention_mask=None).last_hidden_state
            if head == "discriminator":
                network.discriminator_predictions(hidden)
            else:
                network.generator_lm_head(network.generator_predictions(hidden[:, :chosen]))
        outputs = chosen if head == "generator" else None
        assert counter.get_total_flops() == flops.forward_flops(size, length, head, outputs)


@settings(max_examples=15, deadline=None)
@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    width=st.sampled_from((4, 8)),
    embedding=st.sampled_from((8, 12, 24)),
    length=st.integers(1, 12),
)
def test_an_encoder_of_any_shape(
    layers: int, heads: int, width: int, embedding: int, length: int
) -> None:
    hidden = heads * width
    size = ElectraSize("any", layers, hidden, heads, 3 * hidden, embedding, 50, 16)
    network = ElectraForPreTraining(electra_config(size, attn_implementation="eager"))
    ids = torch.randint(0, 50, (2, length))
    with torch.no_grad():
        assert counted(network, ids) == 2 * flops.forward_flops(size, length)


# ---------------------------------------------------------------- the released script


@pytest.mark.parametrize(
    ("size", "objective", "changes", "printed"),
    [
        ("small", "electra", {}, 1.294e18),
        ("base", "electra", {}, 6.425e19),
        ("large", "electra", {}, 7.12e20),
        ("large", "electra", {"steps": 1_750_000}, 3.11e21),
        ("small", "mlm", {"steps": 1_450_000}, 1.419e18),
        ("base", "mlm", {"steps": 1_000_000}, 6.43e19),
    ],
)
def test_the_official_convention_prints_the_script_s_figures(
    size: str, objective: str, changes: dict[str, int], printed: float
) -> None:
    run = count_training_flops(size, objective=objective, convention="official", **changes)  # type: ignore[arg-type]
    digits = 2 if printed in (7.12e20, 3.11e21, 6.43e19) else 3
    assert f"{run.run:.{digits}e}" == f"{printed:.{digits}e}"


def test_the_official_generator_shares() -> None:
    shares = [
        count_training_flops(s, convention="official").generator_share
        for s in ("small", "base", "large")
    ]
    assert [round(share, 2) for share in shares] == [0.27, 0.25, 0.15]


def test_conventions_can_be_mixed() -> None:
    products = count_training_flops("small")
    one_backward = count_training_flops("small", convention=Convention(backward=1.0))
    assert one_backward.run == pytest.approx(products.run * 2 / 3)
    dense = count_training_flops("small", convention=Convention(dense_lookups=True))
    look_ups = 3 * 2 * (2 * 128 * 30_522) * 128 * 128
    assert dense.step == products.step + look_ups


# ---------------------------------------------------------------- settings


def test_settings_are_read_from_a_configuration() -> None:
    config = PretrainingConfig(size="nano", steps=5, batch_size=2, sequence_length=32)
    run = count_training_flops(config)
    by_hand = count_training_flops("nano", steps=5, batch_size=2, sequence_length=32)
    assert run == by_hand
    half = count_training_flops(replace(config, generator_fraction=0.5))
    assert half == count_training_flops(config, generator_fraction=0.5)
    assert half.generator > run.generator
    assert half.main == run.main
    assert count_training_flops(config, vocab_size=60).generator < run.generator


def test_objectives_cost_what_they_compute() -> None:
    cost = {name: count_training_flops("base", objective=name) for name in flops.OBJECTIVE_HEADS}
    electra, bert = cost["electra"], cost["mlm"]
    assert cost["electra-15"] == electra
    assert cost["replace-mlm"].main == bert.main
    assert cost["replace-mlm"].generator == electra.generator
    assert cost["all-tokens-mlm"].main > cost["replace-mlm"].main
    # All 512 positions instead of 77 through 768 x 768 and 768 x 30,522, and the gate.
    head = 2 * 768 * 768 + 2 * 768 * 30_522
    more = 3 * 256 * ((512 - 77) * head + 512 * 2 * 768)
    assert cost["all-tokens-mlm"].main - cost["replace-mlm"].main == more


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run": "huge"}, "unknown size 'huge'"),
        ({"run": "mini"}, "the paper has no run of size 'mini': give steps, batch_size"),
        ({"run": "small", "objective": "gan"}, "unknown objective 'gan': choose one of electra"),
        ({"run": "small", "convention": "mine"}, "unknown convention 'mine': choose one of prod"),
    ],
)
def test_unknown_names_are_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        count_training_flops(**arguments)  # type: ignore[arg-type]


def test_impossible_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and the 8 tokens of a sequence, not 9"):
        flops.forward_flops("nano", 8, "generator", 9)
    with pytest.raises(ValueError, match="sequence_length must be at least 1, not 0"):
        flops.forward_flops("nano", 0)
    with pytest.raises(ValueError, match="unknown head 'tail'"):
        flops.forward_flops("nano", 8, "tail")


# ---------------------------------------------------------------- time and money


def test_cost_by_hand() -> None:
    # 7.2e18 operations on two devices that do 1e15 x 0.5 a second: 7,200 s.
    cost = training_cost(7.2e18, peak=1e15, share_of_peak=0.5, devices=2, price_per_hour=3.0)
    assert cost.hours == pytest.approx(2.0)
    assert cost.device_hours == pytest.approx(4.0)
    assert cost.price == pytest.approx(12.0)


@given(
    devices=st.integers(1, 1024),
    share=st.floats(0.01, 1.0),
    peak=st.floats(1e9, 1e16),
    price=st.floats(0, 100),
)
def test_devices_change_the_time_and_not_the_bill(
    devices: int, share: float, peak: float, price: float
) -> None:
    one = training_cost(1e18, peak=peak, share_of_peak=share, price_per_hour=price)
    many = training_cost(
        1e18, peak=peak, share_of_peak=share, devices=devices, price_per_hour=price
    )
    assert math.isclose(one.hours, devices * many.hours)
    assert math.isclose(one.price, many.price, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share_of_peak": 30}, "share_of_peak is a part of 1, not 30: write 30 % as 0.3"),
        ({"share_of_peak": 0}, "share_of_peak must be greater than 0"),
        ({"devices": 0}, "devices must be greater than 0, not 0"),
        ({"peak": -1e12}, "peak must be greater than 0"),
        ({"price_per_hour": -1}, "price_per_hour cannot be negative"),
        ({"flops": float("nan")}, "flops cannot be negative: nan"),
    ],
)
def test_impossible_costs_are_refused(changes: dict[str, float], message: str) -> None:
    arguments = {"flops": 1e18, "peak": 1e12, "share_of_peak": 0.3} | changes
    with pytest.raises(ValueError, match=message):
        training_cost(**arguments)  # type: ignore[arg-type]
