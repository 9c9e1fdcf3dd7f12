"""Segments: built from any text, whatever its size, stored, described, and found again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from electra_tutorial import segments as segments_module
from electra_tutorial.corpora import Corpus, iterate_documents
from electra_tutorial.segments import Segments, build_segments, segments_for, vocabulary_hash
from electra_tutorial.tokenization import load_tokenizer, train_wordpiece


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.text("abc ferry dawn.", min_size=1, max_size=80), min_size=1, max_size=6),
    st.integers(3, 20),
)
def test_segments_keep_every_token_in_order(tokenizer, texts, length):
    documents = tuple(text for text in texts if text.strip())
    if not documents:
        return
    segments = build_segments(Corpus("any", documents), tokenizer, length)
    expected: list[int] = []
    for document in documents:
        expected += [*tokenizer(document, add_special_tokens=False)["input_ids"], 3]
    rows = segments.input_ids
    assert (rows[:, 0] == tokenizer.cls_token_id).all()
    stream = [token for row in rows for token in row[1 : np.flatnonzero(row)[-1]].tolist()]
    assert stream == expected[:-1]
    for row in rows:
        last = np.flatnonzero(row)[-1]
        assert row[last] == tokenizer.sep_token_id
        assert not row[last + 1 :].any()


@pytest.mark.parametrize("packing", ["dense", "official"])
def test_segments_map_from_a_file(corpus, tokenizer, tmp_path, packing, monkeypatch):
    monkeypatch.setattr(segments_module, "BLOCK", 2)  # so that a file holds several blocks
    path = tmp_path / "deep" / "segments.npy"
    written = build_segments(corpus, tokenizer, 16, output=path, packing=packing)
    in_memory = build_segments(corpus, tokenizer, 16, packing=packing)
    assert isinstance(written.input_ids, np.memmap)
    assert np.array_equal(written.input_ids, in_memory.input_ids)
    assert np.array_equal(np.load(path), in_memory.input_ids)
    assert written.num_tokens == int(written.attention_mask().sum())
    assert written[0]["input_ids"].dtype == np.int64
    opened = Segments.open(path, tokenizer=tokenizer)
    assert (opened.packing, opened.pad_id) == (packing, tokenizer.pad_token_id)
    assert np.array_equal(opened.token_type_ids(), in_memory.token_type_ids())
    opened.take([2, 0]).save(tmp_path / "two.npy")
    two = Segments.open(tmp_path / "two.npy", tokenizer=tokenizer)
    assert two.packing == packing
    assert np.array_equal(two.input_ids, in_memory.input_ids[[2, 0]])
    assert not list(tmp_path.rglob("*.partial"))


def test_the_description_says_what_the_rows_are(corpus, tokenizer, tmp_path):
    built = build_segments(corpus, tokenizer, 16, tmp_path / "a.npy", packing="official", seed=3)
    known = json.loads((tmp_path / "a.npy.json").read_text())
    assert known["num_segments"] == len(built)
    assert known["num_tokens"] == built.num_tokens
    assert known["vocabulary"] == vocabulary_hash(tokenizer)
    assert known["text"] == segments_module.text_hash(corpus)
    assert (known["packing"], known["seed"], known["pad_id"]) == ("official", 3, 0)
    # what the ids mean survives saving and loading the tokenizer
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    Segments.open(tmp_path / "a.npy", tokenizer=load_tokenizer(tmp_path / "tokenizer"))


def test_token_types_by_hand():
    rows = np.array([[2, 7, 3, 8, 9, 3, 0, 0], [2, 7, 8, 3, 0, 0, 0, 0], [2, 7, 3, 8, 9, 7, 8, 3]])
    official = Segments(rows, 0, "official", sep_id=3)
    assert official.token_type_ids().tolist() == [
        [0, 0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1, 1, 1],
    ]
    assert official.token_type_ids([1]).tolist() == [[0] * 8]
    assert not Segments(rows, 0).token_type_ids().any()


def test_official_segments_equal_the_models_own_pairs(tokenizer):
    """A short document is one pair, as the tokenizer itself would write it."""
    lines = ["The ferry left the harbour", "Its lamps burned in the fog all day"]
    pair = tokenizer(*lines)
    length = len(pair["input_ids"])
    text = ["\n".join(lines)]
    built = (
        build_segments(text, tokenizer, length + 3, packing="official", seed=s) for s in range(20)
    )
    segments = next(found for found in built if found.token_type_ids().any())
    assert segments.input_ids[0, :length].tolist() == pair["input_ids"]
    assert segments.token_type_ids()[0, :length].tolist() == pair["token_type_ids"]


class Counted(str):
    """A text that a weak reference can watch."""

    __slots__ = ("__weakref__",)


def test_a_stream_is_never_held_as_a_whole(corpus, tokenizer, tmp_path):
    alive: weakref.WeakSet[Counted] = weakref.WeakSet()
    most = 0

    def stream():
        nonlocal most
        for i in range(300):
            document = Counted(f"{corpus.documents[i % 4]} {i}")
            alive.add(document)
            most = max(most, len(alive))
            yield document
            del document

    path = tmp_path / "stream.npy"
    streamed = build_segments(stream(), tokenizer, 32, path, batch_size=8)
    assert most <= 17  # two batches and the document on its way
    texts = tuple(f"{corpus.documents[i % 4]} {i}" for i in range(300))
    assert np.array_equal(streamed.input_ids, build_segments(texts, tokenizer, 32).input_ids)


def test_a_streamed_data_set_and_files_give_the_same_segments(corpus, tokenizer, tmp_path):
    from datasets import Dataset

    expected = build_segments(corpus, tokenizer, 16).input_ids
    rows = Dataset.from_dict({"text": list(corpus), "id": range(4)}).to_iterable_dataset()
    assert np.array_equal(build_segments(rows, tokenizer, 16).input_ids, expected)
    (tmp_path / "text.txt").write_text("\n\n".join(corpus), encoding="utf-8")
    documents = iterate_documents(tmp_path / "text.txt")
    assert np.array_equal(build_segments(documents, tokenizer, 16).input_ids, expected)


def test_the_cache_builds_once_for_each_text_tokenizer_and_setting(
    corpus, tokenizer, tmp_path, monkeypatch
):
    built = []
    build = segments_module.build_segments
    monkeypatch.setattr(
        segments_module, "build_segments", lambda *a, **k: built.append(1) or build(*a, **k)
    )
    first = segments_for(corpus, tokenizer, 16, tmp_path)
    again = segments_for(list(corpus), tokenizer, 16, tmp_path, seed=5, processes=2)
    assert len(built) == 1  # dense packing draws nothing, and processes change nothing
    assert np.array_equal(first.input_ids, again.input_ids)
    other = train_wordpiece(corpus.documents, vocab_size=90)
    segments_for(Corpus("shorter", corpus.documents[:3]), tokenizer, 16, tmp_path)
    segments_for(corpus, other, 16, tmp_path)
    segments_for(corpus, tokenizer, 17, tmp_path)
    for seed in (0, 1, 0):
        found = segments_for(corpus, tokenizer, 16, tmp_path, packing="official", seed=seed)
    assert len(built) == 6
    assert found.packing == "official"
    assert len(list(tmp_path.glob("*.npy"))) == len(list(tmp_path.glob("*.npy.json"))) == 6
    # a build that stopped before its description was written counts as absent
    for description in tmp_path.glob("*.json"):
        description.unlink()
    segments_for(corpus, tokenizer, 16, tmp_path)
    assert len(built) == 7


def test_a_file_without_description_still_opens(corpus, tokenizer, tmp_path):
    path = tmp_path / "old.npy"
    rows = build_segments(corpus, tokenizer, 16).input_ids
    np.save(path, rows)
    opened = Segments.open(path, pad_id=0, tokenizer=tokenizer)
    assert opened.packing == "dense"
    assert np.array_equal(opened.input_ids, rows)
    np.save(path, rows + 200)
    with pytest.raises(ValueError, match=r"hold token \d+ and it has only"):
        Segments.open(path, tokenizer=tokenizer)


def test_files_that_do_not_fit_are_refused(corpus, tokenizer, tmp_path):
    path = tmp_path / "a.npy"
    build_segments(corpus, tokenizer, 16, path)
    other = train_wordpiece(corpus.documents, vocab_size=90)
    with pytest.raises(ValueError, match="not made with this tokenizer"):
        Segments.open(path, tokenizer=other)
    description = tmp_path / "a.npy.json"
    whole, text = path.read_bytes(), description.read_text()
    np.save(path, np.load(path)[:-1])
    with pytest.raises(ValueError, match="do not belong together"):
        Segments.open(path)
    description.write_text(text[:40])
    with pytest.raises(ValueError, match=r"a\.npy\.json is damaged"):
        Segments.open(path)
    for cut in (50, len(whole) - 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"not a whole \.npy file"):
            Segments.open(path)
    np.save(path, np.zeros(5))
    with pytest.raises(ValueError, match="does not hold a matrix of token ids"):
        Segments.open(path)
    with pytest.raises(FileNotFoundError, match="no segments at"):
        Segments.open(tmp_path / "none.npy")


def test_a_build_that_fails_leaves_the_old_file_alone(corpus, tokenizer, tmp_path):
    path = tmp_path / "a.npy"
    before = build_segments(corpus, tokenizer, 16, path).input_ids.copy()

    def broken():
        yield from corpus
        raise ValueError("the text ends here")

    with pytest.raises(ValueError, match="the text ends here"):
        build_segments(broken(), tokenizer, 16, path)
    with pytest.raises(ValueError, match="the text is empty"):
        build_segments([" \n "], tokenizer, 16, path)
    assert np.array_equal(Segments.open(path, tokenizer=tokenizer).input_ids, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "a.npy.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not be written"):
        build_segments(corpus, tokenizer, 16, tmp_path / "file" / "a.npy")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_named(corpus, tokenizer, tmp_path, monkeypatch):
    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, *a, **k: opened(
            Path("/dev/full") if self.suffix == ".partial" else self, *a, **k
        ),
    )
    with pytest.raises(OSError, match=r"a\.npy could not be written .*No space left"):
        build_segments(corpus, tokenizer, 16, tmp_path / "a.npy")
    assert not list(tmp_path.iterdir())


def test_arguments_that_make_no_sense_are_refused(tokenizer, corpus, tmp_path):
    with pytest.raises(ValueError, match="at least 3 for dense"):
        build_segments(corpus, tokenizer, 2)
    with pytest.raises(ValueError, match="at least 5 for official"):
        build_segments(corpus, tokenizer, 4, packing="official")
    with pytest.raises(ValueError, match="the text is empty"):
        build_segments(Corpus("nothing", ()), tokenizer, 16)
    with pytest.raises(ValueError, match="unknown packing 'loose'"):
        build_segments(corpus, tokenizer, 16, packing="loose")
    with pytest.raises(ValueError, match="processes must be 1 or more, not 0"):
        build_segments(corpus, tokenizer, 16, processes=0)
    for one in ("a text", tmp_path):
        with pytest.raises(TypeError, match="is one string or path, not documents"):
            build_segments(one, tokenizer, 16)
    for row in (7, {"sentence": "fog"}):
        with pytest.raises(TypeError, match="a document must be a string"):
            build_segments([row], tokenizer, 16)
    with pytest.raises(TypeError, match="a generator can be read only once"):
        segments_for(iter(corpus), tokenizer, 16, tmp_path)
    with pytest.raises(TypeError, match="is not a fast tokenizer"):
        build_segments(corpus, SlowTokenizer(), 16)


class SlowTokenizer:
    """Has the ids that are asked for first, and no more."""

    pad_token_id, cls_token_id, sep_token_id, mask_token_id = 0, 2, 3, 4


def test_segments_are_the_same_for_any_number_of_processes(corpus, tokenizer):
    for packing in ("dense", "official"):
        one = build_segments(corpus, tokenizer, 16, packing=packing)
        two = build_segments(corpus, tokenizer, 16, batch_size=1, packing=packing, processes=2)
        assert np.array_equal(one.input_ids, two.input_ids)


@pytest.mark.slow
def test_segments_build_open_and_mask_without_the_package_datasets(tmp_path, root):
    program = """
import sys
sys.modules["datasets"] = None  # an import of it fails
import torch
from electra_tutorial.corpora import Segments, build_segments, iterate_documents
from electra_tutorial.masking import SpecialIds, mask_tokens
from electra_tutorial.tokenization import train_wordpiece
tokenizer = train_wordpiece(["red fog and the ferry"])
build_segments(["red fog", "the ferry"], tokenizer, 8, "a.npy")
segments = Segments.open("a.npy", tokenizer=tokenizer)
rows = torch.as_tensor(segments.input_ids.astype("int64"))
print(mask_tokens(rows, special_ids=SpecialIds.from_tokenizer(tokenizer)).chosen.any().item())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True", done.stderr
