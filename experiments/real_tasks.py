"""Fine-tune the bundled `mini` on nine real tasks, against random weights and simple methods.

    python experiments/real_tasks.py --work WORK [--rows 1000] [--tasks ag_news sst2 ...]
    python experiments/real_tasks.py --work WORK --rows 1000 --publish

The data sets are read from the folder named by ELECTRA_TUTORIAL_HUB_DIR (source "directory" of
`load_task`). Every run is one (task, arm, seed):

- mini: the pre-trained discriminator;
- random: the same network from random weights;
- bag_of_words, word_overlap, commonest_tags, best_sentences: what `simple_methods.py` says of them;
- word_features: the logistic regression over features of words in `electra_tutorial.baselines`.

The seed draws the training and validation rows (the same for all arms), the new weights and the
order. mini and random each get the learning rate, of two, that is better on validation with the
first seed; rates do not fall from layer to layer, which would hold random weights back. The best
epoch is chosen on validation too. The score is that of the whole test split, which is the
development set where the labels of the official test are hidden; of SQuAD's, as many questions as
--questions says are drawn once, the same for all runs.

Each run is kept in WORK when it is done, so that an interrupted sweep goes on where it stopped.
--publish writes experiments/results/real_tasks_<rows>.json from all runs with that number of rows.
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
from simple_methods import baselines_of

from electra_tutorial import recorded
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.finetuning import fine_tune
from electra_tutorial.heads import AnyEvaluation, Evaluation
from electra_tutorial.tasks import Task, load_task

TASKS = ("ag_news", "sst2", "cola", "mrpc", "stsb", "rte", "conll2003", "wnut17", "squad")
NETWORKS = ("mini", "random")
SEEDS = 5
RATES = (5e-4, 1e-3)
VALIDATION_ROWS = 300
CONFIG = FineTuningConfig(
    layerwise_decay=1.0, epochs=4, batch_size=16, dropout=0.0, max_length=64, window_overlap=16
)
OTHERS: dict[str, dict[str, int]] = {  # texts that do not fit into 64 tokens
    "mrpc": {"max_length": 128},
    "rte": {"max_length": 128},
    "squad": {"max_length": 128, "epochs": 2},
}
ALSO = {"f1": "exact_match", "spearman": "pearson", "matthews": "accuracy"}
# Development sets, full training sets. None of the other tasks is in the paper.
PAPER = {
    "source": "README of github.com/google-research/electra (commit 8a46635): the released "
    "ELECTRA-Small (12 layers, trained longer than the paper's Small), on development sets",
    "cola": {"matthews": 57.0},
    "sst2": {"accuracy": 91.2},
    "mrpc": {"accuracy": 88.0},
    "stsb": {"spearman": 87.5},
    "rte": {"accuracy": 66.7},
    "squad": {"exact_match": 75.8},
}


def run(
    task: Task, arm: str, seed: int, rates: tuple[float, ...], precision: str
) -> dict[str, Any]:
    """Train once with each rate, keep the better one, measure on test; and what it took."""
    started = time.perf_counter()
    # The weights are cast anew in every forward pass: kept copies would miss the optimiser's steps.
    autocast = torch.autocast(
        "cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
    )
    with autocast:
        found, choice = train_and_judge(task, arm, seed, rates)
    also = ALSO.get(task.metric, "")
    return {
        "task": task.name,
        "arm": arm,
        "rows": len(task.train),
        "seed": seed,
        "precision": precision,
        "metric": task.metric,
        "score": found.metrics[task.metric],
        "also": {also: found.metrics[also]} if also in found.metrics else {},
        "test_rows": len(task.test),
        "confusion_matrix": found.confusion_matrix.tolist()
        if isinstance(found, Evaluation)
        else None,
        **choice,
        "revision": task.revision,
        "seconds": time.perf_counter() - started,
    }


def train_and_judge(
    task: Task, arm: str, seed: int, rates: tuple[float, ...]
) -> tuple[AnyEvaluation, dict[str, Any]]:
    """The evaluation on test and, of a network, what was chosen on validation."""
    if arm in NETWORKS:
        config = replace(CONFIG, seed=seed, **OTHERS.get(task.name, {}))
        tried = {
            rate: fine_tune(
                "mini", task, replace(config, learning_rate=rate), from_scratch=arm == "random"
            )
            for rate in rates
        }
        validation = {rate: r.validation.metrics[task.metric] for rate, r in tried.items()}
        rate = max(rates, key=lambda rate: validation[rate])
        best = tried[rate]
        return judge(best, task, config), {
            "learning_rate": rate,
            "validation": {str(r): score for r, score in validation.items()},
            "best_epoch": best.best_epoch,
            "training_seconds": best.seconds,
        }
    return baselines_of(task)[arm](task), {}


def sweep(
    work: Path, names: list[str], rows: int, seeds: int, questions: int | None, precision: str
) -> None:
    """Do every run that WORK does not hold yet."""
    work.mkdir(parents=True, exist_ok=True)
    for name in names:
        whole = load_task(name, source="directory")
        if whole.kind == "question-answering":
            whole = replace(whole, test=draw_rows(whole.test, questions, 0))
        for seed in range(seeds):
            task = replace(
                whole,
                train=draw_rows(whole.train, rows, seed),
                validation=draw_rows(whole.validation, VALIDATION_ROWS, seed),
            )
            for arm in (*NETWORKS, *baselines_of(whole)):
                path = run_file(work, name, rows, arm, seed)
                if path.is_file():
                    continue
                rates = RATES
                if arm in NETWORKS and seed:
                    first = json.loads(run_file(work, name, rows, arm, 0).read_text())
                    rates = (first["learning_rate"],)
                figures = run(task, arm, seed, rates, precision)
                write_whole(path, figures)
                print(
                    f"{name} {arm} seed {seed}: {figures['score']:.3f}, {figures['seconds']:.0f} s",
                    flush=True,
                )


def run_file(work: Path, name: str, rows: int, arm: str, seed: int) -> Path:
    """Where a finished run is kept."""
    return work / f"{name}-{rows}-{arm}-{seed}.json"


def publish(work: Path, rows: int) -> None:
    """Write the record of all runs with this number of rows."""
    runs = [json.loads(path.read_text()) for path in sorted(work.glob(f"*-{rows}-*.json"))]
    if not runs:
        raise SystemExit(f"There is no run with {rows} rows in {work}: make some first.")
    seeds = sorted({figures["seed"] for figures in runs})
    recorded.write(
        f"real_tasks_{rows}",
        command=f"python experiments/real_tasks.py --work WORK --rows {rows}",
        seeds=seeds,
        data={
            figures["task"]: {"source": "directory", "revision": figures["revision"]}
            for figures in runs
        },
        seconds=sum(figures["seconds"] for figures in runs),
        results=summary(runs, rows, len(seeds)),
    )


def summary(runs: list[dict[str, Any]], rows: int, seeds: int) -> dict[str, Any]:
    """The scores of each task by arm, with their means and standard deviations over the seeds.

    Raises:
        SystemExit: if an arm lacks a seed.
    """
    results: dict[str, Any] = {
        "rows": rows,
        "validation_rows": VALIDATION_ROWS,
        "config": asdict(CONFIG) | {"learning_rate": list(RATES)},
        "other_settings": OTHERS,
        "precision": runs[0]["precision"],
        "paper": PAPER,
    }
    there = {figures["task"] for figures in runs}
    for name in (task for task in TASKS if task in there):
        of_task = [figures for figures in runs if figures["task"] == name]
        arms: dict[str, list[dict[str, Any]]] = {}
        for figures in sorted(of_task, key=lambda figures: figures["seed"]):
            arms.setdefault(figures["arm"], []).append(figures)
        incomplete = [arm for arm, found in arms.items() if len(found) < seeds]
        if incomplete or not set(NETWORKS) <= set(arms):
            lacking = incomplete or sorted(set(NETWORKS) - set(arms))
            raise SystemExit(f"{name} lacks seeds of {', '.join(lacking)}: finish the sweep.")
        scores = {arm: [figures["score"] for figures in found] for arm, found in arms.items()}
        results[name] = {
            "metric": of_task[0]["metric"],
            "train_rows": of_task[0]["rows"],
            "test_rows": of_task[0]["test_rows"],
            "scores": scores,
            "mean": {arm: float(np.mean(values)) for arm, values in scores.items()},
            "sd": {
                arm: float(np.std(values, ddof=1)) if seeds > 1 else 0.0
                for arm, values in scores.items()
            },
            "also": {
                arm: {
                    measure: float(np.mean([figures["also"][measure] for figures in found]))
                    for measure in found[0]["also"]
                }
                for arm, found in arms.items()
                if found[0]["also"]
            },
            "confusion_matrices": {
                arm: [figures["confusion_matrix"] for figures in found]
                for arm, found in arms.items()
                if found[0]["confusion_matrix"]
            },
            "learning_rate": {arm: arms[arm][0]["learning_rate"] for arm in NETWORKS},
            "seconds": {
                arm: float(np.mean([figures["seconds"] for figures in found[1:] or found]))
                for arm, found in arms.items()
            },
        }
    return results


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for finished runs")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument(
        "--questions", type=int, default=1000, help="of SQuAD's 10,570 in the test; 0: all"
    )
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; all if absent")
    parser.add_argument(
        "--precision", default="bf16", choices=["bf16", "fp32"], help="of matrix products on a CPU"
    )
    parser.add_argument("--publish", action="store_true", help="record the finished runs")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.publish:
        publish(options.work, options.rows)
    else:
        questions = options.questions or None
        sweep(
            options.work,
            options.tasks,
            options.rows,
            options.seeds,
            questions,
            options.precision,
        )


if __name__ == "__main__":
    main()
