"""Corpora: what is read, what is cleaned, and that nothing is lost."""

from __future__ import annotations

import gzip
import lzma
import re
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from electra_tutorial import corpora, segments
from electra_tutorial.corpora import (
    Corpus,
    iterate_documents,
    load_corpus,
    python_documentation,
    split_documents,
)
from electra_tutorial.segments import text_hash

TEXT = "First paragraph.\nSecond paragraph.\n\nAnother document.\n"


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".txt.xz"])
def test_files_hold_documents_between_blank_lines(tmp_path, suffix):
    path = tmp_path / f"text{suffix}"
    opener = {".txt": open, ".txt.gz": gzip.open, ".txt.xz": lzma.open}[suffix]
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(TEXT)
    for source in (path, tmp_path):
        loaded = load_corpus(source)
        assert loaded.documents == ("First paragraph.\nSecond paragraph.", "Another document.")
    assert loaded.num_words == 6


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no corpus at"):
        load_corpus(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match="holds no text"):
        load_corpus(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n\n \n")
    with pytest.raises(ValueError, match="is empty"):
        load_corpus(tmp_path / "empty.txt")
    with lzma.open(tmp_path / "cut.txt.xz", "wt") as file:
        file.write(TEXT * 100)
    whole = (tmp_path / "cut.txt.xz").read_bytes()
    (tmp_path / "cut.txt.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="can't be read as UTF-8 text"):
        load_corpus(tmp_path / "cut.txt.xz")


def test_splits_hold_whole_documents_and_do_not_move():
    documents = tuple(f"document number {i}" for i in range(400))
    train, held_out = Corpus("numbers", documents).split(0.1)
    assert sorted(train.documents + held_out.documents) == sorted(documents)
    assert 20 <= len(held_out.documents) <= 60
    fewer = Corpus("numbers", documents[:200]).split(0.1)[1]
    assert set(fewer.documents) <= set(held_out.documents)
    with pytest.raises(ValueError, match="too few"):
        Corpus("one", ("only one",)).split()
    with pytest.raises(ValueError, match="between 0 and 1"):
        Corpus("two", ("a", "b")).split(1.0)


@pytest.mark.parametrize(("held_out", "seed"), [(0.05, 0), (0.3, 7)])
def test_a_text_read_as_it_comes_splits_as_one_in_memory(tmp_path, held_out, seed):
    documents = tuple(f"document number {i}\nof {i % 7} lines" for i in range(400))
    (tmp_path / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    expected = Corpus("text", documents).split(held_out, seed)
    found = split_documents(iterate_documents(tmp_path), held_out, seed)
    for side, whole in zip(found, expected, strict=True):
        assert tuple(side) == whole.documents
        assert tuple(side) == whole.documents  # again from the beginning
        assert text_hash(side) == text_hash(whole)  # so a cache made from one serves the other


def test_splitting_a_file_holds_no_more_than_a_document(tmp_path):
    path, length = tmp_path / "text.txt", 10_000
    with path.open("w", encoding="utf-8") as file:
        for i in range(500):
            file.write(f"{i} {'x' * length}\n\n")
    tracemalloc.start()
    try:
        sides = split_documents(iterate_documents(path), 0.1)
        assert sum(sum(map(len, side)) for side in sides) > 500 * length
        assert tracemalloc.get_traced_memory()[1] < 50 * length  # of a text of 500 times that
    finally:
        tracemalloc.stop()


def test_what_cannot_be_split_is_refused():
    with pytest.raises(TypeError, match="can be read only once"):
        split_documents(document for document in ("a", "b"))
    with pytest.raises(ValueError, match="corpus 'mine' has 2 documents: too few to set 0% aside"):
        split_documents(["a", "b"], 1e-9, name="mine")


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text("ab \t\n", max_size=60))
def test_documents_are_read_one_by_one_as_the_whole_text_is_split(tmp_path, text):
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8", newline="")
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    documents = iterate_documents(path)
    assert list(documents) == parts
    assert list(documents) == parts  # again from the beginning


def test_files_are_read_no_further_than_asked(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe not UTF-8")
    documents = iter(iterate_documents(tmp_path))
    assert next(documents) == "First paragraph.\nSecond paragraph."
    assert next(documents) == "Another document."
    with pytest.raises(ValueError, match=r"b\.txt can't be read as UTF-8 text"):
        next(documents)


def test_the_names_of_segments_can_be_imported_from_here():
    assert corpora.build_segments is segments.build_segments
    assert corpora.Segments is segments.Segments
    assert corpora.segments_for is segments.segments_for


def test_docstrings_are_reduced_to_prose():
    text = """Return the distance between two points.

    The distance is measured along a straight line, see :func:`math.hypot` for the details.

    >>> distance((0, 0), (3, 4))
    5.0

    Parameters
    ----------
    a : tuple
        The first point, given as two numbers in the same unit of length.
    b=2, c=[1, 2, 3], d={4: 5}, e=(6,), f=7, g=8, h=9, i=10.
    """
    assert list(corpora._paragraphs(text)) == [
        "The distance is measured along a straight line, see math.hypot for the details.",
    ]


@pytest.mark.slow
def test_the_documentation_corpus_is_large_clean_and_deterministic(tmp_path, monkeypatch):
    monkeypatch.setenv("ELECTRA_TUTORIAL_CACHE", str(tmp_path))
    first = python_documentation()
    assert first.num_characters > 4_000_000
    assert first.num_words > 600_000
    again = python_documentation()
    assert again.documents == first.documents == python_documentation(cache=False).documents
    paragraphs = [p for document in first.documents for p in document.split("\n")]
    assert len(paragraphs) == len(set(paragraphs))
    assert not any(">>>" in paragraph for paragraph in paragraphs)
