"""A joint model on disk: two ordinary Hugging Face folders and the settings that join them.

``discriminator/`` opens with ``AutoModelForSequenceClassification``, ``generator/`` with
``AutoModelForMaskedLM``; ``config.json`` beside them says how they were trained together.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import ElectraForMaskedLM
from transformers.utils import logging as transformers_logging

from electra_tutorial.sharing import DisentangledEmbedding

HALVES = ("discriminator", "generator")


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars while it loads or saves: noise in a chapter's output."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def half_state(half: Any, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the weights of one half as an ordinary model has them, in ``dtype``.

    A weight with two names is cast once, so that the file holds it once. A gradient-disentangled
    table becomes the sum that the network reads.
    """
    cast: dict[int, Tensor] = {}
    state = {}
    for name, value in half.state_dict(keep_vars=True).items():
        table = half.get_submodule(name.rpartition(".")[0])
        if isinstance(table, DisentangledEmbedding):
            state[name.removesuffix("delta") + "weight"] = table.weight.detach().to(dtype)
        else:
            state[name] = cast.setdefault(id(value), value.detach().to(dtype))
    return state


class SavedInHalves:
    """Saving and loading of a joint model by its halves.

    :class:`~electra_tutorial.modeling.ElectraForJointPreTraining` inherits it.
    """

    config: Any
    objective: ClassVar[str]
    discriminator_class: ClassVar[Any]
    has_generator: ClassVar[bool]

    def save_halves(
        self, directory: str | Path, tokenizer: Any, dtype: torch.dtype = torch.float32
    ) -> None:
        """Save two ordinary Hugging Face folders: ``discriminator/`` and ``generator/``.

        Each opens with the Auto classes. Its ``config.json`` says float32 whatever the file holds:
        transformers 5 otherwise loads, and trains, in the file's own type. The folder is written
        under a temporary name and renamed when whole.

        Args:
            directory: where; replaced if it exists.
            tokenizer: saved with each half.
            dtype: type of the weights on disk (``torch.float16`` halves the file).
        """
        directory = Path(directory)
        temporary = directory.with_name(f".{directory.name}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        for name in HALVES if self.has_generator else HALVES[:1]:
            half, folder = getattr(self, name), temporary / name
            with no_progress_bars():
                half.save_pretrained(folder, state_dict=half_state(half, dtype))
            config = folder / "config.json"
            settings = json.loads(config.read_text()) | {"dtype": "float32"}
            config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
            tokenizer.save_pretrained(folder)
        self.config.save_pretrained(temporary)
        shutil.rmtree(directory, ignore_errors=True)
        temporary.rename(directory)

    @classmethod
    def from_halves(
        cls,
        directory: str | Path,
        discriminator_weight: float | None = None,
        sampling_temperature: float | None = None,
        sharing: str | None = None,
    ) -> Self:
        """Load a folder that :meth:`save_halves` wrote, in float32, with its sharing.

        Warns as :meth:`from_pair` does: a pair of another origin may lie there too.

        Args:
            directory: where it is.
            discriminator_weight: lambda, if not the folder's.
            sampling_temperature: of the generator's sampling, if not the folder's.
            sharing: which weights both have in common, if not those of the folder.

        Raises:
            FileNotFoundError: if one of the two folders is missing.
            ValueError: if it was trained with another objective than this class's.
        """
        directory = Path(directory)
        joint = directory / "config.json"  # a folder of before this file has none
        saved = json.loads(joint.read_text()) if joint.is_file() else {}
        objective = saved.get("objective", "electra")
        if objective != cls.objective:
            raise ValueError(
                f"{directory} was trained with the objective {objective!r}, and this class is "
                f"{cls.objective!r}: load it with objectives.OBJECTIVES[{objective!r}].from_halves."
            )
        needed = HALVES if cls.has_generator else HALVES[:1]
        for name in needed:
            if not (directory / name / "config.json").is_file():
                raise FileNotFoundError(
                    f"{directory} holds no {name}/config.json: name a folder with "
                    f"{' and '.join(f'{half}/' for half in needed)} in it."
                )
        given = {
            "discriminator_weight": discriminator_weight,
            "sampling_temperature": sampling_temperature,
            "sharing": sharing,
            "frozen_generator": None,
        }
        settings = {name: saved[name] for name in given if name in saved}
        settings |= {name: value for name, value in given.items() if value is not None}
        return cls._from_folders([directory / name for name in needed], settings)

    @classmethod
    def from_pair(
        cls,
        discriminator: str | Path,
        generator: str | Path,
        discriminator_weight: float = 50.0,
        sampling_temperature: float = 1.0,
        sharing: str = "embeddings",
        frozen_generator: bool = False,
    ) -> Self:
        """Continue from a discriminator and a generator in two folders, or two names on the hub.

        Warns if the generator is as wide as the discriminator. google/electra-small-generator is:
        the paper's Small has one 64 wide with a single head (table 6).

        Args:
            discriminator: for instance ``google/electra-base-discriminator``.
            generator: for instance ``google/electra-base-generator``.
            discriminator_weight: lambda.
            sampling_temperature: of the generator's sampling.
            sharing: which weights both have in common; see :mod:`electra_tutorial.sharing`.
            frozen_generator: whether the generator only samples and learns no more.

        Raises:
            ValueError: if the two do not fit together.
        """
        return cls._from_folders(
            [discriminator, generator],
            {
                "discriminator_weight": discriminator_weight,
                "sampling_temperature": sampling_temperature,
                "sharing": sharing,
                "frozen_generator": frozen_generator,
            },
        )

    @classmethod
    def _from_folders(cls: Any, folders: list[str | Path], settings: dict[str, Any]) -> Any:
        """Join networks loaded from folders: the discriminator, then the generator if any."""
        classes = (cls.discriminator_class, ElectraForMaskedLM)
        with no_progress_bars():
            halves = [
                kind.from_pretrained(folder, dtype=torch.float32)
                for kind, folder in zip(classes, folders, strict=False)
            ]
        configs = [half.config for half in halves]
        model = cls(cls.config_class(*configs, **settings | {"frozen_generator": False}))
        model.discriminator, *generators = halves
        if generators:
            (model.generator,) = generators
            before = dict(model.generator.named_parameters())
            model.share_weights()
            after = dict(model.generator.named_parameters())
            lost = [name for name in after if not torch.equal(after[name], before[name])]
            if lost:
                warnings.warn(
                    f"the generator's {lost[0]} is not the discriminator's, which sharing "
                    f"{model.config.sharing!r} puts in its place ({len(lost)} weights in all): if "
                    "the two were trained apart, choose sharing='none'.",
                    stacklevel=3,
                )
            ours, theirs = configs
            as_wide = theirs.hidden_size >= ours.hidden_size
            if as_wide and model.config.sharing != "all" and not settings.get("frozen_generator"):
                warnings.warn(
                    f"the generator is as wide as the discriminator ({theirs.hidden_size} units, "
                    f"{theirs.num_attention_heads} heads), the wrong size for pre-training, as "
                    "google/electra-small-generator is: the paper's best generators are a quarter "
                    "to a half as wide (figure 3), so build a new model and copy the discriminator "
                    "into it.",
                    stacklevel=3,
                )
        if settings.get("frozen_generator"):
            model.freeze_generator()
        return model
