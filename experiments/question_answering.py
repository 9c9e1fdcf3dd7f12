"""Teach `mini` to answer SQuAD's questions, with and without a hint, against random weights.

    python experiments/question_answering.py --work WORK --arm mini_hint [--seed 0] [--minutes 4]
    python experiments/question_answering.py --work WORK --publish

Three arms: `mini`; `mini_hint`, told which words of the context the question has, too (see
`electra_tutorial.hints`); `random_hint`, the same network with the same hint from random weights.

SQuAD 1.1 is read from the folder named by ELECTRA_TUTORIAL_HUB_DIR. To fit the budget of one CPU
core, only questions are used that fit together with their paragraph into one window of 128 word
pieces, in training and in the evaluation: the scores compare the arms with each other, and with no
published figure. All runs learn the same 3,000 questions, each once; the seed makes the new weights
and the order, the same order for all arms. A run is measured on the way, on 500 questions of
SQuAD's development set; the learning rate falls to 0 at its end, so that the earlier points are of
a model that is still moving.

A call works for about --minutes and keeps its state in WORK, so that the next call goes on.
--publish writes experiments/results/question_answering.json when all seeds of all arms are
complete: scores, and no text.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from electra_tutorial import environment, recorded
from electra_tutorial.baselines import nearest_span
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.encoding import collate
from electra_tutorial.finetuning import load_for_tuning, parameter_groups
from electra_tutorial.heads import HEADS
from electra_tutorial.hints import hinted_questions, separate_token_types
from electra_tutorial.metrics import question_metrics
from electra_tutorial.prediction import evaluate
from electra_tutorial.products import use_faster_products
from electra_tutorial.tasks import load_task
from electra_tutorial.tokenization import load_tokenizer
from electra_tutorial.training import learning_rate_factor

ARMS = ("mini", "mini_hint", "random_hint")
CONFIG = FineTuningConfig(
    learning_rate=5e-4, layerwise_decay=1.0, epochs=1, batch_size=16, dropout=0.0
)
METRICS = ("exact_match", "f1")
SEEDS = 5
QUESTIONS = 3_000
TEST_QUESTIONS = 500
MEASURED_AT = (250, 500, 1000, 2000, 2992)  # questions seen


def short(rows: Dataset, count: int, tokenizer: Any, seed: int) -> Dataset:
    """Draw `count` questions that fit with their context into one window."""
    lengths = {}
    for column in ("question", "context"):
        texts = sorted(set(rows[column]))
        ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        lengths[column] = dict(zip(texts, map(len, ids), strict=True))
    fits = [
        place
        for place, (question, context) in enumerate(
            zip(rows["question"], rows["context"], strict=True)
        )
        if lengths["question"][question] + lengths["context"][context] + 3 <= CONFIG.max_length
    ]
    if len(fits) < count:
        raise SystemExit(f"Only {len(fits)} questions fit into one window; {count} are needed.")
    drawn = np.random.default_rng(seed).permutation(fits)[:count]
    return rows.select(sorted(drawn.tolist()))


def load(work: Path) -> tuple[Dataset, Dataset, str]:
    """The questions to learn, those to be measured by, and SQuAD's revision; kept in `work`."""
    folder, note = work / "questions", work / "revision.txt"
    if not note.is_file():
        tokenizer = load_tokenizer("mini")
        task = load_task("squad", source="directory", quiet=True)
        short(task.train, QUESTIONS, tokenizer, seed=0).save_to_disk(str(folder / "train"))
        short(task.test, TEST_QUESTIONS, tokenizer, seed=0).save_to_disk(str(folder / "test"))
        note.write_text(task.revision)
    train, test = (Dataset.load_from_disk(str(folder / name)) for name in ("train", "test"))
    return train, test, note.read_text()


def state_file(work: Path, arm: str, seed: int) -> Path:
    """Where the state of a run is kept."""
    return work / f"{arm}-{seed}.pt"


def learn(work: Path, arm: str, seed: int, minutes: float) -> None:
    """Train for `minutes` from where WORK stands, and keep the state."""
    stop = time.perf_counter() + 60 * minutes
    train, test, _ = load(work)
    environment.seed_everything(seed)
    head = HEADS["question-answering"]
    model, tokenizer = load_for_tuning(head, "mini", (), CONFIG, from_scratch=arm == "random_hint")
    use_faster_products(model)
    if arm.endswith("hint"):
        separate_token_types(model, seed=seed)
    encoded, windows = head.encode(tokenizer, train, (), CONFIG.max_length, model.config, "train")
    optimizer = torch.optim.AdamW(
        parameter_groups(model, CONFIG),
        betas=(CONFIG.adam_beta1, CONFIG.adam_beta2),
        eps=CONFIG.adam_epsilon,
    )
    per_epoch = len(encoded) // CONFIG.batch_size
    steps = CONFIG.epochs * per_epoch
    warmup = round(CONFIG.warmup_fraction * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps, warmup)
    )
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "points": []}
    path = state_file(work, arm, seed)
    if path.is_file():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    started = time.perf_counter()
    while state["step"] < steps and time.perf_counter() < stop:
        epoch, place = divmod(state["step"], per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(encoded))
        chosen = order[place * CONFIG.batch_size : (place + 1) * CONFIG.batch_size].tolist()
        model.train()
        batch = collate([encoded[i] for i in chosen], [windows[i] for i in chosen])
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CONFIG.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        state["step"] += 1
        seen = state["step"] * CONFIG.batch_size
        if any(seen - CONFIG.batch_size < point <= seen for point in MEASURED_AT):
            measured = evaluate(model, tokenizer, test, ()).metrics
            point = {"questions": seen} | {key: measured[key] for key in METRICS}
            state["points"].append(point)
            scores = ", ".join(f"{key} {point[key]:.3f}" for key in METRICS)
            print(f"{arm} seed {seed}, {seen} questions: {scores}", flush=True)
    state["seconds"] += time.perf_counter() - started
    state |= {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
    }
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    os.replace(unfinished, path)
    so_far = f"{state['step']} of {steps} steps, {state['seconds']:.0f} s"
    print(f"{arm} seed {seed}: {so_far}", flush=True)


def publish(work: Path) -> None:
    """Write the record of the complete runs and of the rule that needs no training."""
    train, test, revision = load(work)
    last = CONFIG.epochs * (len(train) // CONFIG.batch_size)
    curves: dict[str, dict[str, Any]] = {}
    seconds = 0.0
    for arm in ARMS:
        runs = []
        for seed in range(SEEDS):
            path = state_file(work, arm, seed)
            done = torch.load(path, weights_only=True) if path.is_file() else {"step": 0}
            if done["step"] < last:
                raise SystemExit(
                    f"{arm}, seed {seed}, has done {done['step']} of {last} steps: go on with it."
                )
            seconds += done["seconds"]
            runs.append(done["points"])
        curves[arm] = {"questions": [point["questions"] for point in runs[0]]} | {
            key: [[point[key] for point in points] for points in runs] for key in METRICS
        }
    rule = question_metrics(
        [answers["text"] for answers in test["answers"]],
        [
            nearest_span(question, context).text
            for question, context in zip(test["question"], test["context"], strict=True)
        ],
    )
    texts = [json.dumps([row["id"] for row in part]) for part in (train, test)]
    recorded.write(
        "question_answering",
        command="python experiments/question_answering.py --work WORK --arm ARM --seed SEED",
        seeds=list(range(SEEDS)),
        data={
            "squad": {"source": "directory", "revision": revision},
            "questions": recorded.hash_texts(texts),
        },
        seconds=seconds,
        results={
            "config": asdict(CONFIG),
            "train_questions": len(train),
            "test_questions": len(test),
            "nearest_span": rule,
        },
        curves=curves,
    )


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the state")
    parser.add_argument("--arm", choices=ARMS, default="mini")
    parser.add_argument("--seed", type=int, default=0, help=f"0 to {SEEDS - 1}")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop and keep the state after")
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.publish:
        publish(options.work)
        return
    with hinted_questions() if options.arm.endswith("hint") else nullcontext():
        learn(options.work, options.arm, options.seed, options.minutes)


if __name__ == "__main__":
    main()
