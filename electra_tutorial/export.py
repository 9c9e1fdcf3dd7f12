"""A model outside of PyTorch: an ONNX file that was checked against the original, and eight bits.

`export_onnx()` writes a folder with all that a program needs to run the model:

    model.onnx        the network: token ids in, logits out, for any number of texts of any length
    tokenizer.json    how a text becomes token ids
    config.json       the shape of the model, as everywhere in transformers
    export.json       the names of the classes, how many tokens are read, how the check ended

`OnnxModel` runs such a folder. Of what it uses, only ONNX Runtime, tokenizers and numpy compute.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, ElectraForPreTraining, PreTrainedModel

from electra_tutorial.checkpoints import (
    find_checkpoint,
    load_pretrained,
    quiet,
    reading_of,
)
from electra_tutorial.detection import TokenScore
from electra_tutorial.prediction import Prediction, default_length, kind_of, load_tuned
from electra_tutorial.tokenization import load_tokenizer

FULL, INT8, FACTS = "model.onnx", "model.int8.onnx", "export.json"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OPSET = 18  # the first in which the exporter of the oldest torch that is allowed writes

# What a file is checked with where the caller has no texts: from one word to a paragraph.
CHECKED_TEXTS = (
    "Yes.",
    "The ferry left the harbour an hour late because of the fog.",
    "A bakery in the old town sells its last loaves for half the price after six in the evening.",
    "Nobody had asked for the report. It lay on the table for a week, next to a cup without a "
    "handle, before a clerk opened it, read three lines, and telephoned the mayor.",
)


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from the model that it was made from.

    Attributes:
        path: the .onnx file.
        megabytes: its size, in millions of bytes.
        largest_difference: the largest difference of a logit over the texts of the check.
        agreement: the share of answers that are the same: the classes of texts, or of a
            discriminator what it calls replaced.
    """

    path: Path
    megabytes: float
    largest_difference: float
    agreement: float


def export_onnx(
    model: str | Path | PreTrainedModel,
    tokenizer: Any,
    folder: str | Path,
    *,
    texts: Sequence[str] = CHECKED_TEXTS,
    max_length: int | None = None,
    tolerance: float = 1e-4,
) -> Exported:
    """Write a classifier or a discriminator as ONNX, provided that it answers as PyTorch does.

    The network takes input_ids, attention_mask and token_type_ids, each int64 (batch, seq_len), and
    gives logits in fp32: (batch, classes) or, of a discriminator, (batch, seq_len).

    Args:
        model: a model object, or a checkpoint: "mini", a folder or a hub id.
        tokenizer: the one that it reads with; None: the checkpoint's.
        folder: where to write. It appears at the end, whole or not at all.
        texts: what both must agree on, each alone and all in one batch.
        max_length: how many tokens of a text are read; default: as in training if the checkpoint
            says so, else as in `prediction.predict()`.
        tolerance: the largest difference of a logit that is accepted.

    Raises:
        ModuleNotFoundError: if onnx, onnxscript or onnxruntime is not installed.
        TypeError: if a model object came without its tokenizer, or texts is one string.
        ValueError: if the model is neither a classifier nor a discriminator, a text is empty,
            max_length exceeds the positions, or the logits differ by more than `tolerance`.
        FileExistsError: if the folder is there already.
    """
    require_packages("export", "onnx", "onnxscript", "onnxruntime")
    folder, given = Path(folder), _checked(texts, "texts")
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: name another folder, or remove it.")
    if max_length is None and isinstance(model, str | Path):
        max_length = reading_of(model).get("max_length")
    model, tokenizer = _load(model, tokenizer)
    config: Any = model.config
    length = default_length(config) if max_length is None else max_length
    if not 2 < length <= config.max_position_embeddings:
        raise ValueError(
            f"max_length {length} is not between 3 and {config.max_position_embeddings}, the "
            "positions of this model."
        )
    kind = _kind(model)
    facts = {
        "kind": kind,
        "label_names": [config.id2label[i] for i in range(config.num_labels)]
        if kind == "classification"
        else [],
        "max_length": length,
        "pad_token_id": config.pad_token_id,
        "torch": torch.__version__,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        _write_graph(model, unfinished / FULL)
        with quiet():
            tokenizer.save_pretrained(unfinished)
            config.save_pretrained(unfinished)
        _write_json(unfinished / FACTS, facts)
        written = _compare(
            OnnxModel(unfinished), lambda some: _ask_torch(model, tokenizer, some, length), given
        )
        if not written.largest_difference <= tolerance:  # nor if it is not a number
            raise ValueError(
                f"A logit of the ONNX file differs by {written.largest_difference:.2g} from "
                f"PyTorch's, but {tolerance:g} are allowed: nothing was written."
            )
        facts |= {"largest_difference": written.largest_difference, "tolerance": tolerance}
        _write_json(unfinished / FACTS, facts)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return dataclasses.replace(written, path=folder / FULL)


def quantize_int8(folder: str | Path, *, texts: Sequence[str] = CHECKED_TEXTS) -> Exported:
    """Write model.int8.onnx beside model.onnx: matrices and embeddings as numbers of eight bits.

    This is ONNX Runtime's dynamic quantisation. Each column of a matrix is stored as whole numbers
    times a scale of its own. What flows between the layers is rounded to eight bits too, with a
    scale that is chosen anew for every batch, so that an answer depends a little on the company
    that a text is in. How far the answers to `texts` move is returned, not judged.

    Raises:
        ModuleNotFoundError: if onnx or onnxruntime is not installed.
        TypeError, ValueError: as `OnnxModel`, and if texts is one string or one of them is empty.
        FileNotFoundError: if `export_onnx()` did not write the folder.
    """
    require_packages("export", "onnx", "onnxruntime")
    given, full = _checked(texts, "texts"), OnnxModel(folder)
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=full.path.parent) as temporary, _silence():
        folded, small = (Path(temporary) / name for name in ("folded.onnx", INT8))
        # A matrix is found only if it lies there as a constant: fold what makes it one.
        quant_pre_process(full.path, folded, skip_symbolic_shape=True)
        quantize_dynamic(folded, small, weight_type=QuantType.QInt8, per_channel=True)
        os.replace(small, full.path.with_name(INT8))
    return _compare(OnnxModel(folder, int8=True), full.logits, given)


class OnnxModel:
    """A folder that `export_onnx()` wrote, run by ONNX Runtime on the CPU.

    Several threads may ask it at the same time.

    Args:
        folder: what `export_onnx()` wrote.
        int8: run model.int8.onnx, which `quantize_int8()` wrote, instead of model.onnx.
        threads: how many work on one batch; default: one for each core.

    Attributes:
        path: the .onnx file.
        kind: "classification" or "discriminator".
        label_names: the classes, in the order of the logits.
        max_length: how many tokens of a text are read.

    Raises:
        ModuleNotFoundError: if onnxruntime is not installed.
        FileNotFoundError: if the folder lacks a file.
        ValueError: if a file is damaged, or threads is below 1.
    """

    def __init__(
        self, folder: str | Path, *, int8: bool = False, threads: int | None = None
    ) -> None:
        require_packages("export", "onnxruntime")
        import onnxruntime

        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}.")
        folder = Path(folder)
        self.path = folder / (INT8 if int8 else FULL)
        for path in (folder / FACTS, folder / "tokenizer.json", self.path):
            if not path.is_file():
                how = "quantize_int8() writes it" if path.name == INT8 else "export_onnx() first"
                raise FileNotFoundError(f"There is no {path.name} in {folder}: {how}.")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads or 0  # 0: ONNX Runtime counts the cores
        # Errors only: it would otherwise tell stderr which devices a machine does not have.
        onnxruntime.set_default_logger_severity(3)
        settings.log_severity_level = 3
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            self.kind: str = facts["kind"]
            self.label_names: list[str] = facts["label_names"]
            self.max_length: int = facts["max_length"]
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._session = onnxruntime.InferenceSession(
                self.path, settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # both libraries raise errors of their own kinds
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            raise ValueError(f"{folder} cannot be used ({reason}): export it anew.") from error
        # Set once and never again: a tokenizer that is being changed cannot serve other threads.
        self._tokenizer.enable_padding(pad_id=facts["pad_token_id"])
        self._tokenizer.enable_truncation(self.max_length)

    def encode(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """What the network reads: each of `INPUTS`, int64 (batch, seq_len), padded to the longest.

        Raises:
            TypeError: if texts or text_pairs is one string, or holds something else.
            ValueError: if there is no text, one is empty or holds a lone surrogate, or there are
                not as many pairs as texts.
        """
        rows: list[Any] = _checked(texts, "texts")
        if text_pairs is not None:
            if len(text_pairs) != len(rows):
                raise ValueError(
                    f"There are {len(rows)} texts and {len(text_pairs)} text_pairs: give each text "
                    "its partner."
                )
            rows = list(zip(rows, _checked(text_pairs, "text_pairs"), strict=True))
        read = self._tokenizer.encode_batch(rows)
        columns = {
            "input_ids": [row.ids for row in read],
            "attention_mask": [row.attention_mask for row in read],
            "token_type_ids": [row.type_ids for row in read],
        }
        return {name: np.array(column, dtype=np.int64) for name, column in columns.items()}

    def run(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """The logits of what `encode()` gave: (batch, classes) or (batch, seq_len)."""
        (logits,) = self._session.run(["logits"], batch)
        return np.asarray(logits)

    def logits(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        batch_size: int = 64,
    ) -> list[np.ndarray]:
        """The logits of each text: (classes,) or, of a discriminator, (tokens,).

        Raises:
            TypeError, ValueError: as `encode()`.
        """
        batch = self.encode(texts, text_pairs)
        lengths = batch["attention_mask"].sum(axis=1)
        order = np.argsort(-lengths, kind="stable")  # of similar length: less padding, less work
        found: dict[int, np.ndarray] = {}
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            part = {name: rows[places, : lengths[places[0]]] for name, rows in batch.items()}
            logits = self.run(part)
            for place, row in zip(places.tolist(), logits, strict=True):
                found[place] = row if self.kind == "classification" else row[: lengths[place]]
        return [found[place] for place in range(len(order))]

    def predict(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        batch_size: int = 64,
    ) -> list[Prediction]:
        """Classify texts, as `prediction.predict()` does.

        Raises:
            TypeError, ValueError: as `encode()`, and if the model is no classifier.
        """
        self._require("classification", "predict()")
        logits = self.logits(texts, text_pairs, batch_size=batch_size)
        return [
            Prediction(
                self.label_names[int(shares.argmax())],
                float(shares.max()),
                dict(zip(self.label_names, shares.tolist(), strict=True)),
            )
            for shares in softmax(np.stack(logits).astype(np.float64), axis=1)
        ]

    def detect(self, text: str) -> list[TokenScore]:
        """Say of every token how likely it was replaced, as `detection.detect_replacements()` does.

        Unlike there, what exceeds max_length is cut off.

        Raises:
            TypeError, ValueError: if the text is not a string or empty, or the model is no
                discriminator.
        """
        self._require("discriminator", "detect()")
        (logits,) = self.logits([text])
        read = self._tokenizer.encode(text)
        return [
            TokenScore(token, start, end, probability)
            for token, (start, end), probability in zip(
                read.tokens, read.offsets, expit(logits.astype(np.float64)).tolist(), strict=True
            )
            if end > start  # special tokens have no place in the text
        ]

    def _require(self, kind: str, method: str) -> None:
        if self.kind != kind:
            raise ValueError(f"{method} is for a {kind} model; {self.path} is one for {self.kind}.")


def require_packages(extra: str, *names: str) -> None:
    """Refuse, in one sentence, to go on without packages that only some uses need.

    Raises:
        ModuleNotFoundError: if one is not installed.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"This needs {' and '.join(missing)}: pip install 'electra-tutorial[{extra}]'."
        )


class _Logits(torch.nn.Module):
    """A model as the exporter wants it: tensors in, one tensor out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits
        return logits


def _write_graph(model: PreTrainedModel, path: Path) -> None:
    import onnx

    device = next(model.parameters()).device
    # Two rows of different lengths, so that nothing is taken for a constant.
    mask = torch.ones(2, 8, dtype=torch.int64, device=device)
    mask[1, 5:] = 0
    example = (mask * 2, mask, torch.zeros_like(mask))
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _silence():
            torch.onnx.export(
                _Logits(model),
                example,
                path,
                input_names=list(INPUTS),
                output_names=["logits"],
                dynamic_shapes=(dynamic,) * 3,
                opset_version=OPSET,
                dynamo=True,
                external_data=False,  # one file; ONNX has room for 2 GB in it
            )
    finally:
        model.train(was_training)
    graph = onnx.load(path)
    for node in graph.graph.node:
        del node.metadata_props[:]  # where in whose files each operation came from
        node.doc_string = ""
    onnx.save(graph, path)


def _load(model: str | Path | PreTrainedModel, tokenizer: Any) -> tuple[PreTrainedModel, Any]:
    if not isinstance(model, str | Path):
        if tokenizer is None:
            raise TypeError("A model object needs its tokenizer: pass tokenizer as well.")
        return model, tokenizer
    source = find_checkpoint(model)
    try:
        saved_as = AutoConfig.from_pretrained(source).architectures or []
    except (OSError, ValueError):
        saved_as = []  # load_tuned() says why
    loaded: PreTrainedModel
    if ElectraForPreTraining.__name__ in saved_as:
        loaded, _ = load_pretrained(ElectraForPreTraining, source)
    else:
        loaded, _ = load_tuned(source)
    return loaded, load_tokenizer(source) if tokenizer is None else tokenizer


def _kind(model: PreTrainedModel) -> str:
    if isinstance(model, ElectraForPreTraining):
        return "discriminator"
    kind = kind_of(model)
    if kind != "classification":
        raise ValueError(
            f"export_onnx() writes classifiers and discriminators, but this model is for {kind}."
        )
    return kind


@torch.no_grad()
def _ask_torch(
    model: PreTrainedModel, tokenizer: Any, texts: list[str], max_length: int
) -> list[np.ndarray]:
    """PyTorch's logits of texts in one batch, read by transformers' tokenizer."""
    batch = tokenizer(
        texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    )
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits = model(**{name: batch[name].to(device) for name in INPUTS}).logits.float().cpu().numpy()
    model.train(was_training)
    if isinstance(model, ElectraForPreTraining):
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        return [row[:length] for row, length in zip(logits, lengths, strict=True)]
    return list(logits)


def _compare(
    written: OnnxModel, original: Callable[[list[str]], list[np.ndarray]], texts: list[str]
) -> Exported:
    """Ask both about all texts at once and about each alone."""
    differences, same = [], []
    for some in (texts, *([text] for text in texts)):
        for ours, theirs in zip(written.logits(some), original(some), strict=True):
            differences.append(np.abs(ours - theirs).max())
            if written.kind == "classification":
                same.append(np.array([ours.argmax() == theirs.argmax()]))
            else:
                same.append((ours > 0) == (theirs > 0))
    return Exported(
        written.path,
        written.path.stat().st_size / 1e6,
        float(np.max(differences)),
        float(np.concatenate(same).mean()),
    )


def _checked(texts: Sequence[str], name: str) -> list[str]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name} must be a list of strings.")
    if not len(texts):
        raise ValueError(f"{name} is empty: give at least one text.")
    for place, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"{name}[{place}] is empty: leave it out or complete it.")
        if re.search("[\ud800-\udfff]", text):
            raise ValueError(f"{name}[{place}] holds half of a character, a lone surrogate.")
    return list(texts)


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what the exporter and the quantiser say of their progress out of sight.

    An error passes.
    """
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)
