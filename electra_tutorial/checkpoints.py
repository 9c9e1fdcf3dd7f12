"""Find and load an ELECTRA checkpoint: the bundled one, a folder, or one of the hub.

Checkpoints are ordinary Hugging Face folders. What is loaded is in fp32, whatever the file holds.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from electra_tutorial.modeling import no_progress_bars
from electra_tutorial.tokenization import load_tokenizer


def find_checkpoint(checkpoint: str | Path) -> str:
    """Where a checkpoint lies: the bundled one for "mini", a folder, or a hub id as it is.

    Raises:
        TypeError: if it is neither a string nor a path.
        FileNotFoundError: if a path was named and no checkpoint is there.
    """
    if checkpoint == "mini":
        checkpoint = Path(str(files("electra_tutorial"))) / "builtin" / "mini" / "discriminator"
    try:
        path = Path(checkpoint)
    except TypeError:
        kind = type(checkpoint).__name__
        raise TypeError(f"checkpoint must be 'mini', a folder or a hub id, not {kind}.") from None
    if checkpoint == "":
        raise FileNotFoundError(
            "The checkpoint's name is empty: name 'mini', a folder or a hub id."
        )
    if (path / "config.json").is_file():
        return str(path)
    if path.is_dir():
        inside = sorted(p.parent.name for p in path.glob("*/config.json"))
        hint = f"; name a folder inside it: {', '.join(inside)}" if inside else ""
        raise FileNotFoundError(f"There is no config.json in {path}, so no checkpoint{hint}.")
    if isinstance(checkpoint, Path) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", checkpoint):
        raise FileNotFoundError(
            f"There is no checkpoint at {checkpoint}: name a folder that holds config.json, a hub "
            "id such as google/electra-small-discriminator, or 'mini'."
        )
    return checkpoint


def load_pretrained(model_class: Any, source: str, **changes: Any) -> tuple[Any, list[str]]:
    """Load an ELECTRA in fp32 without bars and notices: (model, names of weights that were new).

    transformers would otherwise keep the number type of the file, and train in fp16 on a CPU.

    Raises:
        ValueError: if there is nothing to load, or it is not an ELECTRA.
    """
    try:
        with quiet():
            model_config = AutoConfig.from_pretrained(source)
            if model_config.model_type != "electra":
                raise ValueError(f"it is a {model_config.model_type} model")
            model, loading = model_class.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True, **changes
            )
        new = sorted(loading["missing_keys"])
        if any(name.startswith("electra.") for name in new):
            raise ValueError("its file lacks weights of the encoder")
    except (OSError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".:")
        raise ValueError(
            f"No ELECTRA could be loaded from {source!r} ({reason}): name a folder with an ELECTRA "
            "checkpoint, a hub id that you can reach, or 'mini'."
        ) from error
    return model, new


def load_joint_model(
    checkpoint: str | Path,
    generator: str | Path | None = None,
    objective: str = "electra",
    sharing: str = "embeddings",
) -> Any:
    """Load a discriminator and its generator, to train them further.

    Args:
        checkpoint: a folder with ``discriminator/`` and ``generator/`` in it, as a run's ``final``,
            a run's ``checkpoint-...``, or ``"mini"``; with ``generator`` a discriminator alone, by
            its folder or hub id.
        generator: the folder or hub id of the generator that belongs to a discriminator alone.
        objective: of a pair; what else is loaded says its own.
        sharing: of a pair.

    Raises:
        FileNotFoundError: if there is no such thing.
        ValueError: if a half can't be loaded, or the two do not fit together.
    """
    from electra_tutorial.objectives import get_objective
    from electra_tutorial.training import model_of_checkpoint

    if generator is not None:
        kind = get_objective(objective)
        if not kind.has_generator:
            raise ValueError(f"the objective {objective!r} has no generator: name none for it.")
        ours, theirs = find_checkpoint(checkpoint), find_checkpoint(generator)
        try:
            with quiet():
                return kind.from_pair(ours, theirs, sharing=sharing)
        except OSError as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".:")
            raise ValueError(
                f"No pair could be loaded from {ours!r} and {theirs!r} ({reason}): name "
                "folders with ELECTRA checkpoints, or hub ids that you can reach."
            ) from error
    folder = Path(find_checkpoint("mini")).parent if checkpoint == "mini" else Path(checkpoint)
    if (folder / "state.json").is_file():
        kept = folder.parent / "tokenizer"
        return model_of_checkpoint(folder, len(load_tokenizer(kept)) if kept.is_dir() else None)
    if not (folder / "discriminator").is_dir():
        raise FileNotFoundError(
            f"{checkpoint} is no folder with discriminator/ and generator/ in it and no checkpoint "
            "of a run: name one, or, for a discriminator alone, its generator too (--generator)."
        )
    joint = folder / "config.json"
    saved = json.loads(joint.read_text(encoding="utf-8")) if joint.is_file() else {}
    return get_objective(saved.get("objective", "electra")).from_halves(folder)


def load_tokenizer_of(checkpoint: str | Path) -> Any:
    """Load the tokenizer of what :func:`load_joint_model` loads.

    Raises:
        FileNotFoundError, ValueError: as :func:`~electra_tutorial.tokenization.load_tokenizer`.
    """
    folder = Path(checkpoint)
    if (folder / "state.json").is_file():
        return load_tokenizer(folder.parent / "tokenizer")
    half = folder / "discriminator"
    return load_tokenizer(half if half.is_dir() else str(checkpoint))


def reading_of(checkpoint: str | Path) -> dict[str, int]:
    """How a fine-tuned model read in training: max_length and window_overlap, if its folder says.

    `finetune` writes both into fine_tuning.json.
    """
    kept = Path(checkpoint) / "fine_tuning.json"
    if not kept.is_file():
        return {}
    config = json.loads(kept.read_text(encoding="utf-8"))["config"]
    return {name: config[name] for name in ("max_length", "window_overlap") if name in config}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' bars and its notice of a new head, which is what we want, out of sight."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with no_progress_bars():
            yield
    finally:
        logger.setLevel(level)
