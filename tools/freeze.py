"""Write requirements.txt: every package of the running environment, pinned exactly.

Left out: the project itself, pip, what only CUDA needs, and the local part of a version such as
`+cpu`, which other package indexes do not have.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PATH = Path(__file__).resolve().parents[1] / "requirements.txt"
HEAD = """\
# The environment in which the book was made and in which it is tested: Python 3.11, every package.
# Written by tools/freeze.py; lower bounds for other environments are in pyproject.toml.
"""
CUDA = re.compile(r"(nvidia|triton|cuda)", re.IGNORECASE)


def pins(frozen: str) -> list[str]:
    """The lines of requirements.txt for what `pip freeze` printed.

    Raises:
        ValueError: if a package was not installed from an index.
    """
    lines = []
    for line in frozen.splitlines():
        if CUDA.match(line) or line.startswith("#"):
            continue
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==([^+\s]+)(?:\+\S+)?", line)
        if found is None:
            raise ValueError(f"{line!r} was not installed from an index: install a release of it.")
        lines.append(f"{found.group(1)}=={found.group(2)}")
    return sorted(lines, key=str.lower)


def main() -> int:
    command = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude-editable"]
    command += ["--exclude", "pip"]
    frozen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    try:
        lines = pins(frozen)
    except ValueError as error:
        print(f"freeze: {error}", file=sys.stderr)
        return 2
    PATH.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    print(f"{len(lines)} packages are pinned in {PATH.name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
