"""What helps where labels are few: pre-training, more of it, or the unlabelled texts' own labels.

    python experiments/less_data.py --work WORK [--seeds 2] [--seconds 150]
    python experiments/less_data.py --work WORK --publish

On the built-in `topics` and `messages`, learning curves over the number of labelled texts. Every
run is one (task, arm, size, seed):

- mini: the bundled discriminator, fine-tuned on `size` labelled texts;
- bag_of_words: TF-IDF and logistic regression;
- adapted, for topics at the smallest size: mini after its pre-training was continued, generator and
  discriminator together, on all texts of the training split, without their labels (Gururangan et
  al., 2020, call that task-adaptive pre-training).

At the smallest size self-training follows for mini and the bag of words: the model labels the rest
of the training split, the half of which it is surest keeps these labels, and a new model learns
from both (`self_training`). The seed draws the labelled texts (the same for all arms), the new
weights and the order. Each run is kept in WORK when it is done; --seconds ends a call early, and
the next one goes on. --publish writes experiments/results/less_data.json when all runs are there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from runs import write_whole

from electra_tutorial import recorded
from electra_tutorial.config import FineTuningConfig, PretrainingConfig
from electra_tutorial.corpora import Corpus
from electra_tutorial.evaluation import evaluate_corruptions, fixed_corruptions
from electra_tutorial.finetuning import evaluate, fine_tune, fit_bag_of_words
from electra_tutorial.heads import Evaluation
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.segments import build_segments
from electra_tutorial.tasks import Task, load_task
from electra_tutorial.tokenization import load_tokenizer
from electra_tutorial.training import pretrain

SIZES = {"topics": (36, 96, 288), "messages": (24, 72, 240)}
ARMS = ("bag_of_words", "mini")  # of the curves
ADAPTED = "topics"
SEEDS = 5
STEPS = 60  # of fine-tuning, about: fewer texts are passed more often
# As in chapter 5.3: mini is smaller than Small, and few rows make few steps.
CONFIG = FineTuningConfig(
    learning_rate=7e-4, layerwise_decay=1.0, dropout=0.0, max_length=64, onednn=True
)
FURTHER = PretrainingConfig(
    size="mini",
    steps=60,
    warmup_steps=6,
    batch_size=8,
    sequence_length=64,
    learning_rate=2e-4,
    dropout=0.0,
    onednn=True,
    log_every=60,
    evaluate_every=60,
    save_every=60,
)

Classifier = Callable[[Dataset], Evaluation]


def draw(task: Task, size: int, seed: int) -> tuple[Task, Dataset]:
    """Keep the labels of `size` training rows, of each class as many; the rest is the second."""
    order = np.random.default_rng(seed).permutation(len(task.train))
    labels = np.array(task.train["label"])[order]
    kept = [order[labels == k][: size // len(task.label_names)] for k in np.unique(labels)]
    chosen = np.concatenate(kept)
    rest = order[~np.isin(order, chosen)]
    return replace(task, train=task.train.select(chosen.tolist())), task.train.select(rest.tolist())


def settings_for(rows: int, seed: int) -> FineTuningConfig:
    """Smaller batches and more epochs for fewer rows, so that the steps are about as many."""
    batch_size = 16 if rows > 200 else 8 if rows > 60 else 4
    epochs = max(4, round(STEPS * batch_size / rows))
    return replace(CONFIG, batch_size=batch_size, epochs=epochs, seed=seed)


def train(task: Task, checkpoint: str | Path | None, seed: int) -> Classifier:
    """Fine-tune a checkpoint, or fit a bag of words where there is none."""
    if checkpoint is not None:
        tuned = fine_tune(checkpoint, task, settings_for(len(task.train), seed))
        return lambda rows: as_evaluation(
            evaluate(tuned.model, tuned.tokenizer, rows, task.label_names, max_length=64)
        )
    words = fit_bag_of_words(task, seed)
    return lambda rows: Evaluation.of(
        list(rows["label"]), words.predict_proba(list(rows["text"])), task.label_names
    )


def as_evaluation(found: Any) -> Evaluation:
    """Both tasks are classifications."""
    assert isinstance(found, Evaluation)
    return found


def pseudo_labels(found: Evaluation, rest: Dataset) -> tuple[Dataset, float]:
    """The half of `rest` of which a classifier is surest, with its labels, and how many are right.

    Each class gives the surest half of the rows that were called so, or a class that the classifier
    prefers would crowd out the others.
    """
    sure = found.probabilities.max(axis=1)
    chosen: list[int] = []
    for called in np.unique(found.predictions):
        rows = np.flatnonzero(found.predictions == called)
        chosen += rows[np.argsort(-sure[rows], kind="stable")][: -(-len(rows) // 2)].tolist()
    labels = found.predictions[chosen]
    kept = rest.select(chosen)
    right = float((labels == np.array(kept["label"])).mean())
    return Dataset.from_dict({"text": list(kept["text"]), "label": labels.tolist()}), right


def with_rows(task: Task, more: Dataset) -> Task:
    """The task with further training rows."""
    rows = {name: [*task.train[name], *more[name]] for name in ("text", "label")}
    return replace(task, train=Dataset.from_dict(rows, features=task.train.features))


def run(task: Task, arm: str, size: int, seed: int, work: Path) -> dict[str, Any]:
    """One point of a curve, and of the self-training that follows."""
    small, rest = draw(task, size, seed)
    started = time.perf_counter()
    checkpoint: str | Path | None = "mini" if arm == "mini" else None
    if arm == "adapted":
        checkpoint = adapt(task, seed, work)
    classifier = train(small, checkpoint, seed)
    figures = {"task": task.name, "arm": arm, "size": size, "seed": seed}
    figures |= {"score": classifier(task.test).metrics["accuracy"]}
    if arm != "adapted" and size == min(SIZES[task.name]):
        more, right = pseudo_labels(classifier(rest), rest)
        again = train(with_rows(small, more), checkpoint, seed)
        figures |= {"pseudo_labels": len(more), "pseudo_labels_right": right}
        figures |= {"self_training": again(task.test).metrics["accuracy"]}
    return figures | {"revision": task.revision, "seconds": time.perf_counter() - started}


def adapt(task: Task, seed: int, work: Path) -> Path:
    """Continue the pre-training of `mini` on the training texts, once for each seed.

    Before and after it is judged on the test texts, corrupted by the generator as it was.
    """
    folder = work / f"pretraining-{task.name}-{seed}"
    report = folder / "adapted.json"
    if not report.is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run has left
        pair = str(resources.files("electra_tutorial") / "builtin" / "mini")
        tokenizer = load_tokenizer("mini")
        text, unseen = (
            build_segments(Corpus(task.name, tuple(split["text"])), tokenizer, 64)
            for split in (task.train, task.test)
        )
        before = ElectraForJointPreTraining.from_halves(pair).eval()
        questions = fixed_corruptions(before, unseen, tokenizer, seed=seed)
        started = time.perf_counter()
        further = pretrain(
            replace(FURTHER, seed=seed),
            text,
            tokenizer,
            folder,
            model=ElectraForJointPreTraining.from_halves(pair),
        )
        figures = {
            "task": task.name,
            "seed": seed,
            "tokens": text.num_tokens,
            "before": evaluate_corruptions(before, questions),
            "after": evaluate_corruptions(further.model.eval(), questions),
            "seconds": time.perf_counter() - started,
        }
        write_whole(report, figures)
    return folder / "final" / "discriminator"


def sweep(work: Path, seeds: int, seconds: float) -> None:
    """Do every run that WORK does not hold yet, until the time is up."""
    work.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    for seed in range(seeds):
        for name, sizes in SIZES.items():
            task = load_task(name)
            for size in sizes:
                for arm in (*ARMS, "adapted") if (name, size) == (ADAPTED, sizes[0]) else ARMS:
                    path = work / f"{name}-{arm}-{size}-{seed}.json"
                    if path.is_file():
                        continue
                    if time.monotonic() > end:
                        raise SystemExit("The time is up: call again to go on.")
                    figures = run(task, arm, size, seed, work)
                    write_whole(path, figures)
                    again = figures.get("self_training", float("nan"))
                    print(f"{path.stem}: {figures['score']:.3f}, {again:.3f}", flush=True)


def read(work: Path, task: str, arm: str, size: int, seed: int) -> dict[str, Any]:
    """A run that `sweep` has kept."""
    figures: dict[str, Any] = json.loads((work / f"{task}-{arm}-{size}-{seed}.json").read_text())
    return figures


def publish(work: Path, seeds: int) -> None:
    """Write the record of all runs."""
    results: dict[str, Any] = {"config": asdict(CONFIG), "further": asdict(FURTHER)}
    curves: dict[str, Any] = {}
    revisions: dict[str, str] = {}
    spent = 0.0
    for name, sizes in SIZES.items():
        curves[name] = {"sizes": list(sizes)}
        for arm in ARMS:
            grid = [[read(work, name, arm, size, seed) for size in sizes] for seed in range(seeds)]
            curves[name][arm] = [[run["score"] for run in row] for row in grid]
            spent += sum(run["seconds"] for row in grid for run in row)
            revisions[name] = grid[0][0]["revision"]
            for key in ("self_training", "pseudo_labels", "pseudo_labels_right"):
                curves[name][f"{arm}_{key}"] = [row[0][key] for row in grid]
        results[name] = {"test_rows": len(load_task(name).test)}
    adapted = [read(work, ADAPTED, "adapted", SIZES[ADAPTED][0], seed) for seed in range(seeds)]
    curves[ADAPTED]["adapted"] = [run["score"] for run in adapted]
    spent += sum(run["seconds"] for run in adapted)
    results[ADAPTED]["pretraining"] = [
        json.loads((work / f"pretraining-{ADAPTED}-{seed}" / "adapted.json").read_text())
        for seed in range(seeds)
    ]
    recorded.write(
        "less_data",
        command="python experiments/less_data.py --work WORK",
        seeds=list(range(seeds)),
        data={name: {"source": "builtin", "revision": text} for name, text in revisions.items()},
        seconds=spent,
        results=results,
        curves=curves,
    )


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for finished runs")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run later")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; all if absent")
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.publish:
        publish(options.work, options.seeds)
    else:
        sweep(options.work, options.seeds, options.seconds)


if __name__ == "__main__":
    main()
