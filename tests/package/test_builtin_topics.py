"""The built-in `topics` set: balanced, clean, varied, and as its data card describes it."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

LABELS = ("World", "Sports", "Business", "Sci/Tech")
PER_CLASS = {"train": 36, "validation": 8, "test": 16}

Row = dict[str, str]


@pytest.fixture(scope="module")
def path(root: Path) -> Path:
    """The file with the rows."""
    return root / "electra_tutorial" / "builtin" / "topics.jsonl"


@pytest.fixture(scope="module")
def rows(path: Path) -> list[Row]:
    """All rows, in the order of the file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def card(path: Path) -> str:
    """The data card."""
    return path.with_suffix(".md").read_text(encoding="utf-8")


def words(text: str) -> list[str]:
    """Lower-case words and numbers, without the punctuation around them."""
    return re.findall(r"[a-z0-9]+(?:['.,-][a-z0-9]+)*", text.lower())


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """The distinct word n-grams of a text."""
    tokens = words(text)
    return set(zip(*(tokens[i:] for i in range(n)), strict=False))


def texts_per_fourgram(rows: list[Row]) -> Counter[tuple[str, ...]]:
    """In how many texts each word 4-gram occurs."""
    return Counter(gram for row in rows for gram in ngrams(row["text"], 4))


def largest_similarity(rows: list[Row]) -> tuple[float, str, str]:
    """The largest Jaccard similarity of two rows' word 3-grams, and the two texts."""
    grams = [(row["text"], ngrams(row["text"], 3)) for row in rows]
    return max(
        (len(a & b) / len(a | b), first, second)
        for (first, a), (second, b) in combinations(grams, 2)
    )


def test_rows_have_the_three_columns(rows: list[Row]) -> None:
    for row in rows:
        assert list(row) == ["text", "label", "split"]
        assert all(isinstance(value, str) for value in row.values())
        assert row["label"] in LABELS


def test_every_class_has_its_share_of_every_split(rows: list[Row]) -> None:
    expected = {(label, split): n for label in LABELS for split, n in PER_CLASS.items()}
    assert Counter((row["label"], row["split"]) for row in rows) == expected


def test_the_classes_are_mixed_within_each_split(rows: list[Row]) -> None:
    # A reader who takes the first rows must not get a single class.
    for split in PER_CLASS:
        first = [row["label"] for row in rows if row["split"] == split][:16]
        assert set(first) == set(LABELS)


def test_the_file_is_clean_text(path: Path, rows: list[Row]) -> None:
    content = path.read_bytes()
    assert content.endswith(b"\n")
    assert b"\r" not in content
    for row in rows:
        text = row["text"]
        assert text.isascii(), text
        assert text.isprintable(), text
        assert text == " ".join(text.split()), text
        assert re.match(r'["A-Z0-9]', text), text
        assert text[-1] in '."', text
        assert text.count('"') % 2 == 0, text
        assert not re.search(r"https?:|www\.|<[a-z]|&[a-z]+;|[{}\[\]|_*#]", text), text


def test_lengths(rows: list[Row]) -> None:
    for row in rows:
        assert 12 <= len(row["text"].split()) <= 60, row["text"]


def test_no_text_occurs_twice(rows: list[Row]) -> None:
    assert len({" ".join(words(row["text"])) for row in rows}) == len(rows)


def test_no_two_texts_are_near_duplicates(rows: list[Row]) -> None:
    # Over all pairs, which includes every pair that lies in two splits.
    similarity, first, second = largest_similarity(rows)
    assert similarity < 0.1, (first, second)


def test_no_fourgram_betrays_a_template(rows: list[Row]) -> None:
    repeated = {" ".join(gram): n for gram, n in texts_per_fourgram(rows).items() if n > 2}
    assert not repeated


def test_texts_open_differently(rows: list[Row]) -> None:
    openings: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in rows:
        openings[tuple(words(row["text"])[:2])].append(row["text"])
    assert not {opening: texts for opening, texts in openings.items() if len(texts) > 3}


def test_labels_do_not_occur_in_their_own_texts_as_words(rows: list[Row]) -> None:
    # "Sports ..." or "... business" would hand the class over. "World" is an ordinary word in
    # the texts of other classes (a world record), so it is bounded over all of them.
    for row in rows:
        assert not {"sports", "business", "sci-tech", "sci/tech"} & set(words(row["text"])), row
        assert row["label"] != "World" or "world" not in words(row["text"]), row


def test_the_card_states_the_measured_figures(rows: list[Row], card: str) -> None:
    lengths = [len(row["text"].split()) for row in rows]
    average = round(sum(lengths) / len(lengths))
    assert f"{min(lengths)} to {max(lengths)} words, {average} on average" in card
    counts = texts_per_fourgram(rows)
    repeated = sum(n == 2 for n in counts.values())
    assert f"| word 4-grams that occur in two texts | {repeated} (of {len(counts):,}) |" in card
    assert f"word 3-grams | {largest_similarity(rows)[0]:.3f} |" in card
    openings = Counter(tuple(words(row["text"])[:2]) for row in rows)
    shared = sum(n for n in openings.values() if n > 1)
    assert f"with another text | {shared} |" in card


def test_the_card_s_baseline_runs_and_gives_its_figures(
    root: Path,
    card: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(root)
    exec(compile(blocks[0], "topics.md", "exec"), {})
    printed = re.fullmatch(r"test (\S+), folds (\S+), deviation (\S+)\n", capsys.readouterr().out)
    stated = re.search(
        r"accuracy of \*\*(\S+)\*\*.*gives (\S+), with a standard deviation of (\S+) between",
        card,
        flags=re.DOTALL,
    )
    assert printed is not None
    assert stated is not None
    # Another scikit-learn may decide two or three close texts differently.
    assert [float(n) for n in printed.groups()] == pytest.approx(
        [float(n) for n in stated.groups()], abs=0.05
    )
