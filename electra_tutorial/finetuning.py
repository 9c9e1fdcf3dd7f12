"""Fine-tuning: put a small head on a pre-trained discriminator and train all of it on labels.

One loop on Accelerate, to be read top to bottom; the settings are those of the paper's table 7
(`FineTuningConfig`). As the paper says, and unlike the released code, the top layer learns at
learning_rate * decay: the code counts one level too many and gives it decay squared.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel

from electra_tutorial import environment
from electra_tutorial.checkpoints import find_checkpoint, load_pretrained, quiet
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.encoding import Encoded, LengthGroupedBatches, collate, encode
from electra_tutorial.heads import HEADS, AnyEvaluation, Evaluation, Head, head_of
from electra_tutorial.metrics import accuracy
from electra_tutorial.tasks import Task
from electra_tutorial.tokenization import load_tokenizer
from electra_tutorial.training import learning_rate_factor


@dataclass(frozen=True)
class FineTuningResult:
    """What `fine_tune()` returns.

    Attributes:
        model: the model as it was after the best epoch.
        tokenizer: the one it reads with.
        history: for each epoch epoch, train_loss, validation_loss, the task's metric and seconds.
        losses: the training loss of every step.
        validation: the best epoch's evaluation.
        best_epoch: its number, counted from 1.
        seconds: the whole run.
    """

    model: PreTrainedModel
    tokenizer: Any
    history: list[dict[str, float]]
    losses: list[float]
    validation: AnyEvaluation
    best_epoch: int
    seconds: float


@dataclass(frozen=True)
class Prediction:
    """The class that a model gives a text, and its probabilities for all classes by name."""

    label: str
    probability: float
    probabilities: dict[str, float]


def fine_tune(
    checkpoint: str | Path,
    task: Task,
    config: FineTuningConfig | None = None,
    output_dir: str | Path | None = None,
    from_scratch: bool = False,
    *,
    device: str | None = None,
    precision: str | None = None,
    show_progress: bool = False,
) -> FineTuningResult:
    """Train a model for `task` and keep the epoch that is best on its validation split.

    The kind of the task decides about the head and the labels: a class for a text or a pair, a
    number, or a tag for each word (see `electra_tutorial.heads`).


    The best epoch has the highest value of the task's metric; among equals, the lowest loss. The
    run seeds every random generator with `config.seed`, so that it gives the same result again.

    Args:
        checkpoint: "mini" (bundled), a folder, or a hub id.
        task: from `load_task()`.
        config: the settings; default: the paper's for ELECTRA-Small.
        output_dir: where model, tokenizer and fine_tuning.json go at the end, whole or not at all.
        from_scratch: start from random weights of the same shape, to see what pre-training gives.
        device, precision: as in `environment.plan()`, which chooses where they are not given.
        show_progress: draw a bar.

    Raises:
        TypeError: for arguments of the wrong type.
        ValueError: if the checkpoint is no ELECTRA, max_length exceeds its positions, a text is
            empty, or a label is out of range.
        FileNotFoundError, FileExistsError: if the checkpoint is not there, or output_dir is.
    """
    config = FineTuningConfig() if config is None else config
    if not isinstance(task, Task) or not isinstance(config, FineTuningConfig):
        raise TypeError(
            "fine_tune() needs a Task from load_task() and a FineTuningConfig, not "
            f"{type(task).__name__} and {type(config).__name__}."
        )
    if output_dir is not None and Path(output_dir).exists():
        raise FileExistsError(f"{output_dir} is there already: remove it or name another folder.")
    started = time.perf_counter()
    plan = environment.plan(device, precision)
    environment.seed_everything(config.seed)
    head = HEADS[task.kind]
    model, tokenizer = load_for_tuning(head, checkpoint, task.label_names, config, from_scratch)
    train, labels = head.encode(
        tokenizer, task.train, task.label_names, config.max_length, model.config, "train"
    )

    accelerator = _accelerator(plan)
    sampler = LengthGroupedBatches([len(row["input_ids"]) for row in train], config)
    loader: Any = DataLoader(
        list(zip(train, labels, strict=True)),  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=lambda rows: collate([row for row, _ in rows], [label for _, label in rows]),
    )
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config),
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
    )
    steps = config.epochs * len(sampler)
    warmup = round(config.warmup_fraction * steps)
    schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps, warmup))
    prepared, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)

    history: list[dict[str, float]] = []
    losses: list[float] = []
    best: tuple[tuple[float, float], int, AnyEvaluation, dict[str, Tensor]] | None = None
    for epoch in tqdm(range(1, config.epochs + 1), unit="epoch", disable=not show_progress):
        epoch_started = time.perf_counter()
        sampler.epoch = epoch - 1  # every pass in an order of its own, the same in every process
        prepared.train()
        epoch_losses = []
        for batch in loader:
            loss = prepared(**batch).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(prepared.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            epoch_losses.append(loss.detach())
        losses += torch.stack(epoch_losses).float().tolist()
        if not np.isfinite(losses[-len(epoch_losses) :]).all():
            raise FloatingPointError(
                f"The loss is not finite in epoch {epoch}: lower learning_rate or use fp32."
            )
        validation = evaluate(
            model, tokenizer, task.validation, task.label_names, max_length=config.max_length
        )
        score = (validation.metrics[task.metric], -validation.metrics["loss"])
        if best is None or score > best[0]:
            weights = {name: value.cpu().clone() for name, value in model.state_dict().items()}
            best = (score, epoch, validation, weights)
        history.append(
            {
                "epoch": epoch,
                "train_loss": float(np.mean(losses[-len(epoch_losses) :])),
                "validation_loss": validation.metrics["loss"],
                task.metric: score[0],
                "seconds": time.perf_counter() - epoch_started,
            }
        )
    assert best is not None  # config.epochs is at least 1
    model = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    model.load_state_dict(best[3])
    model.eval()
    result = FineTuningResult(
        model, tokenizer, history, losses, best[2], best[1], time.perf_counter() - started
    )
    if output_dir is not None and accelerator.is_main_process:
        _save(result, task, config, Path(output_dir))
    return result


def layer_rates(num_layers: int, learning_rate: float, decay: float) -> Callable[[str], float]:
    """The learning rate of each parameter, by its name (Howard and Ruder, 2018; paper, table 7).

    The head learns at learning_rate. Below it, each level multiplies by `decay`: the top layer has
    decay to the power of 1, the lowest of n layers decay^n, the embeddings decay^(n + 1).
    """

    def rate(name: str) -> float:
        layer = re.search(r"encoder\.layer\.(\d+)\.", name)
        if layer:
            depth = int(layer[1]) + 1
        else:
            depth = 0 if "electra.embeddings" in name else num_layers + 1
        return learning_rate * decay ** (num_layers + 1 - depth)

    return rate


def parameter_groups(model: torch.nn.Module, config: FineTuningConfig) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay; biases and LayerNorm never decay."""
    rate = layer_rates(
        model.config.num_hidden_layers,  # type: ignore[union-attr, arg-type]
        config.learning_rate,
        config.layerwise_decay,
    )
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        exempt = name.endswith("bias") or "LayerNorm" in name
        groups[rate(name), 0.0 if exempt else config.weight_decay].append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]


@torch.no_grad()
def classify(
    model: torch.nn.Module, encoded: Sequence[Encoded], batch_size: int = 64
) -> list[np.ndarray]:
    """The model's logits for each item, in the order of `encoded`.

    Of shape (classes,) where the head answers for the whole text, (tokens, classes) where it
    answers for each token.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    # Long items first: if a batch does not fit into memory, the first one shows it.
    order = np.argsort([-len(row["input_ids"]) for row in encoded], kind="stable")
    logits: dict[int, np.ndarray] = {}
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size].tolist()
        batch = collate([encoded[i] for i in places])
        answers = model(**{k: v.to(device) for k, v in batch.items()}).logits.float().cpu().numpy()
        for place, answer in zip(places, answers, strict=True):
            length = len(encoded[place]["input_ids"])
            logits[place] = answer[:length] if answer.ndim == 2 else answer
    model.train(was_training)
    return [logits[place] for place in range(len(encoded))]


def evaluate(
    model: torch.nn.Module,
    tokenizer: Any,
    dataset: Dataset,
    label_names: Sequence[str],
    *,
    max_length: int | None = None,
    batch_size: int = 64,
) -> AnyEvaluation:
    """Let a fine-tuned model answer a labelled split, and measure the answers.

    `max_length` cuts longer texts; default: 128 tokens, as in `FineTuningConfig`, or the model's
    positions where these are fewer.

    Raises:
        ValueError: if the model has another number of classes, a text is empty, or a label is out
            of range.
    """
    head, model_config = head_of(model), cast(Any, model.config)
    expected = head.settings(label_names)
    if model_config.num_labels != expected.get("num_labels", len(label_names)):
        raise ValueError(
            f"The model has {model_config.num_labels} classes, but there are {len(label_names)} "
            "label names: use the label names that it was trained with."
        )
    length = max_length or _default_length(model_config)
    encoded, labels = head.encode(tokenizer, dataset, label_names, length, model_config, "the data")
    return head.judge(classify(model, encoded, batch_size), labels, dataset, label_names)


def predict(
    model: torch.nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    text_pairs: Sequence[str] | None = None,
    *,
    max_length: int | None = None,
    batch_size: int = 64,
) -> list[Prediction]:
    """Classify new texts; the names of the classes are those that the model was saved with.

    Raises:
        TypeError: if `texts` is one string instead of several, or holds something else.
        ValueError: if a text is empty.
    """
    if isinstance(texts, str):
        raise TypeError("predict() needs several texts, not one string: put it into a list.")
    model_config: Any = model.config
    columns = {"text": list(texts)} | (
        {} if text_pairs is None else {"text_pair": list(text_pairs)}
    )
    for column, values in columns.items():
        if not all(isinstance(value, str) for value in values):
            raise TypeError(f"Every {column} must be a string.")
    dataset = Dataset.from_dict(columns)
    encoded = encode(tokenizer, dataset, max_length or _default_length(model_config), model_config)
    logits = torch.from_numpy(np.stack(classify(model, encoded, batch_size))).double()
    names = [model_config.id2label[i] for i in range(model_config.num_labels)]
    answers = []
    for shares in logits.softmax(dim=1).tolist():
        best = int(np.argmax(shares))
        answers.append(Prediction(names[best], shares[best], dict(zip(names, shares, strict=True))))
    return answers


def bag_of_words_baseline(task: Task, seed: int = 0) -> Evaluation:
    """What word counts alone give: `fit_bag_of_words()`, evaluated once on the test split."""
    model = fit_bag_of_words(task, seed)
    # A class that no training row has gets probability 0.
    shares = np.zeros((len(task.test), len(task.label_names)))
    shares[:, model.classes_] = model.predict_proba(_joined(task, task.test))
    return Evaluation.of(list(task.test["label"]), shares, task.label_names)


def fit_bag_of_words(task: Task, seed: int = 0) -> Pipeline:
    """TF-IDF of words and word pairs, and a logistic regression, trained on the training split.

    Its regularisation is chosen on the validation split. The texts of a pair are joined. The solver
    is deterministic: `seed` reaches it, but changes nothing.
    """
    models = []
    for inverse_strength in (0.1, 1.0, 10.0, 100.0):
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=inverse_strength, max_iter=1000, random_state=seed),
        ).fit(_joined(task, task.train), list(task.train["label"]))
        called = model.predict(_joined(task, task.validation))
        models.append((accuracy(list(task.validation["label"]), called), model))
    return max(models, key=lambda pair: pair[0])[1]


def _joined(task: Task, split: Dataset) -> list[str]:
    """The texts of a split; those of a pair become one."""
    return [" ".join(row) for row in zip(*(split[c] for c in task.text_columns), strict=True)]


def load_for_tuning(
    head: Head,
    checkpoint: str | Path,
    label_names: Sequence[str],
    config: FineTuningConfig,
    from_scratch: bool = False,
) -> tuple[PreTrainedModel, Any]:
    """A model with a new head on a checkpoint, and the checkpoint's tokenizer.

    The classifier's head is transformers' (dropout, dense, GELU, dropout, dense on [CLS]); the
    official code has one dense layer less.
    """
    source = find_checkpoint(checkpoint)
    tokenizer = load_tokenizer(source)
    changes = head.settings(label_names) | {
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "classifier_dropout": config.dropout,
    }
    model, _ = load_pretrained(head.model_class, source, **changes)
    if from_scratch:
        environment.seed_everything(config.seed)
        model = head.model_class(model.config)
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"The tokenizer in {source} has {len(tokenizer)} tokens, the model "
            f"{model.config.vocab_size}: use the tokenizer that it was trained with."
        )
    return model, tokenizer


def load_classifier(
    checkpoint: str | Path,
    label_names: Sequence[str],
    config: FineTuningConfig,
    from_scratch: bool = False,
) -> tuple[PreTrainedModel, Any]:
    """`load_for_tuning()` with the head of a classification."""
    head = HEADS["classification"]
    return load_for_tuning(head, checkpoint, label_names, config, from_scratch)


def _accelerator(plan: environment.Plan) -> Accelerator:
    # Accelerate keeps one state per process and refuses a second run with another precision or
    # device; a notebook makes several. A process group that was started stays as it is.
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not distributed)
    precision = "no" if plan.precision == "fp32" else plan.precision
    return Accelerator(mixed_precision=precision, cpu=plan.device == "cpu")


def _default_length(model_config: Any) -> int:
    return int(min(FineTuningConfig().max_length, model_config.max_position_embeddings))


def _save(result: FineTuningResult, task: Task, config: FineTuningConfig, output_dir: Path) -> None:
    """Write next to `output_dir` and rename at the end, so that it is there whole or not at all."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output_dir.with_name(f".{output_dir.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    with quiet():
        result.model.save_pretrained(unfinished)
        result.tokenizer.save_pretrained(unfinished)
    facts = {
        "task": {"name": task.name, "source": task.source, "revision": task.revision},
        "config": asdict(config),
        "best_epoch": result.best_epoch,
        "history": result.history,
    }
    (unfinished / "fine_tuning.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    os.replace(unfinished, output_dir)
