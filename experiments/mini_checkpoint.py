"""Pre-train the bundled checkpoint `mini`, record its curves, publish its weights.

    python experiments/mini_checkpoint.py --text TEXT --output RUN [--threads 1] [--resume]
    python experiments/mini_checkpoint.py --text TEXT --output RUN --reschedule STEPS --resume
    python experiments/mini_checkpoint.py --text TEXT --output RUN --publish

TEXT is a folder with train-*.txt.xz and valid.txt.xz (one paragraph a line, a blank line between
documents); the bundled weights were made from Wikipedia, May 2015. The first form trains and can be
interrupted and resumed. The second goes on with a schedule of another length: the learning rate of
step t is then what it would be in a run of STEPS steps. The third writes
experiments/results/mini_checkpoint.json and electra_tutorial/builtin/mini/ from the last
checkpoint.

The bundled weights took 28,000 steps under three schedules: 8,000 steps to the end, where the
discriminator had just begun to improve quickly; then as of 34,000; from step 15,200 on as of
28,000. RUN/schedules.json says so, and the record repeats it. A new run uses one schedule of
28,000.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from electra_tutorial import recorded, resuming
from electra_tutorial.config import PretrainingConfig
from electra_tutorial.corpora import Corpus, Segments, build_segments, load_corpus
from electra_tutorial.metrics import unigram_entropy
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.tokenization import load_tokenizer, train_wordpiece
from electra_tutorial.training import (
    discriminate,
    evaluate_pretraining,
    frequency_corruptions,
    mask_segments,
    pretrain,
)

BUILTIN = Path(__file__).resolve().parents[1] / "electra_tutorial" / "builtin" / "mini"
SHARDS = 3
HELD_OUT_SEGMENTS = 256

CONFIG = PretrainingConfig(
    size="mini",
    steps=28_000,
    batch_size=16,
    sequence_length=128,
    learning_rate=5e-4,
    warmup_steps=300,
    dropout=0.0,
    initializer_range=0.03,
    embeddings="cooccurrence",
    positions="sinusoid",
    precision="bf16",
    log_every=100,
    evaluate_every=400,
    save_every=800,
)


def prepare(text: Path, output: Path) -> None:
    """Train the vocabulary on the first shard and cut the shards into segments, once."""
    if not (output / "tokenizer").is_dir():
        tokenizer = train_wordpiece(load_corpus(text / "train-00.txt.xz").documents, 8_192)
        tokenizer.save_pretrained(output / "tokenizer")
    tokenizer = load_tokenizer(output / "tokenizer")
    if not (output / "train.npy").is_file():
        documents: tuple[str, ...] = ()
        for shard in range(SHARDS):
            documents += load_corpus(text / f"train-{shard:02d}.txt.xz").documents
        build_segments(Corpus("wikipedia", documents), tokenizer, 128, output / "train.npy")
    if not (output / "valid.npy").is_file():
        build_segments(load_corpus(text / "valid.txt.xz"), tokenizer, 128, output / "valid.npy")


def reschedule(output: Path, steps: int) -> None:
    """Give the last checkpoint a schedule of `steps` steps.

    `pretrain` refuses to resume with other settings, because a run is then no longer the one that
    its log says. This run says it, in schedules.json.
    """
    last = resuming.checkpoints_in(output / "run")[-1] / resuming.STATE
    state = json.loads(last.read_text())
    schedules = _schedules(output) or [{"from_step": 0, "steps": state["config"]["steps"]}]
    schedules.append({"from_step": state["step"], "steps": steps})
    (output / "schedules.json").write_text(json.dumps(schedules) + "\n")
    state["config"]["steps"] = steps
    last.write_text(json.dumps(state, indent=2) + "\n")


def _schedules(output: Path) -> list[dict[str, int]]:
    path = output / "schedules.json"
    return json.loads(path.read_text()) if path.is_file() else []


def train(output: Path, resume: bool, minutes: float | None) -> None:
    """Train, or continue to train, from the prepared files alone."""
    schedules = _schedules(output)
    result = pretrain(
        replace(CONFIG, steps=schedules[-1]["steps"]) if schedules else CONFIG,
        Segments.open(output / "train.npy"),
        load_tokenizer(output / "tokenizer"),
        output / "run",
        held_out=Segments.open(output / "valid.npy").take(slice(0, HELD_OUT_SEGMENTS)),
        resume=resume,
        max_seconds=60 * minutes if minutes else None,
        callback=lambda entry: print(json.dumps(entry), flush=True),
    )
    print("finished" if result.finished else "stopped: continue with --resume")


def publish(text: Path, output: Path) -> None:
    """Judge the final model on more held-out text, write its record and its weights."""
    tokenizer = load_tokenizer(output / "tokenizer")
    model = ElectraForJointPreTraining.from_halves(output / "run" / "final").eval()
    held_out = Segments.open(output / "valid.npy")
    judged = held_out.take(slice(HELD_OUT_SEGMENTS, HELD_OUT_SEGMENTS + 1024))
    log = [json.loads(line) for line in (output / "run" / "log.jsonl").read_text().splitlines()]
    masked = mask_segments(judged, tokenizer, seed=1)
    results: dict[str, Any] = dict(evaluate_pretraining(model, masked))
    by_frequency = frequency_corruptions(masked, judged, tokenizer)
    results["auc_on_frequency_corruptions"] = discriminate(model, by_frequency)["auc"]
    results |= {
        "unigram_entropy": unigram_entropy(judged.input_ids, tokenizer.all_special_ids),
        "steps": log[-1]["step"],
        "tokens": log[-1]["tokens"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out_segments": len(judged),
    }
    schedules = _schedules(output) or [{"from_step": 0, "steps": CONFIG.steps}]
    names = sorted({name for entry in log for name in entry})
    data = {f"train-{shard:02d}": text / f"train-{shard:02d}.txt.xz" for shard in range(SHARDS)}
    recorded.write(
        "mini_checkpoint",
        command="python experiments/mini_checkpoint.py --text TEXT --output RUN --threads 1",
        seeds=[CONFIG.seed],
        data=data | {"valid": text / "valid.txt.xz"},
        seconds=log[-1]["seconds"],
        results=results | {"config": asdict(CONFIG), "schedules": schedules},
        curves={name: [entry.get(name) for entry in log] for name in names},
    )
    card = BUILTIN / "README.md"
    kept = card.read_text() if card.is_file() else None
    model.save_halves(BUILTIN, tokenizer, dtype=torch.float16)
    if kept is not None:
        card.write_text(kept)
    print(json.dumps(results, indent=1))


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; all if absent")
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--reschedule", type=int, metavar="STEPS", help="with --resume")
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.reschedule:
        reschedule(options.output, options.reschedule)
    if options.publish:
        publish(options.text, options.output)
        return
    started = time.perf_counter()
    prepare(options.text, options.output)
    print(f"text ready after {time.perf_counter() - started:.0f} s", flush=True)
    train(options.output, options.resume, options.minutes)


if __name__ == "__main__":
    main()
