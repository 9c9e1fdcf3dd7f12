"""From documents to rows of token ids: tokenize, in several processes if wanted, and pack.

Two ways to pack. Densely: documents follow each other with a [SEP] between them, and every row but
the last is full. Officially: each row holds one text or two, as the builder of the official code
(``build_pretraining_dataset.py`` of google-research/electra) makes them.

Tokenization is the slow part and any number of processes give the same ids; packing takes the
tokenized documents in their order, in one process. Nothing here holds more than a few batches of
documents. Neither torch nor transformers is imported, so that a process starts quickly.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import get_context
from random import Random

from tokenizers import Tokenizer

CHARACTERS_AT_ONCE = 1_000_000
"""A batch of documents ends here: the library needs about 100 bytes for each token in work."""

Pieces = list[list[int]]
"""One tokenized document: the token ids of each piece, its lines or the whole."""

# ---------------------------------------------------------------- tokenize


def _batches(documents: Iterable[str], batch_size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document)
        if len(batch) == batch_size or characters >= CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _load(definition: str) -> Tokenizer:
    """Load a tokenizer from its JSON, for plain text: "[SEP]" in a text is no special token."""
    tokenizer = Tokenizer.from_str(definition)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _tokenize(tokenizer: Tokenizer, documents: list[str], by_line: bool) -> list[Pieces]:
    pieces = [document.split("\n") if by_line else [document] for document in documents]
    encodings = tokenizer.encode_batch_fast(list(chain(*pieces)), add_special_tokens=False)
    ids = (encoding.ids for encoding in encodings)
    return [[next(ids) for _ in parts] for parts in pieces]


_worker: Tokenizer  # of a process that tokenizes for another one


def _start_worker(definition: str) -> None:
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker = _load(definition)


def _work(documents: list[str], by_line: bool) -> list[Pieces]:
    return _tokenize(_worker, documents, by_line)


def tokenize_documents(
    documents: Iterable[str],
    definition: str,
    by_line: bool = False,
    batch_size: int = 256,
    processes: int = 1,
) -> Iterator[Pieces]:
    """Tokenize documents, lazily and in their order.

    Args:
        documents: the text.
        definition: the tokenizer as JSON (``tokenizers.Tokenizer.to_str``), without truncation and
            padding.
        by_line: tokenize each line for itself, rather than a document as a whole.
        batch_size: most documents in a batch.
        processes: 1 tokenizes here, where the tokenizers library uses threads of its own; more
            start as many processes with one thread each.

    Raises:
        RuntimeError: if a process ends early.
    """
    batches = _batches(documents, batch_size)
    if processes == 1:
        tokenizer = _load(definition)
        for batch in batches:
            yield from _tokenize(tokenizer, batch, by_line)
        return
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_start_worker, initargs=(definition,)
    )
    waiting: deque[Future[list[Pieces]]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(_work, batch, by_line))
            if len(waiting) > 2 * processes:  # no more in memory than keeps all of them busy
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that tokenizes ended early: use processes=1, or start the work of your "
            "script under `if __name__ == '__main__':`, which several processes need."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


# ---------------------------------------------------------------- pack


def pack_dense(
    documents: Iterable[Pieces], sequence_length: int, cls: int, sep: int
) -> Iterator[list[int]]:
    """Yield rows [CLS] + text + [SEP], all full but the last, with a [SEP] between documents.

    Args:
        documents: tokenized documents.
        sequence_length: tokens of a row, [CLS] and [SEP] counted.
        cls: id of [CLS].
        sep: id of [SEP].
    """
    body = sequence_length - 2
    stream: list[int] = []
    first = True
    for document in documents:
        tokens = list(chain(*document))
        if not tokens:
            continue
        if not first:
            stream.append(sep)
        first = False
        stream += tokens
        whole = len(stream) - len(stream) % body
        for start in range(0, whole, body):
            yield [cls, *stream[start : start + body], sep]
        del stream[:whole]
    if stream:
        yield [cls, *stream, sep]


def pack_official(
    documents: Iterable[Pieces], sequence_length: int, cls: int, sep: int, random: Random
) -> Iterator[list[int]]:
    """Yield rows [CLS] A [SEP] B [SEP], or [CLS] A [SEP], as the official builder makes them.

    The rule of ``ExampleBuilder`` in ``build_pretraining_dataset.py`` of google-research/electra:

    1. Lines of one document are gathered until together they have at least the target length, or
       the document ends. Each gathering becomes one row.
    2. The target length is the row's length. After each row, with probability 5 %, that of the
       next row is drawn instead from 5 to the row's length, uniformly.
    3. Segment A is meant to have half of the target length, (target - 3) // 2 tokens; with
       probability 10 % there is no such limit, so that A takes all. Line after line goes to A if A
       is empty or stays below the limit with it; the line that would cross it first still goes to A
       with probability 50 %; what does not go to A goes to B. A line that is short enough goes to A
       even after another went to B.
    4. A is cut to the row's length less 2, B to what is then left. What is cut off is lost: a line
       longer than a row keeps its beginning only. Text with one sentence a line loses little, text
       with long paragraphs much.

    The random numbers are drawn in the official order.

    Args:
        documents: tokenized documents, line by line.
        sequence_length: tokens of a row, special tokens counted; at least 5.
        cls: id of [CLS].
        sep: id of [SEP].
        random: where the random numbers come from.
    """
    target = sequence_length
    for document in documents:
        lines: Pieces = []
        gathered = 0
        for number, line in enumerate(document, start=1):
            lines.append(line)
            gathered += len(line)
            if gathered >= target or (gathered and number == len(document)):
                first, second = _split(lines, target, random)
                row = [cls, *first[: sequence_length - 2], sep]
                rest = sequence_length - len(row) - 1
                if second and rest > 0:
                    row += [*second[:rest], sep]
                yield row
                lines, gathered = [], 0
                shortened = random.random() < 0.05
                target = random.randint(5, sequence_length) if shortened else sequence_length


def _split(lines: Pieces, target: int, random: Random) -> tuple[list[int], list[int]]:
    """Share the lines of one row between its two segments."""
    limit = float("inf") if random.random() < 0.1 else (target - 3) // 2
    first: list[int] = []
    second: list[int] = []
    for line in lines:
        room = limit - len(first)
        crosses = bool(first) and len(line) >= room
        if crosses and (second or room <= 0 or random.random() >= 0.5):
            second += line
        else:
            first += line
    return first, second
