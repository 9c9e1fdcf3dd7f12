"""Fine-tune the bundled `mini` on real data sets, against the same network from random weights.

    python experiments/real_tasks.py --work WORK [--rows 500] [--tasks ag_news sst2 conll2003]
    python experiments/real_tasks.py --work WORK --publish

The data sets are read from the folder named by ELECTRA_TUTORIAL_HUB_DIR (source "directory" of
`load_task`). Every run is one (task, arm, seed):

- mini: the pre-trained discriminator;
- random: the same network and settings from random weights;
- random_flat: the same again, but one learning rate for all layers, in case rates that fall from
  layer to layer hold random weights back;
- bag_of_words: TF-IDF and logistic regression (not for tagging).

The seed draws the training rows (the same for all arms), the new weights and the order. The best
epoch is chosen on at most 500 rows of validation; the score is that of the test split. Each run is
kept in WORK when it is done, so that an interrupted sweep goes on where it stopped. --publish
writes experiments/results/real_tasks_<rows>.json from all runs with the same number of rows.
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
from datasets import Dataset

from electra_tutorial import recorded
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.finetuning import bag_of_words_baseline, evaluate, fine_tune
from electra_tutorial.tasks import Task, load_task

TASKS = ("ag_news", "sst2", "conll2003")
ARMS = ("mini", "random", "random_flat", "bag_of_words")
SEEDS = 5
VALIDATION_ROWS = 500
# As in chapter 5.3: mini is smaller than Small, and few rows make few steps.
CONFIG = FineTuningConfig(learning_rate=1e-3, epochs=8, batch_size=16, dropout=0.0)


def part(rows: Dataset, count: int, seed: int) -> Dataset:
    """Draw `count` rows, or take all where there are fewer."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.select(order[:count].tolist())


def run(task: Task, arm: str, rows: int, seed: int) -> dict[str, Any]:
    """Fine-tune once; the score on the test split and what it took."""
    small = replace(
        task,
        train=part(task.train, rows, seed),
        validation=part(task.validation, VALIDATION_ROWS, seed),
    )
    started = time.perf_counter()
    if arm == "bag_of_words":
        found, best_epoch = bag_of_words_baseline(small, seed), None
    else:
        config = replace(CONFIG, seed=seed)
        if arm == "random_flat":
            config = replace(config, layerwise_decay=1.0)
        result = fine_tune("mini", small, config, from_scratch=arm != "mini")
        best_epoch = result.best_epoch
        found = evaluate(result.model, result.tokenizer, task.test, task.label_names)
    return {
        "task": task.name,
        "arm": arm,
        "rows": len(small.train),
        "seed": seed,
        "metric": task.metric,
        "score": found.metrics[task.metric],
        "test_rows": len(task.test),
        "best_epoch": best_epoch,
        "revision": task.revision,
        "seconds": time.perf_counter() - started,
    }


def sweep(work: Path, tasks: list[str], rows: int, seeds: int) -> None:
    """Do every run that WORK does not hold yet."""
    work.mkdir(parents=True, exist_ok=True)
    for name in tasks:
        task = load_task(name, source="directory")
        arms = [arm for arm in ARMS if arm != "bag_of_words" or task.kind == "classification"]
        for seed in range(seeds):
            for arm in arms:
                path = work / f"{name}-{rows}-{arm}-{seed}.json"
                if path.is_file():
                    continue
                figures = run(task, arm, rows, seed)
                unfinished = path.with_suffix(".unfinished")
                unfinished.write_text(json.dumps(figures))
                unfinished.rename(path)
                print(f"{name} {arm} seed {seed}: {figures['score']:.3f}", flush=True)


def publish(work: Path, rows: int) -> None:
    """Write the record of all runs with this number of rows."""
    runs = [json.loads(path.read_text()) for path in sorted(work.glob(f"*-{rows}-*.json"))]
    if not runs:
        raise SystemExit(f"There is no run with {rows} rows in {work}: make some first.")
    results: dict[str, Any] = {"rows": rows, "config": asdict(CONFIG)}
    seeds = sorted({figures["seed"] for figures in runs})
    for name in dict.fromkeys(figures["task"] for figures in runs):
        of_task = [figures for figures in runs if figures["task"] == name]
        scores = {
            arm: [figures["score"] for figures in of_task if figures["arm"] == arm] for arm in ARMS
        }
        incomplete = [arm for arm, values in scores.items() if values and len(values) < len(seeds)]
        if incomplete:
            raise SystemExit(f"{name} lacks seeds of {', '.join(incomplete)}: finish the sweep.")
        results[name] = {
            "metric": of_task[0]["metric"],
            "test_rows": of_task[0]["test_rows"],
            "scores": {arm: values for arm, values in scores.items() if values},
            "mean": {arm: float(np.mean(values)) for arm, values in scores.items() if values},
            "sd": {arm: float(np.std(values, ddof=1)) for arm, values in scores.items() if values},
        }
    recorded.write(
        f"real_tasks_{rows}",
        command=f"python experiments/real_tasks.py --work WORK --rows {rows}",
        seeds=seeds,
        data={
            figures["task"]: {"source": "directory", "revision": figures["revision"]}
            for figures in runs
        },
        seconds=sum(figures["seconds"] for figures in runs),
        results=results,
    )


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for finished runs")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rows", type=int, default=500, help="training rows")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; all if absent")
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.publish:
        publish(options.work, options.rows)
    else:
        sweep(options.work, options.tasks, options.rows, options.seeds)


if __name__ == "__main__":
    main()
