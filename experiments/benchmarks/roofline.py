"""What share of the machine's peak a training step of ELECTRA-Small reaches, and what limits it.

    python experiments/benchmarks/roofline.py [--device cpu] [--precision fp32] [--threads 1]
    python experiments/benchmarks/roofline.py --device cuda --precision bf16 --batch-size 1024 \\
        --compile

Needs torch, transformers and this package, and no data: the ids are random. Measured in turn: a
large matrix product (the peak), a large copy (the memory bandwidth), and the step. Two bounds
stand beside the step. Computing: its matrix products at the peak. Memory: every tensor that an
operation of the step reads or writes, moved at the copy's bandwidth, as if nothing stayed in a
cache; with caches or with fused operations less is moved, so a step may be faster than this
figure. The roofline takes for each operation the larger of the two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from common import Machine, OurStep, first_call, interleave
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from electra_tutorial import recorded
from electra_tutorial.config import PretrainingConfig
from electra_tutorial.flops import count_training_flops


class Traffic(TorchDispatchMode):
    """Records of every operation that torch runs how much it computes and how much it moves."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[float, float]] = []  # (operations, bytes)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run `function` and note what it took."""
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        if not function.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            moved = sum(t.numel() * t.element_size() for t in tensors)
            count = flop_registry.get(function._overloadpacket)
            computed = count(*args, **kwargs, out_val=out) if count else 0
            self.operations.append((float(computed), float(moved)))
        return out

    def bounds(self, peak: float, bandwidth: float) -> dict[str, float]:
        """Seconds that computing, moving, and the slower of both for each operation take."""
        pairs = [(flops / peak, moved / bandwidth) for flops, moved in self.operations]
        return {
            "computing_seconds": sum(computing for computing, _ in pairs),
            "memory_seconds": sum(moving for _, moving in pairs),
            "roofline_seconds": sum(map(max, pairs)),
        }


def main() -> None:
    """Measure and write experiments/results/benchmark_roofline_<device>_<precision>.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", default="small")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    config = PretrainingConfig(
        size=options.size,
        batch_size=options.batch_size,
        sequence_length=options.length,
        precision=options.precision,
        attention=options.attention,
        compile=options.compile,
    )
    started = time.perf_counter()
    machine = Machine(device, options.precision)
    steps = {"step": OurStep(config, device)}
    if machine.onednn:
        steps["step_onednn"] = OurStep(config, device, onednn=True)
    compiling = first_call(steps["step"], device) if options.compile else None
    traffic = Traffic()
    with traffic:  # without torch.compile: operation by operation
        OurStep(replace(config, compile=False), device)()
    arms = {
        "product": machine.multiply,
        "default_product": machine.multiply_by_default,
        "copy": machine.copy,
        **steps,
    }
    interleave(arms, 1, device)
    taken = interleave(arms, options.rounds, device)
    flops = count_training_flops(config).step
    peak = machine.multiply_flops / min(taken["product"])
    bounds = traffic.bounds(peak, machine.copy_bytes / min(taken["copy"]))
    results: dict[str, Any] = {
        "device": options.device,
        "precision": options.precision,
        "size": options.size,
        "batch_size": options.batch_size,
        "sequence_length": options.length,
        "threads": options.threads,
        "compiled": options.compile,
        "compile_seconds": compiling,
        "flops_per_step": flops,
        "bytes_per_step": sum(moved for _, moved in traffic.operations),
        "peak_flops_per_second": peak,
        "peak_by": "oneDNN" if machine.onednn else "torch.mm",
        "default_product_flops_per_second": machine.multiply_flops / min(taken["default_product"]),
        "bandwidth_bytes_per_second": machine.copy_bytes / min(taken["copy"]),
        "share_of_peak_on_the_roofline": flops / peak / bounds["roofline_seconds"],
        **bounds,
        "steps": {name: reached(taken, name, flops, config, machine) for name in steps},
    }
    print(json.dumps(results, indent=1))
    recorded.write(
        f"benchmark_roofline_{options.device}_{options.precision}",
        seeds=[0],
        data={"rows": {"made of": "random token ids, seed 0"}},
        seconds=time.perf_counter() - started,
        results=results,
        curves=taken,
    )


def reached(
    taken: dict[str, list[float]],
    name: str,
    flops: float,
    config: PretrainingConfig,
    machine: Machine,
) -> dict[str, Any]:
    """What a step reached: seconds, sequences a second, share of the peak beside it."""
    median = statistics.median(taken[name])
    shares = [
        flops / step / (machine.multiply_flops / product)
        for step, product in zip(taken[name], taken["product"], strict=True)
    ]
    return {
        "seconds": median,
        "sequences_per_second": config.batch_size / median,
        "share_of_peak": {
            "median": statistics.median(shares),
            "min": min(shares),
            "max": max(shares),
        },
    }


if __name__ == "__main__":
    main()
