"""The optimiser against a few lines written by hand, the schedule against the official formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from electra_tutorial.config import PretrainingConfig
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.optimization import (
    AdamWithoutBiasCorrection,
    build_optimizer,
    learning_rate_factor,
    parameter_groups,
    set_learning_rate,
)

SETTINGS = {"steps": 12, "warmup_steps": 3, "learning_rate": 0.05, "weight_decay": 0.1}


class TwoMatrices(torch.nn.Module):
    """A weight that decays and a bias that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]).double())
        self.bias = torch.nn.Parameter(torch.tensor([0.3, -0.7]).double())

    def loss(self, step: int) -> torch.Tensor:
        x = torch.tensor([math.sin(step + 1.0), math.cos(2.0 * step)]).double()
        return ((self.weight @ x + self.bias) ** 2).sum()


def by_hand(config: PretrainingConfig) -> dict[str, torch.Tensor]:
    """AdamW as optimization.py of google-research/electra has it, one scalar line at a time."""
    model = TwoMatrices()
    m = {name: torch.zeros_like(w) for name, w in model.named_parameters()}
    v = {name: torch.zeros_like(w) for name, w in model.named_parameters()}
    for t in range(config.steps):
        model.zero_grad()
        model.loss(t).backward()
        decay = 1 - t / config.steps
        lr = config.learning_rate * decay * min(1.0, (t + 1) / config.warmup_steps)
        for name, w in model.named_parameters():
            g = w.grad
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            m_hat, v_hat = m[name], v[name]
            if config.bias_correction:
                m_hat, v_hat = m_hat / (1 - 0.9 ** (t + 1)), v_hat / (1 - 0.999 ** (t + 1))
            update = m_hat / (v_hat.sqrt() + 1e-6)
            if name != "bias":
                update = update + config.weight_decay * w.detach()
            w.data = w.data - lr * update
    return {name: w.detach() for name, w in model.named_parameters()}


@pytest.mark.parametrize("bias_correction", [True, False])
def test_the_optimiser_is_the_official_one_with_and_without_correction(bias_correction):
    config = PretrainingConfig(bias_correction=bias_correction, **SETTINGS)
    model = TwoMatrices()
    optimizer = build_optimizer(model, config)
    for step in range(config.steps):
        set_learning_rate(optimizer, step, config)
        optimizer.zero_grad()
        model.loss(step).backward()
        optimizer.step()
    for name, expected in by_hand(config).items():
        torch.testing.assert_close(model.get_parameter(name), expected, rtol=1e-10, atol=1e-12)


def test_early_steps_without_correction_are_larger():
    def first_step(bias_correction: bool) -> float:
        model = TwoMatrices()
        before = model.bias.detach().clone()
        optimizer = build_optimizer(model, PretrainingConfig(bias_correction=bias_correction))
        model.loss(0).backward()
        optimizer.step()
        return float((model.bias.detach() - before).abs().max())

    assert first_step(False) / first_step(True) == pytest.approx(0.1 / math.sqrt(0.001), rel=1e-4)


def test_parameters_without_gradient_stay_as_they_are():
    model = TwoMatrices()
    model.bias.requires_grad_(False)
    before = model.bias.clone()
    optimizer = AdamWithoutBiasCorrection(model.parameters(), lr=0.1, weight_decay=0.5)

    def closure() -> torch.Tensor:
        loss = model.loss(0)
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0
    assert torch.equal(model.bias, before)
    assert not optimizer.state[model.bias]


def test_schedule_multiplies_warmup_and_decay():
    factors = [learning_rate_factor(step, 10, 4) for step in range(11)]
    assert factors[0] == pytest.approx(0.25)
    assert factors[3] == pytest.approx(0.7)
    assert factors[10] == 0
    assert learning_rate_factor(0, 10, 0) == 1


@pytest.mark.parametrize("steps", [10, 1_000])
def test_the_warm_up_is_one_step_ahead_of_the_official_one(steps):
    """optimization.py: the global step, which begins at 0, over the steps of the warm-up."""
    warmup = steps // 5
    for step in range(steps):
        official = min(1.0, step / warmup) * (1 - step / steps)
        ahead = (1 - step / steps) / warmup if step < warmup else 0.0
        ours = learning_rate_factor(step, steps, warmup)
        assert ours == pytest.approx(official + ahead)


@given(st.integers(2, 200), st.data())
def test_decay_after_warmup_is_the_schedule_of_transformers(steps, data):
    from transformers import get_linear_schedule_with_warmup

    warmup = data.draw(st.integers(1, steps - 1))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    for step in range(warmup, steps):
        expected = schedule.lr_lambdas[0](step)
        assert learning_rate_factor(step, steps, warmup, False) == pytest.approx(expected)
    rising = [learning_rate_factor(step, steps, warmup, False) for step in range(warmup)]
    assert rising == pytest.approx([(step + 1) / warmup for step in range(warmup)])


def test_biases_and_layer_norms_do_not_decay():
    model = ElectraForJointPreTraining.from_size("nano")
    decayed, exempt = parameter_groups(model, 0.01)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.01, 0.0)
    assert all(p.dim() == 2 for p in decayed["params"])
    assert all(p.dim() == 1 for p in exempt["params"])
    total = sum(1 for _ in model.parameters())
    assert len(decayed["params"]) + len(exempt["params"]) == total
