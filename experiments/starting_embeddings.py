"""Embeddings that start random or from co-occurrence statistics: both curves.

    python experiments/starting_embeddings.py --work WORK --text TEXT [--scale gpu] [--jobs N]

The paper starts from random numbers. On a small budget the generator then stays at the frequencies
of the tokens and the discriminator has nothing to learn; `electra_tutorial.initialization` says
what the other start is. The two arms differ in nothing else. They run twice as long as those of
the other experiments, so that one can see the random arm leave the plateau or not, and the
seconds of the other arm contain those that its statistics take.

`sweep.py` says how it runs and what it writes.
"""

from __future__ import annotations

from dataclasses import replace

from sweep import Arms, Experiment, main

from electra_tutorial.config import PretrainingConfig


def arms(base: PretrainingConfig) -> Arms:
    """The two starts."""
    longer = replace(base, steps=2 * base.steps, warmup_steps=2 * base.warmup_steps)
    return {start: replace(longer, embeddings=start) for start in ("random", "cooccurrence")}


EXPERIMENT = Experiment(
    name="starting_embeddings",
    arms=arms,
    reference="random",
    seeds=3,
    scale="cpu",
    fine_tune=False,
    points=12,
)

if __name__ == "__main__":
    main(EXPERIMENT, str(__doc__))
