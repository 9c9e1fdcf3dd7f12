"""The bundled checkpoint: small, whole, in float32 once loaded, and as good as its record says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from electra_tutorial import recorded
from electra_tutorial.corpora import Corpus, build_segments, load_corpus
from electra_tutorial.metrics import t_interval
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.tokenization import load_tokenizer
from electra_tutorial.training import (
    discriminate,
    evaluate_pretraining,
    frequency_corruptions,
    mask_segments,
)

FOLDER = Path(recorded.__file__).parent / "builtin" / "mini"


def test_it_is_small_and_holds_no_pickle():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}


def test_each_half_opens_with_the_auto_classes_as_float32():
    generator = AutoModelForMaskedLM.from_pretrained(FOLDER / "generator")
    classifier = AutoModelForSequenceClassification.from_pretrained(
        FOLDER / "discriminator", num_labels=4
    )
    assert generator.dtype == classifier.dtype == torch.float32
    assert all(p.isfinite().all() for p in (*generator.parameters(), *classifier.parameters()))


def test_its_card_states_what_was_recorded():
    run = recorded.load("mini_checkpoint")
    results = run["results"]
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for figure in (
        f"{results['tokens'] / 1e6:.1f} million tokens",
        f"{results['auc']:.3f}",
        f"{results['auc_on_frequency_corruptions']:.3f}",
        f"{results['masked_accuracy']:.3f}",
        f"{results['generator_loss']:.2f}",
        f"{results['unigram_entropy']:.2f}",
        f"{run['seconds'] / 60:.0f} minutes",
    ):
        assert figure in card


def test_it_beats_random_weights_on_500_rows_as_its_card_says():
    results = recorded.load("real_tasks_500")["results"]
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for task in ("ag_news", "sst2", "conll2003"):
        found = results[task]
        low, high = t_interval(np.subtract(found["scores"]["mini"], found["scores"]["random"]))
        assert low > 0
        mini, random = (
            f"{found['mean'][a]:.3f} ± {found['sd'][a]:.3f}" for a in ("mini", "random")
        )
        assert f"{mini} | {random} | {low:.2f} to {high:.2f} |" in card


def test_it_sees_exchanged_words_in_the_books_own_sentences():
    """News-like sentences that it never read, corrupted with tokens drawn by frequency."""
    tokenizer = load_tokenizer("mini")
    rows = (FOLDER.parent / "topics.jsonl").read_text(encoding="utf-8").splitlines()
    sentences = Corpus("topics", tuple(json.loads(row)["text"] for row in rows))
    segments = build_segments(sentences, tokenizer, 64)
    corruptions = frequency_corruptions(mask_segments(segments, tokenizer), segments, tokenizer)
    model = ElectraForJointPreTraining.from_halves(FOLDER).eval()
    torch.manual_seed(0)
    untrained = ElectraForJointPreTraining.from_size("mini").eval()
    assert discriminate(model, corruptions)["auc"] > 0.6
    assert discriminate(untrained, corruptions)["auc"] < 0.55


@pytest.mark.slow
@pytest.mark.mirror
def test_it_is_as_good_as_recorded_on_held_out_text(root):
    """On other held-out text of the same source: the recorded AUC holds within sampling error."""
    path = root.parent / "shared" / "text" / "wikipedia_2015" / "test.txt.xz"
    if not path.is_file():
        pytest.skip("the Wikipedia text does not stand beside the checkout")
    tokenizer = load_tokenizer("mini")
    documents = load_corpus(path).documents[:60]
    segments = build_segments(Corpus("test", documents), tokenizer, 128).take(slice(0, 192))
    model = ElectraForJointPreTraining.from_halves(FOLDER).eval()
    figures = evaluate_pretraining(model, mask_segments(segments, tokenizer, seed=1))
    results = recorded.load("mini_checkpoint")["results"]
    assert figures["auc"] == pytest.approx(results["auc"], abs=0.04)
    assert figures["masked_accuracy"] == pytest.approx(results["masked_accuracy"], abs=0.04)
