"""Token segments of one length: built from any text, stored in a file, mapped from it.

The text may be larger than memory: documents are read as they come and rows are written as they
are packed. A stored token takes two bytes, less than half of what its text takes. Beside
``NAME.npy`` lies ``NAME.npy.json``, which says what the rows are: of which tokenizer, text and
settings. Such a file is all that pre-training needs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import numpy as np
from tokenizers import Tokenizer

from electra_tutorial.masking import SpecialIds
from electra_tutorial.packing import Pieces, pack_dense, pack_official, tokenize_documents

SHORTEST = {"dense": 3, "official": 5}
"""The ways to pack, and the shortest segment that each can make."""

Documents: TypeAlias = Iterable[str] | Iterable[Mapping[str, Any]]
"""Texts, or rows of a data set that have a ``text``."""

BUILDER = 1  # goes up when the same text gives other segments, so that an old cache is not read
BLOCK = 1024  # rows written at once


@dataclass(frozen=True)
class Segments:
    """Token ids cut to one length, ``(num_segments, seq_len)``, in memory or mapped from a file.

    Attributes:
        input_ids: the tokens; every row is [CLS] ... [SEP], padded at the end.
        pad_id: the id of [PAD].
        packing: ``"dense"``, or ``"official"``: one or two texts in a row, each closed by [SEP].
        sep_id: the id of [SEP], needed for the token types of official packing.
        vocabulary: :func:`vocabulary_hash` of the tokenizer that made them, where it is known.
    """

    input_ids: np.ndarray
    pad_id: int
    packing: str = "dense"
    sep_id: int | None = None
    vocabulary: str | None = None

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
        starts = range(0, len(self), BLOCK)
        return sum(int((self.input_ids[s : s + BLOCK] != self.pad_id).sum()) for s in starts)

    def attention_mask(self, rows: slice | Sequence[int] = slice(None)) -> np.ndarray:
        """1 at real tokens, 0 at padding, ``(num_rows, seq_len)``."""
        return (np.asarray(self.input_ids[rows]) != self.pad_id).astype(np.int64)

    def token_type_ids(self, rows: slice | Sequence[int] = slice(None)) -> np.ndarray:
        """1 in the second text of a row up to its [SEP], 0 elsewhere, ``(num_rows, seq_len)``.

        Dense rows have no second text: their [SEP] stand between documents.
        """
        ids = np.asarray(self.input_ids[rows])
        if self.packing == "dense":
            return np.zeros(ids.shape, dtype=np.int64)
        separators = ids == self.sep_id
        before = separators.cumsum(1) - separators
        return ((before == 1) & (ids != self.pad_id)).astype(np.int64)

    def take(self, rows: slice | Sequence[int]) -> Segments:
        """Return some of the segments."""
        return replace(self, input_ids=np.asarray(self.input_ids[rows]))

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Make sure that the tokenizer's ids mean what the segments' ids mean.

        Raises:
            ValueError: if the segments were made with another vocabulary, or, where their origin is
                not known, hold an id that the tokenizer has not.
        """
        if self.vocabulary is None:
            largest = int(self.input_ids.max())
            fits = largest < len(tokenizer)
            reason = f"they hold token {largest} and it has only {len(tokenizer)} tokens"
        else:
            fits = self.vocabulary == vocabulary_hash(tokenizer)
            reason = f"its vocabulary of {len(tokenizer)} tokens is another"
        if not fits:
            raise ValueError(
                f"the segments were not made with this tokenizer: {reason}; give the tokenizer "
                "that made them, or build the segments again."
            )

    def save(self, path: str | Path) -> None:
        """Write ``path``, a ``.npy`` file, and its description beside it.

        Each is written under a temporary name and renamed when whole.

        Raises:
            OSError: if the file can't be written.
        """
        starts = range(0, len(self), BLOCK)
        blocks = (np.asarray(self.input_ids[start : start + BLOCK]) for start in starts)
        _write_rows(Path(path), blocks, self.sequence_length, self.input_ids.dtype)
        _write_description(Path(path), self)

    @classmethod
    def open(cls, path: str | Path, pad_id: int | None = None, tokenizer: Any = None) -> Segments:
        """Map a file of segments; nothing is read until it is used.

        Args:
            path: the ``.npy`` file.
            pad_id: the id of [PAD], for a file without description; 0 if absent.
            tokenizer: if given, it must be the one that made the segments.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it does not hold a matrix of token ids, or belongs to another tokenizer
                or to another description.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no segments at {path}: write them with build_segments(..., output={str(path)!r})."
            )
        try:
            input_ids = np.load(path, mmap_mode="r")
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(
                f"{path} is not a whole .npy file: delete it and build the segments again."
            ) from error
        if input_ids.ndim != 2 or input_ids.dtype.kind not in "iu":
            raise ValueError(
                f"{path} does not hold a matrix of token ids: build the segments again."
            )
        known = _read_description(path)
        if known and (known["num_segments"], known["sequence_length"]) != input_ids.shape:
            raise ValueError(
                f"{path} and {_description_path(path).name} do not belong together: delete both "
                "and build the segments again."
            )
        segments = cls(
            input_ids,
            pad_id=known.get("pad_id", 0) if pad_id is None else pad_id,
            packing=known.get("packing", "dense"),
            sep_id=known.get("sep_id"),
            vocabulary=known.get("vocabulary"),
        )
        if tokenizer is not None:
            segments.check_tokenizer(tokenizer)
        return segments


# ---------------------------------------------------------------- what identifies a segment file


def vocabulary_hash(tokenizer: Any) -> str:
    """Return a hash of the tokens and their ids: what a trained model depends on."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()


def text_hash(documents: Documents) -> str:
    """Return a hash of the documents, in their order."""
    digest = hashlib.sha256()
    for _ in _hashed(_texts(documents), digest):
        pass
    return digest.hexdigest()


def _texts(documents: Iterable[Any]) -> Iterator[str]:
    """Yield the text of each document: a string, or what a row of a data set has as ``text``."""
    for document in documents:
        text = document.get("text") if isinstance(document, Mapping) else document
        if not isinstance(text, str):
            raise TypeError(
                f"a document must be a string, or a row with a string under 'text', not "
                f"{type(document).__name__}: give the texts themselves."
            )
        yield text


def _hashed(texts: Iterable[str], digest: Any) -> Iterator[str]:
    for text in texts:
        digest.update(text.encode() + b"\0")
        yield text


def _definition(tokenizer: Any) -> str:
    """Return a tokenizer as JSON, without truncation and padding."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TypeError(
            f"{type(tokenizer).__name__} is not a fast tokenizer: load one that has a "
            "tokenizer.json, for example with load_tokenizer()."
        )
    plain = Tokenizer.from_str(backend.to_str())
    plain.no_truncation()
    plain.no_padding()
    return str(plain.to_str())


# ---------------------------------------------------------------- files


def _description_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_description(path: Path) -> dict[str, Any]:
    """Return what lies beside a segment file; empty if there is nothing."""
    try:
        known: dict[str, Any] = json.loads(_description_path(path).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(
            f"{_description_path(path)} is damaged: delete it and build the segments again."
        ) from error
    return known


def _write_description(path: Path, segments: Segments, **more: Any) -> None:
    names = ("pad_id", "packing", "sep_id", "vocabulary", "sequence_length", "num_tokens")
    known = {name: getattr(segments, name) for name in names}
    known |= {"num_segments": len(segments)} | more
    partial = path.with_name(f"{path.name}.{os.getpid()}.json.partial")
    with _naming(_description_path(path)):
        partial.write_text(json.dumps(known, indent=2) + "\n")
    partial.replace(_description_path(path))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file could not be written, and that nothing was lost."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error}): check the space and the rights there; what "
            "was there before is unchanged."
        ) from error


def _write_rows(path: Path, blocks: Iterable[np.ndarray], length: int, dtype: np.dtype) -> None:
    """Append blocks of rows to one ``.npy`` file; its header gets the number of rows at the end."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    rows = 0
    try:
        with _naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:  # NumPy leaves room for a first axis that grows
                np.lib.format.write_array_header_1_0(file, header | {"shape": (0, length)})
        for block in blocks:
            with _naming(path), partial.open("ab") as file:
                file.write(np.ascontiguousarray(block).data)
            rows += len(block)
        with _naming(path), partial.open("r+b") as file:
            np.lib.format.write_array_header_1_0(file, header | {"shape": (rows, length)})
        # a description that is not this file's must not be left beside it
        _description_path(path).unlink(missing_ok=True)
        partial.replace(path)
    finally:
        if partial.exists():
            partial.unlink()


# ---------------------------------------------------------------- build


def build_segments(
    corpus: Documents,
    tokenizer: Any,
    sequence_length: int = 128,
    output: str | Path | None = None,
    batch_size: int = 256,
    *,
    packing: str = "dense",
    seed: int = 0,
    processes: int = 1,
) -> Segments:
    """Tokenize a text and cut it into segments of one length.

    With ``output`` the text may be larger than memory: it is read once, as it comes, and the rows
    go to the file as they are packed. The result is the same for any number of processes.

    Args:
        corpus: the documents: a corpus, :func:`~electra_tutorial.corpora.iterate_documents`, a
            generator, or a data set whose rows have a ``text``, streamed or not.
        tokenizer: a fast tokenizer.
        sequence_length: tokens a segment, [CLS] and [SEP] counted.
        output: a ``.npy`` file to write; the result is then mapped from it.
        batch_size: most documents tokenized at once.
        packing: ``"dense"``: every segment is [CLS] + text + [SEP], documents follow each other
            with a [SEP] between them, and only the last segment is padded
            (:func:`~electra_tutorial.packing.pack_dense`). ``"official"``: [CLS] A [SEP] B [SEP]
            from the lines of one document, as the official builder packs
            (:func:`~electra_tutorial.packing.pack_official`).
        seed: of the random choices that official packing makes.
        processes: how many tokenize. 1: this one, with the threads that the tokenizers library
            starts (``TOKENIZERS_PARALLELISM``). More: as many new processes; a script must then
            start its work under ``if __name__ == "__main__":``.

    Raises:
        ValueError: if there is no text, the length is too small, or the packing is unknown.
        TypeError: if the documents are not strings, or the tokenizer is not a fast one.
        OSError: if the file can't be written.
        RuntimeError: if one of several processes ends early.
    """
    _check(corpus, sequence_length, packing, processes)
    ids = SpecialIds.from_tokenizer(tokenizer)
    definition = _definition(tokenizer)
    text = hashlib.sha256()
    documents = tokenize_documents(
        _hashed(_texts(corpus), text), definition, packing == "official", batch_size, processes
    )
    rows = _pack(documents, sequence_length, ids, packing, seed)
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.int32)
    blocks = _blocks(rows, sequence_length, ids.pad, dtype)
    origin = (ids.pad, packing, ids.sep, vocabulary_hash(tokenizer))
    if output is None:
        return Segments(np.concatenate(list(blocks)), *origin)
    path = Path(output)
    _write_rows(path, blocks, sequence_length, dtype)
    segments = Segments(np.load(path, mmap_mode="r"), *origin)
    settings = _settings(definition, sequence_length, packing, seed)
    _write_description(path, segments, text=text.hexdigest(), **settings)
    return segments


def segments_for(
    corpus: Documents,
    tokenizer: Any,
    sequence_length: int,
    folder: str | Path,
    *,
    packing: str = "dense",
    seed: int = 0,
    processes: int = 1,
) -> Segments:
    """Return the segments of a text from a folder, where they are built only once.

    The file's name follows from the text, the tokenizer and the settings: whatever changes, other
    segments are built and those at hand are left alone. The text is read once to be recognised,
    and again only to be tokenized.

    Args:
        corpus: as in :func:`build_segments`, but such that it can be read twice: a corpus, or
            :func:`~electra_tutorial.corpora.iterate_documents`; not a generator.
        tokenizer: see :func:`build_segments`.
        sequence_length: see :func:`build_segments`.
        folder: where the files are kept.
        packing: see :func:`build_segments`.
        seed: see :func:`build_segments`.
        processes: see :func:`build_segments`.

    Raises:
        TypeError: if the text can be read only once.
        ValueError, OSError, RuntimeError: as :func:`build_segments` and :meth:`Segments.open`.
    """
    _check(corpus, sequence_length, packing, processes)
    if isinstance(corpus, Iterator):
        raise TypeError(
            "a generator can be read only once, and a cache must read its text to recognise it: "
            "use build_segments(..., output=FILE), or give a corpus or iterate_documents(...)."
        )
    settings = _settings(_definition(tokenizer), sequence_length, packing, seed)
    key = json.dumps([text_hash(corpus), settings], sort_keys=True)
    path = Path(folder) / f"segments-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if path.is_file() and _description_path(path).is_file():
        return Segments.open(path, tokenizer=tokenizer)
    return build_segments(
        corpus,
        tokenizer,
        sequence_length,
        path,
        packing=packing,
        seed=seed,
        processes=processes,
    )


def _settings(
    definition: str, sequence_length: int, packing: str, seed: int
) -> dict[str, str | int | None]:
    """Return what, beside the text, decides which rows are built."""
    return {
        "builder": BUILDER,
        "tokenizer": hashlib.sha256(definition.encode()).hexdigest(),
        "sequence_length": sequence_length,
        "packing": packing,
        "seed": seed if packing == "official" else None,
    }


def _check(corpus: Any, sequence_length: int, packing: str, processes: int) -> None:
    """Refuse arguments that no text can make right."""
    if isinstance(corpus, str | Path):
        raise TypeError(
            f"{str(corpus)[:40]!r} is one string or path, not documents: use "
            "load_corpus() or iterate_documents() for files, or put a text into a list."
        )
    if packing not in SHORTEST:
        raise ValueError(f"unknown packing {packing!r}: choose 'dense' or 'official'.")
    if sequence_length < SHORTEST[packing]:
        raise ValueError(
            f"sequence_length must be at least {SHORTEST[packing]} for {packing} packing, not "
            f"{sequence_length}: [CLS] and [SEP] are counted."
        )
    if processes < 1:
        raise ValueError(f"processes must be 1 or more, not {processes}.")


def _pack(
    documents: Iterable[Pieces], sequence_length: int, ids: SpecialIds, packing: str, seed: int
) -> Iterator[list[int]]:
    if packing == "official":
        return pack_official(documents, sequence_length, ids.cls, ids.sep, Random(seed))
    return pack_dense(documents, sequence_length, ids.cls, ids.sep)


def _blocks(
    rows: Iterable[list[int]], length: int, pad: int, dtype: np.dtype
) -> Iterator[np.ndarray]:
    """Gather rows into padded matrices of at most ``BLOCK`` rows; refuse to yield none."""
    rows = iter(rows)
    empty = True
    while gathered := list(islice(rows, BLOCK)):
        block = np.full((len(gathered), length), pad, dtype=dtype)
        for line, row in zip(block, gathered, strict=True):
            line[: len(row)] = row
        yield block
        empty = False
    if empty:
        raise ValueError("the text is empty: there is nothing to cut into segments.")
