"""ELECTRA explained by running it: the package that the book's chapters import.

Modules are meant to be read. `config`, `tokenization`, `corpora`, `masking` and `modeling` follow
the paper from its hyper-parameters to its two losses; `training` and `finetuning` run them.
"""

from __future__ import annotations

__version__ = "0.1.0"
