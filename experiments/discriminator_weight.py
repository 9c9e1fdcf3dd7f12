"""The weight lambda of the discriminator's loss: the paper's five values.

    python experiments/discriminator_weight.py --work WORK [--scale cpu --text TEXT] [--jobs N]

The paper searched 1, 10, 20, 50 and 100 and took 50. Steps are equal, and so is the compute.

`sweep.py` says how it runs and what it writes.
"""

from __future__ import annotations

from dataclasses import replace

from sweep import Arms, Experiment, main

from electra_tutorial.config import PretrainingConfig

WEIGHTS = (1.0, 10.0, 20.0, 50.0, 100.0)


def arms(base: PretrainingConfig) -> Arms:
    """The values that the paper searched."""
    return {f"{weight:g}": replace(base, discriminator_weight=weight) for weight in WEIGHTS}


EXPERIMENT = Experiment(
    name="discriminator_weight",
    arms=arms,
    reference="50",
)

if __name__ == "__main__":
    main(EXPERIMENT, str(__doc__))
