"""Packing: the official builder's rule by hand, as properties and as proportions; dense rows."""

from __future__ import annotations

from itertools import chain
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from electra_tutorial import packing
from electra_tutorial.packing import pack_dense, pack_official, tokenize_documents

CLS, SEP = 2, 3


class Script(Random):
    """Random numbers written down beforehand."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)

    def randint(self, low: int, high: int) -> int:
        number = int(self.numbers.pop(0))
        assert low <= number <= high
        return number


def numbered(sizes: list[list[int]]) -> list[list[list[int]]]:
    """Documents of lines of these sizes, whose tokens are 10, 11, 12, ..."""
    token = iter(range(10, 1_000_000))
    return [[[next(token) for _ in range(size)] for size in document] for document in sizes]


def test_official_packing_by_hand():
    documents = [
        [[10, 11], [20, 21, 22], [30], [40, 41, 42, 43, 44, 45]],
        [[50, 51, 52], [60]],
        [[70, 71, 72, 73], [80, 81], [90]],
    ]
    script = Script(
        # Four lines reach the target of 12. A may have 4 tokens. The second line would cross that
        # and its coin sends it to B; the third still fits into A; B is cut to the six that are left
        *(0.5, 0.7, 0.9),
        # the document ends at four tokens; one segment only; and the next target is drawn: 6
        *(0.05, 0.01, 6),
        # A may have one token and already has four: the second line goes to B without a coin
        *(0.5, 0.9),
        # what is left of the document
        *(0.5, 0.9),
    )
    assert list(pack_official(documents, 12, CLS, SEP, script)) == [
        [CLS, 10, 11, 30, SEP, 20, 21, 22, 40, 41, 42, SEP],
        [CLS, 50, 51, 52, 60, SEP],
        [CLS, 70, 71, 72, 73, SEP, 80, 81, SEP],
        [CLS, 90, SEP],
    ]
    assert not script.numbers


def test_a_line_longer_than_a_row_keeps_its_beginning():
    (row,) = pack_official([[list(range(10, 40))]], 8, CLS, SEP, Random(0))
    assert row == [CLS, *range(10, 16), SEP]


SIZES = st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=6)


@settings(deadline=None, max_examples=100)
@given(SIZES, st.integers(5, 40), st.integers(0, 999))
def test_official_rows_hold_one_or_two_texts_of_one_document(sizes, length, seed):
    documents = numbered(sizes)
    owner = {t: d for d, document in enumerate(documents) for line in document for t in line}
    rows = list(pack_official(documents, length, CLS, SEP, Random(seed)))
    assert rows == list(pack_official(documents, length, CLS, SEP, Random(seed)))
    seen: list[int] = []
    for row in rows:
        assert row[0] == CLS
        assert row[-1] == SEP
        assert 3 <= len(row) <= length
        assert row.count(SEP) in (1, 2)
        cut = row.index(SEP)
        first, second = row[1:cut], row[cut + 1 : -1]
        assert first == sorted(first)
        assert second == sorted(second)
        assert len({owner[token] for token in first + second}) == 1
        seen += sorted(first + second)
    assert seen == sorted(set(seen))  # documents in their order, no token twice
    assert {owner[token] for token in seen} == set(owner.values())  # every document has its row


def test_official_proportions():
    length, tokens = 32, 100_000
    (document,) = numbered([[1] * tokens])
    rows = list(pack_official([document], length, CLS, SEP, Random(1)))
    # one-token lines: a row gathers exactly its target, which is where the next one starts
    targets = np.diff([row[1] for row in rows])
    single = sum(row.count(SEP) == 1 for row in rows)
    assert stats.binomtest(single, len(rows), 0.1).pvalue > 0.001
    # of the 28 lengths that are drawn, 5 to 32, the last shortens nothing
    shortened = targets[targets < length]
    assert stats.binomtest(len(shortened), len(targets), 0.05 * 27 / 28).pvalue > 0.001
    assert stats.chisquare(np.bincount(shortened - 5, minlength=27)).pvalue > 0.001


def test_the_line_that_crosses_goes_to_either_segment():
    # A may have 8 tokens; the third line of 3 would make it 9
    (document,) = numbered([[3] * 30_000])
    rows = list(pack_official([document], 19, CLS, SEP, Random(2)))
    firsts = [row.index(SEP) - 1 for row in rows if row.count(SEP) == 2 and len(row) == 19]
    assert set(firsts) <= {3, 6, 9}  # 3 in rows whose target was shortened
    assert stats.binomtest(firsts.count(9), firsts.count(9) + firsts.count(6), 0.5).pvalue > 0.001


@settings(deadline=None, max_examples=100)
@given(SIZES, st.integers(3, 40))
def test_dense_rows_hold_everything_and_are_full(sizes, length):
    documents = numbered(sizes)
    rows = list(pack_dense(documents, length, CLS, SEP))
    texts = [[*chain(*document), SEP] for document in documents if any(document)]
    assert [token for row in rows for token in row[1:-1]] == list(chain(*texts))[:-1]
    assert all(row[0] == CLS and row[-1] == SEP for row in rows)
    assert all(len(row) == length for row in rows[:-1])
    assert all(len(row) <= length for row in rows)


def test_documents_become_the_same_ids_however_they_are_gathered(tokenizer, corpus, monkeypatch):
    definition = tokenizer.backend_tokenizer.to_str()
    expected = [
        [tokenizer(line, add_special_tokens=False)["input_ids"] for line in document.split("\n")]
        for document in corpus
    ]
    for batch_size, characters in ((256, 10**6), (3, 10**6), (256, 1)):
        monkeypatch.setattr(packing, "CHARACTERS_AT_ONCE", characters)
        found = tokenize_documents(corpus, definition, by_line=True, batch_size=batch_size)
        assert list(found) == expected


def test_a_special_token_in_a_text_is_text(tokenizer):
    definition = tokenizer.backend_tokenizer.to_str()
    (((ids),),) = tokenize_documents(["red [SEP] fog [PAD] [MASK]"], definition)
    assert not {tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id} & set(ids)


def test_several_processes_give_the_same_ids_in_the_same_order(tokenizer, corpus):
    documents = [f"{document} {i % 7}" for i in range(10) for document in corpus]
    definition = tokenizer.backend_tokenizer.to_str()
    alone = list(tokenize_documents(documents, definition))
    several = tokenize_documents(documents, definition, batch_size=3, processes=2)
    assert list(several) == alone


def test_a_process_that_cannot_start_is_reported():
    with pytest.raises(RuntimeError, match="ended early: use processes=1"):
        list(tokenize_documents(["fog"], "no tokenizer", processes=2))
