"""Fine-tuning: put a small head on a pre-trained discriminator and train all of it on labels.

One loop on Accelerate, to be read top to bottom; the settings are those of the paper's table 7
(`FineTuningConfig`). As the paper says, and unlike the released code, the top layer learns at
learning_rate * decay: the code counts one level too many and gives it decay squared
(`official_layer_decay_exponent`). `electra_tutorial.prediction` uses the model afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel

from electra_tutorial import environment, resuming
from electra_tutorial.checkpoints import find_checkpoint, load_pretrained, quiet
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.encoding import LengthGroupedBatches, length_of, share_of_batch
from electra_tutorial.encoding import collate as collate
from electra_tutorial.encoding import encode as encode
from electra_tutorial.heads import HEADS, AnyEvaluation, Evaluation, Head
from electra_tutorial.metrics import accuracy
from electra_tutorial.optimization import AdamWithoutBiasCorrection, learning_rate_factor
from electra_tutorial.prediction import Prediction as Prediction
from electra_tutorial.prediction import classify as classify
from electra_tutorial.prediction import evaluate
from electra_tutorial.prediction import predict as predict
from electra_tutorial.products import use_faster_products
from electra_tutorial.questions import AnswerEvaluation
from electra_tutorial.segments import vocabulary_hash
from electra_tutorial.tasks import Task
from electra_tutorial.tokenization import load_tokenizer

CHANCE = 0.9  # of the loss of guessing: a run whose last epoch stays above it has learned nothing


class StayedAtChance(UserWarning):
    """A run has ended about where guessing by the shares of the labels stands."""


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
        advice: one sentence on what to change, if the run has stayed at chance; else None.
    """

    model: PreTrainedModel
    tokenizer: Any
    history: list[dict[str, float]]
    losses: list[float]
    validation: AnyEvaluation
    best_epoch: int
    seconds: float
    advice: str | None = None


@dataclass
class _Best:
    """The best epoch so far; a resumed run has not seen its evaluation."""

    score: tuple[float, float]
    epoch: int
    weights: dict[str, Tensor]
    validation: AnyEvaluation | None = None


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
    resume: bool = False,
) -> FineTuningResult:
    """Train a model for `task` and keep the epoch that is best on its validation split.

    The kind of the task decides about the head and the labels: a class for a text or a pair, a
    number, a tag for each word, an answer cut out of a context, or one of several replies (see
    `electra_tutorial.heads`). Where some questions of the validation split have no answer, the
    threshold from which on none is given is chosen there, in each epoch, and kept as
    no_answer_threshold in the model's configuration.

    The best epoch has the highest value of the task's metric; among equals, the lowest loss. The
    run seeds every random generator with `config.seed`, so that it gives the same result again.

    A run on a small set may end where it began: so few steps are too few for a new head. Where the
    training loss of the last epoch is above 0.9 of that of guessing by the shares of the labels,
    `fine_tune()` warns (`StayedAtChance`), and the result's advice says what to change. A run
    from_scratch, made to be compared, does not warn; nor do kinds other than the two that label
    texts and words (`heads.Head.guessing_loss()` says why).

    Of several processes (`torchrun`, `accelerate launch`) each learns from its share of every
    batch, so that the run is that of one process, with sums taken in another order and other
    dropout. Each evaluates the whole validation split; the first one writes and warns.

    With an output_dir, each epoch ends with a checkpoint in <output_dir>.epochs, a folder beside
    it that goes away when the model is there. A run that was interrupted goes on from it with
    `resume`: in one process on a CPU to the same numbers, bit for bit.

    Args:
        checkpoint: "mini" (bundled), a folder, or a hub id.
        task: from `load_task()`.
        config: the settings; default: the paper's for ELECTRA-Small.
        output_dir: where model, tokenizer and fine_tuning.json go at the end, whole or not at all.
        from_scratch: start from random weights of the same shape, to see what pre-training gives.
        device, precision: as in `environment.plan()`, which chooses where they are not given.
        show_progress: draw a bar.
        resume: go on with the run that was to write output_dir, after its last whole epoch.

    Raises:
        TypeError: for arguments of the wrong type.
        ValueError: if the checkpoint is no ELECTRA, max_length exceeds its positions, a text is
            empty, a label is out of range, the set is not for training, or the run to resume had
            other settings, rows, tokenizer or starting weights.
        FileNotFoundError: if the checkpoint, or what to resume, is not there.
        FileExistsError: if output_dir is there, or an unfinished run that is not to be resumed.
    """
    config = FineTuningConfig() if config is None else config
    if not isinstance(task, Task) or not isinstance(config, FineTuningConfig):
        raise TypeError(
            "fine_tune() needs a Task from load_task() and a FineTuningConfig, not "
            f"{type(task).__name__} and {type(config).__name__}."
        )
    if not len(task.train):
        raise ValueError(f"Task {task.name!r} has no rows to train on: it is there to be judged.")
    if output_dir is not None and Path(output_dir).exists():
        raise FileExistsError(f"{output_dir} is there already: remove it or name another folder.")
    epochs_dir = None if output_dir is None else _epochs_folder(Path(output_dir))
    if resume and epochs_dir is None:
        raise ValueError("resume needs the output_dir of the run to go on with: name it.")
    if epochs_dir is not None and not resume:
        resuming.refuse_to_overwrite(epochs_dir)
    started = time.perf_counter()
    plan = environment.plan(device, precision)
    environment.seed_everything(config.seed)
    head = HEADS[task.kind]
    model, tokenizer = load_for_tuning(head, checkpoint, task.label_names, config, from_scratch)
    if config.onednn and plan.device == "cpu":
        use_faster_products(model)
    facts = {} if epochs_dir is None else _facts(model, tokenizer, task)
    train, labels = head.encode(
        tokenizer,
        task.train,
        task.label_names,
        config.max_length,
        model.config,
        "train",
        config.window_overlap,
    )

    accelerator = _accelerator(plan)
    rank, processes = accelerator.process_index, accelerator.num_processes
    sampler = LengthGroupedBatches([length_of(row) for row in train], config)
    loader: Any = DataLoader(
        list(zip(train, labels, strict=True)),  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=lambda rows: share_of_batch(rows, rank, processes),
    )
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
    }
    groups = parameter_groups(model, config)
    bare: torch.optim.Optimizer = (
        torch.optim.AdamW(groups, fused=True, **settings)  # one kernel for all parameters
        if config.bias_correction
        else AdamWithoutBiasCorrection(groups, **settings)
    )
    steps = config.epochs * len(sampler)
    warmup = round(config.warmup_fraction * steps)
    schedule: Any = LambdaLR(bare, lambda step: learning_rate_factor(step, steps, warmup))
    # The loader stays as it is: Accelerate's would give each process batches of its own, and repeat
    # rows so that all have as many.
    prepared, optimizer, schedule = accelerator.prepare(model, bare, schedule)

    def validate() -> AnyEvaluation:
        found = evaluate(
            model,
            tokenizer,
            task.validation,
            task.label_names,
            max_length=config.max_length,
            window_overlap=config.window_overlap,
        )
        return found.at(found.best_threshold()) if isinstance(found, AnswerEvaluation) else found

    history: list[dict[str, float]] = []
    losses: list[float] = []
    best: _Best | None = None
    seconds_before = 0.0
    if resume:
        assert epochs_dir is not None
        with accelerator.main_process_first():  # it also tidies the folder
            state = resuming.resume(epochs_dir, model, bare, config, facts, more=("best", "random"))
        history, losses, seconds_before = state["history"], state["losses"], state["seconds"]
        best = _Best(tuple(state["best_score"]), state["best_epoch"], state["best"])
        schedule.scheduler.last_epoch = state["schedule"]
        for group in bare.param_groups:
            factor = learning_rate_factor(state["schedule"], steps, warmup)
            group["lr"] = group["initial_lr"] * factor
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(state["scaler"])
        _set_random_state(state["random"])
    epochs = range(len(history) + 1, config.epochs + 1)
    for epoch in tqdm(epochs, unit="epoch", disable=not show_progress):
        epoch_started = time.perf_counter()
        sampler.epoch = epoch - 1  # every pass in an order of its own, the same in every process
        prepared.train()
        if rank:  # dropout of its own, the same in a resumed run
            torch.manual_seed(
                int(np.random.default_rng([config.seed, epoch, rank]).integers(2**63))
            )
        epoch_losses = []
        for batch, weight in loader:
            inputs = {name: value.to(accelerator.device) for name, value in batch.items()}
            loss = prepared(**inputs).loss * weight
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(prepared.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            epoch_losses.append(loss.detach())
        losses += accelerator.reduce(torch.stack(epoch_losses).float(), "mean").tolist()
        if not np.isfinite(losses[-len(epoch_losses) :]).all():
            raise FloatingPointError(
                f"The loss is not finite in epoch {epoch}: lower learning_rate or use fp32."
            )
        validation = validate()
        score = (validation.metrics[task.metric], -validation.metrics["loss"])
        if best is None or score > best.score:
            weights = {name: value.cpu().clone() for name, value in model.state_dict().items()}
            best = _Best(score, epoch, weights, validation)
        history.append(
            {
                "epoch": epoch,
                "train_loss": float(np.mean(losses[-len(epoch_losses) :])),
                "validation_loss": validation.metrics["loss"],
                task.metric: score[0],
                "seconds": time.perf_counter() - epoch_started,
            }
        )
        if epochs_dir is not None and accelerator.is_main_process:
            state = {
                "step": len(losses),
                "config": asdict(config),
                **facts,
                "history": history,
                "losses": losses,
                "best_score": best.score,
                "best_epoch": best.epoch,
                "seconds": seconds_before + time.perf_counter() - started,
                "schedule": schedule.scheduler.last_epoch,
                "scaler": accelerator.scaler and accelerator.scaler.state_dict(),
            }
            more = {"best": best.weights, "random": _random_state()}
            resuming.save_checkpoint(epochs_dir, model, bare, state, keep=1, more=more)
    assert best is not None  # config.epochs is at least 1
    model.load_state_dict(best.weights)
    if best.validation is None:
        best.validation = validate()
    model = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    if isinstance(best.validation, AnswerEvaluation):
        model.config.no_answer_threshold = best.validation.threshold
    model.eval()
    seconds = seconds_before + time.perf_counter() - started
    advice = None
    if not from_scratch:
        last = history[-1]["train_loss"]
        advice = advice_at_chance(last, head.guessing_loss(labels), len(losses), config)
    result = FineTuningResult(
        model, tokenizer, history, losses, best.validation, best.epoch, seconds, advice
    )
    if advice is not None and accelerator.is_main_process:
        warnings.warn(advice, StayedAtChance, stacklevel=2)
    if output_dir is not None and accelerator.is_main_process:
        _save(result, task, config, Path(output_dir))
        shutil.rmtree(_epochs_folder(Path(output_dir)), ignore_errors=True)
    accelerator.wait_for_everyone()  # when any of them returns, the model is there
    return result


def advice_at_chance(
    last_loss: float, guessing_loss: float | None, steps: int, config: FineTuningConfig
) -> str | None:
    """What to change where a run has stayed at chance (see chapter 5.4); None where it has not.

    Args:
        last_loss: the training loss of the last epoch.
        guessing_loss: that of guessing; None, or 0 where all labels are one: nothing can be said.
        steps: of the whole run.
        config: its settings.
    """
    if not guessing_loss or last_loss <= CHANCE * guessing_loss:
        return None
    if config.learning_rate > 1e-3:
        remedy = "lower learning_rate, to 5e-4 for instance, and take more steps"
    else:
        remedy = (
            "take more steps (more epochs, a smaller batch_size), a learning_rate of 5e-4 and "
            "layerwise_decay 1.0, as FineTuningConfig.small_set() and --recipe small do"
        )
    return (
        f"the model has hardly learned anything (steps: {steps:,}): the training loss of the last "
        f"epoch is {last_loss:.3f}, that of guessing by the shares of the labels "
        f'{guessing_loss:.3f}; {remedy} (chapter 5.4, "Runs that stay at chance").'
    )


def layer_rates(
    num_layers: int, learning_rate: float, decay: float, official_exponent: bool = False
) -> Callable[[str], float]:
    """The learning rate of each parameter, by its name (Howard and Ruder, 2018; paper, table 7).

    The head learns at learning_rate. Below it, each level multiplies by `decay`: the top layer has
    decay to the power of 1, the lowest of n layers decay^n, the embeddings decay^(n + 1). With
    `official_exponent` each of these powers is one higher, as in the released code
    (`optimization.py`): the top layer has decay^2. The head's rate is the same.
    """
    levels = num_layers + (2 if official_exponent else 1)

    def rate(name: str) -> float:
        layer = re.search(r"encoder\.layer\.(\d+)\.", name)
        if layer is None and "electra.embeddings" not in name:
            return learning_rate
        depth = int(layer[1]) + 1 if layer else 0
        return learning_rate * decay ** (levels - depth)

    return rate


def parameter_groups(model: torch.nn.Module, config: FineTuningConfig) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay; biases and LayerNorm never decay."""
    rate = layer_rates(
        model.config.num_hidden_layers,  # type: ignore[union-attr, arg-type]
        config.learning_rate,
        config.layerwise_decay,
        config.official_layer_decay_exponent,
    )
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        exempt = name.endswith("bias") or "LayerNorm" in name
        groups[rate(name), 0.0 if exempt else config.weight_decay].append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]


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
        "summary_last_dropout": config.dropout,  # before the score of a choice
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
    # Split batches: a step of the schedule is a step, whatever the number of processes.
    loading = DataLoaderConfiguration(split_batches=True)
    return Accelerator(
        mixed_precision=precision, cpu=plan.device == "cpu", dataloader_config=loading
    )


def _epochs_folder(output_dir: Path) -> Path:
    """Where the checkpoints of a run are that is to write `output_dir`."""
    return output_dir.with_name(f"{output_dir.name}.epochs")


def _facts(model: PreTrainedModel, tokenizer: Any, task: Task) -> dict[str, str]:
    """Short hashes of what a resumed run must have been started with, besides its settings."""
    weights = hashlib.sha256()
    for value in model.state_dict().values():
        weights.update(value.numpy().tobytes())
    rows = json.dumps([task.train.to_dict(), task.validation.to_dict()]).encode()
    return {
        "tokenizer": vocabulary_hash(tokenizer),
        "set of rows": hashlib.sha256(rows).hexdigest()[:16],
        "checkpoint or head to start from": weights.hexdigest()[:16],
    }


def _random_state() -> dict[str, Tensor]:
    """The states of the generators that dropout draws from, by device."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state()} | {f"cuda:{i}": state for i, state in enumerate(cuda)}


def _set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for number in range(torch.cuda.device_count()):
        if f"cuda:{number}" in states:
            torch.cuda.set_rng_state(states[f"cuda:{number}"], number)


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
