"""Change the repository's address in _config.yml and in every file that repeats it.

`python tools/set_repository.py OWNER/NAME`. Needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"^  url: https://github\.com/([\w.-]+/[\w.-]+)\s*$", re.MULTILINE)
SLUG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?/[\w.-]+")
ENDINGS = (".md", ".ipynb", ".yml", ".cff", ".toml", ".py", ".bib", ".html")
LEFT_ALONE = (".git", ".venv", "_build", "build")


def current_slug(root: Path) -> str:
    """OWNER/NAME as it stands in _config.yml.

    Raises:
        ValueError: if it does not stand there.
    """
    found = ADDRESS.search((root / "_config.yml").read_text(encoding="utf-8"))
    if found is None:
        raise ValueError("_config.yml names no repository: it needs `url: https://github.com/...`.")
    return found.group(1)


def places(root: Path, slug: str) -> list[Path]:
    """The files that name the repository `slug` on GitHub or on GitHub Pages."""
    owner, name = slug.split("/")
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix in ENDINGS
        and path.is_file()
        and not any(part in LEFT_ALONE for part in path.relative_to(root).parts)
        and re.search(_pattern(owner, name), path.read_text(encoding="utf-8"))
    ]


def set_slug(root: Path, slug: str) -> list[Path]:
    """Write `slug` wherever the old one stood; return the files that changed.

    Raises:
        ValueError: if it is not of the form OWNER/NAME.
    """
    if not SLUG.fullmatch(slug):
        raise ValueError(f"{slug!r} is not OWNER/NAME, for example make repository SLUG=ada/book.")
    old_owner, old_name = current_slug(root).split("/")
    owner, name = slug.split("/")
    changed = places(root, f"{old_owner}/{old_name}")
    for path in changed:
        text = path.read_text(encoding="utf-8")
        text = re.sub(
            _pattern(old_owner, old_name),
            lambda m: f"{owner}/{name}" if m["slug"] else f"{owner.lower()}.github.io/{name}",
            text,
        )
        path.write_text(text, encoding="utf-8", newline="\n")
    return changed


def _pattern(owner: str, name: str) -> str:
    """OWNER/NAME after GitHub's name, also in Colab's addresses, or OWNER.github.io/NAME."""
    after = r"(?![\w-])"
    before = r"(?:(?<=github\.com[/:])|(?<=/github/))"
    slug = rf"{before}(?P<slug>{re.escape(owner)}/{re.escape(name)}){after}"
    pages = rf"(?<=//)(?i:{re.escape(owner)})\.github\.io/{re.escape(name)}{after}"
    return f"{slug}|{pages}"


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        changed = set_slug(ROOT, given[0] if len(given) == 1 else "")
    except ValueError as error:
        print(f"repository: {error}", file=sys.stderr)
        return 2
    for path in changed:
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
