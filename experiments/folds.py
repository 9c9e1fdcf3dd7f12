"""Five folds of the built-in sets: `mini` fine-tuned, against random weights and simple methods.

    python experiments/folds.py --work WORK [--threads 1]

One split of a set of some hundred rows says little. Here every row of `topics`, `reviews`,
`messages`, `entities` and `passages` is judged once, by a model that has not seen it
(`electra_tutorial.breakdowns.cross_validate`). The folds are the same for all arms:

- mini: the bundled discriminator, fine-tuned with the settings of the set's chapter;
- random: the same network and settings from random weights;
- bag_of_words: a logistic regression over the words of a text;
- features, features_lower, features_mini: one over features of words, with capitals and without,
  and with the vectors of the frozen `mini` added to the first;
- always_silent, nearest_words: no answer to any question, and a rule.

Each (set, arm) is kept in WORK when it is done; a later call goes on. When all are there, the
record experiments/results/folds.json is written: for each arm the score of each fold, their mean
with its interval by Student's t, and that of the difference of `mini` and the arm, fold by fold.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from entities import frozen_vectors
from runs import judge, write_whole

from electra_tutorial import recorded
from electra_tutorial.baselines import nearest_span, word_tagger_baseline
from electra_tutorial.breakdowns import cross_validate
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.finetuning import bag_of_words_baseline, fine_tune
from electra_tutorial.heads import AnyEvaluation
from electra_tutorial.metrics import t_interval
from electra_tutorial.questions import AnswerEvaluation, Span
from electra_tutorial.tasks import Task, load_task

FOLDS = 5
SEED = 0
CLASSIFIER = FineTuningConfig(
    learning_rate=7e-4, layerwise_decay=1.0, epochs=4, batch_size=16, dropout=0.0, onednn=True
)
CONFIGS = {  # those of chapters 6.1 to 6.4
    "topics": CLASSIFIER,
    "reviews": replace(
        CLASSIFIER, learning_rate=3e-4, layerwise_decay=0.8, epochs=3, max_length=64
    ),
    "messages": CLASSIFIER,
    "entities": replace(CLASSIFIER, epochs=6),
    "passages": replace(CLASSIFIER, learning_rate=5e-4, epochs=2, window_overlap=32),
}
Fit = Callable[[Task], AnyEvaluation]


def fine_tuned(name: str, from_scratch: bool) -> Fit:
    """Fine-tunes `mini`, or its network from random weights, as the chapter of the set does."""
    config = replace(CONFIGS[name], seed=SEED)

    def fit(task: Task) -> AnyEvaluation:
        return judge(fine_tune("mini", task, config, from_scratch=from_scratch), task, config)

    return fit


def by_rule(answer: Callable[[str, str], Span | None]) -> Fit:
    """Gives what `answer` says to question and context; None is silence."""

    def fit(task: Task) -> AnswerEvaluation:
        given = [
            answer(question, context)
            for question, context in zip(task.test["question"], task.test["context"], strict=True)
        ]
        return AnswerEvaluation.of(
            [list(answers["text"]) for answers in task.test["answers"]],
            [[span or Span("", 0, 0, 0.0)] for span in given],
            np.asarray([-1.0 if span else 1.0 for span in given]),
            loss=float("nan"),
            threshold=0.0,
        )

    return fit


def arms_of(task: Task) -> dict[str, Fit]:
    """The ways of training that are compared on a set."""
    networks = {
        "mini": fine_tuned(task.name, from_scratch=False),
        "random": fine_tuned(task.name, from_scratch=True),
    }
    if task.kind == "token-classification":
        return networks | {
            "features": word_tagger_baseline,
            "features_lower": lambda fold: word_tagger_baseline(fold, capitals=False),
            "features_mini": lambda fold: word_tagger_baseline(fold, vectors=frozen_vectors()),
        }
    if task.kind == "question-answering":
        return networks | {
            "always_silent": by_rule(lambda question, context: None),
            "nearest_words": by_rule(nearest_span),
        }
    return networks | {"bag_of_words": bag_of_words_baseline}


def summary(scores: dict[str, list[float]]) -> dict[str, Any]:
    """Means and intervals of the arms, and of what `mini` has more than each of the others."""
    ahead = {
        arm: np.subtract(scores["mini"], values).tolist()
        for arm, values in scores.items()
        if arm != "mini"
    }
    return {
        "scores": scores,
        "mean": {arm: float(np.mean(values)) for arm, values in scores.items()},
        "interval": {arm: t_interval(values) for arm, values in scores.items()},
        "difference": {arm: float(np.mean(values)) for arm, values in ahead.items()},
        "difference_interval": {arm: t_interval(values) for arm, values in ahead.items()},
    }


def main() -> None:
    """Do what WORK lacks, then write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for finished arms")
    parser.add_argument("--threads", type=int, help="of PyTorch; all cores if not given")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"folds": FOLDS}
    data, seconds = {}, 0.0
    for name, config in CONFIGS.items():
        task = load_task(name, quiet=True)
        scores = {}
        for arm, fit in arms_of(task).items():
            path = options.work / f"{name}-{arm}.json"
            if not path.is_file():
                started = time.perf_counter()
                found = cross_validate(task, fit, FOLDS, SEED)
                took = time.perf_counter() - started
                write_whole(path, {"scores": list(found.scores), "seconds": took})
                print(f"{name} {arm}: {found.mean:.3f}, {took:.0f} s", flush=True)
            kept = json.loads(path.read_text())
            scores[arm], seconds = kept["scores"], seconds + kept["seconds"]
        rows = len(task.train) + len(task.validation) + len(task.test)
        data[name] = {"source": "builtin", "revision": task.revision}
        results[name] = {"metric": task.metric, "rows": rows, "config": asdict(config)}
        results[name] |= summary(scores)
    recorded.write(
        "folds",
        command="python experiments/folds.py --work WORK",
        seeds=[SEED],
        data=data,
        seconds=seconds,
        results=results,
    )


if __name__ == "__main__":
    main()
