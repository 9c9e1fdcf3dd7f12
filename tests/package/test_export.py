"""ONNX files answer as PyTorch does; eight bits nearly so; what cannot be done is said."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    ElectraForPreTraining,
    ElectraForTokenClassification,
)

from electra_tutorial import detection, export, prediction
from electra_tutorial.tokenization import load_tokenizer

WORDS = ("ferry", "fog", "lamp", "red", "apple", "##s", "harbour", "the", "a", ".", "dawn")
TEXTS = ("The ferry.", "A red lamp, the fog.", "apples " * 9, "harbour")
LABELS = ("sea", "land", "sky")


@pytest.fixture(scope="module")
def discriminator(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("torch") / "discriminator"
    return make_checkpoint(folder, WORDS, max_position_embeddings=24, initializer_range=0.3)


@pytest.fixture(scope="module")
def detector(discriminator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from a model object that is in training, and stays so."""
    folder = tmp_path_factory.mktemp("onnx") / "detector"
    model = ElectraForPreTraining.from_pretrained(discriminator).train()
    export.export_onnx(model, load_tokenizer(discriminator), folder)
    assert model.training
    return folder


@pytest.fixture
def quickly(exported_classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the graph of the classifier from before, for tests of what is around it."""
    graph = (exported_classifier / export.FULL).read_bytes()
    monkeypatch.setattr(export, "_write_graph", lambda _, path: path.write_bytes(graph))


sentences = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=40).map(" ".join), min_size=1, max_size=9
)


@settings(deadline=None, max_examples=25)
@given(texts=sentences)
def test_a_classifier_predicts_as_in_pytorch(
    classifier_checkpoint: Path, exported_classifier: Path, texts: list[str]
) -> None:
    """Any number of texts, of any length, some of them cut."""
    model, tokenizer = prediction.load_tuned(classifier_checkpoint)
    expected = prediction.predict(model, tokenizer, texts)
    found = export.OnnxModel(exported_classifier).predict(texts, batch_size=4)
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours.probabilities) == list(theirs.probabilities) == list(LABELS)
        assert ours.label == max(ours.probabilities, key=ours.probabilities.__getitem__)
        assert ours.probability == ours.probabilities[ours.label]
        for name in LABELS:
            assert ours.probabilities[name] == pytest.approx(theirs.probabilities[name], abs=1e-5)


def test_pairs_are_read_as_pairs(classifier_checkpoint: Path, exported_classifier: Path) -> None:
    model, tokenizer = prediction.load_tuned(classifier_checkpoint)
    texts, pairs = ["the fog", "a lamp"], ["red apples. " * 9, "dawn"]
    expected = prediction.predict(model, tokenizer, texts, pairs)
    onnx_model = export.OnnxModel(exported_classifier, threads=1)
    for ours, theirs in zip(onnx_model.predict(texts, pairs), expected, strict=True):
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)
    alone = onnx_model.predict(texts)
    assert [a.probability for a in alone] != [
        a.probability for a in onnx_model.predict(texts, pairs)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (1, 24), (7, 3), (64, 2)])
def test_random_ids_give_the_logits_of_pytorch(
    discriminator: Path, detector: Path, shape: tuple[int, int]
) -> None:
    """Straight into the file, without a tokenizer: batch, length, padding and segments vary."""
    import onnxruntime

    torch.manual_seed(sum(shape))
    model = ElectraForPreTraining.from_pretrained(discriminator).eval()
    batch = {
        "input_ids": torch.randint(0, model.config.vocab_size, shape),
        "attention_mask": (torch.rand(shape) > 0.3).long(),
        "token_type_ids": torch.randint(0, 2, shape),
    }
    batch["attention_mask"][:, 0] = 1
    session = onnxruntime.InferenceSession(detector / export.FULL)
    (ours,) = session.run(["logits"], {name: ids.numpy() for name, ids in batch.items()})
    with torch.no_grad():
        theirs = model(**batch).logits.numpy()
    assert ours.shape == shape
    seen = batch["attention_mask"].numpy() > 0
    np.testing.assert_allclose(ours[seen], theirs[seen], atol=1e-4)


@pytest.mark.slow
def test_a_discriminator_detects_as_in_pytorch(discriminator: Path, detector: Path) -> None:
    assert export.OnnxModel(detector).label_names == []
    for text in ("The ferry, a lamp.", "Fog!"):
        expected = detection.detect_replacements(text, str(discriminator))
        found = export.OnnxModel(detector).detect(text)
        assert [(s.token, s.start, s.end) for s in found] == [
            (s.token, s.start, s.end) for s in expected
        ]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)


def test_eight_bits_are_smaller_and_answer_nearly_the_same(
    classifier_checkpoint: Path, exported_classifier: Path, tmp_path: Path
) -> None:
    """Here the probabilities move by less than 0.05; the mini checkpoint is in the slow test."""
    full, small = (export.OnnxModel(exported_classifier, int8=int8) for int8 in (False, True))
    assert small.path.stat().st_size < full.path.stat().st_size
    assert [path for path in exported_classifier.iterdir() if path.is_dir()] == []
    for one, other in zip(full.predict(TEXTS), small.predict(TEXTS), strict=True):
        for name in LABELS:
            assert one.probabilities[name] == pytest.approx(other.probabilities[name], abs=0.05)
    weights = {tensor.data_type for tensor in onnx.load(small.path).graph.initializer}
    assert onnx.TensorProto.INT8 in weights


def test_what_is_written(exported_classifier: Path) -> None:
    assert {path.name for path in exported_classifier.iterdir()} == {
        "config.json",
        "export.json",
        "model.int8.onnx",
        "model.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    facts = json.loads((exported_classifier / "export.json").read_text(encoding="utf-8"))
    assert facts["label_names"] == list(LABELS)
    assert facts["max_length"] == 24
    assert facts["largest_difference"] <= facts["tolerance"] == 1e-4
    graph = onnx.load(exported_classifier / export.FULL)
    onnx.checker.check_model(graph)
    assert [entry.name for entry in graph.graph.input] == list(export.INPUTS)
    # Neither whose machine nor whose files made it.
    content = (exported_classifier / export.FULL).read_bytes()
    assert str(Path(export.__file__).parent).encode() not in content
    assert b"site-packages" not in content


def test_the_folder_works_without_pytorch(exported_classifier: Path) -> None:
    """What a server or a phone needs: the folder, onnxruntime, tokenizers."""
    program = (
        "import sys, numpy, onnxruntime, tokenizers\n"
        "text = tokenizers.Tokenizer.from_file('tokenizer.json').encode('the ferry')\n"
        "rows = {'input_ids': text.ids, 'attention_mask': text.attention_mask,\n"
        "        'token_type_ids': text.type_ids}\n"
        "rows = {name: numpy.array([ids]) for name, ids in rows.items()}\n"
        "print(onnxruntime.InferenceSession('model.onnx').run(None, rows)[0].argmax())\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=exported_classifier,
        check=True,
        capture_output=True,
        text=True,
    )
    expected = export.OnnxModel(exported_classifier).predict(["the ferry"])[0].label
    assert LABELS[int(done.stdout)] == expected


def test_threads_may_share_a_model(exported_classifier: Path) -> None:
    model = export.OnnxModel(exported_classifier, threads=1)
    expected = [answer.probability for answer in model.predict(TEXTS)]
    found: list[list[float]] = []

    def ask() -> None:
        for _ in range(20):
            found.append([answer.probability for answer in model.predict(TEXTS)])

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(found) == 80
    np.testing.assert_allclose(found, [expected] * 80, atol=1e-6)


def test_a_file_that_differs_is_not_written(
    classifier_checkpoint: Path, tmp_path: Path, quickly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export._ask_torch
    monkeypatch.setattr(export, "_ask_torch", lambda *given: [row + 0.01 for row in real(*given)])
    with pytest.raises(ValueError, match=r"differs by 0.01 from PyTorch's, but 0.0001 are allowed"):
        export.export_onnx(classifier_checkpoint, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_fewer_tokens_can_be_read(
    classifier_checkpoint: Path, tmp_path: Path, quickly: None
) -> None:
    export.export_onnx(classifier_checkpoint, None, tmp_path / "out", texts=TEXTS, max_length=8)
    assert export.OnnxModel(tmp_path / "out").encode(["fog " * 20])["input_ids"].shape == (1, 8)


def test_bad_input_is_refused_in_one_sentence(
    classifier_checkpoint: Path,
    exported_classifier: Path,
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    tagger = make_checkpoint(tmp_path / "tagger", WORDS, ElectraForTokenClassification)
    model, tokenizer = prediction.load_tuned(classifier_checkpoint)
    detector = shutil.copytree(exported_classifier, tmp_path / "detector")
    facts = (detector / "export.json").read_text(encoding="utf-8")
    (detector / "export.json").write_text(facts.replace("classification", "discriminator"))
    (detector / export.INT8).unlink()
    for call, kind, message in (
        (lambda: export.export_onnx("absent", None, out), FileNotFoundError, "no checkpoint at"),
        (lambda: export.export_onnx(model, None, out), TypeError, "needs its tokenizer"),
        (lambda: export.export_onnx(tagger, None, out), ValueError, "is for token-classification"),
        (
            lambda: export.export_onnx(classifier_checkpoint, None, exported_classifier),
            FileExistsError,
            "is there",
        ),
        (
            lambda: export.export_onnx(model, tokenizer, out, max_length=25),
            ValueError,
            "max_length 25 is not between 3 and 24",
        ),
        (lambda: export.export_onnx(model, tokenizer, out, texts="x"), TypeError, "list of"),
        (lambda: export.export_onnx(model, tokenizer, out, texts=[]), ValueError, "at least one"),
        (lambda: export.OnnxModel(classifier_checkpoint), FileNotFoundError, "no export.json"),
        (lambda: export.OnnxModel(detector, int8=True), FileNotFoundError, r"quantize_int8\(\)"),
        (lambda: export.OnnxModel(exported_classifier, threads=0), ValueError, "at least 1, not 0"),
        (
            lambda: export.OnnxModel(exported_classifier).detect("x"),
            ValueError,
            "for a discriminator",
        ),
        (lambda: export.OnnxModel(detector).predict(["x"]), ValueError, "for a classification"),
        (
            lambda: export.OnnxModel(exported_classifier).predict("x"),
            TypeError,
            "texts must be a list",
        ),
        (
            lambda: export.OnnxModel(exported_classifier).predict([1]),
            TypeError,
            "texts must be a list",
        ),
        (lambda: export.OnnxModel(exported_classifier).predict([]), ValueError, "texts is empty"),
        (
            lambda: export.OnnxModel(exported_classifier).predict(["a", " "]),
            ValueError,
            r"texts\[1\] is",
        ),
        (
            lambda: export.OnnxModel(exported_classifier).predict(["a"], []),
            ValueError,
            "1 texts and 0",
        ),
    ):
        with pytest.raises(kind, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_damaged_file_is_refused(exported_classifier: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "export.json", "tokenizer.json"):
        folder = tmp_path / name.replace(".", "_")
        shutil.copytree(exported_classifier, folder)
        (folder / name).write_bytes((folder / name).read_bytes()[:50])
        with pytest.raises(ValueError, match="cannot be used .*export it anew") as caught:
            export.OnnxModel(folder)
        assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "onnx" else found(name, *rest),
    )
    with pytest.raises(
        ModuleNotFoundError, match=r"needs onnx: pip install 'electra-tutorial\[export\]'"
    ):
        export.export_onnx("mini", None, tmp_path / "out")


@pytest.mark.slow
def test_the_mini_checkpoint_in_eight_bits(tmp_path: Path) -> None:
    """A quarter of the size; what it calls replaced stays the same on 99 of 100 tokens."""
    full = export.export_onnx("mini", None, tmp_path / "mini")
    assert full.largest_difference < 1e-4
    assert full.agreement == 1
    small = export.quantize_int8(tmp_path / "mini")
    assert small.megabytes < 0.3 * full.megabytes
    assert small.agreement >= 0.99
    assert small.largest_difference < 1
