"""Settings shared by all tests: no network, few threads, and what the markers mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def hub_dir() -> Path:
    """The directory of data sets laid out by hub id, for tests marked `mirror`."""
    return Path(os.environ["ELECTRA_TUTORIAL_HUB_DIR"]).resolve()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `mirror` where no directory is named; fail where it is named wrongly."""
    named = os.environ.get("ELECTRA_TUTORIAL_HUB_DIR")
    if named and not Path(named).is_dir():
        raise pytest.UsageError(
            f"ELECTRA_TUTORIAL_HUB_DIR names {named!r}, which is not a directory; "
            "name one that is laid out by hub id, or unset the variable."
        )
    if named:
        return
    skip = pytest.mark.skip(reason="ELECTRA_TUTORIAL_HUB_DIR is not set")
    for item in items:
        if item.get_closest_marker("mirror"):
            item.add_marker(skip)
