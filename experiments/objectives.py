"""The five objectives of the paper's Table 5 at equal compute.

    python experiments/objectives.py --work WORK [--scale cpu --text TEXT] [--jobs N]

Each arm gets as many steps as the floating-point operations of the ELECTRA arm pay for: BERT's
masked language modelling gets more, because it has no generator (the paper gave its Small 1.45
million steps against 1 million), All-Tokens MLM fewer, because its softmax over the vocabulary
stands at every position. Every kept network is fine-tuned on labelled rows at several points of its
run (the hidden states of the language, or AG News where it read text), which also draws ELECTRA
against BERT's objective as quality over compute.

`sweep.py` says how it runs and what it writes.
"""

from __future__ import annotations

from dataclasses import replace

from sweep import Arms, Experiment, main

from electra_tutorial.config import PretrainingConfig


def arms(base: PretrainingConfig) -> Arms:
    """ELECTRA, the three stepping stones, and BERT's objective."""
    names = ("electra", "electra-15", "replace-mlm", "all-tokens-mlm", "mlm")
    return {name: replace(base, objective=name) for name in names}


EXPERIMENT = Experiment(
    name="objectives",
    arms=arms,
    reference="electra",
    equal_compute=True,
)

if __name__ == "__main__":
    main(EXPERIMENT, str(__doc__))
