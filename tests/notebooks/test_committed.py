"""Every committed notebook passes every check."""

from __future__ import annotations

from collections.abc import Callable

import gates
import pytest

BOOK = gates.Book()


@pytest.mark.parametrize("check", gates.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", BOOK.notebooks)
def test_notebook(name: str, check: Callable[..., list[str]]) -> None:
    found = check(name, BOOK.notebooks[name], BOOK)
    assert not found, f"{name}: " + " ".join(found)


def test_the_lists_name_what_exists() -> None:
    assert gates.lists_are_sane(BOOK) == []
