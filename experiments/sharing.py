"""What generator and discriminator share: nothing, embeddings, all weights.

    python experiments/sharing.py --work WORK [--scale cpu --text TEXT] [--jobs N]

As in the paper (section 3.2) both networks have the same size here, because otherwise they could
not share all weights; the two modes that the paper's comparison lacks are in it as well.

`sweep.py` says how it runs and what it writes.
"""

from __future__ import annotations

from dataclasses import replace

from sweep import Arms, Experiment, main

from electra_tutorial.config import PretrainingConfig


def arms(base: PretrainingConfig) -> Arms:
    """Every mode of `electra_tutorial.sharing`, with a generator as large as the discriminator."""
    modes = ("none", "token-embeddings", "embeddings", "all", "gradient-disentangled")
    return {mode: replace(base, generator_fraction=1.0, sharing=mode) for mode in modes}


EXPERIMENT = Experiment(
    name="sharing",
    arms=arms,
    reference="none",
    seeds=3,
)

if __name__ == "__main__":
    main(EXPERIMENT, str(__doc__))
