"""The share of tokens that the generator replaces.

    python experiments/mask_rate.py --work WORK [--scale cpu --text TEXT] [--jobs N]

The paper masks 15 %, and 25 % for its Large. All arms are judged on the same set, in which 15 %
were chosen, and on one of their own at their own rate.

`sweep.py` says how it runs and what it writes.
"""

from __future__ import annotations

from dataclasses import replace

from sweep import Arms, Experiment, main

from electra_tutorial.config import PretrainingConfig

RATES = (0.05, 0.15, 0.25, 0.4)


def arms(base: PretrainingConfig) -> Arms:
    """Rates from a third to nearly three times the paper's."""
    return {f"{rate:g}": replace(base, mask_probability=rate) for rate in RATES}


EXPERIMENT = Experiment(
    name="mask_rate",
    arms=arms,
    reference="0.15",
)

if __name__ == "__main__":
    main(EXPERIMENT, str(__doc__))
