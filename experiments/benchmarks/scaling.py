"""How the cost of a step grows with model size, length, batch and processes.

    python experiments/benchmarks/scaling.py [--device cpu] [--precision fp32]

One of the four is varied at a time, around ELECTRA's `mini` with 16 sequences of 128 tokens (on a
GPU: `small` with 256). Every point is measured in turn with a large matrix product, so that its
cost is also known as a share of the peak of that moment. Each process computes with one thread;
two processes share the batch and average their gradients (gloo), and are left out on fewer than
two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from common import Machine, OurStep, interleave
from torch.nn.parallel import DistributedDataParallel

from electra_tutorial import environment, recorded
from electra_tutorial.config import PretrainingConfig, get_size
from electra_tutorial.flops import count_training_flops

AROUND = {
    "cpu": PretrainingConfig(size="mini", batch_size=16, sequence_length=128),
    "cuda": PretrainingConfig(size="small", batch_size=256, sequence_length=128),
}
GRID: dict[str, dict[str, tuple[Any, ...]]] = {
    "cpu": {
        "size": ("nano", "mini", "small"),
        "sequence_length": (32, 64, 128),
        "batch_size": (4, 8, 16, 32),
    },
    "cuda": {
        "size": ("mini", "small", "base"),
        "sequence_length": (64, 128, 256, 512),
        "batch_size": (64, 128, 256, 512),
    },
}
PROCESSES = (1, 2)


def summarize(config: PretrainingConfig, taken: dict[str, list[float]], machine: Machine) -> Any:
    """What a point cost: seconds, tokens a second, operations, share of the peak.

    Seconds are those of the fastest round; the share is the median of all rounds.
    """
    fastest = min(taken["step"])
    flops = count_training_flops(config).step
    shares = [
        flops / step / (machine.multiply_flops / product)
        for step, product in zip(taken["step"], taken["product"], strict=True)
    ]
    return {
        "seconds": fastest,
        "spread": [min(taken["step"]), max(taken["step"])],
        "tokens_per_second": config.batch_size * config.sequence_length / fastest,
        "flops_per_step": flops,
        "share_of_peak": statistics.median(shares),
        "product_seconds": min(taken["product"]),
    }


def measure(config: PretrainingConfig, device: torch.device, rounds: int) -> Any:
    """One point in this process."""
    machine, step = Machine(device, config.precision), OurStep(config, device)
    arms = {"product": machine.multiply, "step": step}
    interleave(arms, 2, device)
    return summarize(config, interleave(arms, rounds, device), machine)


def work(
    rank: int, processes: int, port: int, config: PretrainingConfig, rounds: int, queue: Any
) -> None:
    """One of several processes: measures its share of the batch; the first reports."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    device = torch.device("cpu")
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    wrap = DistributedDataParallel if processes > 1 else None
    machine = Machine(device, config.precision)
    step = OurStep(config, device, wrap=wrap, process=rank, processes=processes)
    arms = {"product": machine.multiply, "step": step}
    interleave(arms, 2, device)
    taken = interleave(arms, rounds, device)
    if rank == 0:
        queue.put(summarize(config, taken, machine) | {"processes": processes})
    dist.barrier()
    dist.destroy_process_group()


def measure_processes(processes: int, config: PretrainingConfig, rounds: int) -> Any:
    """One point with several processes on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    multiprocessing.spawn(
        work, args=(processes, port, config, rounds, queue), nprocs=processes, join=True
    )
    return queue.get()


def main() -> None:
    """Measure the grid and write experiments/results/benchmark_scaling_<device>.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=GRID)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    base = replace(AROUND[options.device], precision=options.precision)
    started = time.perf_counter()
    results: dict[str, Any] = {"around": base.__dict__, "threads": 1}
    for varied, values in GRID[options.device].items():
        results[varied] = []
        for value in values:
            changes: dict[str, Any] = {varied: value}
            if varied == "size":  # nano has positions for 64 tokens only
                longest = get_size(value).max_position_embeddings
                changes["sequence_length"] = min(base.sequence_length, longest)
            config = replace(base, **changes)
            point = {varied: value, "sequence_length": config.sequence_length}
            point |= measure(config, device, options.rounds)
            results[varied].append(point)
            print(json.dumps(point), flush=True)
    cores = int(environment.hardware()["cores"])
    results["processes"] = []
    if options.device == "cpu":
        for processes in PROCESSES:
            if processes <= cores:
                point = measure_processes(processes, base, options.rounds)
                results["processes"].append(point)
                print(json.dumps(point), flush=True)
    recorded.write(
        f"benchmark_scaling_{options.device}",
        seeds=[0],
        data={"rows": {"made of": "random token ids, seed 0"}},
        seconds=time.perf_counter() - started,
        results=results,
    )


if __name__ == "__main__":
    main()
