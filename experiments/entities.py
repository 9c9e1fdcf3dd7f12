"""How many tagged sentences does a tagger of names need? CoNLL-2003, with 125 and with 500.

    python experiments/entities.py --work WORK [--arms mini random] [--sizes 125 500] [--seeds 3]
    python experiments/entities.py --work WORK --publish

CoNLL-2003 is read from the folder named by ELECTRA_TUTORIAL_HUB_DIR. Every run is one (arm, number
of sentences, seed):

- mini: the bundled discriminator, fine-tuned;
- random: the same network and settings from random weights;
- features, features_lower: the logistic regression of `electra_tutorial.baselines`, with capitals
  and without;
- features_mini: that with capitals, and with the vectors of the frozen `mini` for each word.

The seed draws the training sentences, the same for all arms, and makes the new weights and the
order. The best epoch is chosen on 200 sentences of validation; the score is the F1 of whole names
on the first 1,000 sentences of the test split. Fewer sentences are passed more often. Each run is
kept in WORK, so that an interrupted sweep goes on where it stopped. --publish writes
experiments/results/entities.json: scores, and no sentence.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from runs import draw_rows, judge, write_whole
from transformers import ElectraModel

from electra_tutorial import recorded
from electra_tutorial.baselines import VectorsOf, word_tagger_baseline, word_vectors
from electra_tutorial.checkpoints import find_checkpoint, load_pretrained
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.finetuning import fine_tune
from electra_tutorial.heads import AnyEvaluation
from electra_tutorial.tasks import Task, load_task
from electra_tutorial.tokenization import load_tokenizer

ARMS = ("mini", "random", "features", "features_lower", "features_mini")
SIZES = (125, 500)
SEEDS = 5
VALIDATION_SENTENCES = 200
TEST_SENTENCES = 1000
CONFIG = FineTuningConfig(
    learning_rate=7e-4, layerwise_decay=1.0, epochs=8, batch_size=16, dropout=0.0, onednn=True
)
LAYER = 3
EPOCHS = {125: 12, 500: 6}


def frozen_vectors() -> VectorsOf:
    """What the frozen `mini` says about words, after its third layer as in the chapter."""
    model, _ = load_pretrained(ElectraModel, find_checkpoint("mini"))
    tokenizer = load_tokenizer("mini")
    return lambda sentences: word_vectors(model, tokenizer, sentences, LAYER)


def run(task: Task, arm: str, size: int, seed: int) -> dict[str, Any]:
    """Train once; the scores on the test sentences and what it took."""
    small = replace(
        task,
        train=draw_rows(task.train, size, seed),
        validation=draw_rows(task.validation, VALIDATION_SENTENCES, seed=0),
        test=task.test.select(range(TEST_SENTENCES)),
    )
    started = time.perf_counter()
    found: AnyEvaluation
    if arm.startswith("features"):
        vectors = frozen_vectors() if arm == "features_mini" else None
        found = word_tagger_baseline(small, arm != "features_lower", vectors)
    else:
        config = replace(CONFIG, seed=seed, epochs=EPOCHS[size])
        tuned = fine_tune("mini", small, config, from_scratch=arm == "random")
        found = judge(tuned, small, config)
    return {
        "arm": arm,
        "size": size,
        "seed": seed,
        "f1": found.metrics["f1"],
        "f1_interval": found.metrics["f1_interval"],
        "accuracy": found.metrics["accuracy"],
        "per_label": {name: row["f1"] for name, row in found.metrics["per_label"].items()},
        "revision": task.revision,
        "seconds": time.perf_counter() - started,
    }


def sweep(work: Path, arms: list[str], sizes: list[int], seeds: int) -> None:
    """Do every run that WORK does not hold yet."""
    work.mkdir(parents=True, exist_ok=True)
    task = load_task("conll2003", source="directory")
    for seed in range(seeds):
        for size in sizes:
            for arm in arms:
                path = work / f"{arm}-{size}-{seed}.json"
                if path.is_file():
                    continue
                figures = run(task, arm, size, seed)
                write_whole(path, figures)
                print(f"{arm} {size} seed {seed}: {figures['f1']:.3f}", flush=True)


def publish(work: Path) -> None:
    """Write the record; every arm and size must have the same seeds."""
    runs = [json.loads(path.read_text()) for path in sorted(work.glob("*.json"))]
    seeds = sorted({figures["seed"] for figures in runs})
    curves: dict[str, Any] = {}
    for arm in ARMS:
        rows = []
        for size in SIZES:
            scores = [r for r in runs if (r["arm"], r["size"]) == (arm, size)]
            if [r["seed"] for r in scores] != seeds:
                raise SystemExit(f"{arm} lacks seeds at {size} sentences: finish the sweep.")
            rows.append(
                {
                    "sentences": size,
                    "f1": [r["f1"] for r in scores],
                    "f1_interval": [r["f1_interval"] for r in scores],
                    "accuracy": [r["accuracy"] for r in scores],
                    "per_label": [r["per_label"] for r in scores],
                }
            )
        curves[arm] = rows
    recorded.write(
        "entities",
        command="python experiments/entities.py --work WORK",
        seeds=seeds,
        data={"conll2003": {"source": "directory", "revision": runs[0]["revision"]}},
        seconds=sum(figures["seconds"] for figures in runs),
        results={
            "config": asdict(CONFIG),
            "epochs": {str(size): epochs for size, epochs in EPOCHS.items()},
            "test_sentences": TEST_SENTENCES,
            "validation_sentences": VALIDATION_SENTENCES,
        },
        curves=curves,
    )


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for finished runs")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=list(SIZES))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    if options.publish:
        publish(options.work)
    else:
        sweep(options.work, options.arms, options.sizes, options.seeds)


if __name__ == "__main__":
    main()
