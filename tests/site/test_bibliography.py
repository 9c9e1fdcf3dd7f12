"""references.bib and bibliography.md name the same works, and every citation finds one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
ENTRY = re.compile(r"^@(?P<kind>\w+)\{(?P<key>[a-z0-9]+),\n(?P<fields>.*?)^\}$", re.M | re.S)
FIELD = re.compile(r"^  (?P<name>\w+) = \{+(?P<value>.*?)\}+,$", re.M)
HEADING = re.compile(r"^### (?P<key>\S+)\n\n(?P<text>.*?)(?=^#|\Z)", re.M | re.S)
CITATION = re.compile(r"bibliography\.md#(?P<key>[\w-]+)")


def read_bib(text: str) -> dict[str, dict[str, str]]:
    """Return the fields of each BibTeX entry of ``text``, by key."""
    entries = list(ENTRY.finditer(text))
    keys = [entry["key"] for entry in entries]
    assert len(keys) == len(set(keys)) == text.count("\n@"), "an entry is malformed or repeated"
    return {
        entry["key"]: {field["name"]: field["value"] for field in FIELD.finditer(entry["fields"])}
        for entry in entries
    }


def read_page(text: str) -> dict[str, str]:
    """Return the paragraph under each third-level heading of ``text``, by heading."""
    entries = [(entry["key"], entry["text"]) for entry in HEADING.finditer(text)]
    assert len(entries) == len(dict(entries)), "a heading is repeated"
    return dict(entries)


BIB = read_bib((BOOK / "references.bib").read_text(encoding="utf-8"))
PAGE = read_page((BOOK / "bibliography.md").read_text(encoding="utf-8"))


def citing_texts() -> dict[str, str]:
    """Return the Markdown of every page and every notebook, by file name."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in BOOK.glob("*.md")}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path.name] = "\n".join(
            "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
        )
    return texts


def test_same_keys() -> None:
    assert set(BIB) == set(PAGE)


@pytest.mark.parametrize("key", sorted(BIB))
def test_entry_is_complete_and_agrees(key: str) -> None:
    fields, text = BIB[key], PAGE.get(key, "").replace("\\*", "*")
    assert {"author", "title", "year", "url"} <= set(fields)
    for name in ("title", "year", "url"):
        assert fields[name] in text, f"{key}: its {name} differs between the two files"
    last_name = fields["author"].split(" and ")[0].split(",")[0]
    assert last_name in text.splitlines()[0]


def test_every_citation_resolves() -> None:
    missing = {
        f"{name}: {match['key']}"
        for name, text in citing_texts().items()
        for match in CITATION.finditer(text)
        if match["key"] not in BIB
    }
    assert not missing


def test_malformed_entries_are_noticed() -> None:
    good = "%\n@misc{one2020,\n  title = {{A}},\n}\n"
    assert read_bib(good) == {"one2020": {"title": "A"}}
    for bad in (good + good, good.replace(",\n}", ",\n  }")):
        with pytest.raises(AssertionError):
            read_bib(bad)
