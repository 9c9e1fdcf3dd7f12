"""Unlabelled text, in memory or read from files as it is needed.

The book's own corpus needs no download: :func:`python_documentation` collects the documentation of
the Python that runs it and of the packages that it installs. Any other text comes from files, one
paragraph a line, a blank line between documents. How text becomes token segments of one length:
:mod:`electra_tutorial.segments`, whose names can be imported from here too.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import importlib.util
import json
import lzma
import os
import platform
import re
import sysconfig
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from electra_tutorial.segments import Segments as Segments
from electra_tutorial.segments import build_segments as build_segments
from electra_tutorial.segments import segments_for as segments_for

PACKAGES = {  # import name: distribution name
    "numpy": "numpy",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "torch": "torch",
}
SUFFIXES = (".txt", ".txt.xz", ".txt.gz")
CLEANING = 1  # goes up when the cleaning below changes, so that an old cache is not read


@dataclass(frozen=True)
class Corpus:
    """Documents of plain text; each document is paragraphs, one a line."""

    name: str
    documents: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(self.documents)

    @property
    def num_characters(self) -> int:
        return sum(map(len, self.documents))

    @property
    def num_words(self) -> int:
        return sum(len(document.split()) for document in self.documents)

    def split(self, held_out: float = 0.05, seed: int = 0) -> tuple[Corpus, Corpus]:
        """Set whole documents aside: returns (training, held-out).

        A document's side follows from its own text: it stays when others come or go.

        Raises:
            ValueError: if ``held_out`` does not lie between 0 and 1, or one side would be empty.
        """
        train, aside = split_documents(self.documents, held_out, seed, self.name)
        return Corpus(self.name, tuple(train)), Corpus(f"{self.name}, held out", tuple(aside))


@dataclass(frozen=True)
class Side:
    """One side of a text that is split by documents; each iteration reads the text anew.

    Attributes:
        documents: the whole text, as something that can be iterated any number of times.
        held_out: share of the documents on the held-out side.
        seed: another one chooses others.
        aside: whether this is the held-out side.
    """

    documents: Iterable[str]
    held_out: float
    seed: int
    aside: bool

    def __iter__(self) -> Iterator[str]:
        for document in self.documents:
            digest = hashlib.sha256(f"{self.seed}\n{document}".encode()).digest()
            if (int.from_bytes(digest[:8]) / 2**64 < self.held_out) is self.aside:
                yield document


def split_documents(
    documents: Iterable[str], held_out: float = 0.05, seed: int = 0, name: str = "text"
) -> tuple[Side, Side]:
    """Set whole documents aside in a text that may be larger than memory: (training, held-out).

    A document's side follows from its own text: no second pass chooses it, and it stays when
    others come or go.

    Args:
        documents: what can be iterated any number of times, as :func:`iterate_documents`.
        held_out: share of the documents to set aside.
        seed: another one chooses others.
        name: what to call the text in a refusal.

    Raises:
        TypeError: if the text can be read only once.
        ValueError: if ``held_out`` does not lie between 0 and 1, or one side would be empty.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is a share between 0 and 1, not {held_out!r}.")
    if isinstance(documents, Iterator):
        raise TypeError(
            "a generator can be read only once, and both sides read the text: give a corpus or "
            "iterate_documents(...)."
        )
    train, aside = (Side(documents, held_out, seed, side) for side in (False, True))
    for side in (train, aside):  # reads no further than its first document
        if next(iter(side), None) is None:
            number = sum(1 for _ in documents)
            raise ValueError(
                f"corpus {name!r} has {number} documents: too few to set {held_out:.0%} aside; "
                "raise held_out or use more text."
            )
    return train, aside


# ---------------------------------------------------------------- the documentation of Python


def _strings(source: str) -> Iterator[str]:
    """Yield the docstrings of a module, and the texts that it attaches to compiled functions."""
    tree = ast.parse(source)
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        body: Sequence[ast.stmt] = getattr(node, "body", ())
        if not isinstance(body, list):
            continue
        if body and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
        for child in body:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
                # add_docstr(torch.abs, r"""...""") and add_newdoc("numpy", "ndarray", """...""")
                for part in ast.walk(child.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value
            elif isinstance(child, ast.ClassDef | ast.FunctionDef | ast.If | ast.Try):
                stack.append(child)


_ROLE = re.compile(r":[a-z:+-]+:`~?\.?([^`<]*?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}")
_MARKUP = re.compile(r"``?|\*\*?|\|")
_LIST = re.compile(r"^(?:[-*+\u2022]|\(?\d+[.)])\s+")
_WORD = re.compile(r"[A-Za-z][a-z'-]*[,;:.!?)]*\Z|\(?[A-Za-z]+[,;:.!?)]*\Z")


def _paragraphs(text: str) -> Iterator[str]:
    """Reduce a docstring to its paragraphs of prose, each on one line."""
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        stripped = [line.strip() for line in lines]
        if any(
            line.startswith((">>>", "...", "..", "$ ", "+--", "===", "---", "~~~"))
            for line in stripped
        ):
            continue
        # a definition list ("name : type" over an indented text) keeps its text only
        indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
        if len(indents) > 1 and indents[0] < indents[1]:
            stripped = stripped[1:] if indents[0] < min(indents[1:]) else stripped
        paragraph = _LIST.sub("", " ".join(line for line in stripped if line))
        paragraph = _ROLE.sub(r"\1", paragraph)
        paragraph = _LINK.sub(r"\1", paragraph)
        paragraph = re.sub(r"\s+", " ", _MARKUP.sub("", paragraph)).strip()
        words = paragraph.split()
        if len(words) < 8 or paragraph[-1] not in ".!?:" or not paragraph.isprintable():
            continue
        if sum(bool(_WORD.match(word)) for word in words) >= 0.75 * len(words):
            yield paragraph


def _documentation_files() -> Iterator[Path]:
    """Yield every module whose documentation is read, in a fixed order."""
    standard = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "testing"}
    roots = [standard]
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(
                f"the documentation corpus reads {package}, which is not installed: install "
                "the book's requirements."
            )
        roots.append(Path(spec.origin).parent)
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            if not skipped.intersection(path.relative_to(root).parts):
                yield path


def _collect() -> tuple[str, ...]:
    documents, seen = [], set()
    for path in _documentation_files():
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source and path.parent.name != "pydoc_data":
            continue
        try:
            text = source.decode("utf-8")
            if path.parent.name == "pydoc_data":  # topics.py: one dictionary of long strings
                strings: Iterable[str] = [
                    node.value
                    for node in ast.walk(ast.parse(text))
                    if isinstance(node, ast.Constant) and isinstance(node.value, str)
                ]
            else:
                strings = _strings(text)
            paragraphs = []
            for string in strings:
                for paragraph in _paragraphs(string):
                    if paragraph not in seen:
                        seen.add(paragraph)
                        paragraphs.append(paragraph)
        except (UnicodeDecodeError, SyntaxError):  # a few test fixtures are broken on purpose
            continue
        if paragraphs:
            documents.append("\n".join(paragraphs))
    return tuple(documents)


def cache_directory() -> Path:
    """Return where derived text is kept: ``ELECTRA_TUTORIAL_CACHE``, or the user's cache."""
    chosen = os.environ.get("ELECTRA_TUTORIAL_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else base / "electra_tutorial"


def python_documentation(cache: bool = True) -> Corpus:
    """Return the documentation of the running Python and of the book's packages, as prose.

    Docstrings of the standard library, numpy, matplotlib, scikit-learn and torch, and Python's
    language reference (``pydoc_data``); no code, no tables, no repeated paragraph. A document is
    the documentation of one module. The text is the same for the same versions of Python and of
    the packages, and is kept in :func:`cache_directory` after the first call.
    """
    versions = {"python": platform.python_version(), "cleaning": CLEANING}
    versions |= {package: version(distribution) for package, distribution in PACKAGES.items()}
    key = hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_directory() / f"python-documentation-{key}.txt.gz"
    if cache and path.is_file():
        return load_corpus(path, name="python-documentation")
    documents = _collect()
    if cache:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with gzip.open(partial, "wt", encoding="utf-8", compresslevel=1) as file:
            file.write("\n\n".join(documents) + "\n")
        partial.replace(path)
    return Corpus("python-documentation", documents)


# ---------------------------------------------------------------- text files


@dataclass(frozen=True)
class TextFiles:
    """The documents of text files; each iteration reads the files anew, a document at a time."""

    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[str]:
        for path in self.paths:
            try:
                with _open(path) as file:
                    for blank, lines in groupby(file, str.isspace):
                        if not blank:
                            yield "".join(lines).strip()
            except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
                raise ValueError(
                    f"{path} can't be read as UTF-8 text ({type(error).__name__}): "
                    "check that the file is whole."
                ) from error


def _open(path: Path) -> IO[str]:
    openers: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
    return openers.get(path.suffix, open)(path, "rt", encoding="utf-8")


def iterate_documents(source: str | Path) -> Iterable[str]:
    """Return the documents of a text that may be too large for memory.

    Files are read while the documents are iterated, which can be done any number of times.

    Args:
        source: see :func:`load_corpus`.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if there is no text file; while iterating, if a file can't be read as text.
    """
    if source == "python-documentation":
        return python_documentation()
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"no corpus at {source}: name a text file, a folder of text files, or "
            "'python-documentation'."
        )
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    paths = tuple(p for p in found if p.name.endswith(SUFFIXES))
    if not paths:
        raise ValueError(f"{source} holds no text: expected files ending in {', '.join(SUFFIXES)}.")
    return TextFiles(paths)


def load_corpus(source: str | Path, name: str | None = None) -> Corpus:
    """Load a corpus into memory.

    Args:
        source: ``"python-documentation"``, a file (``.txt``, ``.txt.xz`` or ``.txt.gz``; one
            paragraph a line, a blank line between documents), or a folder of such files.
        name: what to call it; the source's name if absent.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if there is no text in it, or a file can't be read as text.
    """
    found = iterate_documents(source)
    if isinstance(found, Corpus):
        return found
    documents = tuple(found)
    if not documents:
        raise ValueError(f"{source} is empty: there is no text to learn from.")
    return Corpus(name or Path(source).name, documents)
