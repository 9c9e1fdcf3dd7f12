"""The command `electra-tutorial`: what a reader uses the package for without writing Python."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from electra_tutorial import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0, 1 if a notebook failed, 2 if refused."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except (ValueError, TypeError, FileNotFoundError, ModuleNotFoundError, RuntimeError) as error:
        if options.debug:
            raise
        print(f"electra-tutorial {options.command}: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="electra-tutorial", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_env(commands)
    _add_run(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--debug", action="store_true", help="show where an error arose, not only what it says"
        )
    return parser


def _add_env(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
