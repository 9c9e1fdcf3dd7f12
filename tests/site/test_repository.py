"""The repository's address stands in _config.yml; everything else repeats it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import gates
import pytest
import set_repository
import yaml

ROOT = gates.ROOT
LEAVE = shutil.ignore_patterns(
    ".git", ".venv", "_build", "build", "__pycache__", "*.egg-info", "*.safetensors", ".*_cache"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "copy", ignore=LEAVE))


def addresses(path: Path) -> set[str]:
    """OWNER/NAME of every address on GitHub that a file names."""
    text = path.read_text(encoding="utf-8")
    return set(re.findall(r"github\.com[/:]([\w.-]+/[\w-]+)", text))


def test_every_file_repeats_the_same_address() -> None:
    slug = set_repository.current_slug(ROOT)
    name = slug.split("/")[1]
    for path in set_repository.places(ROOT, slug):
        for other in addresses(path):
            assert not other.endswith(f"/{name}") or other == slug, f"{path}: {other}"
    repeating = {path.relative_to(ROOT).as_posix() for path in set_repository.places(ROOT, slug)}
    assert {"_config.yml", "README.md", "CONTRIBUTING.md", "CITATION.cff"} <= repeating
    assert {f"notebooks/{name}.ipynb" for name in gates.Book().notebooks} <= repeating


def test_the_address_is_rewritten_everywhere(copy: Path) -> None:
    old = set_repository.current_slug(copy)
    before = {path: path.read_text(encoding="utf-8") for path in set_repository.places(copy, old)}
    changed = set_repository.set_slug(copy, "Ada-L/my.book")
    assert set(changed) == set(before)
    assert set_repository.current_slug(copy) == "Ada-L/my.book"
    assert gates.Book(copy).address == "https://github.com/Ada-L/my.book"
    assert set_repository.places(copy, old) == []
    for path in changed:
        assert old not in re.sub(r"make repository SLUG=\S+", "", path.read_text(encoding="utf-8"))
    book = gates.Book(copy)
    for name, notebook in book.notebooks.items():
        assert gates.opens_as_agreed(name, notebook, book) == []
    yaml.safe_load((copy / "_config.yml").read_text(encoding="utf-8"))
    # And back: nothing else was touched.
    set_repository.set_slug(copy, old)
    for path, text in before.items():
        assert path.read_text(encoding="utf-8") == text


def test_pages_are_rewritten_in_lower_case(tmp_path: Path) -> None:
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/OWNER/x\n")
    (tmp_path / "a.md").write_text(
        "https://owner.github.io/x/ https://github.com/OWNER/x-y https://github.com/OWNER/x.git"
    )
    set_repository.set_slug(tmp_path, "Ada/z")
    assert (tmp_path / "a.md").read_text() == (
        "https://ada.github.io/z/ https://github.com/OWNER/x-y https://github.com/Ada/z.git"
    )


def test_a_path_of_the_same_name_is_no_address(tmp_path: Path) -> None:
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/ada/book\n")
    text = "/home/ada/book https://example.org/ada/book git@github.com:{} {}/github/{}/blob/main"
    colab = "https://colab.research.google.com"
    (tmp_path / "a.md").write_text(text.format("ada/book", colab, "ada/book"))
    set_repository.set_slug(tmp_path, "bob/x")
    assert (tmp_path / "a.md").read_text() == text.format("bob/x", colab, "bob/x")


@pytest.mark.parametrize("slug", ["", "x", "a/b/c", "https://github.com/a/b", "a b/c", "-a/b"])
def test_what_is_no_slug_is_refused(
    copy: Path, slug: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(set_repository, "ROOT", copy)
    assert set_repository.main([slug]) == 2
    assert (
        "is not OWNER/NAME, for example make repository SLUG=ada/book." in capsys.readouterr().err
    )


def test_a_configuration_without_an_address_is_refused(tmp_path: Path) -> None:
    (tmp_path / "_config.yml").write_text("title: x\n")
    with pytest.raises(ValueError, match=r"_config.yml names no repository: it needs `url:"):
        set_repository.current_slug(tmp_path)
