"""The size of the generator: from an eighth of the discriminator's width to all of it.

    python experiments/generator_size.py --work WORK [--scale cpu --text TEXT] [--jobs N]

As in the paper's figure 3 (left) all arms make the same number of steps, which puts the small
generators at a disadvantage in compute: the operations of each arm are recorded beside its
figures.

`sweep.py` says how it runs and what it writes.
"""

from __future__ import annotations

from dataclasses import replace

from sweep import Arms, Experiment, main

from electra_tutorial.config import PretrainingConfig

FRACTIONS = (0.125, 0.25, 0.5, 0.75, 1.0)


def arms(base: PretrainingConfig) -> Arms:
    """Widths as fractions of the discriminator's."""
    return {f"{part:g}": replace(base, generator_fraction=part) for part in FRACTIONS}


EXPERIMENT = Experiment(
    name="generator_size",
    arms=arms,
    reference="0.25",
)

if __name__ == "__main__":
    main(EXPERIMENT, str(__doc__))
