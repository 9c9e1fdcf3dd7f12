"""From stored segments to a masked batch, against transformers' own collator.

    python experiments/benchmarks/masked_batch.py [--threads 1]

A batch of 128 sequences of 128 tokens is read from a memory-mapped file of 16-bit ids and masked
for ELECTRA: 15 % of the positions, of which 85 % become [MASK] and the rest stay. Ours masks the
whole matrix at once; `DataCollatorForLanguageModeling` gets the rows in each of the forms in which
data sets hand them over. The figure is the median of the ratios of neighbouring runs, against the
fastest of its forms and against the usual one, lists.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import SPECIAL_IDS, compare, interleave, random_segments
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from electra_tutorial import recorded
from electra_tutorial.masking import mask_tokens

BATCH, LENGTH, VOCABULARY = 128, 128, 30_522


def bert_like_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with as many tokens as BERT's and the same special ids."""
    names = {SPECIAL_IDS.pad: "[PAD]", 100: "[UNK]", SPECIAL_IDS.cls: "[CLS]"}
    names |= {SPECIAL_IDS.sep: "[SEP]", SPECIAL_IDS.mask: "[MASK]"}
    vocabulary = {names.get(i, f"word{i}"): i for i in range(VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordPiece(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def measure(path: Path, rounds: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Times of all ways to make the batch, from the mapped file at `path`."""
    stored = np.load(path, mmap_mode="r")
    rows = np.random.default_rng(1).permutation(len(stored))[:BATCH]
    collate = DataCollatorForLanguageModeling(
        bert_like_tokenizer(), mlm_probability=0.15, mask_replace_prob=0.85, random_replace_prob=0.0
    )

    def ours() -> object:
        return mask_tokens(torch.from_numpy(stored[rows].astype(np.int64)), special_ids=SPECIAL_IDS)

    def lists() -> object:
        return collate([{"input_ids": row.tolist()} for row in stored[rows]])

    def arrays() -> object:
        return collate([{"input_ids": row} for row in stored[rows].astype(np.int64)])

    def tensors() -> object:
        return collate(
            [{"input_ids": row} for row in torch.from_numpy(stored[rows].astype(np.int64))]
        )

    def specials_known() -> object:
        batch = stored[rows].astype(np.int64)
        special = np.isin(batch, (SPECIAL_IDS.pad, SPECIAL_IDS.cls, SPECIAL_IDS.sep))
        return collate(
            [
                {"input_ids": row, "special_tokens_mask": where}
                for row, where in zip(batch, special.astype(np.int64), strict=True)
            ]
        )

    arms = {
        "ours": ours,
        "lists": lists,
        "arrays": arrays,
        "tensors": tensors,
        "specials_known": specials_known,
    }
    device = torch.device("cpu")
    interleave(arms, 2, device)
    taken = interleave(arms, rounds, device, times=5)
    medians = {name: float(np.median(times)) for name, times in taken.items()}
    fastest = min((name for name in arms if name != "ours"), key=medians.__getitem__)
    return {
        "milliseconds": {name: 1e3 * median for name, median in medians.items()},
        "fastest_form": fastest,
        "times_as_fast": {
            name: compare(times, taken["ours"]) for name, times in taken.items() if name != "ours"
        },
    }, taken


def main() -> None:
    """Measure and write experiments/results/benchmark_masked_batch.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "segments.npy"
        np.save(path, random_segments(4096, LENGTH, VOCABULARY).input_ids)
        results, curves = measure(path, options.rounds)
    results |= {"threads": options.threads, "batch_size": BATCH, "sequence_length": LENGTH}
    print(json.dumps(results, indent=1))
    recorded.write(
        "benchmark_masked_batch",
        seeds=[0],
        data={"rows": {"made of": "random token ids, seed 0"}},
        seconds=time.perf_counter() - started,
        results=results,
        curves=curves,
    )


if __name__ == "__main__":
    main()
