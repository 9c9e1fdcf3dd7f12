"""The ledger of corrections: whole, and every row leads to a place that exists and shows something.

34 is the number of claims that the ledger began with; it may grow, and no row may get lost.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import gates
import pytest

BOOK = gates.Book()
PAGE = gates.ROOT / "book" / "corrections.md"
TEXT = PAGE.read_text(encoding="utf-8")
CLAIM = re.compile(r"^### Claim (?P<number>\d+): (?P<title>.+)\n(?P<row>(?:(?!^#).*\n?)*)", re.M)
CLAIMS = {int(match["number"]): match for match in CLAIM.finditer(TEXT)}


def sections(name: str) -> dict[str, bool]:
    """Anchor of each heading of a notebook -> whether a code cell stands under it."""
    found: dict[str, bool] = {}
    open_headings: list[tuple[int, str]] = []
    for cell in BOOK.notebooks[name]["cells"]:
        if cell["cell_type"] == "code":
            found |= {anchor: True for _, anchor in open_headings}
            continue
        for marks, title in re.findall(r"^(#+)\s+(.+?)\s*$", gates.source(cell), re.M):
            open_headings = [entry for entry in open_headings if entry[0] < len(marks)]
            open_headings.append((len(marks), gates.slug(title)))
            found.setdefault(gates.slug(title), False)
    return found


def test_no_claim_is_missing_and_none_stands_twice() -> None:
    numbers = [int(number) for number in re.findall(r"^### Claim (\d+)", TEXT, re.M)]
    assert sorted(numbers) == list(range(1, max(numbers) + 1))
    assert len(numbers) >= 34


def test_the_list_at_the_top_leads_to_every_claim() -> None:
    jumps = {int(number): anchor for number, anchor in re.findall(r"\[(\d+)\]\(#([^)]+)\)", TEXT)}
    titles = {n: gates.slug(f"Claim {n}: {match['title']}") for n, match in CLAIMS.items()}
    assert jumps == titles


@pytest.mark.parametrize("number", sorted(CLAIMS))
def test_a_claim_is_said_corrected_sourced_and_shown(number: int) -> None:
    row = CLAIMS[number]["row"]
    parts = re.fullmatch(
        r"\s*\*Said:\* .+\n\n\*\*True:\*\* .+\n\nSource: .+\. Shown in (?P<shown>.+)\n+",
        row,
    )
    assert parts, f"claim {number} lacks what was said, what is true, its source or where it shows"
    links = re.findall(r"\]\(\.\./notebooks/(\w+)\.ipynb#([^)]+)\)", parts["shown"])
    assert links, f"claim {number} leads to no cell"
    for name, anchor in links:
        assert unquote(anchor) in BOOK.anchors(gates.ROOT / "notebooks" / f"{name}.ipynb"), anchor
    # A claim is shown by running something.
    assert any(sections(name)[unquote(anchor)] for name, anchor in links), links
