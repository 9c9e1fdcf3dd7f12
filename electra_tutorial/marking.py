"""Text with marked parts, as a notebook shows it: names by type, an answer in its context.

A mark is a colour and its label in words, so that nothing hangs on the colour. The colours carry
their own text colour and are legible on a light and on a dark page. Where HTML is not shown, in a
terminal or to a reader of the raw notebook, the same text stands there with its marks in brackets.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# Light tints of the figures' palette, for black text: contrast at least 11 to 1.
TINTS = ("#9FD4F5", "#F5C09A", "#A8E0C6", "#EBC3DA", "#F3E08E", "#D2D2D2")


@dataclass(frozen=True)
class Mark:
    """A part of a text, from the character `start` up to `end`, and what it is called."""

    start: int
    end: int
    label: str


def join_words(
    words: Sequence[str], spans: Sequence[tuple[int, int, str]]
) -> tuple[str, list[Mark]]:
    """Words with a space between, and a mark for each span (first word, last word + 1, label)."""
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word) + 1)
    marks = [Mark(starts[first], starts[last] - 1, label) for first, last, label in spans]
    return " ".join(words), marks


def overlay(marks: Sequence[Mark]) -> list[Mark]:
    """Marks that may overlap, cut into parts that do not: a true answer and a given one, say.

    A part that lies in several marks has all their labels, in the order of `marks`, with " + "
    between them. Parts that touch and have the same label are one part.

    Raises:
        ValueError: if a mark is empty.
    """
    for mark in marks:
        if mark.start >= mark.end:
            raise ValueError(f"The mark {mark.label!r} from {mark.start} to {mark.end} is empty.")
    edges = sorted({edge for mark in marks for edge in (mark.start, mark.end)})
    parts: list[Mark] = []
    for start, end in pairwise(edges):
        names = [mark.label for mark in marks if mark.start <= start and end <= mark.end]
        label = " + ".join(dict.fromkeys(names))
        if parts and parts[-1].end == start and parts[-1].label == label:
            parts[-1] = Mark(parts[-1].start, end, label)
        elif names:
            parts.append(Mark(start, end, label))
    return parts


def as_text(text: str, marks: Sequence[Mark]) -> str:
    """The text with each mark in brackets: ``[Ada Lovelace: PER] met ...``."""
    parts = []
    for part, mark in _parts(text, marks):
        parts.append(part if mark is None else f"[{part}: {mark.label}]")
    return "".join(parts)


def as_html(text: str, marks: Sequence[Mark], labels: Sequence[str] | None = None) -> str:
    """The text as a paragraph of HTML in which each mark has a colour and its label.

    The place of a label in `labels` chooses its colour; default: in order of appearance.
    """
    order = list(labels or []) + [mark.label for mark in sorted(marks, key=lambda m: m.start)]
    tint = {label: TINTS[i % len(TINTS)] for i, label in enumerate(dict.fromkeys(order))}
    parts = ['<p style="line-height: 1.9">']
    for part, mark in _parts(text, marks):
        shown = html.escape(part)
        if mark is not None:
            style = f"background: {tint[mark.label]}; color: #000; padding: 0.1em 0.3em"
            label = f"<small><b>{html.escape(mark.label)}</b></small>"
            shown = f'<mark style="{style}; border-radius: 0.3em">{shown} {label}</mark>'
        parts.append(shown)
    return "".join([*parts, "</p>"])


def show(text: str, marks: Sequence[Mark], labels: Sequence[str] | None = None) -> None:
    """Display the text with its marks, as HTML and, for where that is not shown, as plain text."""
    from IPython.display import display

    bundle = {"text/html": as_html(text, marks, labels), "text/plain": as_text(text, marks)}
    display(bundle, raw=True)


def _parts(text: str, marks: Sequence[Mark]) -> list[tuple[str, Mark | None]]:
    """The text cut at the marks, in order.

    Raises:
        ValueError: if a mark is empty or reaches beyond the text, or two overlap.
    """
    parts: list[tuple[str, Mark | None]] = []
    done = 0
    for mark in sorted(marks, key=lambda m: m.start):
        if not done <= mark.start < mark.end <= len(text):
            raise ValueError(
                f"The mark {mark.label!r} from {mark.start} to {mark.end} is empty, overlaps "
                f"another, or reaches beyond the {len(text)} characters of the text."
            )
        parts += [(text[done : mark.start], None), (text[mark.start : mark.end], mark)]
        done = mark.end
    return [(part, mark) for part, mark in [*parts, (text[done:], None)] if part]
