"""Unlabelled text, and how it becomes token segments of one length.

The book's own corpus needs no download: :func:`python_documentation` collects the documentation of
the Python that runs it and of the packages that it installs. Any other text comes from files, one
paragraph a line, a blank line between documents.
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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np

from electra_tutorial.masking import SpecialIds

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
        if not 0 < held_out < 1:
            raise ValueError(f"held_out is a share between 0 and 1, not {held_out!r}.")

        def draw(document: str) -> float:
            digest = hashlib.sha256(f"{seed}\n{document}".encode()).digest()
            return int.from_bytes(digest[:8]) / 2**64

        aside = [draw(document) < held_out for document in self.documents]
        sides = [
            tuple(d for d, a in zip(self.documents, aside, strict=True) if a is side)
            for side in (False, True)
        ]
        if not all(sides):
            raise ValueError(
                f"corpus {self.name!r} has {len(self.documents)} documents: too few to set "
                f"{held_out:.0%} aside; raise held_out or use more text."
            )
        return Corpus(self.name, sides[0]), Corpus(f"{self.name}, held out", sides[1])


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


def _open(path: Path) -> IO[str]:
    openers: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
    return openers.get(path.suffix, open)(path, "rt", encoding="utf-8")


def load_corpus(source: str | Path, name: str | None = None) -> Corpus:
    """Load a corpus.

    Args:
        source: ``"python-documentation"``, a file (``.txt``, ``.txt.xz`` or ``.txt.gz``; one
            paragraph a line, a blank line between documents), or a folder of such files.
        name: what to call it; the source's name if absent.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if there is no text in it, or a file can't be read as text.
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
    paths = [p for p in found if p.name.endswith(SUFFIXES)]
    if not paths:
        raise ValueError(f"{source} holds no text: expected files ending in {', '.join(SUFFIXES)}.")
    documents: list[str] = []
    for file_path in paths:
        try:
            with _open(file_path) as file:
                text = file.read()
        except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
            raise ValueError(
                f"{file_path} can't be read as UTF-8 text ({type(error).__name__}): "
                "check that the file is whole."
            ) from error
        documents += [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if not documents:
        raise ValueError(f"{source} is empty: there is no text to learn from.")
    return Corpus(name or path.name, tuple(documents))


# ---------------------------------------------------------------- segments


@dataclass(frozen=True)
class Segments:
    """Token ids cut to one length, ``(num_segments, seq_len)``, in memory or mapped from a file.

    Attributes:
        input_ids: the tokens; every row is [CLS] ... [SEP], padded at the end.
        pad_id: the id of [PAD].
    """

    input_ids: np.ndarray
    pad_id: int

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"input_ids": self.input_ids[index].astype(np.int64)}

    @property
    def sequence_length(self) -> int:
        return self.input_ids.shape[1]

    @property
    def num_tokens(self) -> int:
        """Real tokens, [CLS] and [SEP] counted."""
        return int((np.asarray(self.input_ids) != self.pad_id).sum())

    def attention_mask(self, rows: slice | Sequence[int] = slice(None)) -> np.ndarray:
        """1 at real tokens, 0 at padding, ``(num_rows, seq_len)``."""
        return (np.asarray(self.input_ids[rows]) != self.pad_id).astype(np.int64)

    def take(self, rows: slice | Sequence[int]) -> Segments:
        """Return some of the segments."""
        return Segments(np.asarray(self.input_ids[rows]), self.pad_id)

    def save(self, path: str | Path) -> None:
        """Write one ``.npy`` file; under a temporary name, renamed when whole."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as file:
            np.save(file, self.input_ids)
        partial.replace(path)

    @classmethod
    def open(cls, path: str | Path, pad_id: int = 0) -> Segments:
        """Map a file that :meth:`save` wrote; nothing is read until it is used.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it does not hold a matrix of token ids.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"no segments at {path}: write them with build_segments(..., output={str(path)!r})."
            )
        try:
            input_ids = np.load(path, mmap_mode="r")
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(
                f"{path} is not a whole .npy file: build the segments again."
            ) from error
        if input_ids.ndim != 2 or input_ids.dtype.kind not in "iu":
            raise ValueError(
                f"{path} does not hold a matrix of token ids: build the segments again."
            )
        return cls(input_ids, pad_id)


def build_segments(
    corpus: Corpus,
    tokenizer: Any,
    sequence_length: int = 128,
    output: str | Path | None = None,
    batch_size: int = 256,
) -> Segments:
    """Tokenize a corpus and pack it densely: every segment is [CLS] + text + [SEP].

    Documents follow each other in the order of the corpus, with a [SEP] between them. Only the last
    segment is padded.

    Args:
        corpus: the text.
        tokenizer: a fast tokenizer.
        sequence_length: tokens a segment, [CLS] and [SEP] counted.
        output: a ``.npy`` file to write; the result is then mapped from it.
        batch_size: documents tokenized at once.

    Raises:
        ValueError: if the corpus is empty or the length is below 3.
    """
    if sequence_length < 3:
        raise ValueError(
            f"sequence_length must be at least 3 ([CLS], one token, [SEP]), not {sequence_length}."
        )
    ids = SpecialIds.from_tokenizer(tokenizer)
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.int32
    pieces: list[np.ndarray] = []
    for start in range(0, len(corpus.documents), batch_size):
        batch = list(corpus.documents[start : start + batch_size])
        encoded = tokenizer(
            batch, add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        pieces += [np.asarray([*tokens, ids.sep], dtype=dtype) for tokens in encoded if tokens]
    if not pieces:
        raise ValueError(f"corpus {corpus.name!r} is empty: there is no text to cut into segments.")
    stream = np.concatenate(pieces)[:-1]  # no [SEP] after the last document

    body = sequence_length - 2
    rows = -(-len(stream) // body)
    matrix = np.full((rows, sequence_length), ids.pad, dtype=dtype)
    matrix[:, 0] = ids.cls
    padded = np.full(rows * body, ids.pad, dtype=dtype)
    padded[: len(stream)] = stream
    matrix[:, 1:-1] = padded.reshape(rows, body)
    matrix[:-1, -1] = ids.sep
    matrix[-1, 1 + len(stream) - (rows - 1) * body] = ids.sep
    segments = Segments(matrix, ids.pad)
    if output is None:
        return segments
    segments.save(output)
    return Segments.open(output, ids.pad)
