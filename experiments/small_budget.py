"""What fifty seconds of pre-training on one core teach, for three starts; drawn in chapter 5.2.

    python experiments/small_budget.py [--seconds 50] [--seeds 3]

All three runs read the documentation of Python (`corpora.python_documentation`) with the size
`nano`, for the same time. Their discriminators are judged on held-out documents corrupted once,
with tokens drawn by frequency, so that the curves compare:

- paper: the settings of the paper's Small model, schedule cut to the run;
- word_pieces: embeddings started from co-occurrence statistics, sinusoid positions;
- characters: one token a character, random embeddings, sinusoid positions, a smaller lambda.

The learning rate decays over the steps that fit into the time, which a few steps measure first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from electra_tutorial import corpora, recorded
from electra_tutorial.config import PretrainingConfig
from electra_tutorial.metrics import unigram_entropy
from electra_tutorial.tokenization import train_characters, train_wordpiece
from electra_tutorial.training import frequency_corruptions, mask_segments, pretrain

POINTS = 8
PAPER = PretrainingConfig(size="nano", batch_size=16, sequence_length=64, generator_fraction=0.5)
WORD_PIECES = replace(
    PAPER,
    learning_rate=1e-3,
    generator_fraction=None,
    dropout=0.0,
    initializer_range=0.06,
    embeddings="cooccurrence",
    positions="sinusoid",
)
CHARACTERS = replace(
    WORD_PIECES,
    batch_size=32,
    sequence_length=32,
    discriminator_weight=10.0,
    generator_fraction=0.5,
    initializer_range=0.1,
    embeddings="random",
)
ARMS = {"paper": PAPER, "word_pieces": WORD_PIECES, "characters": CHARACTERS}


def measure(
    config: PretrainingConfig,
    text: tuple[corpora.Corpus, corpora.Corpus],
    seconds: float,
    seeds: int,
    characters: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run one arm with several seeds; returns its final figures and its curves."""
    train, held_out = text
    if characters:
        tokenizer = train_characters(train.documents)
    else:
        tokenizer = train_wordpiece(train.documents, 4096)
    segments = corpora.build_segments(train, tokenizer, config.sequence_length)
    judged = corpora.build_segments(held_out, tokenizer, config.sequence_length)
    judged = judged.take(slice(0, 16_384 // config.sequence_length))
    fixed = frequency_corruptions(mask_segments(judged, tokenizer), segments, tokenizer)

    def run(config: PretrainingConfig) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:  # a new run refuses the folder of another
            return pretrain(
                config,
                segments,
                tokenizer,
                Path(folder),
                held_out=judged,
                corruptions=fixed,
                save=False,
            ).log

    trial = replace(config, steps=30, warmup_steps=3, log_every=10, evaluate_every=30)
    log = run(trial)
    each = (log[-2]["seconds"] - log[-3]["seconds"]) / 10
    steps = POINTS * max(1, round(seconds / each / POINTS))
    every = steps // POINTS
    config = replace(
        config, steps=steps, warmup_steps=steps // 10, log_every=every, evaluate_every=every
    )
    logs = [run(replace(config, seed=seed)) for seed in range(seeds)]

    def stack(key: str) -> np.ndarray:
        return np.array([[entry[key] for entry in log] for log in logs])

    keys = ("fixed_auc", "held_out_auc", "held_out_generator_loss", "held_out_masked_accuracy")
    results: dict[str, Any] = {
        key: [float(stack(key)[:, -1].mean()), float(stack(key)[:, -1].std(ddof=1))] for key in keys
    }
    results |= {
        "unigram_entropy": unigram_entropy(judged.input_ids, tokenizer.all_special_ids),
        "steps": steps,
        "tokens": logs[0][-1]["tokens"],
        "vocabulary": len(tokenizer),
    }
    clock = np.array([[entry["seconds"] for entry in log] for log in logs]).mean(0)
    curves = {"seconds": clock.round(1).tolist(), "tokens": [e["tokens"] for e in logs[0]]}
    return results, curves | {key: stack(key).round(4).tolist() for key in keys}


def main() -> None:
    """Run the three arms and write experiments/results/small_budget.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    started = time.perf_counter()
    corpus = corpora.python_documentation()
    text = corpus.split()
    results: dict[str, Any] = {"seconds_each": options.seconds}
    curves: dict[str, Any] = {}
    for name, config in ARMS.items():
        results[name], curves[name] = measure(
            config, text, options.seconds, options.seeds, characters=name == "characters"
        )
        print(name, json.dumps(results[name]), flush=True)
    recorded.write(
        "small_budget",
        seeds=range(options.seeds),
        data={"python-documentation": recorded.hash_texts(corpus.documents)},
        seconds=time.perf_counter() - started,
        results=results,
        curves=curves,
    )


if __name__ == "__main__":
    main()
