"""Render the book: stage pages and executed notebooks in one folder, then build them strictly.

`python tools/build_site.py [--notebooks DIR]` leaves the site in _build/site. Any warning of the
build is an error.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gates
import refresh
import scaling_page
import yaml

ROOT = gates.ROOT
# What MathJax needs to show TeX, to enlarge it and to explore it with the keyboard; the package
# holds four times as much.
MATHJAX = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions", "a11y", "ui")
FOLDED = "Set-up in Colab; does nothing on your own machine"
MATHJAX_SPEECH = ("base.json", "en.json", "nemeth.json")


def stage(root: Path, notebooks: Path, target: Path) -> None:
    """Make in `target` what the site is built from: pages, notebooks, tables, MathJax."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "book", target / "book")
    (target / "tools").mkdir()
    (target / "notebooks").mkdir()
    for name in ("_config.yml", "_toc.yml", "CHANGELOG.md", "tools/book_extension.py"):
        if (root / name).is_file():
            shutil.copy2(root / name, target / name)
    for page in sorted((target / "book").rglob("*.md")):
        here = Path("book") / page.relative_to(target / "book")
        text = page.read_text(encoding="utf-8")
        page.write_text(lead_out(text, here, root), encoding="utf-8")
    for path in sorted(notebooks.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        prepare_notebook(notebook, Path("notebooks") / path.name, root)
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        (target / "notebooks" / path.name).write_text(text, encoding="utf-8")
    generated = target / "book" / "_generated"
    generated.mkdir(exist_ok=True)
    (generated / "run_times.md").write_text(run_time_table(gates.Book(root)), encoding="utf-8")
    if (root / "book" / scaling_page.PAGE).is_file():
        scaling_page.write(generated)
    copy_mathjax(target / "book" / "_static" / "mathjax")


def prepare_notebook(notebook: dict[str, Any], here: Path, root: Path) -> None:
    """Give myst-nb each figure's alt text where it looks for it: in the cell, not in the output.

    The Colab cell, the same in each chapter and of no use to a reader of the site, is folded. What
    was printed in pieces is joined: myst-nb would end a line where a piece ends.
    """
    for cell in notebook["cells"]:
        if "colab" in gates.tags(cell):
            cell["metadata"]["tags"].append("hide-input")
            cell["metadata"]["mystnb"] = {"code_prompt_show": FOLDED, "code_prompt_hide": FOLDED}
        if cell["cell_type"] == "markdown":
            text = lead_out("".join(cell["source"]), here, root)
            cell["source"] = text.splitlines(keepends=True)
        if "outputs" in cell:
            cell["outputs"] = refresh.join_streams(cell["outputs"])
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                cell["metadata"].setdefault("mystnb", {})["image"] = {"alt": alt}


def lead_out(text: str, here: Path, root: Path) -> str:
    """Let links to files that are not on the site lead to the repository.

    `here` is the page's path in the repository; `text` its Markdown.
    """

    def replace(match: re.Match[str]) -> str:
        target, hash_, anchor = match.group("target").partition("#")
        if not target or re.match(r"[a-z][a-z+.-]*:", target):
            return match.group()
        path = Path(os.path.normpath(here.parent / unquote(target)))
        on_site = path.parts[0] in ("book", "notebooks") and path.suffix in (".md", ".ipynb")
        if on_site or path.parts[:2] == ("book", "_static") or not (root / path).exists():
            return match.group()
        kind = "tree" if (root / path).is_dir() else "blob"
        address = f"{gates.Book(root).address}/{kind}/main/{path.as_posix()}{hash_}{anchor}"
        return f"{match.group('before')}{address}{match.group('after')}"

    link = re.compile(
        r"(?P<before>(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\()(?P<target>[^)\s]+)(?P<after>\))"
    )
    return outside_code(text, lambda part: link.sub(replace, part))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """`text` with `change` applied to what does not stand in code fences."""
    parts = re.split(r"(^(`{3,}|~{3,})(?!\{).*?^\2)", text, flags=re.MULTILINE | re.DOTALL)
    # The split gives: outside, fence, its marker, outside, fence, its marker, ...
    kept = [change(part) if i % 3 == 0 else part for i, part in enumerate(parts) if i % 3 != 2]
    return "".join(kept)


def run_time_table(book: gates.Book) -> str:
    """A Markdown table of what each chapter takes on the reference machine."""
    rows = ["| Chapter | Time | Allowed | Memory |", "|---|--:|--:|--:|"]
    total = 0.0
    for name, notebook in book.notebooks.items():
        title = gates.source(notebook["cells"][0]).splitlines()[0].lstrip("# ")
        entry = book.run_times.get(name)
        budget = gates.budget(name)
        if entry is None:
            rows.append(f"| [{title}](../notebooks/{name}.ipynb) | not timed | {budget} s | |")
            continue
        total += entry["seconds"]
        rows.append(
            f"| [{title}](../notebooks/{name}.ipynb) | {entry['seconds']:.1f} s | {budget} s "
            f"| {entry['peak_memory_mb'] / 1000:.1f} GB |"
        )
    rows.append(f"| **all** | **{total / 60:.1f} min** | 8 min | |")
    facts = sorted(
        {
            f"{entry['machine']}, Python {entry['python']}, torch {entry['torch']}, {entry['date']}"
            for entry in book.run_times.values()
        }
    )
    return "\n".join(rows) + "\n\n" + "".join(f"Measured on: {fact}.\n" for fact in facts)


def copy_mathjax(target: Path) -> None:
    """Copy MathJax 3 from the pinned package sphinx-mathjax-offline."""
    found = importlib.util.find_spec("sphinx-mathjax-offline")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "The site needs sphinx-mathjax-offline, which is not installed: pip install -r "
            "requirements.txt."
        )
    package = Path(found.origin).parent / "static" / "mathjax"
    for part in MATHJAX:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (package / part).is_dir():
            shutil.copytree(package / part, target / part)
        else:
            shutil.copy2(package / part, target / part)
    (target / "sre" / "mathmaps").mkdir(parents=True)
    for name in MATHJAX_SPEECH:
        shutil.copy2(package / "sre" / "mathmaps" / name, target / "sre" / "mathmaps" / name)


def build(source: Path, work: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the staged book; move it to `site` if there was no warning."""
    shutil.rmtree(work, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    command += [str(source), "--path-output", str(work), "-W", "-n", "--keep-going", "--all"]
    done = subprocess.run(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"NO_COLOR": "1", "PYTHONUTF8": "1"},
    )
    if done.returncode == 0:
        shutil.rmtree(site, ignore_errors=True)
        site.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(work / "_build" / "html", site)
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--notebooks",
        type=Path,
        default=ROOT / "notebooks",
        metavar="DIR",
        help="executed notebooks (default: the committed ones)",
    )
    options = parser.parse_args(arguments)
    folder = ROOT / "_build"
    site = folder / "site"
    try:
        stage(ROOT, options.notebooks, folder / "source")
        done = build(folder / "source", folder / "jupyter-book", site)
    except (FileNotFoundError, ModuleNotFoundError, ValueError, yaml.YAMLError) as error:
        print(f"build_site: {error}", file=sys.stderr)
        return 2
    log = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
    (folder / "site.log").write_text(log, encoding="utf-8")
    if done.returncode != 0:
        warnings = [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line]
        print("\n".join(warnings or log.splitlines()[-30:]), file=sys.stderr)
        print("The site was not built; the whole log is _build/site.log.", file=sys.stderr)
        return 1
    print(f"The book is ready: open {site / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
