"""The command `pretrain`, and how settings become options of a command."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from electra_tutorial.cli_deployment import Commands
from electra_tutorial.config import PretrainingConfig

LAUNCHING = """\
several processes: --batch-size is the batch of all of them together, and OUTPUT a folder that
all of them see
  the 8 GPUs of one machine:
    accelerate launch --multi_gpu --num_processes 8 -m electra_tutorial.cli pretrain ...
  two machines of 8 GPUs, the same line on both but for --machine_rank, 0 on the first, 1 on
  the second:
    accelerate launch --multi_gpu --num_machines 2 --num_processes 16 --machine_rank 0 \\
      --main_process_ip ADDRESS_OF_THE_FIRST --main_process_port 29500 \\
      -m electra_tutorial.cli pretrain ...
  two processes on the CPU:
    torchrun --nproc-per-node 2 -m electra_tutorial.cli pretrain ...
SIGTERM and Ctrl-C end a run after the current step, with a checkpoint; go on with --resume.
"""


def add_settings(command: argparse.ArgumentParser, settings: type) -> None:
    """An option for each field of a dataclass of settings, with the field's default.

    An option that is not given leaves no trace in the result, so that a default can be told from a
    choice.
    """
    group = command.add_argument_group("settings")
    for field in dataclasses.fields(settings):
        default: Any = field.default
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(default, bool):
            on_or_off = argparse.BooleanOptionalAction
            group.add_argument(
                option, action=on_or_off, default=argparse.SUPPRESS, help=f"default: {default}"
            )
            continue
        group.add_argument(
            option,
            type=float if default is None else type(default),
            default=argparse.SUPPRESS,
            metavar=field.name.upper(),
            help="default: from the size" if default is None else f"default: {default}",
        )


def given_settings(options: argparse.Namespace, settings: type) -> dict[str, Any]:
    """The settings that were named on the command line."""
    names = [field.name for field in dataclasses.fields(settings)]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def add_pretrain(commands: Commands) -> None:
    command = commands.add_parser(
        "pretrain",
        help="train generator and discriminator together on a text",
        description="Train generator and discriminator together. Writes OUTPUT/log.jsonl, "
        "checkpoints, and at the end OUTPUT/final/discriminator and OUTPUT/final/generator.",
        epilog=LAUNCHING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = command.add_mutually_exclusive_group(required=True)
    text.add_argument(
        "--corpus",
        metavar="TEXT",
        help="a text file, a folder of them, or python-documentation; documents end with a blank "
        "line. The text may be larger than memory: it is read as it comes, more than once (to "
        "train a tokenizer, to recognise the text, and, if no earlier run has left them in the "
        "cache, to cut it into segments)",
    )
    text.add_argument(
        "--segments",
        type=Path,
        metavar="FILE",
        help="a .npy file of segments instead of a text, with --tokenizer that made it",
    )
    command.add_argument("--output", required=True, type=Path, help="folder of the run")
    command.add_argument(
        "--checkpoint",
        metavar="SOURCE",
        help="start from the discriminator/ and generator/ in this folder, from a checkpoint-* of "
        "another run, from mini, or, with --generator, from a discriminator in a folder or on the "
        "hub. What it is made of (objective, size, sharing, generator fraction, initializer range) "
        "stays as it is; dropout and discriminator weight too, unless they are given",
    )
    command.add_argument(
        "--generator",
        metavar="SOURCE",
        help="the generator of a --checkpoint that is a discriminator alone: google/"
        "electra-base-generator for google/electra-base-discriminator. Not google/"
        "electra-small-generator: it is as wide as its discriminator, too good a generator to "
        "learn from. --objective and --sharing say how the two are joined",
    )
    command.add_argument(
        "--tokenizer",
        metavar="SOURCE",
        help="a folder, a vocab.txt, a hub id or mini; default: the checkpoint's, or a WordPiece "
        "vocabulary of the size's length, trained on the text",
    )
    command.add_argument(
        "--held-out",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of the documents, or of the segments at the end of the file, to set aside and "
        "judge the run on (default: %(default)s; 0 for none). Each document's own text decides, "
        "the same way whatever the --seed",
    )
    command.add_argument(
        "--held-out-segments",
        type=int,
        default=1024,
        metavar="NUMBER",
        help="judge it on at most so many of them (default: %(default)s)",
    )
    command.add_argument(
        "--fixed-corruptions",
        action="store_true",
        help="judge the run on one more set, the same for every run on this text: these segments, "
        "masked once and filled with words drawn by their frequency. Without it a run is judged on "
        "what its own generator puts in (held_out_auc in the log), which gets harder as the "
        "generator learns and is another task in every run, so that curves of two runs do not "
        "compare. Figures on the fixed set are called fixed_... (fixed_auc); which set it was "
        "stands in OUTPUT/fixed_corruptions.json, whose fingerprint must be equal for two runs "
        "to compare",
    )
    command.add_argument(
        "--packing", default="dense", help="of the text into segments: dense (default) or official"
    )
    command.add_argument(
        "--workers", type=int, default=1, help="processes that tokenize (default: %(default)s)"
    )
    command.add_argument(
        "--tracker",
        action="append",
        default=[],
        metavar="NAME",
        help="show the log in a tracker of Accelerate too, for example tensorboard; may be "
        "repeated",
    )
    command.add_argument("--resume", action="store_true", help="go on with the run in OUTPUT")
    command.add_argument("--max-seconds", type=float, metavar="SECONDS", help="stop after this")
    add_settings(command, PretrainingConfig)
    command.set_defaults(run=_pretrain)


def _pretrain(options: argparse.Namespace) -> int:
    from electra_tutorial.resuming import refuse_to_overwrite
    from electra_tutorial.training import join_processes, pretrain

    config = PretrainingConfig(**given_settings(options, PretrainingConfig))
    if not options.resume:
        refuse_to_overwrite(options.output)
    model = None
    if options.generator is not None and options.checkpoint is None:
        raise ValueError("--generator needs --checkpoint: name its discriminator.")
    if options.checkpoint is not None:
        model, config = _pretraining_start(options, config)
    processes = join_processes()
    with processes.main_process_first():  # the others read what it has written
        tokenizer, segments, held_out = _pretraining_text(
            options, config, processes.is_main_process
        )
        corruptions = _fixed_corruptions(options, held_out, tokenizer, processes.is_main_process)
    if processes.is_main_process:
        print(
            f"{len(segments):,} segments of {segments.sequence_length}; {len(tokenizer):,} tokens."
        )
    result = pretrain(
        config,
        segments,
        tokenizer,
        options.output,
        held_out=held_out,
        corruptions=corruptions,
        model=model,
        resume=options.resume,
        max_seconds=options.max_seconds,
        trackers=options.tracker,
    )
    if processes.is_main_process:
        for name, value in result.log[-1].items():
            print(f"{name:<28} {value:,}" if value is not None else f"{name:<28} none")
        if held_out is not None:
            print(
                "held_out_...: corrupted by this run's own generator; other runs see other words."
            )
        if corruptions is not None:
            print("fixed_...: corrupted by word frequency; compares with runs on the same set.")
        if result.stopped_by:
            print(f"Stopped early ({result.stopped_by}); go on with --resume.")
        if (options.output / "final").is_dir():
            print(f"The two halves are in {options.output / 'final'}.")
    processes.destroy_process_group()
    return 0


def _pretraining_text(
    options: argparse.Namespace, config: PretrainingConfig, writes: bool
) -> tuple[Any, Any, Any]:
    """Return (tokenizer, segments, held-out segments or None); the first process writes them."""
    from electra_tutorial.checkpoints import load_tokenizer_of
    from electra_tutorial.config import get_size
    from electra_tutorial.corpora import (
        Segments,
        cache_directory,
        iterate_documents,
        segments_for,
        split_documents,
    )
    from electra_tutorial.tokenization import load_tokenizer, train_wordpiece

    if not 0 <= options.held_out < 1:
        raise ValueError(f"--held-out is a share between 0 and 1, not {options.held_out!r}.")
    train: Any = None
    aside: Any = None
    if options.corpus is not None:
        train = iterate_documents(options.corpus)
        if next(iter(train), None) is None:
            raise ValueError(f"{options.corpus} is empty: there is no text to learn from.")
        if options.held_out:  # of any seed of the run: runs must compare
            train, aside = split_documents(train, options.held_out, name=options.corpus)
    kept = options.output / "tokenizer"  # a resumed run must read as it did before
    if kept.is_dir() and (options.resume or not writes):
        tokenizer = load_tokenizer(kept)
    elif options.tokenizer is not None:
        tokenizer = load_tokenizer(options.tokenizer)
    elif options.checkpoint is not None:
        tokenizer = load_tokenizer_of(options.checkpoint)
    elif train is not None:
        tokenizer = train_wordpiece(train, get_size(config.size).vocab_size)
    else:
        raise ValueError("--segments needs --tokenizer: name the tokenizer that made the file.")
    if writes and not (options.resume and kept.is_dir()):
        tokenizer.save_pretrained(kept)

    def cut(documents: Any) -> Segments:
        return segments_for(
            documents,
            tokenizer,
            config.sequence_length,
            cache_directory() / "segments",
            packing=options.packing,
            processes=options.workers,
        )

    held_out = None
    if train is not None:
        segments, held_out = cut(train), None if aside is None else cut(aside)
    else:
        segments = Segments.open(options.segments, tokenizer=tokenizer)
        border = len(segments) - round(options.held_out * len(segments))
        if border < len(segments):
            held_out = segments.take(slice(border, None))
            segments = segments.take(slice(0, border))
    if held_out is not None:
        held_out = held_out.take(slice(0, options.held_out_segments))
    return tokenizer, segments, held_out


def _fixed_corruptions(
    options: argparse.Namespace, held_out: Any, tokenizer: Any, writes: bool
) -> Any:
    """Return the set that --fixed-corruptions asks for, described in a file; None if it doesn't."""
    from electra_tutorial.evaluation import (
        describe_corruptions,
        frequency_corruptions,
        mask_segments,
    )

    if not options.fixed_corruptions:
        return None
    if held_out is None:
        raise ValueError("--fixed-corruptions needs text set aside: raise --held-out above 0.")
    # neither the run's seed nor its mask rate: the set belongs to the text
    corruptions = frequency_corruptions(mask_segments(held_out, tokenizer), held_out, tokenizer)
    described = {"filled_by": "word frequency"} | describe_corruptions(corruptions)
    path = options.output / "fixed_corruptions.json"
    if options.resume and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["fingerprint"] != described["fingerprint"]:
            raise ValueError(
                f"the run in {options.output} was judged on another fixed set: resume it with the "
                "held-out text and --held-out-segments that it was started with."
            )
    elif writes:
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    return corruptions


def _pretraining_start(
    options: argparse.Namespace, config: PretrainingConfig
) -> tuple[Any, PretrainingConfig]:
    """Return the model that --checkpoint names, and the settings as they are with it."""
    from electra_tutorial.checkpoints import load_joint_model
    from electra_tutorial.continuing import settings_for

    given = given_settings(options, PretrainingConfig)
    if (config.embeddings, config.positions) != ("random", "random"):
        raise ValueError(
            "--embeddings and --positions say how a new model starts: leave them out with "
            "--checkpoint."
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        model = load_joint_model(
            options.checkpoint, options.generator, config.objective, config.sharing
        )
    for warning in said:
        print(f"electra-tutorial pretrain: warning: {warning.message}", file=sys.stderr)
    return model, settings_for(model, config, given)
