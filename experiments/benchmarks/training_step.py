"""A training step against the PyPI package electra-pytorch, on the same networks.

    pip install --no-deps --target DIR electra-pytorch==0.1.2
    python experiments/benchmarks/training_step.py --electra-pytorch DIR [--threads 1]

Two settings in float32: ELECTRA-Small with 32 sequences of 128 tokens, and 4 of its 12 layers with
16 sequences. Both sides have the same two networks with the same shared embeddings, attention
implementation, dropout, optimiser, gradient clipping and threads, and read the same rows; each
masks and samples in its own way. The package computes the generator's logits at all positions,
ours at the chosen ones. Three arms are ours: the step as it stands, with the products of linear
layers in oneDNN, and this in four micro-batches, which give the same gradient with less memory; a
fourth with torch.compile is measured on request. The package has a second arm too, whose networks'
linear layers are switched to oneDNN in the same way. One step of each in turn; the figure is the
median of the ratios. Memory is the peak of a process of its own for each arm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import (
    SPECIAL_IDS,
    OurStep,
    build_model,
    compare,
    first_call,
    interleave,
    peak_memory_mb,
    random_segments,
)
from torch import Tensor, nn

from electra_tutorial import recorded
from electra_tutorial.config import SIZES, ElectraSize, PretrainingConfig
from electra_tutorial.optimization import build_optimizer
from electra_tutorial.products import onednn_advantage, use_faster_products
from electra_tutorial.training import prepare_encoders

SETTINGS = {"small": (12, 32), "four_layers": (4, 16)}  # name -> layers, batch size
LENGTH = 128


class Logits(nn.Module):
    """A transformers model that returns its logits, as electra-pytorch expects."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the network."""
        return self.network(input_ids, attention_mask=attention_mask).logits


class TheirStep:
    """One step with electra-pytorch around the same networks."""

    def __init__(
        self,
        config: PretrainingConfig,
        device: torch.device,
        size: ElectraSize,
        onednn: bool = False,
    ) -> None:
        from electra_pytorch import Electra

        self.config, self.device = config, device
        self.model = build_model(config, device, size)
        prepare_encoders(self.model, config, device)
        if onednn:
            use_faster_products(self.model)
        self.electra = Electra(
            Logits(self.model.generator),
            Logits(self.model.discriminator),
            mask_token_id=SPECIAL_IDS.mask,
            pad_token_id=SPECIAL_IDS.pad,
            mask_ignore_token_ids=[SPECIAL_IDS.cls, SPECIAL_IDS.sep],
            mask_prob=config.mask_probability,
            disc_weight=config.discriminator_weight,
        )
        self.optimizer = build_optimizer(self.model, config)
        segments = random_segments(4 * config.batch_size, LENGTH, 30_522)
        self.ids = torch.from_numpy(segments.input_ids[: config.batch_size].astype("int64"))

    def __call__(self) -> None:
        """Make one step."""
        ids = self.ids.to(self.device)
        real = (ids != SPECIAL_IDS.pad).long()
        self.electra(ids, attention_mask=real).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def build(arm: str, name: str, device: torch.device) -> Callable[[], None]:
    """One of the arms."""
    layers, batch_size = SETTINGS[name]
    size = replace(SIZES["small"], num_hidden_layers=layers)
    config = PretrainingConfig(batch_size=batch_size, sequence_length=LENGTH)
    if arm.startswith("theirs"):
        return TheirStep(config, device, size, onednn=arm == "theirs_onednn")
    if arm == "ours_compiled":
        return OurStep(replace(config, compile=True), device, size)
    if arm == "ours_onednn_four_parts":
        config = replace(config, gradient_accumulation=4)
    return OurStep(config, device, size, onednn=arm.startswith("ours_onednn"))


def memory(arm: str, name: str, options: argparse.Namespace) -> float:
    """Peak memory in MB of an arm, in a process of its own that makes two steps."""
    command = [sys.executable, __file__, "--memory-of", arm, name]
    for option in ("electra_pytorch", "threads", "device"):
        command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def measure(
    name: str, arms: list[str], options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Time and memory of all arms in one setting, and the single times."""
    device = torch.device(options.device)
    peaks = {arm: memory(arm, name, options) for arm in arms}
    steps = {arm: build(arm, name, device) for arm in arms}
    compiled = steps.get("ours_compiled")
    compile_seconds = first_call(compiled, device) if compiled else None
    interleave(steps, 1, device)  # the first step is slower: memory, caches
    taken = interleave(steps, options.rounds, device)
    tokens = SETTINGS[name][1] * LENGTH
    figures: dict[str, Any] = {
        "compile_seconds": compile_seconds,
        "peak_memory_mb": peaks,
        "tokens_per_second": {
            arm: tokens / statistics.median(times) for arm, times in taken.items()
        },
        "times_as_fast": {
            arm: compare(taken["theirs"], taken[arm]) for arm in arms if arm != "theirs"
        },
        "times_as_fast_onednn": {
            arm: compare(taken["theirs_onednn"], taken[arm])
            for arm in arms
            if "theirs_onednn" in arms and arm.startswith("ours_onednn")
        },
        "share_of_their_memory": {
            arm: peaks[arm] / peaks["theirs"] for arm in arms if arm != "theirs"
        },
    }
    return figures, taken


def main() -> None:
    """Compare in both settings and write experiments/results/benchmark_training_step.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--electra-pytorch", type=Path, required=True, help="where it was installed"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--compile", action="store_true", help="an arm with torch.compile as well")
    parser.add_argument("--memory-of", nargs=2, metavar=("ARM", "SETTING"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.append(str(options.electra_pytorch))
    torch.set_num_threads(options.threads)
    if options.memory_of:
        arm, name = options.memory_of
        step = build(arm, name, torch.device(options.device))
        for _ in range(2):
            step()
        print(peak_memory_mb(torch.device(options.device)))
        return
    arms = ["theirs", "ours"]
    if onednn_advantage() > 0 and options.device == "cpu":
        arms += ["theirs_onednn", "ours_onednn", "ours_onednn_four_parts"]
    if options.compile:
        arms += ["ours_compiled"]
    started = time.perf_counter()
    results: dict[str, Any] = {"threads": options.threads, "electra_pytorch": "0.1.2"}
    results["onednn_advantage"] = onednn_advantage()
    curves: dict[str, Any] = {}
    for name in options.settings:
        results[name], curves[name] = measure(name, arms, options)
        print(name, json.dumps(results[name]), flush=True)
    recorded.write(
        "benchmark_training_step" + ("" if options.device == "cpu" else f"_{options.device}"),
        seeds=[0],
        data={"rows": {"made of": "random token ids, seed 0"}},
        seconds=time.perf_counter() - started,
        results=results,
        curves=curves,
    )


if __name__ == "__main__":
    main()
