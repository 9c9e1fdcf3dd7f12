"""What generator and discriminator share: nothing, embeddings, all weights.

    python experiments/sharing.py --work WORK [--scale cpu --text TEXT] [--jobs N]

The paper compared these with a generator as large as the discriminator (section 3.2), because only
then can they share all weights. Here the generator keeps its quarter of the width: in a run of this
length one of full width does not leave the plateau. So the mode "all" is left out, and two that the
paper's comparison lacks are in it.

`sweep.py` says how it runs and what it writes.
"""

from __future__ import annotations

from dataclasses import replace

from sweep import Arms, Experiment, main

from electra_tutorial.config import PretrainingConfig


def arms(base: PretrainingConfig) -> Arms:
    """Every mode of `electra_tutorial.sharing` that networks of different widths can have."""
    modes = ("none", "token-embeddings", "embeddings", "gradient-disentangled")
    return {mode: replace(base, sharing=mode) for mode in modes}


EXPERIMENT = Experiment(
    name="sharing",
    arms=arms,
    reference="embeddings",
    seeds=3,
)

if __name__ == "__main__":
    main(EXPERIMENT, str(__doc__))
