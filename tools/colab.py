"""Install the package as a chapter's Colab cell does, then run every chapter in the ci profile.

The running Python's own torch and numpy must stay as they are: the package asks for lower bounds
only, and this shows whether they still hold there.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("torch", "numpy", "transformers")
TO_RUN_NOTEBOOKS = ("papermill", "psutil", "PyYAML", "ipykernel")


def versions() -> dict[str, str]:
    """The versions of the packages that an installation must not touch."""
    command = "from importlib.metadata import distributions as all\n"
    command += "print(*(f'{package.name}={package.version}' for package in all()))"
    listed = subprocess.run(
        [sys.executable, "-c", command], check=True, capture_output=True, text=True
    ).stdout.split()
    found = dict(entry.split("=", 1) for entry in listed if "=" in entry)
    return {name: found[name] for name in KEPT if name in found}


def main() -> int:
    before = versions()
    install = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, f"{ROOT}[chapters]"], check=True)
    subprocess.run([*install, *TO_RUN_NOTEBOOKS], check=True)
    after = versions()
    for name, version in before.items():
        if after.get(name) != version:
            print(f"The installation replaced {name} {version} by {after.get(name)}.")
            return 1
    run = [sys.executable, "-m", "electra_tutorial.cli", "run", "--profile", "ci"]
    run += ["--notebooks", str(ROOT / "notebooks"), "--output", str(ROOT / "_build" / "colab")]
    return subprocess.run(run, cwd=ROOT / "_build").returncode


if __name__ == "__main__":
    (ROOT / "_build").mkdir(exist_ok=True)
    sys.exit(main())
