"""Arms times seeds of pre-training: run in parallel, kept one by one, compared with intervals.

Every experiment on pre-training in this folder is a dictionary of arms, each a `PretrainingConfig`,
and calls `main()`. A run is its settings, seed included: it is kept in
WORK/SCALE/runs/<digest of the settings>.json when it is done, so that an interrupted experiment
goes on where it stopped, and two experiments that have an arm in common run it once.

    python experiments/NAME.py --work WORK [--scale language|cpu|gpu --text TEXT] [--jobs N]

The scale `language` reads the artificial language of `language.py` and needs nothing else. For the
others, TEXT is a folder with train-*.txt.xz and valid.txt.xz (one paragraph a line, a blank line
between documents): the first run makes WORK/SCALE/data from it and from AG News in the folder that
ELECTRA_TUTORIAL_HUB_DIR names; with that folder, neither text nor `datasets` is needed any more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from language import STATES, SYMBOLS, Language, make_tokenizer, token_ids
from quality import IGNORED, LabelledRows, Tuning, fine_tuned_accuracy, prepare_rows
from torch import Tensor

from electra_tutorial import recorded
from electra_tutorial.config import PretrainingConfig, get_size
from electra_tutorial.corpora import Corpus, load_corpus
from electra_tutorial.evaluation import Corruptions, frequency_corruptions, mask_segments
from electra_tutorial.flops import count_training_flops
from electra_tutorial.initialization import cooccurrence_embeddings, start_embeddings
from electra_tutorial.metrics import discriminator_metrics, t_interval, unigram_entropy
from electra_tutorial.segments import Segments, build_segments
from electra_tutorial.tokenization import load_tokenizer, train_wordpiece
from electra_tutorial.training import build_model, pretrain

Arms = dict[str, PretrainingConfig]

METRICS = (
    "fixed_auc",  # the discriminator's, on the fixed corruptions
    "accuracy",  # of the kept network on labelled rows, after fine-tuning
    "held_out_auc",  # on corruptions of the run's own generator
    "held_out_generator_loss",
    "held_out_masked_accuracy",
    "held_out_kept_loss",  # of a kept network that predicts tokens, on its own kind of input
    "held_out_kept_masked_accuracy",
    "discriminator_loss",  # on training batches since the last point
)

LEVELS = (0.55, 0.6, 0.65, 0.7)  # of the AUC on the fixed corruptions: where was it reached first


@dataclass(frozen=True)
class Scale:
    """What all experiments of one size have in common.

    Attributes:
        base: the ELECTRA arm; its `steps` are those of every arm, or set every arm's compute.
        vocab_size: of the word pieces, trained on the first shard; or the language's symbols and
            special tokens.
        shards: files of text to train on; 0 for the artificial language.
        held_out: segments that are corrupted once, by word frequency, and judge all runs.
        rows: labelled rows to fine-tune on, and to judge on.
        tuning: how these are learnt.
        points: how often a run is judged, besides at its start.
        threads: of each process.
    """

    base: PretrainingConfig
    vocab_size: int
    shards: int
    held_out: int
    rows: tuple[int, int]
    tuning: Tuning
    points: int
    threads: int | None


LANGUAGE_ROWS = 76_800  # texts to pre-train on: as many as the base reads in one pass

NANO = PretrainingConfig(
    size="nano",
    steps=1_200,
    batch_size=64,
    sequence_length=16,
    learning_rate=1e-3,
    warmup_steps=60,
    generator_fraction=0.25,
    dropout=0.0,
    initializer_range=0.06,
    positions="sinusoid",
    precision="bf16",
)
"""Small enough for a hundred runs in a few hours of one core; departs from the paper where the
network would learn nothing in that time. Segments are short: after 0.46 million word pieces the AUC
was 0.66 in segments of 16 and 0.60 in segments of 32."""

SCALES = {
    # Enough steps to leave the plateau: the discriminator's AUC stays near 0.6 for the first third.
    "language": Scale(
        base=NANO,
        vocab_size=SYMBOLS + 5,
        shards=0,
        held_out=1_024,
        rows=(50, 1_000),
        tuning=Tuning(epochs=20, batch_size=10, learning_rate=1e-3),
        points=8,
        threads=1,
    ),
    # Text, from embeddings with a start: random ones would learn nothing in that time.
    "cpu": Scale(
        base=replace(NANO, steps=1_500, warmup_steps=75, embeddings="cooccurrence"),
        vocab_size=4_096,
        shards=1,
        held_out=1_024,
        rows=(1_000, 4_000),
        tuning=Tuning(epochs=6, batch_size=25, learning_rate=1e-3),
        points=3,
        threads=1,
    ),
    # The paper's Small, for a sixteenth of its steps.
    "gpu": Scale(
        base=PretrainingConfig(
            steps=62_500, warmup_steps=2_500, generator_fraction=0.25, precision="bf16"
        ),
        vocab_size=30_522,
        shards=8,
        held_out=2_048,
        rows=(5_000, 7_600),
        tuning=Tuning(epochs=6, batch_size=25, learning_rate=1e-3),
        points=10,
        threads=None,
    ),
}


@dataclass(frozen=True)
class Experiment:
    """One question, asked with several settings and several seeds.

    Attributes:
        name: of the script and of the recorded file.
        arms: makes the arms from the base settings of a scale.
        reference: the arm with which the others are compared, seed by seed.
        seeds: how many; fewer are not recorded.
        scale: a key of `SCALES`, unless the command line names another.
        equal_compute: give every arm as many steps as the compute of the base pays for.
        fine_tune: measure the kept network on labelled rows as well.
        points: how often a run is judged, if not as often as the scale says.
    """

    name: str
    arms: Callable[[PretrainingConfig], Arms]
    reference: str
    seeds: int = 5
    scale: str = "language"
    equal_compute: bool = False
    fine_tune: bool = True
    points: int | None = None


# ---------------------------------------------------------------- data


def prepare(scale: Scale, folder: Path, text: Path | None, hub: Path | None) -> dict[str, Any]:
    """Make tokenizer, segments, starting embeddings and labelled rows once; returns their facts.

    Raises:
        ValueError: if they are not there and `text`, which the scale needs, is not given.
    """
    facts_file = folder / "facts.json"
    if facts_file.is_file():
        return dict(json.loads(facts_file.read_text()))
    if scale.shards and text is None:
        raise ValueError(f"{folder} holds no prepared data: name the text with --text.")
    folder.mkdir(parents=True, exist_ok=True)
    facts = prepare_text(scale, folder, text, hub) if text else prepare_language(scale, folder)
    partial = facts_file.with_suffix(".partial")
    partial.write_text(json.dumps(facts, indent=1) + "\n")
    partial.replace(facts_file)
    return facts


def prepare_language(scale: Scale, folder: Path) -> dict[str, Any]:
    """Write texts in the artificial language; the labels are the states behind their symbols."""
    language, tokenizer = Language.draw(), make_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    length = scale.base.sequence_length - 2  # [CLS] and [SEP]
    pad = int(tokenizer.pad_token_id)
    texts = {}
    counts = {"train": LANGUAGE_ROWS, "valid": scale.held_out, "learn": scale.rows[0]}
    for seed, (name, rows) in enumerate((counts | {"test": scale.rows[1]}).items(), start=1):
        texts[name] = language.sample(rows, length, seed)
    for name in ("train", "valid"):
        Segments(token_ids(texts[name][1], tokenizer), pad).save(folder / f"{name}.npy")
    labelled = {
        name: torch.from_numpy(array.astype(np.int64))
        for part, (states, symbols) in (("train", texts["learn"]), ("test", texts["test"]))
        for name, array in (
            (f"{part}_ids", token_ids(symbols, tokenizer)),
            (f"{part}_labels", np.pad(states, ((0, 0), (1, 1)), constant_values=IGNORED)),
        )
    }
    LabelledRows(**labelled).write(folder / "labelled.npz")
    valid = Segments.open(folder / "valid.npy")
    return {
        "vocabulary": len(tokenizer),
        "train_tokens": LANGUAGE_ROWS * (length + 2),
        "unigram_entropy": unigram_entropy(valid.input_ids, tokenizer.all_special_ids),
        "labelled": {"name": "states of the language", "states": STATES} | counts,
        "files": {
            f"{name}.npy": recorded.hash_file(folder / f"{name}.npy")
            for name in counts
            if name != "learn"
        },
        **language.bounds(*texts["test"]),
    }


def prepare_text(scale: Scale, folder: Path, text: Path, hub: Path | None) -> dict[str, Any]:
    """Cut the text into segments of word pieces, and take labelled rows from AG News."""
    files = [text / f"train-{shard:02d}.txt.xz" for shard in range(scale.shards)]
    documents = [load_corpus(file).documents for file in files]
    tokenizer = train_wordpiece(documents[0], scale.vocab_size)
    tokenizer.save_pretrained(folder / "tokenizer")
    length = scale.base.sequence_length
    corpus = Corpus("train", tuple(document for shard in documents for document in shard))
    segments = build_segments(corpus, tokenizer, length, folder / "train.npy")
    valid = load_corpus(text / "valid.txt.xz")
    held_out = build_segments(valid, tokenizer, length, folder / "valid.npy")
    started = time.perf_counter()
    words = cooccurrence_embeddings(
        segments,
        len(tokenizer),
        get_size(scale.base.size).embedding_size,
        ignore_ids=tokenizer.all_special_ids,
    )
    seconds = time.perf_counter() - started
    np.save(folder / "words.npy", words.numpy())
    judged = held_out.take(slice(0, scale.held_out))
    replaced = frequency_corruptions(mask_segments(judged, tokenizer), judged, tokenizer)
    return {
        "cooccurrence_seconds": seconds,
        "cooccurrence_auc": auc_without_network(words, replaced, tokenizer.all_special_ids),
        "vocabulary": len(tokenizer),
        "train_tokens": segments.num_tokens,
        "unigram_entropy": unigram_entropy(held_out.input_ids, tokenizer.all_special_ids),
        "labelled": prepare_rows(
            folder / "labelled.npz", tokenizer, length, *scale.rows, directory=hub
        ),
        "files": {file.name: recorded.hash_file(file) for file in [*files, text / "valid.txt.xz"]},
    }


def auc_without_network(
    words: Tensor, corruptions: Corruptions, special_ids: Sequence[int], window: int = 4
) -> float:
    """How well word vectors alone, (vocab, dim), find replaced tokens.

    A token is the more suspicious the lower the mean product of its vector with those of the tokens
    up to `window` places away: the window of the statistics.
    """
    ids = corruptions.corrupted_ids
    is_word = ~torch.isin(ids, torch.tensor(special_ids))
    vectors = words[ids] * is_word[..., None]
    places = torch.arange(ids.shape[1])
    apart = (places[:, None] - places).abs()
    near = ((apart > 0) & (apart <= window)).to(vectors)
    neighbours = (is_word.to(vectors) @ near)[..., None].clamp(min=1)
    fit = (vectors * (near @ vectors) / neighbours).sum(-1)
    return discriminator_metrics(-fit, corruptions.is_replaced, is_word)["auc"]


# ---------------------------------------------------------------- one run


def plan(experiment: Experiment, scale: Scale, vocab_size: int) -> Arms:
    """The arms with their steps: the base's, or as many as its compute pays for."""
    arms = experiment.arms(scale.base)
    if experiment.equal_compute:
        budget = count_training_flops(scale.base, vocab_size=vocab_size).run
        for name, config in arms.items():
            steps = round(budget / count_training_flops(config, vocab_size=vocab_size).step)
            warmup = round(config.warmup_steps * steps / scale.base.steps)
            arms[name] = replace(config, steps=steps, warmup_steps=warmup)
    return arms


def with_points(config: PretrainingConfig, points: int) -> PretrainingConfig:
    """Judge the run `points` times, at equal distances; its last step is always judged."""
    every = -(-config.steps // points)
    return replace(config, log_every=every, evaluate_every=every)


def run_file(folder: Path, config: PretrainingConfig) -> Path:
    """Where a run is kept: its name follows from its settings."""
    settings = json.dumps(asdict(config), sort_keys=True)
    return folder / "runs" / f"{hashlib.sha256(settings.encode()).hexdigest()[:16]}.json"


def read_run(
    folder: Path, config: PretrainingConfig, tuning: Tuning | None
) -> dict[str, Any] | None:
    """The run with these settings; None if it was not made, or not judged on labelled rows so."""
    path = run_file(folder, config)
    if not path.is_file():
        return None
    made: dict[str, Any] = json.loads(path.read_text())
    return made if tuning is None or made["fine_tuning"] == asdict(tuning) else None


def run(
    config: PretrainingConfig, folder: Path, scale: Scale, tuning: Tuning | None
) -> dict[str, Any]:
    """Pre-train once, judge at every point, keep the result; returns the last point."""
    if scale.threads:
        torch.set_num_threads(scale.threads)
    data = folder / "data"
    tokenizer = load_tokenizer(data / "tokenizer")
    segments = Segments.open(data / "train.npy")
    held_out = Segments.open(data / "valid.npy").take(slice(0, scale.held_out))
    corruptions = frequency_corruptions(mask_segments(held_out, tokenizer), held_out, tokenizer)
    rows = LabelledRows.open(data / "labelled.npz", *scale.rows)
    # the statistics of the text were counted once for all runs
    model = build_model(replace(config, embeddings="random"), segments, tokenizer)
    if config.embeddings == "cooccurrence":
        start_embeddings(model, torch.from_numpy(np.load(data / "words.npy")))
    cost = count_training_flops(config, vocab_size=len(tokenizer))
    points: list[dict[str, Any]] = []

    def judge(entry: dict[str, Any]) -> None:
        point = entry | {"flops": cost.step * entry["step"]}
        if tuning:
            encoder = model.discriminator.electra
            found = fine_tuned_accuracy(encoder, rows, tuning, config.seed, config.precision)
            point["accuracy"] = found
        points.append(point)

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        pretrain(
            config,
            segments,
            tokenizer,
            output,
            model=model,
            held_out=held_out,
            corruptions=corruptions,
            save=False,
            callback=judge,
            show_progress=False,
        )
    result = {
        "config": asdict(config),
        "code_version": recorded.code_version(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "flops_per_step": {"generator": cost.generator, "kept": cost.main},
        "wall_seconds": time.perf_counter() - started,
        "fine_tuning": tuning and asdict(tuning),
        "points": points,
    }
    path = run_file(folder, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(path)
    return points[-1]


def run_missing(
    configs: Sequence[PretrainingConfig],
    folder: Path,
    scale: Scale,
    tuning: Tuning | None,
    jobs: int,
) -> None:
    """Run what is not there yet, `jobs` at a time, each in a process of its own."""
    missing = [c for c in configs if read_run(folder, c, tuning) is None]
    print(f"{len(configs) - len(missing)} of {len(configs)} runs are there", flush=True)
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running = {pool.submit(run, c, folder, scale, tuning): c for c in missing}
        for done, future in enumerate(as_completed(running), 1):
            last = future.result()
            figures = {name: round(last[name], 4) for name in METRICS if name in last}
            config = running[future]
            print(
                f"{done}/{len(missing)} {config.objective}, seed {config.seed}", figures, flush=True
            )


# ---------------------------------------------------------------- analysis


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation and 95 % interval of the mean (Student's t) over the seeds."""
    array = np.asarray(values, dtype=float)
    summary: dict[str, Any] = {"mean": float(array.mean()), "values": array.tolist()}
    if len(array) > 1:
        summary |= {
            "standard_deviation": float(array.std(ddof=1)),
            "interval": list(t_interval(summary["values"])),
        }
    return summary


def first_reached(curves: dict[str, Any], level: float) -> list[dict[str, float] | None]:
    """Where each seed was first judged at this AUC or above: step and seconds; None for never."""
    reached: list[dict[str, float] | None] = []
    for values in curves["fixed_auc"]:
        places = [place for place, value in enumerate(values) if value >= level]
        place = places[0] if places else None
        at = {} if place is None else {key: curves[key][place] for key in ("step", "seconds")}
        reached.append(at or None)
    return reached


def analyse(
    runs: dict[str, list[dict[str, Any]]], reference: str, facts: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Final figures of every arm and their paired differences from the reference; the curves.

    The runs of one seed read the same text in the same order, so that arms are compared seed by
    seed. Intervals say what other seeds would give, not other texts or labelled rows. The clock of
    an arm runs at the speed of the fastest stretch among runs with the same operations, so that
    other work on the machine does not count. A start from co-occurrence begins with the seconds
    that its statistics took.
    """
    results: dict[str, Any] = {"reference": reference, "arms": {}}
    curves: dict[str, Any] = {}
    base = runs[reference][0]["config"]
    for arm, seeds in runs.items():
        first, last = seeds[0], [one["points"][-1] for one in seeds]
        entry: dict[str, Any] = {
            "differs": {
                key: value
                for key, value in first["config"].items()
                if value != base[key] and key not in ("log_every", "evaluate_every")
            },
            "steps": first["config"]["steps"],
            "tokens": last[0]["tokens"],
            "flops": last[0]["flops"],
            "flops_per_step": first["flops_per_step"],
            "parameters": first["parameters"],
        }
        curves[arm] = {
            key: [p[key] for p in first["points"]] for key in ("step", "tokens", "flops")
        }
        alike = [
            one
            for arms in runs.values()
            for one in arms
            if one["flops_per_step"] == first["flops_per_step"]
        ]
        speeds = [p["tokens_per_second"] for one in alike for p in one["points"][1:]]
        counted = first["config"]["embeddings"] == "cooccurrence"
        start = facts["cooccurrence_seconds"] if counted else 0.0
        entry["tokens_per_second"] = max(speeds)
        curves[arm]["seconds"] = [
            round(start + tokens / max(speeds), 2) for tokens in curves[arm]["tokens"]
        ]
        for name in METRICS:
            if any(point.get(name) is None for point in last):
                continue
            entry[name] = spread([point[name] for point in last])
            others = [one["points"][-1].get(name) for one in runs[reference]]
            if arm != reference and None not in others:
                pairs = zip(entry[name]["values"], others, strict=True)
                entry[name]["difference"] = spread([ours - theirs for ours, theirs in pairs])
            curves[arm][name] = [[p.get(name) for p in one["points"]] for one in seeds]
        if "fixed_auc" in curves[arm]:
            entry["reached"] = {f"{level:g}": first_reached(curves[arm], level) for level in LEVELS}
        results["arms"][arm] = entry
    return results, curves


def main(experiment: Experiment, description: str) -> None:
    """Read the command line, run what is missing, record the experiment when it is complete."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="keeps data and finished runs")
    parser.add_argument("--text", type=Path, help="needed once, to prepare the data")
    parser.add_argument("--hub", type=Path, help="labelled data; else ELECTRA_TUTORIAL_HUB_DIR")
    parser.add_argument("--scale", choices=SCALES, default=experiment.scale)
    parser.add_argument("--seeds", type=int, default=experiment.seeds)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a process each")
    parser.add_argument("--dry-run", action="store_true", help="a few steps; nothing is recorded")
    options = parser.parse_args()
    scale, folder = SCALES[options.scale], options.work / options.scale
    facts = prepare(scale, folder / "data", options.text, options.hub)
    arms = plan(experiment, scale, facts["vocabulary"])
    if options.dry_run:
        scale = replace(scale, held_out=32, rows=(50, 100))
        arms = {arm: replace(config, steps=8, warmup_steps=1) for arm, config in arms.items()}
    points = experiment.points or scale.points
    arms = {arm: with_points(config, points) for arm, config in arms.items()}
    configs = [replace(c, seed=seed) for seed in range(options.seeds) for c in arms.values()]
    tuning = scale.tuning if experiment.fine_tune else None
    run_missing(configs, folder, scale, tuning, options.jobs)

    runs: dict[str, list[dict[str, Any]]] = {
        arm: [
            json.loads(run_file(folder, replace(config, seed=seed)).read_text())
            for seed in range(options.seeds)
        ]
        for arm, config in arms.items()
    }
    results, curves = analyse(runs, experiment.reference, facts)
    print(json.dumps(results, indent=1))
    if options.dry_run or options.seeds < experiment.seeds:
        print("not recorded: too few steps or seeds")
        return
    everything = [one for seeds in runs.values() for one in seeds]
    results |= {
        "scale": options.scale,
        "base": asdict(scale.base),
        "fine_tuning": tuning and asdict(tuning),
        "code_versions_of_runs": sorted({one["code_version"] for one in everything}),
        "facts": {key: value for key, value in facts.items() if key not in ("files", "labelled")},
    }
    as_meant = options.scale == experiment.scale
    name = experiment.name if as_meant else f"{experiment.name}_{options.scale}"
    recorded.write(
        name,
        seeds=range(options.seeds),
        data=facts["files"] | ({"labelled": facts["labelled"]} if tuning else {}),
        seconds=sum(one["wall_seconds"] for one in everything),
        results=results,
        curves=curves,
    )
