"""The same fine-tuning by this package and by transformers' Trainer: how good, and how long.

    python experiments/trainer.py --work WORK [--pairs 7] [--threads 1]

Both start from `mini` with the same new head, learn the same rows of the built-in `messages` in the
same number of steps (batches of similar length, AdamW, one learning rate, linear warm-up and decay,
clipping, no dropout), evaluate on validation after every epoch and keep the model of the epoch with
the highest accuracy there. What is timed reaches from the texts to that model. A pair is one seed
by both, the one that goes first changing from pair to pair, and the figure is the median of the
pairs' ratios, so that a slow moment of the machine hits both; beside the clock on the wall stands
the processor's, which other programs disturb less.
Afterwards both models are judged on the test split. Small differences stay: the order of the
batches; the warm-up, which here multiplies the decay (as in the official code); of two epochs with
equal accuracy, the Trainer keeps the earlier, `fine_tune()` the one with the lower loss; and the
Trainer keeps weights on disk, `fine_tune()` in memory.

Each pair is kept in WORK when it is done; a later call goes on. When all are there, the record
experiments/results/trainer.json is written.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from runs import write_whole
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

from electra_tutorial import environment, recorded
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.encoding import encode
from electra_tutorial.finetuning import evaluate, fine_tune, load_classifier
from electra_tutorial.metrics import accuracy, t_interval
from electra_tutorial.tasks import Task, load_task

CONFIG = FineTuningConfig(
    learning_rate=5e-4,
    layerwise_decay=1.0,
    epochs=3,
    batch_size=16,
    dropout=0.0,
    max_length=32,
    adam_epsilon=1e-8,
)


def by_package(task: Task, config: FineTuningConfig) -> tuple[Any, Any, float]:
    """(model, tokenizer, validation accuracy) of the best epoch of `fine_tune()`."""
    result = fine_tune("mini", task, config)
    return result.model, result.tokenizer, result.validation.metrics["accuracy"]


def by_trainer(task: Task, config: FineTuningConfig) -> tuple[Any, Any, float]:
    """The same of transformers' Trainer, with its own optimiser, schedule and batches."""
    environment.seed_everything(config.seed)
    model, tokenizer = load_classifier("mini", task.label_names, config)
    splits = [
        [
            row | {"labels": label}
            for row, label in zip(
                encode(tokenizer, split, config.max_length, model.config),
                split["label"],
                strict=True,
            )
        ]
        for split in (task.train, task.validation)
    ]
    steps = config.epochs * -(-len(task.train) // config.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                learning_rate=config.learning_rate,
                adam_epsilon=config.adam_epsilon,
                weight_decay=config.weight_decay,
                max_grad_norm=config.max_grad_norm,
                num_train_epochs=config.epochs,
                per_device_train_batch_size=config.batch_size,
                per_device_eval_batch_size=64,
                lr_scheduler_type="linear",
                warmup_steps=round(config.warmup_fraction * steps),
                train_sampling_strategy="group_by_length",
                eval_strategy="epoch",
                save_strategy="best",
                save_total_limit=1,
                save_only_model=True,
                load_best_model_at_end=True,
                metric_for_best_model="accuracy",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                seed=config.seed,
            ),
            train_dataset=splits[0],
            eval_dataset=splits[1],
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda found: {
                "accuracy": accuracy(found.label_ids, found.predictions.argmax(axis=1))
            },
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model.eval(), tokenizer, trainer.state.best_metric


ARMS = {"fine_tune": by_package, "Trainer": by_trainer}


def pair(task: Task, seed: int) -> dict[str, Any]:
    """One seed by both; who goes first depends on the seed."""
    figures: dict[str, Any] = {}
    for arm in sorted(ARMS, reverse=bool(seed % 2)):
        clocks = np.array([time.perf_counter(), time.process_time()])
        model, tokenizer, validation = ARMS[arm](task, changed(CONFIG, seed=seed))
        wall, cpu = np.array([time.perf_counter(), time.process_time()]) - clocks
        found = evaluate(
            model, tokenizer, task.test, task.label_names, max_length=CONFIG.max_length
        )
        figures[arm] = {
            "validation": validation,
            "accuracy": found.metrics["accuracy"],
            "loss": found.metrics["loss"],
            "seconds": wall,
            "cpu_seconds": cpu,
        }
    return figures


def summary(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means, spreads, the paired difference and the ratio of the times."""
    results: dict[str, Any] = {"config": asdict(CONFIG), "pairs": pairs}
    for arm in ARMS:
        scores = [figures[arm]["accuracy"] for figures in pairs]
        results[arm] = {
            "accuracy": float(np.mean(scores)),
            "sd": float(np.std(scores, ddof=1)),
            **{
                clock: float(np.median([figures[arm][clock] for figures in pairs]))
                for clock in ("seconds", "cpu_seconds")
            },
        }
    differences = [f["fine_tune"]["accuracy"] - f["Trainer"]["accuracy"] for f in pairs]
    ratios = {
        clock: [f["fine_tune"][clock] / f["Trainer"][clock] for f in pairs]
        for clock in ("seconds", "cpu_seconds")
    }
    return results | {
        "difference": float(np.mean(differences)),
        "difference_interval": t_interval(differences),
        "time_ratio": {clock: float(np.median(found)) for clock, found in ratios.items()},
        "time_ratios": ratios,
    }


def main() -> None:
    """Do the pairs that are missing; record all when they are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for finished pairs")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; all if absent")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    task = load_task("messages")
    warm_up = changed(task, train=task.train.select(range(16)))
    missing = [s for s in range(options.pairs) if not (options.work / f"{s}.json").is_file()]
    for arm in ARMS if missing else ():  # the first run of a process pays for imports and caches
        ARMS[arm](warm_up, changed(CONFIG, epochs=1))
    for seed in missing:
        figures = pair(task, seed)
        write_whole(options.work / f"{seed}.json", figures)
        times = [f"{arm} {figures[arm]['cpu_seconds']:.1f} s" for arm in ARMS]
        print(f"seed {seed}: {', '.join(times)}", flush=True)
    pairs = [
        json.loads((options.work / f"{seed}.json").read_text()) for seed in range(options.pairs)
    ]
    recorded.write(
        "trainer",
        command="python experiments/trainer.py --work WORK",
        seeds=range(options.pairs),
        data={task.name: {"source": task.source, "revision": task.revision}},
        seconds=sum(f[arm]["seconds"] for f in pairs for arm in ARMS),
        results=summary(pairs),
    )


if __name__ == "__main__":
    main()
