"""What generator and discriminator share: nothing, embeddings, all weights.

    python experiments/sharing.py --work WORK [--scale cpu --text TEXT] [--jobs N]

The paper compared these with a generator as large as the discriminator (section 3.2), because only
then can they share all weights. Four arms here keep the generator's quarter of the width, two of
which the paper's comparison lacks. Two more have full width, to set sharing everything beside
sharing the embeddings; in a run of this length a generator of full width, with its embeddings
shared, leaves the discriminator on a plateau.

`sweep.py` says how it runs and what it writes.
"""

from __future__ import annotations

from dataclasses import replace

from sweep import Arms, Experiment, main

from electra_tutorial.config import PretrainingConfig


def arms(base: PretrainingConfig) -> Arms:
    """Every mode of `electra_tutorial.sharing`; "all" needs a generator of full width."""
    modes = ("none", "token-embeddings", "embeddings", "gradient-disentangled")
    full = replace(base, generator_fraction=1.0)
    return {mode: replace(base, sharing=mode) for mode in modes} | {
        f"{mode}, full width": replace(full, sharing=mode) for mode in ("embeddings", "all")
    }


EXPERIMENT = Experiment(
    name="sharing",
    arms=arms,
    reference="embeddings",
)

if __name__ == "__main__":
    main(EXPERIMENT, str(__doc__))
