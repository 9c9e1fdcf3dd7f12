"""The commands `export` and `serve`: a trained model leaves the book."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = argparse._SubParsersAction  # type: ignore[type-arg]


def add_export(commands: Commands) -> None:
    command = commands.add_parser(
        "export",
        help="write a classifier or a discriminator as ONNX",
        description="Write a classifier or a discriminator as ONNX, provided that the file answers "
        "as PyTorch does. OUTPUT then holds all that a program needs to run it.",
    )
    command.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="written by finetune; or a discriminator's folder, a hub id, or mini",
    )
    command.add_argument("--output", required=True, type=Path, help="folder for the ONNX model")
    command.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="of a text that are read (default: as in training)",
    )
    command.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        metavar="LOGITS",
        help="by which the file may differ from PyTorch (default: %(default)s)",
    )
    command.add_argument(
        "--int8", action="store_true", help="write model.int8.onnx too, a quarter of the size"
    )
    command.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from electra_tutorial.export import export_onnx, quantize_int8

    written = [
        export_onnx(
            options.checkpoint,
            None,
            options.output,
            max_length=options.max_length,
            tolerance=options.tolerance,
        )
    ]
    if options.int8:
        written.append(quantize_int8(options.output))
    for file, original in zip(written, ("PyTorch", "model.onnx"), strict=False):
        print(
            f"{file.path}  {file.megabytes:.1f} MB; largest difference of a logit to {original} "
            f"{file.largest_difference:.1e}, same answers {file.agreement:.1%}"
        )
    return 0


def add_serve(commands: Commands) -> None:
    command = commands.add_parser(
        "serve",
        help="answer requests over HTTP with an exported classifier",
        description="Answer POST /predict with the classes of texts. Meant for this machine, or "
        "to stand behind a proxy that encrypts and lets in whom it should.",
    )
    command.add_argument("folder", metavar="FOLDER", help="written by export")
    command.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine")
    command.add_argument(
        "--port", type=int, default=8000, help="default: %(default)s; 0: a free one"
    )
    command.add_argument("--int8", action="store_true", help="use model.int8.onnx")
    command.add_argument(
        "--threads", type=int, metavar="NUMBER", help="for one request (default: all cores)"
    )
    command.add_argument(
        "--most-texts", type=int, default=32, metavar="NUMBER", help="in a request (%(default)s)"
    )
    command.add_argument(
        "--most-characters",
        type=int,
        default=10_000,
        metavar="NUMBER",
        help="in a text (%(default)s)",
    )
    command.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from electra_tutorial.export import require_packages

    require_packages("serve", "fastapi", "onnxruntime", "uvicorn")
    from electra_tutorial.serving import Limits, create_app, serve

    app = create_app(
        options.folder,
        limits=Limits(options.most_texts, options.most_characters),
        int8=options.int8,
        threads=options.threads,
    )
    serve(app, options.host, options.port)
    return 0
