"""What every committed notebook must be: one small check for each rule.

`python tools/gates.py [NOTEBOOK ...]` prints what is wrong, a sentence for each finding. A check is
a function of a notebook's name, its contents and the book around it; it returns its findings.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from electra_tutorial import runner

ROOT = Path(__file__).resolve().parents[1]
Notebook = dict[str, Any]
Cell = dict[str, Any]

MOST_LINES, MOST_LINES_LONG, WIDEST_LINE = 20, 40, 100
LEAST_COMPARED = 0.6
MOST_MEMORY_MB = 2000
# Seconds on 2 cores: the first beginning that fits counts.
BUDGETS = {"05_2": 200, "05_": 75, "06_": 45, "": 15}
CLOSING = ["Exercises", "Summary", "Further reading"]
COLAB_CELL = """\
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("electra_tutorial") is None:  # true in a fresh Colab, false on your machine
    address = "electra-tutorial[chapters] @ git+{address}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", address], check=True)"""  # noqa: E501

ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|Users|root|tmp|work|usr|opt|var|content|mnt|private|srv)/[\w.-]+"
    r"|(?<![\w/])[A-Z]:\\\w+"
)
DIRECTIVE = re.compile(r"^\s*(?:`{3,}|:{3,}|~{3,})\s*\{[\w:+-]+\}", re.MULTILINE)
ROLE = re.compile(r"\{[a-z][\w:+-]*\}`[^`]+`")
TARGET = re.compile(r"^\([\w.:-]+\)=\s*$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(|<img\b(?P<html>[^>]*)>")
TAG = re.compile(r"\\tag\{([^}]*)\}")
EQUATION_NAMED = re.compile(
    r"\b[Ee]q(?:uation|\.)s?\s+\(?(\d+(?:\.\d+)+[a-z]?)\)?"
    r"(?:(?:,| and| to|, and)\s+\(?(\d+(?:\.\d+)+[a-z]?)\)?)?"
)


@dataclass(frozen=True)
class Book:
    """The repository at `root`, as far as the checks ask for it."""

    root: Path = ROOT
    _headings: dict[Path, set[str]] = field(default_factory=dict)

    @cached_property
    def notebooks(self) -> dict[str, Notebook]:
        paths = sorted((self.root / "notebooks").glob("*.ipynb"))
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}

    @cached_property
    def contents(self) -> list[str]:
        """Every file that _toc.yml names, without its ending."""

        def files(node: Any) -> Iterator[str]:
            if isinstance(node, dict):
                for key, value in node.items():
                    if key in ("file", "root"):
                        yield str(value).removesuffix(".md").removesuffix(".ipynb")
                    else:
                        yield from files(value)
            elif isinstance(node, list):
                for entry in node:
                    yield from files(entry)

        return list(files(yaml.safe_load((self.root / "_toc.yml").read_text(encoding="utf-8"))))

    @cached_property
    def profiles(self) -> dict[str, dict[str, dict[str, Any]]]:
        return runner.read_profiles(self.root / "notebooks")

    @cached_property
    def run_times(self) -> dict[str, dict[str, Any]]:
        path = self.root / "notebooks" / "run_times.json"
        if not path.is_file():
            return {}
        times: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["notebooks"]
        return times

    @cached_property
    def address(self) -> str:
        """The repository's address, which stands in _config.yml and nowhere else by hand."""
        config = yaml.safe_load((self.root / "_config.yml").read_text(encoding="utf-8"))
        return str(config["repository"]["url"])

    @cached_property
    def references(self) -> set[str]:
        """The keys of references.bib."""
        path = self.root / "book" / "references.bib"
        if not path.is_file():
            return set()
        return set(re.findall(r"^@\w+\{\s*([^,\s]+)\s*,", path.read_text(encoding="utf-8"), re.M))

    @cached_property
    def tags(self) -> dict[str, list[str]]:
        """Equation number -> the notebooks that give it to an equation, once for each time."""
        found: dict[str, list[str]] = {}
        for name, notebook in self.notebooks.items():
            for text in markdown(notebook):
                for tag in TAG.findall(text):
                    found.setdefault(tag, []).append(name)
        return found

    def anchors(self, path: Path) -> set[str]:
        """What a link to `path` can name after #."""
        if path not in self._headings:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".ipynb":
                text = "\n\n".join(markdown(json.loads(text)))
            text = re.sub(r"^(`{3,}|~{3,}).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
            titles = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.MULTILINE)
            labels = re.findall(r"^\(([^)]+)\)=\s*$|\b(?:id|name)=\"([^\"]+)\"", text, re.MULTILINE)
            self._headings[path] = {slug(title) for title in titles} | {a or b for a, b in labels}
        return self._headings[path]


Check = Callable[[str, Notebook, Book], list[str]]


def source(cell: Cell) -> str:
    return "".join(cell["source"])


def tags(cell: Cell) -> list[str]:
    return list(cell.get("metadata", {}).get("tags", []))


def code_cells(notebook: Notebook) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def markdown(notebook: Notebook) -> list[str]:
    return [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def prose(notebook: Notebook) -> str:
    """The Markdown without what stands in code fences and code spans."""
    text = "\n\n".join(markdown(notebook))
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<![`}])`[^`\n]+`", "", text)


def slug(title: str) -> str:
    """The anchor that MyST and GitHub make of a heading."""
    title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
    title = title.replace("`", "").replace("*", "").replace("$", "")
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def pictures(cell: Cell) -> list[dict[str, Any]]:
    """The outputs of a cell that are pictures of any kind."""
    return [
        output
        for output in cell.get("outputs", [])
        if any(kind.startswith("image/") for kind in output.get("data", {}))
    ]


def printed(cell: Cell) -> str:
    """What nbval can compare: text that is not merely a picture's stand-in."""
    texts = []
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream" and output["name"] == "stdout":
            texts.append("".join(output["text"]))
        elif output.get("data") and not any(k.startswith("image/") for k in output["data"]):
            texts.append("".join(output["data"].get("text/plain", "")))
    return "".join(texts)


def compared(cell: Cell) -> bool:
    """Whether nbval compares a text that this cell puts out."""
    return bool(printed(cell).strip()) and "nbval-ignore-output" not in tags(cell)


def budget(name: str) -> int:
    """The seconds that the notebook `name` may take on two cores."""
    return next(seconds for start, seconds in BUDGETS.items() if name.startswith(start))


def where(notebook: Notebook, cell: Cell) -> str:
    """A cell in words: its number among those of its kind, and how it begins."""
    kind = cell["cell_type"]
    same = [other for other in notebook["cells"] if other["cell_type"] == kind]
    number = next(i for i, other in enumerate(same, start=1) if other is cell)
    first = (source(cell).strip().splitlines() or [""])[0]
    return f"{kind} cell {number} (`{first[:50]}`)"


# --- the checks -------------------------------------------------------------------------------


def is_executed(name: str, notebook: Notebook, book: Book) -> list[str]:
    counts = [cell.get("execution_count") for cell in code_cells(notebook)]
    found = []
    if None in counts:
        missing = [c for c in code_cells(notebook) if c.get("execution_count") is None]
        found.append(f"{where(notebook, missing[0])} was never executed; run make refresh.")
    elif counts != list(range(1, len(counts) + 1)):
        found.append("the cells were not executed once, in order, in a fresh kernel.")
    if not any(cell.get("outputs") for cell in code_cells(notebook)):
        found.append("no cell has an output.")
    return found


def has_no_traces(name: str, notebook: Notebook, book: Book) -> list[str]:
    """Widget state, papermill's notes and cells, times of execution."""
    found = []
    for key in notebook["metadata"]:
        if key not in ("kernelspec", "language_info"):
            found.append(f"its metadata holds {key!r}.")
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        found.append("its kernel is not called python3.")
    for cell in notebook["cells"]:
        for key in ("papermill", "execution", "ExecuteTime"):
            if key in cell["metadata"]:
                found.append(f"{where(notebook, cell)} holds the metadata {key!r}.")
        if "injected-parameters" in tags(cell):
            found.append(f"{where(notebook, cell)} was injected by papermill.")
        for output in cell.get("outputs", []):
            if any("widget" in kind for kind in output.get("data", {})):
                found.append(f"{where(notebook, cell)} stores a widget.")
    return found


def has_no_errors(name: str, notebook: Notebook, book: Book) -> list[str]:
    found = []
    for cell in code_cells(notebook):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                found.append(f"{where(notebook, cell)} stores the error {output['ename']}.")
            if output.get("name") == "stderr":
                found.append(f"{where(notebook, cell)} stores what went to stderr.")
            if "Traceback (most recent call last)" in json.dumps(output):
                found.append(f"{where(notebook, cell)} stores a traceback.")
    return found


def has_no_absolute_paths(name: str, notebook: Notebook, book: Book) -> list[str]:
    found = []
    for cell in notebook["cells"]:
        texts = [source(cell)]
        for output in cell.get("outputs", []):
            texts.append("".join(output.get("text", "")))
            for kind, data in output.get("data", {}).items():
                if not kind.startswith("image/"):
                    texts.append(data if isinstance(data, str) else "".join(map(str, data)))
        for text in texts:
            if match := ABSOLUTE_PATH.search(text):
                found.append(f"{where(notebook, cell)} holds the path {match.group()}.")
    return found


def has_no_directives(name: str, notebook: Notebook, book: Book) -> list[str]:
    """MyST shows raw in Jupyter and Colab; it belongs in the pages only."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = re.sub(r"(?<!`)``[^`]+``(?!`)", "", source(cell))
            for pattern in (DIRECTIVE, ROLE, TARGET):
                if match := pattern.search(text):
                    found.append(f"{where(notebook, cell)} holds MyST: {match.group().strip()}")
    return found


def has_alt_texts(name: str, notebook: Notebook, book: Book) -> list[str]:
    found = []
    for cell in code_cells(notebook):
        shown = pictures(cell)
        if len(shown) > 1:
            found.append(f"{where(notebook, cell)} shows {len(shown)} figures; show one in a cell.")
        for output in shown:
            kinds = [kind for kind in output["data"] if kind.startswith("image/")]
            if kinds != ["image/png"]:
                found.append(f"{where(notebook, cell)} shows {', '.join(kinds)}; use PNG alone.")
            elif not output["metadata"].get("image/png", {}).get("alt", "").strip():
                found.append(
                    f"{where(notebook, cell)} shows a figure without alt text; show it with "
                    "plotting.show(figure, alt)."
                )
    for match in PICTURE.finditer(prose(notebook)):
        html = match.group("html")
        if not (re.search(r'alt="[^"]+"', html) if html is not None else match.group(1).strip()):
            found.append(f"the picture `{match.group()}` has no alt text.")
    return found


def has_short_cells(name: str, notebook: Notebook, book: Book) -> list[str]:
    found = []
    for cell in code_cells(notebook):
        lines = len(source(cell).strip("\n").splitlines())
        most = MOST_LINES_LONG if "long-cell" in tags(cell) else MOST_LINES
        if lines > most:
            found.append(f"{where(notebook, cell)} has {lines} lines; {most} are allowed.")
        widest = max(map(len, source(cell).splitlines()), default=0)
        if widest > WIDEST_LINE and "colab" not in tags(cell):
            found.append(f"{where(notebook, cell)} has a line of {widest} characters.")
    return found


def opens_as_agreed(name: str, notebook: Notebook, book: Book) -> list[str]:
    """Title; the Colab cell, the same everywhere; the parameters; the run time."""
    found = []
    cells = notebook["cells"]
    if cells[0]["cell_type"] != "markdown" or not re.match(r"# \d", source(cells[0])):
        found.append("its first cell is not a title like `# 4. Mathematics`.")
    code = code_cells(notebook)
    opening: list[Cell | None] = [*code[:3], None, None, None][:3]
    colab, parameters, run_time = opening
    if colab is None or tags(colab) != ["colab"]:
        found.append("its first code cell is not tagged colab.")
    elif source(colab).strip() != COLAB_CELL.format(address=book.address):
        found.append("its colab cell differs from the others', or from _config.yml's address.")
    if parameters is None or tags(parameters) != ["parameters"]:
        found.append("its second code cell is not tagged parameters.")
    if run_time is None or f'recorded.show_run_time("{name}")' not in source(run_time):
        found.append(f'its third code cell does not call recorded.show_run_time("{name}").')
    return found


def closes_as_agreed(name: str, notebook: Notebook, book: Book) -> list[str]:
    headings = re.findall(r"^## +(.+?)\s*$", prose(notebook), re.MULTILINE)
    found = []
    if headings[-3:] != CLOSING:
        found.append(f"its last sections are {headings[-3:]}, not {CLOSING}.")
    text = "\n".join(markdown(notebook))
    if len(re.findall(r"<details\b", text)) != text.count("</details>"):
        found.append("a <details> is not closed.")
    return found


def has_plain_parameters(name: str, notebook: Notebook, book: Book) -> list[str]:
    path = book.root / "notebooks" / f"{name}.ipynb"
    found = []
    try:
        values = runner.read_parameters(path)
        if not 3 <= len(values) <= 6:
            found.append(f"its parameters cell has {len(values)} values; 3 to 6 are allowed.")
        for profile in runner.PROFILES:
            runner.choose_parameters(path, profile, {})
    except (ValueError, TypeError) as error:
        found.append(str(error))
    return found


def is_listed(name: str, notebook: Notebook, book: Book) -> list[str]:
    found = []
    if f"notebooks/{name}" not in book.contents:
        found.append("it is not in _toc.yml.")
    if name not in book.profiles:
        found.append("it is not in profiles.yml.")
    if name not in book.run_times:
        found.append("it is not in run_times.json; run make refresh.")
    return found


def keeps_its_budget(name: str, notebook: Notebook, book: Book) -> list[str]:
    entry = book.run_times.get(name)
    if entry is None:
        return []
    found = []
    if entry["seconds"] > budget(name):
        found.append(f"it took {entry['seconds']:.0f} s; {budget(name)} s are allowed.")
    if entry["peak_memory_mb"] > MOST_MEMORY_MB:
        found.append(f"it took {entry['peak_memory_mb']:.0f} MB; {MOST_MEMORY_MB} are allowed.")
    return found


def is_compared(name: str, notebook: Notebook, book: Book) -> list[str]:
    """nbval compares most cells that put something out, and skips none."""
    found = []
    for cell in code_cells(notebook):
        for tag in tags(cell):
            if "nbval" in tag and tag != "nbval-ignore-output":
                found.append(f"{where(notebook, cell)} is tagged {tag}; it must run and succeed.")
        if re.search(r"#\s*(NBVAL_|PYTEST_)", source(cell)):
            found.append(f"{where(notebook, cell)} steers nbval in a comment; use a tag.")
    telling = [cell for cell in code_cells(notebook) if cell.get("outputs")]
    number = sum(map(compared, telling))
    if number < LEAST_COMPARED * len(telling):
        found.append(
            f"nbval compares {number} of its {len(telling)} cells with output; "
            f"{LEAST_COMPARED:.0%} are needed."
        )
    return found


def figures_have_numbers(name: str, notebook: Notebook, book: Book) -> list[str]:
    """nbval cannot see a picture: a compared cell at it prints its key numbers."""
    code = code_cells(notebook)
    found = []
    for i, cell in enumerate(code):
        near = code[max(i - 1, 0) : i + 2]
        if pictures(cell) and not any(
            compared(other) and re.search(r"\d", printed(other)) for other in near
        ):
            found.append(
                f"{where(notebook, cell)} shows a figure, but neither it nor the code cell before "
                "or after prints numbers that nbval compares."
            )
    return found


def equations_resolve(name: str, notebook: Notebook, book: Book) -> list[str]:
    found = []
    chapter = name.split("_")[0].lstrip("0")
    for text in markdown(notebook):
        for equation in re.findall(r"\$\$(.+?)\$\$", text, re.DOTALL):
            if re.search(r"(?<!\\)&", equation) and "\\begin{" not in equation:
                found.append(f"`{equation.strip()[:40]}` aligns at & outside an environment.")
        for tag in TAG.findall(text):
            if not tag.startswith(f"{chapter}."):
                found.append(f"the equation number {tag} does not begin with {chapter}.")
            if len(book.tags[tag]) > 1:
                found.append(f"two equations have the number {tag}.")
    for numbers in EQUATION_NAMED.findall(prose(notebook)):
        for number in filter(None, numbers):
            if number not in book.tags:
                found.append(f"equation ({number}) is named but does not exist.")
    return sorted(set(found))


def links_resolve(name: str, notebook: Notebook, book: Book) -> list[str]:
    """Every relative link leads to a file of the repository, and to an anchor in it."""
    found = []
    for link in LINK.findall(prose(notebook)):
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        path = (book.root / "notebooks" / (target or f"{name}.ipynb")).resolve()
        if not path.exists():
            found.append(f"the link {link} leads to no file.")
        elif anchor and path.suffix in (".md", ".ipynb") and anchor not in book.anchors(path):
            found.append(f"the link {link} leads to no heading.")
        if path.name == "bibliography.md" and anchor and anchor not in book.references:
            found.append(f"the citation {anchor} is not in references.bib.")
    return found


def has_stable_ids(name: str, notebook: Notebook, book: Book) -> list[str]:
    ids = [cell.get("id") for cell in notebook["cells"]]
    if None in ids or len(set(ids)) < len(ids):
        return ["its cells lack ids of their own."]
    return []


CHECKS: tuple[Check, ...] = (
    is_executed,
    has_no_traces,
    has_no_errors,
    has_no_absolute_paths,
    has_no_directives,
    has_alt_texts,
    has_short_cells,
    opens_as_agreed,
    closes_as_agreed,
    has_plain_parameters,
    is_listed,
    keeps_its_budget,
    is_compared,
    figures_have_numbers,
    equations_resolve,
    links_resolve,
    has_stable_ids,
)


def lists_are_sane(book: Book) -> list[str]:
    """_toc.yml, profiles.yml and run_times.json name nothing that is absent."""
    found = []
    for entry in book.contents:
        if not any((book.root / f"{entry}{ending}").is_file() for ending in (".md", ".ipynb")):
            found.append(f"_toc.yml names {entry}, which does not exist.")
    for name, names in {"profiles.yml": book.profiles, "run_times.json": book.run_times}.items():
        for chapter in names:
            if chapter not in book.notebooks:
                found.append(f"{name} names {chapter}, which does not exist.")
    chapters = [e.removeprefix("notebooks/") for e in book.contents if e.startswith("notebooks/")]
    if chapters != sorted(chapters):
        found.append("_toc.yml does not list the chapters in order.")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="default: all")
    chosen = {Path(name).stem for name in parser.parse_args(arguments).notebooks}
    book = Book()
    findings = [] if chosen else lists_are_sane(book)
    for name, notebook in book.notebooks.items():
        if not chosen or name in chosen:
            for check in CHECKS:
                findings += [f"{name}: {finding}" for finding in check(name, notebook, book)]
    print("\n".join(findings) or "Nothing found.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
