from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_tutorial.marking import TINTS, Mark, as_html, as_text, join_words, overlay, show

TEXT, MARKS = join_words(["Ada", "Lovelace", "met", "Bob"], [(0, 2, "PER"), (3, 4, "PER")])


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_are_joined_and_marked() -> None:
    assert TEXT == "Ada Lovelace met Bob"
    assert [TEXT[mark.start : mark.end] for mark in MARKS] == ["Ada Lovelace", "Bob"]
    assert as_text(TEXT, MARKS) == "[Ada Lovelace: PER] met [Bob: PER]"


def test_html_names_each_label_and_escapes_the_text() -> None:
    shown = as_html("a < b & c", [Mark(4, 5, "x<y")])
    assert shown.startswith("<p ")
    assert "a &lt; <mark" in shown
    assert "</mark> &amp; c" in shown
    assert "b <small><b>x&lt;y</b></small>" in shown


def test_a_label_keeps_its_colour() -> None:
    first = as_html("ab", [Mark(0, 1, "LOC")], ["PER", "LOC"])
    second = as_html("ab", [Mark(0, 1, "PER"), Mark(1, 2, "LOC")], ["PER", "LOC"])
    assert TINTS[1] in first
    assert TINTS[0] not in first
    assert second.index(TINTS[0]) < second.index(TINTS[1])


def test_black_is_legible_on_every_tint() -> None:
    assert min((luminance(tint) + 0.05) / 0.05 for tint in TINTS) > 11


@pytest.mark.parametrize("marks", [[(0, 0)], [(0, 3), (2, 5)], [(3, 99)]])
def test_marks_that_do_not_fit_are_refused(marks: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="overlaps another, or reaches beyond the 5"):
        as_text("hello", [Mark(start, end, "x") for start, end in marks])


def test_show_gives_html_and_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[dict[str, str], bool]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append((data, raw)))
    show(TEXT, MARKS)
    ((bundle, raw),) = shown
    assert raw
    assert bundle == {
        "text/html": as_html(TEXT, MARKS),
        "text/plain": as_text(TEXT, MARKS),
    }


@given(st.text(max_size=40), st.lists(st.integers(0, 40), max_size=8, unique=True))
def test_nothing_of_the_text_is_lost(text: str, cuts: list[int]) -> None:
    ends = sorted(cut for cut in cuts if cut <= len(text))
    marks = [Mark(a, b, "label") for a, b in zip(ends[::2], ends[1::2], strict=False)]
    bare = re.sub(r" <small>.*?</small>|<[^>]+>", "", as_html(text, marks))
    assert html.unescape(bare) == text


def test_overlapping_marks_are_cut_where_they_overlap() -> None:
    true, answer = Mark(4, 9, "true"), Mark(0, 6, "given")
    parts = [Mark(0, 4, "given"), Mark(4, 6, "true + given"), Mark(6, 9, "true")]
    assert overlay([true, answer]) == parts
    assert overlay([true, Mark(4, 9, "given")]) == [Mark(4, 9, "true + given")]
    assert overlay([Mark(5, 7, "b"), Mark(0, 2, "a")]) == [Mark(0, 2, "a"), Mark(5, 7, "b")]
    assert as_text("0123456789", parts) == "[0123: given][45: true + given][678: true]9"
    with pytest.raises(ValueError, match="'true' from 3 to 3 is empty"):
        overlay([Mark(3, 3, "true")])


SPANS = st.tuples(st.integers(0, 19), st.integers(1, 20), st.sampled_from("abc"))


@given(st.lists(SPANS.filter(lambda span: span[0] < span[1]), max_size=6))
def test_each_character_keeps_the_labels_of_its_marks(spans: list[tuple[int, int, str]]) -> None:
    marks = [Mark(*span) for span in spans]
    parts = overlay(marks)
    for place in range(20):
        over = list(dict.fromkeys(m.label for m in marks if m.start <= place < m.end))
        expected = [" + ".join(over)] if over else []
        assert [part.label for part in parts if part.start <= place < part.end] == expected
    assert all(a.end <= b.start for a, b in zip(parts, parts[1:], strict=False))
