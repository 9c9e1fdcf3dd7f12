"""How often fine-tuning stays at chance on few rows, and which settings prevent it.

    python experiments/instability.py --work WORK [--seeds 10] [--threads 1]

`mini` learns 32 rows of the built-in task `messages` (spam or wanted). One arm has the paper's
settings. The others take more and smaller steps, and differ from each other in what their names
say: how fast, with or without warm-up, with or without the bias correction of Adam (the released
code has none). The seed draws the rows, the head and the order. A run has failed where the loss of
its last epoch is no lower than 0.9 of that of guessing by the shares of the classes; beside it
stands the accuracy on all rows of the test split.

Each run is kept in WORK when it is done; a later call goes on. When all are there, the record
experiments/results/instability.json is written.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from runs import draw_rows, judge, write_whole
from scipy.stats import binomtest, entropy

from electra_tutorial import recorded
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.finetuning import fine_tune
from electra_tutorial.tasks import Task, load_task

ROWS = 32
TOKENS = 32
FAILED = 0.9  # of the loss of guessing by the shares of the classes
PAPER = FineTuningConfig(max_length=TOKENS, onednn=True)
LONG = replace(PAPER, epochs=10, batch_size=8, dropout=0.0, layerwise_decay=1.0)
ARMS = {
    "paper, 3 epochs": PAPER,
    "5e-4": replace(LONG, learning_rate=5e-4),
}
for rate in ("2e-3", "5e-3"):
    fast = replace(LONG, learning_rate=float(rate))
    ARMS |= {
        rate: fast,
        f"{rate}, no warm-up": replace(fast, warmup_fraction=0.0),
        f"{rate}, no correction": replace(fast, bias_correction=False),
        f"{rate}, neither": replace(fast, warmup_fraction=0.0, bias_correction=False),
    }


def run(task: Task, config: FineTuningConfig, seed: int) -> dict[str, Any]:
    """Fine-tune once; whether it failed, and how good it is."""
    started = time.perf_counter()
    small = replace(task, train=draw_rows(task.train, ROWS, seed))
    result = fine_tune("mini", small, replace(config, seed=seed))
    guessing = float(entropy(np.bincount(small.train["label"])))
    last = result.history[-1]["train_loss"]
    found = judge(result, task, config)
    return {
        "failed": bool(last > FAILED * guessing),
        "last_loss": last,
        "guessing_loss": guessing,
        "losses": [row["train_loss"] for row in result.history],
        "accuracy": found.metrics["accuracy"],
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    """Do the runs that are missing; record all when they are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for finished runs")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; all if absent")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    task = load_task("messages")
    results: dict[str, Any] = {"rows": ROWS, "failed_above": FAILED}
    curves: dict[str, Any] = {}
    seconds = 0.0
    for number, (arm, config) in enumerate(ARMS.items()):
        runs = []
        for seed in range(options.seeds):
            path = options.work / f"{number}-{seed}.json"
            if not path.is_file():
                write_whole(path, run(task, config, seed))
            runs.append(json.loads(path.read_text()))
        failed = sum(figures["failed"] for figures in runs)
        interval = binomtest(failed, len(runs)).proportion_ci(method="wilson")
        accuracies = [figures["accuracy"] for figures in runs]
        results[arm] = {
            "config": asdict(config),
            "failed": failed,
            "runs": len(runs),
            "share": failed / len(runs),
            "interval": [float(interval.low), float(interval.high)],
            "accuracies": accuracies,
            "accuracy": float(np.mean(accuracies)),
            "accuracy_sd": float(np.std(accuracies, ddof=1)) if len(runs) > 1 else 0.0,
        }
        curves[arm] = [figures["losses"] for figures in runs]
        seconds += sum(figures["seconds"] for figures in runs)
        print(f"{arm}: {failed} of {len(runs)} failed, accuracy {np.mean(accuracies):.3f}")
    recorded.write(
        "instability",
        command="python experiments/instability.py --work WORK",
        seeds=range(options.seeds),
        data={task.name: {"source": task.source, "revision": task.revision}},
        seconds=seconds,
        results=results,
        curves=curves,
    )


if __name__ == "__main__":
    main()
