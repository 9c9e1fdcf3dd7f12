"""Refuse, in one sentence, a Python for which the pinned packages do not exist.

This file must run on any Python 3, so it reads the limits from electra_tutorial/environment.py as
text instead of importing them.
"""

import re
import sys
from os.path import abspath, dirname, join

HERE = dirname(abspath(__file__))


def read_limits():
    # type: () -> tuple[tuple[int, int], tuple[int, int]]
    """The oldest and the newest Python that the book runs on."""
    with open(join(HERE, "..", "electra_tutorial", "environment.py")) as file:
        found = dict(re.findall(r"^(OLDEST|NEWEST)_PYTHON = \((\d+, \d+)\)", file.read(), re.M))
    oldest, newest = [tuple(int(n) for n in found[k].split(", ")) for k in ("OLDEST", "NEWEST")]
    return oldest, newest  # type: ignore[return-value]


def complaint(version):
    # type: (tuple[int, int]) -> str
    """What is wrong with the Python `version`, or nothing."""
    oldest, newest = read_limits()
    if oldest <= version <= newest:
        return ""
    kind = "old" if version < oldest else "new"
    return (
        "Python {}.{} is too {}: the book needs Python {}.{} to {}.{}; name one that you have, for "
        "example `make PYTHON=python3.11 book`.".format(*(version + (kind,) + oldest + newest))
    )


if __name__ == "__main__":
    sys.exit(complaint(sys.version_info[:2]) or 0)
