"""The command `electra-tutorial`: what a reader uses the package for without writing Python."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electra_tutorial import __version__
from electra_tutorial.cli_deployment import Commands, add_export, add_serve
from electra_tutorial.config import FineTuningConfig, PretrainingConfig

# What a wrong input raises; the message says what to change. Anything else is a bug.
REFUSALS = (
    ValueError,
    TypeError,
    OSError,
    ModuleNotFoundError,
    RuntimeError,
    FloatingPointError,
)

# A word of a sentence, as sets of named entities split it: signs stand alone, but not inside words.
WORD = r"\w+(?:[-'.]\w+)*|[^\w\s]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0, 1 if a notebook failed, 2 if refused."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except REFUSALS as error:
        if options.debug:
            raise
        print(f"electra-tutorial {options.command}: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="electra-tutorial", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_env, _add_pretrain, _add_finetune, _add_evaluate, _add_predict, _add_detect):
        add(commands)
    for add in (add_export, add_serve, _add_run):
        add(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--debug", action="store_true", help="show where an error arose, not only what it says"
        )
    return parser


def _add_settings(command: argparse.ArgumentParser, settings: type) -> None:
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


def _given(options: argparse.Namespace, settings: type) -> dict[str, Any]:
    """The settings that were named on the command line."""
    names = [field.name for field in dataclasses.fields(settings)]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def _settings(options: argparse.Namespace, settings: type) -> Any:
    return settings(**_given(options, settings))


# --- env --------------------------------------------------------------------------------------


def _add_env(commands: Commands) -> None:
    command = commands.add_parser("env", help="print versions and hardware, for a report")
    command.set_defaults(run=_env)


def _env(options: argparse.Namespace) -> int:
    from electra_tutorial import environment

    facts = environment.describe()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    environment.check_python()
    return 0


# --- pretrain ---------------------------------------------------------------------------------


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


def _add_pretrain(commands: Commands) -> None:
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
    _add_settings(command, PretrainingConfig)
    command.set_defaults(run=_pretrain)


def _pretrain(options: argparse.Namespace) -> int:
    from electra_tutorial.resuming import refuse_to_overwrite
    from electra_tutorial.training import join_processes, pretrain

    config: PretrainingConfig = _settings(options, PretrainingConfig)
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

    given = _given(options, PretrainingConfig)
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


# --- finetune, evaluate, predict --------------------------------------------------------------


def _add_task(command: argparse.ArgumentParser, file_option: str) -> None:
    data = command.add_mutually_exclusive_group(required=True)
    data.add_argument("--task", metavar="NAME", help="for example topics, sst2, squad")
    data.add_argument(
        file_option,
        dest="file",
        metavar="FILE",
        help="texts of your own: a .csv or .tsv file, or JSON lines (.jsonl)",
    )
    command.add_argument(
        "--source", default="builtin", help="builtin (default), directory or hub: where it is from"
    )
    command.add_argument(
        "--directory",
        metavar="DIR",
        help="of --source directory, laid out by hub id; default: ELECTRA_TUTORIAL_HUB_DIR",
    )
    for name, default in (("text", "text"), ("label", "label"), ("pair", None)):
        command.add_argument(
            f"--{name}-column",
            metavar="COLUMN",
            default=default,
            help=f"of {file_option}; default: {default or 'no second text'}",
        )


def _columns(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("text_column", "label_column", "pair_column")}


FEW_ROWS = 2_490  # of RTE, the smallest set that the paper fine-tunes on
RECIPES = """\
recipes: which settings an option that you do not give has
  paper  table 7 for ELECTRA-Small, the defaults named above. The paper takes 10 epochs for RTE
         and STS-B and 2 for SQuAD, and its code reads SQuAD with 512 tokens:
           electra-tutorial finetune --task rte --source hub --recipe paper --epochs 10 \\
             --checkpoint google/electra-small-discriminator --output rte
  small  for few rows: --learning-rate 5e-4 --layerwise-decay 1.0 --dropout 0.0
         --batch-size 16, and as many --epochs as make 100 steps, from 3 to 20
  auto   small where there are fewer than 2,490 rows to train on, else paper
Where the model has learned nothing all the same, a warning says what to change.

several processes: --batch-size is the batch of all of them together
  torchrun --nproc-per-node 2 -m electra_tutorial.cli finetune ...
"""


def _add_finetune(commands: Commands) -> None:
    command = commands.add_parser(
        "finetune",
        help="train a model for a task on labelled data",
        description="Train a classifier or another head on labelled data. Of --train a tenth of "
        "the rows is held out, on which the best epoch is chosen.",
        epilog=RECIPES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_task(command, "--train")
    command.add_argument(
        "--checkpoint", default="mini", help="a folder, a hub id, or mini (default, bundled)"
    )
    command.add_argument("--output", required=True, type=Path, help="folder for the model")
    command.add_argument(
        "--from-scratch", action="store_true", help="start from random weights of the same shape"
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted run for OUTPUT, after its last whole epoch",
    )
    command.add_argument(
        "--recipe",
        default="auto",
        choices=("auto", "paper", "small"),
        help="settings for what is not given below: auto (default), paper or small; see the end",
    )
    _add_settings(command, FineTuningConfig)
    # None: not given. Only then does a recipe decide.
    command.set_defaults(
        run=_finetune, **{f.name: None for f in dataclasses.fields(FineTuningConfig)}
    )


def _recipe(options: argparse.Namespace, rows: int) -> tuple[str, FineTuningConfig]:
    """The recipe for so many rows, and its settings, but for those that were given."""
    names = [field.name for field in dataclasses.fields(FineTuningConfig)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    recipe = options.recipe
    if recipe == "auto":
        recipe = "small" if rows < FEW_ROWS else "paper"
    if recipe == "small":
        return recipe, FineTuningConfig.small_set(rows, **given)
    return recipe, FineTuningConfig(**given)


def _finetune(options: argparse.Namespace) -> int:
    from electra_tutorial.finetuning import StayedAtChance, fine_tune
    from electra_tutorial.task_files import load_own_task
    from electra_tutorial.tasks import load_task
    from electra_tutorial.training import join_processes

    processes = join_processes()
    speaks = processes.is_main_process
    with processes.main_process_first():  # the others read what it has downloaded
        if options.file is not None:
            task = load_own_task(options.file, **_columns(options), quiet=not speaks)
        else:
            task = load_task(options.task, options.source, options.directory, quiet=not speaks)
    recipe, config = _recipe(options, len(task.train))
    names = ("learning_rate", "layerwise_decay", "dropout", "batch_size", "epochs")
    chosen = ", ".join(f"{name} {getattr(config, name):g}" for name in names)
    if speaks:
        print(f"Recipe {recipe!r} for {len(task.train):,} rows: {chosen}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StayedAtChance)  # said at the end, without a place in code
        result = fine_tune(
            options.checkpoint,
            task,
            config,
            options.output,
            options.from_scratch,
            show_progress=speaks and sys.stderr.isatty(),
            resume=options.resume,
        )
    processes.destroy_process_group()
    if not speaks:
        return 0
    for row in result.history:
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    print(f"Best on validation: epoch {result.best_epoch}.\n{result.validation.report}")
    print(f"The model is in {options.output}.")
    if result.advice is not None:
        print(f"electra-tutorial finetune: warning: {result.advice}", file=sys.stderr)
    return 0


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="report a fine-tuned model's errors on a split")
    _add_task(command, "--data")
    command.add_argument("--checkpoint", required=True, metavar="DIR", help="written by finetune")
    command.add_argument("--split", default="test", help="train, validation or test (default)")
    command.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from electra_tutorial.checkpoints import reading_of
    from electra_tutorial.prediction import evaluate, load_tuned
    from electra_tutorial.task_files import load_own_rows
    from electra_tutorial.tasks import load_task

    splits = ("train", "validation", "test")
    if options.split not in splits:
        raise ValueError(f"Unknown split {options.split!r}: choose one of {', '.join(splits)}.")
    model: Any
    model, tokenizer = load_tuned(options.checkpoint)
    if options.file is not None:
        names = [model.config.id2label[i] for i in range(model.config.num_labels)]
        rows = load_own_rows(options.file, names, **_columns(options))
    else:
        task = load_task(options.task, options.source, options.directory)
        names, rows = list(task.label_names), getattr(task, options.split)
    found = evaluate(model, tokenizer, rows, names, **reading_of(options.checkpoint))
    print(found.report)
    for name, value in found.metrics.items():
        if f"{name}_interval" in found.metrics:
            low, high = found.metrics[f"{name}_interval"]
            print(f"{name} {value:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    return 0


def _add_predict(commands: Commands) -> None:
    command = commands.add_parser(
        "predict",
        help="classify texts, find names in them, or answer questions",
        description="Say what a fine-tuned model makes of each TEXT: its class and probability, "
        "the names in it, or, of a question, the answer that the text after --context gives.",
    )
    command.add_argument("--checkpoint", required=True, metavar="DIR", help="written by finetune")
    command.add_argument("--context", metavar="TEXT", help="where the answers to questions stand")
    command.add_argument("texts", nargs="*", metavar="TEXT", help="default: lines of the input")
    command.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    from electra_tutorial.checkpoints import reading_of
    from electra_tutorial.prediction import (
        answer_questions,
        kind_of,
        label_words,
        load_tuned,
        predict,
    )

    texts = options.texts or [line.strip() for line in sys.stdin if line.strip()]
    if not texts:
        raise ValueError("There is no text: give one as an argument, or lines on the input.")
    model, tokenizer = load_tuned(options.checkpoint)
    reading = reading_of(options.checkpoint)
    length = reading.get("max_length")
    kind = kind_of(model)
    if (kind == "question-answering") != (options.context is not None):
        raise ValueError(
            f"{options.checkpoint} is a model for {kind}: --context is for question-answering, "
            "and needed there."
        )
    if kind == "classification":
        said = [
            f"{answer.label}\t{answer.probability:.3f}"
            for answer in predict(model, tokenizer, texts, max_length=length)
        ]
    elif kind == "token-classification":
        sentences = [re.findall(WORD, text) for text in texts]
        said = [
            "; ".join(f"{n.type} {' '.join(n.words)} {n.probability:.3f}" for n in names) or "none"
            for names in label_words(model, tokenizer, sentences, max_length=length)
        ]
    elif kind == "question-answering":
        contexts = [options.context] * len(texts)
        said = [
            f"{answer.text or 'no answer'}\t{answer.score:.3f}"
            for answer in answer_questions(model, tokenizer, texts, contexts, **reading)
        ]
    else:
        raise ValueError(
            f"{options.checkpoint} is a model for {kind}; predict knows classes, names and "
            "answers: use evaluate."
        )
    for answer, text in zip(said, texts, strict=True):
        print(f"{answer}\t{text}")
    return 0


# --- detect -----------------------------------------------------------------------------------


def _add_detect(commands: Commands) -> None:
    command = commands.add_parser("detect", help="say of every token of a text how odd it looks")
    command.add_argument(
        "--checkpoint", default="mini", help="a discriminator's folder, a hub id, or mini (default)"
    )
    command.add_argument("text", metavar="TEXT")
    command.set_defaults(run=_detect)


def _detect(options: argparse.Namespace) -> int:
    from electra_tutorial.detection import detect_replacements

    for score in detect_replacements(options.text, options.checkpoint):
        bar = "#" * round(20 * score.probability)
        print(f"{score.probability:6.1%}  {score.token:<16} {bar}".rstrip())
    return 0


# --- run --------------------------------------------------------------------------------------


def _add_run(commands: Commands) -> None:
    command = commands.add_parser(
        "run",
        help="run the book's notebooks, each in a fresh kernel",
        description="Run the book's notebooks, each in a fresh kernel; name what fails.",
    )
    command.add_argument(
        "chapters",
        nargs="*",
        metavar="CHAPTER",
        help='a chapter\'s name or its unique beginning, such as "04"; default: all',
    )
    command.add_argument(
        "--profile",
        default="laptop",
        metavar="PROFILE",
        help="laptop (default), ci (a few steps) or gpu (real data from the hub)",
    )
    command.add_argument(
        "--output",
        default="_build/notebooks",
        metavar="DIR",
        help="folder for executed notebooks and report.json (default: %(default)s)",
    )
    command.add_argument(
        "--notebooks", metavar="DIR", help="folder of the chapters (default: the checkout's)"
    )
    command.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="replace a value of the parameters cell; may be repeated",
    )
    command.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="let no single cell run for longer"
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from electra_tutorial import runner

    report = runner.run_notebooks(
        options.chapters,
        options.profile,
        options.output,
        notebooks=options.notebooks,
        parameters=runner.parse_parameters(options.parameter),
        timeout=options.timeout,
    )
    seconds = sum(run.seconds for run in report.runs)
    peak = max(run.peak_memory_mb for run in report.runs) / 1000
    passed = len(report.runs) - len(report.failed)
    print(
        f"{passed} of {len(report.runs)} notebooks passed in {seconds:.0f} s, at most "
        f"{peak:.1f} GB; see {options.output}."
    )
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
