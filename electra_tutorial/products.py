"""Linear layers through oneDNN, where that multiplies faster.

On a CPU PyTorch hands float32 matrix products to the BLAS that it was built with: in the usual x86
wheels Intel's MKL. On an AMD processor (EPYC, Zen 5) that took twice as long as oneDNN, which comes
in the same wheel and computes the same products in the same precision. `use_faster_products(model)`
times both and switches the model's linear layers over where oneDNN wins: nothing else changes,
neither parameters nor their names nor what is saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ADVANTAGE = 1.2  # how many times as fast oneDNN must be to be worth it
NARROW = 8  # rows of a weight matrix below which the default is used


def onednn_product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """left (..., k) times the transpose of right (n, k), plus bias (n,): ``(..., n)``."""
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """x W^T + b, with all three products of a training step in oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return onednn_product(x, weight, bias)

    @staticmethod
    def backward(
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = gradients[0].reshape(-1, weight.shape[0])
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_x = onednn_product(rows, weight.t().contiguous()).view_as(x)
        if ctx.needs_input_grad[1]:
            for_weight = onednn_product(rows.t(), x.reshape(-1, weight.shape[1]).t())
        if ctx.has_bias and ctx.needs_input_grad[2]:
            for_bias = rows.sum(0)
        return for_x, for_weight, for_bias


class OneDnnLinear(nn.Linear):
    """A linear layer whose float32 products on the CPU go to oneDNN; others are as usual."""

    def forward(self, input: Tensor) -> Tensor:
        """x W^T + b, ``(..., out_features)``."""
        single = input.dtype == self.weight.dtype == torch.float32
        on_cpu = input.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if single and on_cpu and self.out_features >= NARROW and input.numel():
            return _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return super().forward(input)


def onednn_is_there() -> bool:
    """Whether this PyTorch can multiply with oneDNN."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_advantage() -> float:
    """How many times as fast as PyTorch's default oneDNN multiplies here; 0 if it is absent.

    Takes some milliseconds: the shapes are those of ELECTRA-Small's feed-forward layer.
    """
    if not onednn_is_there():
        return 0.0
    x, weight = torch.ones(1024, 256), torch.ones(1024, 256)

    def fastest(product: Callable[[Tensor, Tensor], Tensor]) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            product(x, weight)
            times.append(time.perf_counter() - started)
        return min(times)

    with torch.no_grad():
        return fastest(nn.functional.linear) / fastest(onednn_product)


def use_faster_products(model: nn.Module, force: bool = False) -> bool:
    """Let oneDNN compute the products of the model's linear layers, if it is faster here.

    Args:
        model: changed in place.
        force: switch without measuring, so that a run does not depend on a clock.

    Returns:
        Whether the layers were switched.

    Raises:
        ValueError: if it is forced where this PyTorch has no oneDNN.
    """
    if force and not onednn_is_there():
        raise ValueError("this PyTorch was built without oneDNN: leave the setting onednn off.")
    if not force and onednn_advantage() < ADVANTAGE:
        return False
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = OneDnnLinear  # same parameters, another way to multiply
    return True
