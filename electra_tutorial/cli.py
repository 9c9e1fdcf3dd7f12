"""The command `electra-tutorial`: what a reader uses the package for without writing Python."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electra_tutorial import __version__
from electra_tutorial.cli_deployment import Commands, add_export, add_serve
from electra_tutorial.cli_pretraining import add_pretrain, add_settings, given_settings
from electra_tutorial.config import FineTuningConfig

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
    for add in (_add_env, add_pretrain, _add_finetune, _add_evaluate, _add_predict, _add_detect):
        add(commands)
    for add in (add_export, add_serve, _add_run):
        add(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--debug", action="store_true", help="show where an error arose, not only what it says"
        )
    return parser


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


FEW_ROWS = 2_000  # RTE, the smallest set that the paper fine-tunes on, has 2,241 without validation
RECIPES = """\
recipes: which settings an option that you do not give has
  paper  table 7 for ELECTRA-Small, the defaults named above. The paper takes 10 epochs for RTE
         and STS-B and 2 for SQuAD, and its code reads SQuAD with 512 tokens:
           electra-tutorial finetune --task rte --source hub --recipe paper --epochs 10 \\
             --checkpoint google/electra-small-discriminator --output rte
  small  for few rows: --learning-rate 5e-4 --layerwise-decay 1.0 --dropout 0.0
         --batch-size 16, and as many --epochs as make 100 steps, from 3 to 20
  auto   small where there are fewer than 2,000 rows to train on, else paper
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
    add_settings(command, FineTuningConfig)
    command.set_defaults(run=_finetune)


def _recipe(options: argparse.Namespace, rows: int) -> tuple[str, FineTuningConfig]:
    """The recipe for so many rows, and its settings, but for those that were given."""
    given = given_settings(options, FineTuningConfig)
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
