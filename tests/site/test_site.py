"""The site, built strictly from the committed notebooks: pages, links, pictures, equations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import build_site
import gates
import pytest
from bs4 import BeautifulSoup, Tag

BOOK = gates.Book()
# Attributes by which a browser fetches something while it shows a page.
FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "audio": "src",
    "video": "src",
    "source": "src",
    "embed": "src",
    "object": "data",
    "input": "src",
    "track": "src",
}
FETCHED_LINKS = {
    "stylesheet",
    "icon",
    "shortcut",
    "preload",
    "modulepreload",
    "prefetch",
    "manifest",
}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build_site.stage(gates.ROOT, gates.ROOT / "notebooks", folder / "source")
    done = build_site.build(folder / "source", folder / "work", folder / "site")
    warnings = [line for line in done.stdout.splitlines() if "WARNING" in line or "ERROR" in line]
    assert done.returncode == 0, "\n".join(warnings or done.stdout.splitlines()[-30:])
    return folder / "site"


@cache
def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def pages(site: Path) -> list[Path]:
    return [path for path in sorted(site.rglob("*.html")) if site / "_static" not in path.parents]


def content_pages(site: Path) -> list[Path]:
    return [site / f"{entry}.html" for entry in BOOK.contents]


def article(path: Path) -> Tag:
    found = soup(path).select_one("article.bd-article")
    assert isinstance(found, Tag), path
    return found


def fetched(page: BeautifulSoup) -> Iterator[str]:
    for name, attribute in FETCHED.items():
        for tag in page.find_all(name):
            if value := tag.get(attribute):
                yield str(value)
    for tag in page.find_all("link"):
        if FETCHED_LINKS & set(tag.get("rel") or []):
            yield str(tag.get("href"))
    for tag in page.find_all(srcset=True):
        yield str(tag["srcset"])
    for tag in page.find_all(style=True):
        yield from re.findall(r"url\(['\"]?([^)'\"]+)", str(tag["style"]))
    for tag in page.find_all("style"):
        yield from re.findall(r"url\(['\"]?([^)'\"]+)", tag.get_text())


def test_every_page_of_the_contents_is_there(site: Path) -> None:
    assert BOOK.contents
    for path in content_pages(site):
        assert path.is_file(), path
    assert BOOK.contents[0] in (site / "index.html").read_text(encoding="utf-8")


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in pages(site):
        for address in fetched(soup(path)):
            assert not re.match(r"(https?:)?//", address), f"{path.name} fetches {address}"
            if not address.startswith("data:"):
                file = (path.parent / unquote(urlsplit(address).path)).resolve()
                assert file.is_file(), f"{path.name} lacks {address}"
        for script in soup(path).find_all("script"):
            assert "http" not in script.get_text(), f"a script of {path.name} names an address"


def test_no_style_fetches_from_elsewhere(site: Path) -> None:
    for path in (site / "_static").rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"(?:@import\s+|url\()\s*['\"]?((?:https?:)?//[^)'\"\s]+)", text)
        assert not found, f"{path.name} fetches {found}"


def test_mathjax_is_here_with_its_fonts(site: Path) -> None:
    folder = site / "_static" / "mathjax"
    assert (folder / "tex-chtml.js").stat().st_size > 500_000
    assert len(list(folder.rglob("*.woff"))) > 15
    with_math = [p for p in content_pages(site) if article(p).select(".math")]
    for path in with_math:
        assert any("mathjax/tex-chtml.js" in a for a in fetched(soup(path))), path


def test_every_link_leads_somewhere(site: Path) -> None:
    broken = []
    for path in pages(site):
        for tag in soup(path).find_all("a", href=True):
            address = urlsplit(str(tag["href"]))
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            target = target / "index.html" if target.is_dir() else target
            name = unquote(address.fragment)
            if not target.is_file():
                broken.append(f"{path.name}: {tag['href']}")
            elif name and target.suffix == ".html" and not soup(target).find(id=name):
                broken.append(f"{path.name}: {tag['href']} (no such place)")
    assert not broken, "\n".join(sorted(set(broken)))


def test_every_picture_has_a_text(site: Path) -> None:
    for path in content_pages(site):
        for picture in article(path).find_all("img"):
            assert str(picture.get("alt", "")).strip(), f"{path.name}: {picture.get('src')}"


@pytest.mark.parametrize("name", BOOK.notebooks)
def test_figures_carry_their_own_text(site: Path, name: str) -> None:
    outputs = [o for c in gates.code_cells(BOOK.notebooks[name]) for o in gates.pictures(c)]
    texts = [output["metadata"]["image/png"]["alt"] for output in outputs]
    shown = article(site / "notebooks" / f"{name}.html").select(".cell_output img")
    assert [str(picture["alt"]) for picture in shown] == texts


@pytest.mark.parametrize("name", BOOK.notebooks)
def test_buttons_open_and_download_the_notebook(site: Path, name: str) -> None:
    page = soup(site / "notebooks" / f"{name}.html")
    links = [str(tag["href"]) for tag in page.find_all("a", href=True)]
    repository = BOOK.address.removeprefix("https://github.com/")
    colab = (
        f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb"
    )
    assert colab in links
    assert any(link.endswith(f"_sources/notebooks/{name}.ipynb") for link in links)


def test_equations_reach_mathjax_whole(site: Path) -> None:
    """No tag inside `split`, where MathJax refuses it, and no TeX left as text."""
    for path in content_pages(site):
        page = article(path)
        for equation in page.select("div.math"):
            text = equation.get_text()
            assert not re.search(r"\\begin\{split\}.*\\tag", text, re.DOTALL), (
                f"{path.name}: {text}"
            )
        for tag in page.select(".math, pre, code, script"):
            tag.extract()
        text = page.get_text()
        soup.cache_clear()
        for raw in ("$$", "\\frac", "\\tag", "\\mathcal", "{cite}", "{ref}", "```"):
            assert raw not in text, f"{path.name} shows {raw}"


@pytest.mark.parametrize("name", BOOK.notebooks)
def test_equation_numbers_are_kept(site: Path, name: str) -> None:
    texts = "\n".join(gates.markdown(BOOK.notebooks[name]))
    shown = "".join(
        e.get_text() for e in article(site / "notebooks" / f"{name}.html").select("div.math")
    )
    assert sorted(gates.TAG.findall(shown)) == sorted(gates.TAG.findall(texts))


def test_pages_are_well_formed(site: Path) -> None:
    titles = []
    for path in content_pages(site):
        page = soup(path)
        assert page.html is not None
        assert page.html["lang"] == "en"
        assert page.title is not None
        titles.append(page.title.get_text())
        assert len(article(path).find_all("h1")) == 1, path
        assert page.find("meta", attrs={"name": "viewport"})
        assert page.select_one('a[href="#main-content"]'), "a way past the menu, for the keyboard"
    assert len(set(titles)) == len(titles)


def test_the_footer_names_the_licences(site: Path) -> None:
    for path in content_pages(site):
        footer = soup(path).select_one("footer.bd-footer-content")
        assert footer is not None
        assert "CC BY 4.0" in footer.get_text()
        assert "MIT" in footer.get_text()


def test_the_search_knows_the_chapters(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for entry in BOOK.contents:
        assert f'"{entry}"' in index
    assert "discrimin" in index  # stemmed
    assert (site / "search.html").is_file()


def test_no_page_holds_a_directory_of_the_machine(site: Path) -> None:
    for path in content_pages(site):
        found = gates.ABSOLUTE_PATH.search(article(path).get_text())
        assert not found, f"{path.name}: {found and found.group()}"
