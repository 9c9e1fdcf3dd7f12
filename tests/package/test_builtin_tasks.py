"""The built-in sets for classification: balanced, clean, varied, and as their data cards say."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

from electra_tutorial.tasks import TASKS, load_task

FOLDER = Path(__file__).resolve().parents[2] / "electra_tutorial" / "builtin"
SPLITS = ("train", "validation", "test")

Row = dict[str, str]


@dataclass(frozen=True)
class Expected:
    """What holds for one set.

    Attributes:
        labels: the classes, in the order of their numbers.
        per_class: how many texts each class has in each split.
        words: the fewest and the most words of a text.
        best_word: the most that the rule "this one word occurs" may score.
        openings: how many texts may share their first two words.
        ordinary: words of a class's name that texts of other classes may hold.
        sentences: whether every text starts and ends as a sentence does.
    """

    labels: tuple[str, ...]
    per_class: Mapping[str, int]
    words: tuple[int, int]
    best_word: float
    openings: int
    ordinary: frozenset[str] = field(default_factory=frozenset)
    sentences: bool = True


SETS = {
    "topics": Expected(
        labels=("World", "Sports", "Business", "Sci/Tech"),
        per_class={"train": 72, "validation": 16, "test": 32},
        words=(12, 60),
        best_word=0.35,
        openings=3,
        ordinary=frozenset({"world"}),  # "a world record" is sport
    ),
    "reviews": Expected(
        labels=("negative", "positive"),
        per_class={"train": 300, "validation": 72, "test": 108},
        words=(8, 45),
        best_word=0.6,
        openings=11,  # "I was ..."
    ),
    "messages": Expected(
        labels=("wanted", "spam"),
        per_class={"train": 120, "validation": 24, "test": 36},
        words=(5, 50),
        best_word=0.7,
        openings=4,
        sentences=False,  # people also write "can you get milk on the way back?"
    ),
}
pytestmark = pytest.mark.parametrize("name", SETS)


@cache
def read(name: str) -> tuple[Row, ...]:
    """All rows of a set, in the order of the file."""
    content = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in content.splitlines())


def card(name: str) -> str:
    """The data card."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def words(text: str) -> list[str]:
    """Lower-case words and numbers, without the punctuation around them."""
    return re.findall(r"[a-z0-9]+(?:['.,-][a-z0-9]+)*", text.lower())


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """The distinct word n-grams of a text."""
    tokens = words(text)
    return set(zip(*(tokens[i:] for i in range(n)), strict=False))


@cache
def texts_per_fourgram(name: str) -> Counter[tuple[str, ...]]:
    """In how many texts each word 4-gram occurs."""
    return Counter(gram for row in read(name) for gram in ngrams(row["text"], 4))


@cache
def largest_similarity(name: str) -> tuple[float, str, str]:
    """The largest Jaccard similarity of two texts' word 3-grams, and the two texts."""
    grams = [(row["text"], ngrams(row["text"], 3)) for row in read(name)]
    return max(
        (len(both) / (len(a) + len(b) - len(both)), first, second)
        for (first, a), (second, b) in combinations(grams, 2)
        if (both := a & b)
    )


@cache
def best_word(name: str) -> tuple[float, str]:
    """The most accurate rule that looks for one word, and that word.

    It calls every text with the word by the class that is most frequent among them, and likewise
    every text without it.
    """
    rows = read(name)
    totals = Counter(row["label"] for row in rows)
    holding: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for word in set(words(row["text"])):
            holding[word][row["label"]] += 1
    return max(
        ((max(count.values()) + max((totals - count).values())) / len(rows), word)
        for word, count in holding.items()
    )


def sharing_opening(name: str, n: int) -> int:
    """How many texts share their first n words with another text."""
    openings = Counter(tuple(words(row["text"])[:n]) for row in read(name))
    return sum(count for count in openings.values() if count > 1)


def test_the_task_loads_as_the_file_says(name: str) -> None:
    task = load_task(name, quiet=True)
    assert task.label_names == TASKS[name].label_names == SETS[name].labels
    for split in SPLITS:
        rows = [row for row in read(name) if row["split"] == split]
        data = getattr(task, split)
        assert list(data["text"]) == [row["text"] for row in rows]
        assert [task.label_names[i] for i in data["label"]] == [row["label"] for row in rows]


def test_rows_have_the_three_columns(name: str) -> None:
    for row in read(name):
        assert list(row) == ["text", "label", "split"]
        assert all(isinstance(value, str) for value in row.values())


def test_every_class_has_its_share_of_every_split(name: str) -> None:
    expected = SETS[name]
    shares = {
        (label, split): n for label in expected.labels for split, n in expected.per_class.items()
    }
    assert Counter((row["label"], row["split"]) for row in read(name)) == shares


def test_the_classes_are_mixed_within_each_split(name: str) -> None:
    # A reader who takes the first rows must not get a single class.
    for split in SPLITS:
        first = [row["label"] for row in read(name) if row["split"] == split][:16]
        assert set(first) == set(SETS[name].labels)


def test_the_file_is_clean_text(name: str) -> None:
    content = (FOLDER / f"{name}.jsonl").read_bytes()
    assert content.endswith(b"\n")
    assert b"\r" not in content
    for row in read(name):
        text = row["text"]
        assert text.isascii(), text
        assert text.isprintable(), text
        assert text == " ".join(text.split()), text
        assert text.count('"') % 2 == 0, text
        assert not re.search(r"<[a-z]|&[a-z]+;|[{}\[\]_#]", text), text
        if SETS[name].sentences:
            assert re.match(r'["A-Z0-9]', text), text
            assert text[-1] in '.?!"', text


def test_no_address_or_telephone_number_can_be_real(name: str) -> None:
    for row in read(name):
        text = row["text"]
        assert not re.search(r"https?:|www\.|@", text), text
        for address in re.findall(r"\b[\w-]+(?:\.[\w-]+)*\.(?:[a-z]{2,3}|info)\b", text):
            assert re.search(r"\bexample\.(?:com|net|org)$", address), text
        assert not re.search(r"\d(?:[ -]?\d){7}", text), text


def test_lengths(name: str) -> None:
    fewest, most = SETS[name].words
    for row in read(name):
        assert fewest <= len(row["text"].split()) <= most, row["text"]


def test_no_text_occurs_twice(name: str) -> None:
    assert len({" ".join(words(row["text"])) for row in read(name)}) == len(read(name))


def test_no_two_texts_are_near_duplicates(name: str) -> None:
    # Over all pairs, which includes every pair that lies in two splits.
    similarity, first, second = largest_similarity(name)
    assert similarity < 0.1, (first, second)


def test_no_fourgram_betrays_a_template(name: str) -> None:
    repeated = {" ".join(gram): n for gram, n in texts_per_fourgram(name).items() if n > 2}
    assert not repeated


def test_texts_open_differently(name: str) -> None:
    openings: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in read(name):
        openings[tuple(words(row["text"])[:2])].append(row["text"])
    most = SETS[name].openings
    assert not {opening: texts for opening, texts in openings.items() if len(texts) > most}
    assert sharing_opening(name, 3) <= 0.03 * len(read(name))


def test_labels_do_not_occur_as_words(name: str) -> None:
    # "Sports ..." or "... spam" would hand the class over.
    expected = SETS[name]
    given_away = {
        word for label in expected.labels for word in re.findall(r"[a-z]+", label.lower())
    }
    for row in read(name):
        own = set(re.findall(r"[a-z]+", row["label"].lower()))
        forbidden = given_away - expected.ordinary | own
        assert not forbidden & set(re.findall(r"[a-z]+", row["text"].lower())), row


def test_no_single_word_tells_the_classes_apart(name: str) -> None:
    accuracy, word = best_word(name)
    assert accuracy <= SETS[name].best_word, word


def test_the_card_states_the_measured_figures(name: str) -> None:
    rows, text = read(name), card(name)
    lengths = [len(row["text"].split()) for row in rows]
    average = round(sum(lengths) / len(lengths))
    assert f"{min(lengths)} to {max(lengths)} words, {average} on average" in text
    counts = texts_per_fourgram(name)
    repeated = sum(n == 2 for n in counts.values())
    assert f"| word 4-grams that occur in two texts | {repeated} (of {len(counts):,}) |" in text
    assert f"word 3-grams | {largest_similarity(name)[0]:.3f} |" in text
    opening = re.search(r"share their first (two|three) words with another text \| (\d+) \|", text)
    assert opening is not None
    assert sharing_opening(name, 2 if opening[1] == "two" else 3) == int(opening[2])
    stated = re.search(r'"this one word occurs" \| (\S+) \|', text)
    assert stated is None or stated[1] == f"{best_word(name)[0]:.3f}"
    for label in SETS[name].labels:
        n = SETS[name].per_class
        row = f"| {label} | {n['train']} | {n['validation']} | {n['test']} | {sum(n.values())} |"
        assert row in text


def test_the_card_s_baseline_runs_and_gives_its_figures(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", card(name), flags=re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(FOLDER.parents[1])
    exec(compile(blocks[0], f"{name}.md", "exec"), {})
    printed = re.fullmatch(r"test (\S+), folds (\S+), deviation (\S+)\n", capsys.readouterr().out)
    stated = re.search(
        r"accuracy of \*\*(\S+)\*\*.*gives (\S+), with a standard deviation of (\S+) between",
        card(name),
        flags=re.DOTALL,
    )
    assert printed is not None
    assert stated is not None
    # Another scikit-learn may decide two or three close texts differently.
    assert [float(n) for n in printed.groups()] == pytest.approx(
        [float(n) for n in stated.groups()], abs=0.05
    )
