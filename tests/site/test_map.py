"""README's table and the page on the package name every module, in the order of their imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import gates
import pytest

PACKAGE = gates.ROOT / "electra_tutorial"
MODULES = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
README = (gates.ROOT / "README.md").read_text(encoding="utf-8")


def listed() -> list[str]:
    """The modules in the order of README's table."""
    table = README.split("| Module | Idea |")[1].split("\n\n")[0]
    names: list[str] = []
    for row in table.splitlines():
        names += re.findall(r"`(\w+)`", row.split("|")[1]) if row.startswith("|") else []
    return names


def imported(path: Path) -> set[str]:
    """The package's modules that a module imports, also inside functions, not for types alone."""
    found = set()
    for node in ast.walk(without_type_imports(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.ImportFrom) and node.module == "electra_tutorial":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= set(re.findall(r"^electra_tutorial\.(\w+)", node.module))
        elif isinstance(node, ast.Import):
            for name in node.names:
                found |= set(re.findall(r"^electra_tutorial\.(\w+)", name.name))
    return found & set(MODULES)


def without_type_imports(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return tree


def test_the_table_names_every_module_once() -> None:
    names = listed()
    assert len(set(names)) == len(names)
    assert set(names) == set(MODULES), "README's table and the folder of the package differ"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_upwards(name: str) -> None:
    order = listed()
    above = set(order[: order.index(name)])
    below = imported(MODULES[name]) - above
    assert not below, f"{name} imports {', '.join(sorted(below))}, which README lists below it"


def test_the_page_on_the_package_shows_its_modules() -> None:
    page = (gates.ROOT / "book" / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\.\. automodule:: electra_tutorial\.(\w+)", page, re.M)
    assert shown == re.findall(r"^## (\w+)$", page, re.M)
    assert shown == [name for name in listed() if name in shown], "in the order of README's table"
    assert set(MODULES) - set(shown) <= {"cli", "cli_deployment", "cli_pretraining"}


def test_an_import_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "from electra_tutorial import config, __version__\n"
        "import electra_tutorial.masking as m\n"
        "def f():\n    from electra_tutorial.tasks import load_task\n"
        "if TYPE_CHECKING:\n    from electra_tutorial.cli import main\n"
    )
    assert imported(path) == {"config", "masking", "tasks"}


def test_every_folder_of_the_map_is_there() -> None:
    folders = re.findall(r"^\| \[(\w+)\]\((\w+)\) \|", README, re.M)
    assert folders
    for name, target in folders:
        assert name == target
        assert (gates.ROOT / target).is_dir()


def test_the_picture_is_small_and_has_a_text() -> None:
    pictures = re.findall(r"!\[([^\]]+)\]\((book/_static/[^)]+)\)", README)
    assert pictures
    for text, target in pictures:
        assert len(text) > 20
        assert (gates.ROOT / target).stat().st_size <= 200_000
