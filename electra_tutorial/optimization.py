"""Optimiser and learning-rate schedule of pre-training, as in the official code.

Source: ``optimization.py`` of google-research/electra. Where it departs from the paper or from
PyTorch, :class:`~electra_tutorial.config.PretrainingConfig` names the choice: ``bias_correction``
and ``warmup_multiplies_decay``. One departure from the official code is no choice: the warm-up is a
step ahead (:func:`learning_rate_factor`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from electra_tutorial.config import PretrainingConfig


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters: biases and LayerNorm do not decay (official ``optimization.py``)."""
    named = list(model.named_parameters())

    def exempt(name: str) -> bool:
        return name.endswith("bias") or "LayerNorm" in name

    return [
        {"params": [p for n, p in named if not exempt(n)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if exempt(n)], "weight_decay": 0.0},
    ]


def learning_rate_factor(
    step: int, steps: int, warmup_steps: int, warmup_multiplies_decay: bool = True
) -> float:
    """What the learning rate of a step is multiplied by, from 0 to 1.

    During the warm-up the official code multiplies by ``step / warmup_steps``, which is 0 at the
    first step: that step reads a batch and changes no weight. Here it is ``(step + 1) /
    warmup_steps``, so that every step learns, and the warm-up ends one step earlier.

    Args:
        step: steps made so far.
        steps: of the whole run.
        warmup_steps: over which the factor rises linearly; 0 for none.
        warmup_multiplies_decay: linear warm-up times linear decay to zero, both at once, as in the
            official code; false: the decay begins where the warm-up ends, as in transformers'
            linear schedule.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if warmup_multiplies_decay:
        return warmup * max(0.0, 1.0 - step / steps)
    if step < warmup_steps:
        return warmup
    return max(0.0, (steps - step) / max(1, steps - warmup_steps))


class AdamWithoutBiasCorrection(torch.optim.Optimizer):
    """AdamW as the official code and BERT's have it: the moments start at 0 and stay uncorrected.

        m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g^2
        w = w - lr (m / (sqrt(v) + epsilon) + weight_decay w)

    Early steps are larger than with the correction: 3.2 times at step 1, at most 6.6 times (step
    12), and 1.26 times at step 1,000 (betas 0.9 and 0.999). The warm-up makes up for it.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step with the gradients that the parameters hold."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            for p in weights:
                if not self.state[p]:
                    self.state[p] = {
                        "exp_avg": torch.zeros_like(p),
                        "exp_avg_sq": torch.zeros_like(p),
                    }
            gradients = [p.grad for p in weights]
            first = [self.state[p]["exp_avg"] for p in weights]
            second = [self.state[p]["exp_avg_sq"] for p in weights]
            beta1, beta2 = group["betas"]
            torch._foreach_lerp_(first, gradients, 1 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
            denominators = torch._foreach_sqrt(second)
            torch._foreach_add_(denominators, group["eps"])
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_addcdiv_(weights, first, denominators, -group["lr"])
        return loss


def build_optimizer(model: torch.nn.Module, config: PretrainingConfig) -> torch.optim.Optimizer:
    """AdamW with the settings of ``config``, one kernel for all parameters where PyTorch has it."""
    groups = parameter_groups(model, config.weight_decay)
    betas = (config.adam_beta1, config.adam_beta2)
    if config.bias_correction:
        return torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon, fused=True
        )
    return AdamWithoutBiasCorrection(
        groups, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon
    )


def set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, config: PretrainingConfig
) -> float:
    """Give the optimiser the learning rate of a step, and return it."""
    rate = config.learning_rate * learning_rate_factor(
        step, config.steps, config.warmup_steps, config.warmup_multiplies_decay
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
