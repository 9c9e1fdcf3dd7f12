"""oneDNN's products are those of PyTorch's own linear layer, forward and backward."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from electra_tutorial import products
from electra_tutorial.config import ElectraSize
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.products import OneDnnLinear, onednn_advantage, use_faster_products

TINY = ElectraSize("tiny", 2, 32, 2, 64, 16, 90, 24, generator_fraction=0.5)
pytestmark = pytest.mark.skipif(onednn_advantage() == 0, reason="this torch has no oneDNN")


def gradients(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    weights = torch.randn(layer(x).shape, generator=torch.Generator().manual_seed(1))
    (layer(x) * weights).sum().backward()
    return [x.grad, *(p.grad for p in layer.parameters())]  # type: ignore[list-item]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    bias=st.booleans(),
)
def test_any_linear_layer(shape: list[int], inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=bias)
    other = nn.Sequential(copy.deepcopy(layer))
    assert use_faster_products(other, force=True)
    x = torch.randn(*shape, inputs)
    torch.testing.assert_close(other(x), layer(x), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(other[0], x), gradients(layer, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_joint_step_stays_the_same() -> None:
    torch.manual_seed(0)
    model = ElectraForJointPreTraining.from_size(
        TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    other = copy.deepcopy(model)
    use_faster_products(other, force=True)
    ids = torch.randint(5, 90, (3, 20))
    labels = torch.where(torch.rand(ids.shape) < 0.3, ids, -100)
    uniform = torch.rand(ids.shape)
    for each in (model, other):
        each(ids, labels=labels, sampling_uniform=uniform).loss.backward()
    assert any(isinstance(layer, OneDnnLinear) for layer in other.modules())
    assert model.state_dict().keys() == other.state_dict().keys()
    assert other.generator.generator_lm_head.weight is (
        other.discriminator.electra.embeddings.word_embeddings.weight
    )
    for (name, ours), theirs in zip(other.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_frozen_weights_get_no_gradient() -> None:
    layer = nn.Sequential(nn.Linear(9, 9))
    use_faster_products(layer, force=True)
    layer.requires_grad_(False)
    x = torch.randn(4, 9, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer[0].weight.grad is None


def test_other_types_and_autocast_take_the_usual_way() -> None:
    layer = nn.Sequential(nn.Linear(9, 9))
    use_faster_products(layer, force=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(4, 9)).dtype == torch.bfloat16
    assert layer.double()(torch.randn(4, 9).double()).dtype == torch.float64
    assert layer.float()(torch.randn(0, 9)).shape == (0, 9)


def test_nothing_is_switched_where_it_would_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_advantage", lambda: 1.0)
    layer = nn.Sequential(nn.Linear(9, 9))
    assert not use_faster_products(layer)
    assert type(layer[0]) is nn.Linear
