"""Pre-training: one loop on Accelerate, to be read top to bottom.

On one process:        electra-tutorial pretrain --corpus TEXT --size mini --output RUN
Continue it:           the same line with --resume

Everything random in a step (which segments, which positions, which samples, dropout) follows from
``(seed, step)`` alone. A resumed run therefore continues exactly where it stopped, with no random
state to store.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from electra_tutorial.config import PretrainingConfig, get_size
from electra_tutorial.corpora import Segments
from electra_tutorial.initialization import (
    cooccurrence_embeddings,
    sinusoid_positions,
    start_embeddings,
)
from electra_tutorial.masking import MaskedBatch, SpecialIds, mask_tokens
from electra_tutorial.metrics import discriminator_metrics
from electra_tutorial.modeling import ElectraForJointPreTraining, sample_tokens

LOG = "log.jsonl"
STATE = "state.json"


@dataclass
class PretrainingResult:
    """What a run leaves behind.

    Attributes:
        model: the trained model, in evaluation mode.
        log: one dictionary for each logged step: ``step``, ``tokens``, ``seconds``, losses, and at
            evaluations the metrics of :func:`evaluate_pretraining` under ``held_out_...``.
        output_dir: where the run was written.
        finished: false if ``max_seconds`` stopped it early.
    """

    model: ElectraForJointPreTraining
    log: list[dict[str, Any]]
    output_dir: Path
    finished: bool


# ---------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class Corruptions:
    """A set of segments masked and corrupted once and for all, so that models compare.

    Every tensor is ``(num_segments, seq_len)``.
    """

    masked: MaskedBatch
    corrupted_ids: Tensor
    is_replaced: Tensor


def _batches(total: int, size: int = 64) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))


def mask_segments(
    segments: Segments, tokenizer: Any, mask_probability: float = 0.15, seed: int = 0
) -> MaskedBatch:
    """Mask segments once, reproducibly."""
    return mask_tokens(
        torch.as_tensor(np.asarray(segments.input_ids).astype(np.int64)),
        special_ids=SpecialIds.from_tokenizer(tokenizer),
        mask_probability=mask_probability,
        generator=torch.Generator().manual_seed(seed),
    )


@torch.no_grad()
def corrupt_segments(
    model: ElectraForJointPreTraining, masked: MaskedBatch, seed: int = 0
) -> tuple[Corruptions, dict[str, float]]:
    """Fill masked segments with samples of the model's generator.

    Returns:
        the corruptions, and the generator's own figures on them: ``generator_loss`` in nats and
        ``masked_accuracy`` (share of chosen positions whose most probable token is the original).
    """
    was_training = model.training
    model.eval()
    device = model.device
    sampling = torch.Generator(device=device).manual_seed(seed)
    corrupted, replaced = [], []
    loss = correct = count = 0.0
    for rows in _batches(len(masked.labels)):
        input_ids, attention_mask, labels, chosen = (
            tensor[rows].to(device)
            for tensor in (masked.input_ids, masked.attention_mask, masked.labels, masked.chosen)
        )
        logits = model.predict_masked(input_ids, attention_mask, chosen)
        targets = labels[chosen]
        loss += torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum").item()
        correct += (logits.argmax(-1) == targets).sum().item()
        count += len(targets)
        ids, is_replaced = model.corrupt(input_ids, labels, logits, sampling)
        corrupted.append(ids.cpu())
        replaced.append(is_replaced.cpu())
    model.train(was_training)
    figures = {"generator_loss": loss / max(count, 1), "masked_accuracy": correct / max(count, 1)}
    return Corruptions(masked, torch.cat(corrupted), torch.cat(replaced)), figures


@torch.no_grad()
def discriminate(model: ElectraForJointPreTraining, corruptions: Corruptions) -> dict[str, float]:
    """Judge the model's discriminator on corruptions: AUC, precision, recall and the base rate."""
    was_training = model.training
    model.eval()
    logits = torch.cat(
        [
            model.discriminator(
                corruptions.corrupted_ids[rows].to(model.device),
                attention_mask=corruptions.masked.attention_mask[rows].to(model.device),
            )
            .logits.float()
            .cpu()
            for rows in _batches(len(corruptions.corrupted_ids))
        ]
    )
    model.train(was_training)
    return discriminator_metrics(logits, corruptions.is_replaced, corruptions.masked.attention_mask)


def evaluate_pretraining(
    model: ElectraForJointPreTraining, masked: MaskedBatch, seed: int = 0
) -> dict[str, float]:
    """Judge both halves on held-out segments whose masks are fixed.

    The corruptions are the model's own: a better generator makes them harder to see.
    """
    corruptions, figures = corrupt_segments(model, masked, seed)
    return figures | discriminate(model, corruptions)


def fixed_corruptions(
    model: ElectraForJointPreTraining,
    segments: Segments,
    tokenizer: Any,
    mask_probability: float = 0.15,
    seed: int = 0,
) -> Corruptions:
    """Mask and corrupt segments once, with this model's generator, to compare others on them."""
    masked = mask_segments(segments, tokenizer, mask_probability, seed)
    return corrupt_segments(model, masked, seed)[0]


def frequency_corruptions(
    masked: MaskedBatch, segments: Segments, tokenizer: Any, seed: int = 0
) -> Corruptions:
    """Fill masked segments with tokens drawn by their frequency in a text.

    The paper's weakest generator (section 3.2, figure 3: a unigram model). It belongs to no run,
    so the same set judges the discriminators of all of them.
    """
    counts = np.bincount(np.asarray(segments.input_ids).ravel(), minlength=len(tokenizer))
    frequencies = torch.as_tensor(counts).double()
    frequencies[tokenizer.all_special_ids] = 0
    samples = sample_tokens(
        frequencies.log().expand(int(masked.chosen.sum()), -1),
        generator=torch.Generator().manual_seed(seed),
    )
    corrupted_ids = masked.original_ids.masked_scatter(masked.chosen, samples)
    return Corruptions(masked, corrupted_ids, corrupted_ids != masked.original_ids)


def evaluate_corruptions(
    model: ElectraForJointPreTraining, corruptions: Corruptions
) -> dict[str, float]:
    """Judge both halves on corruptions that some other generator made."""
    _, figures = corrupt_segments(model, corruptions.masked)
    return figures | discriminate(model, corruptions)


# ---------------------------------------------------------------- optimiser, schedule, data order


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters: biases and LayerNorm do not decay (official ``optimization.py``)."""
    named = list(model.named_parameters())

    def exempt(name: str) -> bool:
        return name.endswith("bias") or "LayerNorm" in name

    return [
        {"params": [p for n, p in named if not exempt(n)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if exempt(n)], "weight_decay": 0.0},
    ]


def learning_rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Linear warm-up times linear decay to zero, both at once, as in the official code."""
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warmup * max(0.0, 1.0 - step / steps)


def rows_of_step(step: int, batch_size: int, num_segments: int, seed: int) -> np.ndarray:
    """Return which segments the batch of a step holds; each epoch is a new permutation."""
    wanted = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = np.divmod(wanted, num_segments)
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng([seed, int(epoch)]).permutation(num_segments)
        rows[epochs == epoch] = order[places[epochs == epoch]]
    return rows


# ---------------------------------------------------------------- checkpoints


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name the tensors of AdamW's state by the parameter's place in its group."""
    return {
        f"{g}.{p}.{key}": value
        for g, group in enumerate(optimizer.param_groups)
        for p, parameter in enumerate(group["params"])
        for key, value in optimizer.state[parameter].items()
    }


def save_checkpoint(
    output_dir: Path,
    model: ElectraForJointPreTraining,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
) -> None:
    """Write ``checkpoint-<step>``: whole or absent, the last ``keep`` of them kept."""
    folder = output_dir / f"checkpoint-{state['step']:08d}"
    partial = output_dir / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    save_file(weights, partial / "model.safetensors")
    moments = {name: tensor.detach().cpu() for name, tensor in _moments(optimizer).items()}
    save_file(moments, partial / "optimizer.safetensors")
    (partial / STATE).write_text(json.dumps(state, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    for old in sorted(output_dir.glob("checkpoint-*"))[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(
    folder: Path, model: ElectraForJointPreTraining, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Load what :func:`save_checkpoint` wrote, in place; returns its state."""
    weights = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    moments = load_file(folder / "optimizer.safetensors")
    for g, group in enumerate(optimizer.param_groups):
        for p, parameter in enumerate(group["params"]):
            optimizer.state[parameter] = {
                key: moments[f"{g}.{p}.{key}"].to("cpu" if key == "step" else parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{g}.{p}.{key}" in moments
            }
    return json.loads((folder / STATE).read_text())


def _latest_checkpoint(output_dir: Path, config: PretrainingConfig) -> Path:
    found = sorted(output_dir.glob("checkpoint-*"))
    if not found:
        raise FileNotFoundError(
            f"there is no checkpoint in {output_dir} to resume from: leave out resume, or name the "
            "folder of the earlier run."
        )
    before = json.loads((found[-1] / STATE).read_text())["config"]
    changed = [key for key, value in asdict(config).items() if before.get(key) != value]
    if changed:
        raise ValueError(
            f"the run in {output_dir} was started with another {', '.join(changed)}: resume it "
            "with the same settings, or start a new run in another folder."
        )
    return found[-1]


# ---------------------------------------------------------------- the run


def build_model(
    config: PretrainingConfig, segments: Segments, tokenizer: Any
) -> ElectraForJointPreTraining:
    """Build a new joint model with the start that the configuration asks for."""
    torch.manual_seed(config.seed)
    size = get_size(config.size)
    model = ElectraForJointPreTraining.from_size(
        size,
        vocab_size=len(tokenizer),
        discriminator_weight=config.discriminator_weight,
        generator_fraction=config.generator_fraction,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        initializer_range=config.initializer_range,
    )
    words = positions = None
    if config.embeddings == "cooccurrence":
        words = cooccurrence_embeddings(
            segments, len(tokenizer), size.embedding_size, ignore_ids=tokenizer.all_special_ids
        )
    if config.positions == "sinusoid":
        positions = sinusoid_positions(size.max_position_embeddings, size.embedding_size)
    start_embeddings(model, words, positions)
    return model


def pretrain(
    config: PretrainingConfig,
    segments: Segments,
    tokenizer: Any,
    output_dir: str | Path,
    *,
    held_out: Segments | None = None,
    corruptions: Corruptions | None = None,
    model: ElectraForJointPreTraining | None = None,
    resume: bool = False,
    max_seconds: float | None = None,
    save: bool = True,
    callback: Callable[[dict[str, Any]], None] | None = None,
    show_progress: bool | None = None,
) -> PretrainingResult:
    """Train generator and discriminator together.

    Args:
        config: the settings.
        segments: training text, ``(num_segments, seq_len)``.
        tokenizer: the tokenizer that made them.
        output_dir: gets ``log.jsonl``, ``checkpoint-*`` and at the end ``final/discriminator`` and
            ``final/generator``.
        held_out: text to evaluate on, with masks drawn once; the corruptions are the run's own.
        corruptions: a fixed set on which the discriminator is judged as well (``fixed_auc``).
        model: continue from this model; a new one is built from ``config`` if absent.
        resume: continue the run in ``output_dir`` from its last checkpoint.
        max_seconds: stop after this time; a checkpoint is written if ``save``.
        save: write checkpoints and the final model.
        callback: called with each log entry.
        show_progress: a bar with tokens/s and time left; by default only on a terminal.

    Raises:
        ValueError: if the tokenizer does not fit the segments or the model, or the settings differ
            from those of the run to resume.
        FileNotFoundError: if there is nothing to resume.
        FloatingPointError: if a loss is no longer finite.
    """
    output_dir = Path(output_dir)
    special_ids = SpecialIds.from_tokenizer(tokenizer)
    largest = int(np.max(segments.input_ids))
    if largest >= len(tokenizer):
        raise ValueError(
            f"the segments hold token {largest} and the tokenizer only {len(tokenizer)} tokens: "
            "use the tokenizer that made the segments."
        )
    if model is None:
        model = build_model(config, segments, tokenizer)
    elif model.config.discriminator["vocab_size"] != len(tokenizer):
        raise ValueError(
            f"the model has {model.config.discriminator['vocab_size']} tokens and the tokenizer "
            f"{len(tokenizer)}: use the tokenizer that the model was trained with."
        )
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
        cpu=not torch.cuda.is_available(),
    )
    device = accelerator.device
    bare = model.to(device)
    optimizer = torch.optim.AdamW(
        parameter_groups(bare, config.weight_decay),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
    )
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "config": asdict(config)}
    log: list[dict[str, Any]] = []
    if resume:
        state = load_checkpoint(_latest_checkpoint(output_dir, config), bare, optimizer)
        lines = (output_dir / LOG).read_text().splitlines()
        log = [entry for entry in map(json.loads, lines) if entry["step"] <= state["step"]]
    schedule = LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, config.steps, config.warmup_steps)
    )
    schedule.last_epoch = state["step"]
    for group, base in zip(optimizer.param_groups, schedule.base_lrs, strict=True):
        group["lr"] = base * learning_rate_factor(state["step"], config.steps, config.warmup_steps)
    model, optimizer = accelerator.prepare(bare, optimizer)

    output_dir.mkdir(parents=True, exist_ok=True)
    log_file = output_dir / LOG
    log_file.write_text("".join(json.dumps(entry) + "\n" for entry in log))
    evaluation = (
        mask_segments(held_out, tokenizer, config.mask_probability)
        if held_out is not None
        else None
    )
    tokens_per_step = config.batch_size * segments.sequence_length
    started, earlier = time.perf_counter(), float(state["seconds"])
    bar = tqdm(
        total=config.steps * tokens_per_step,
        initial=state["step"] * tokens_per_step,
        unit="token",
        unit_scale=True,
        disable=not (sys.stderr.isatty() if show_progress is None else show_progress),
    )

    def elapsed() -> float:
        return earlier + time.perf_counter() - started

    def record(step: int, **figures: float) -> None:
        entry = {"step": step, "tokens": step * tokens_per_step, "seconds": round(elapsed(), 2)}
        entry |= {name: round(float(value), 6) for name, value in figures.items()}
        log.append(entry)
        with log_file.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if callback is not None:
            callback(entry)

    def evaluate() -> dict[str, float]:
        figures: dict[str, float] = {}
        if evaluation is not None:
            own = evaluate_pretraining(bare, evaluation)
            figures |= {f"held_out_{name}": value for name, value in own.items()}
        if corruptions is not None:
            figures["fixed_auc"] = discriminate(bare, corruptions)["auc"]
        return figures

    model.train()
    if not log:
        record(0, **evaluate())
    step = state["step"]
    sums, counted = torch.zeros(3, device=device), 0
    while step < config.steps and not (max_seconds and elapsed() - earlier > max_seconds):
        rows = rows_of_step(step, config.batch_size, len(segments), config.seed)
        micro_batches = np.array_split(rows, config.gradient_accumulation)
        seeds = np.random.SeedSequence([config.seed, step]).generate_state(2)
        torch.manual_seed(int(seeds[0]))  # masking and dropout
        sampling = torch.Generator(device=device).manual_seed(int(seeds[1]))
        for micro in micro_batches:
            batch = mask_tokens(
                torch.as_tensor(segments.input_ids[micro].astype(np.int64)).to(device),
                special_ids=special_ids,
                mask_probability=config.mask_probability,
            )
            with accelerator.autocast():
                output = model(
                    batch.input_ids,
                    attention_mask=batch.attention_mask,
                    labels=batch.labels,
                    sampling_generator=sampling,
                )
            accelerator.backward(output.loss * (len(micro) / len(rows)))
            losses = (output.loss, output.generator_loss, output.discriminator_loss)
            sums += torch.stack([loss.detach().float() for loss in losses]) * len(micro) / len(rows)
        accelerator.clip_grad_norm_(bare.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        counted += 1
        bar.update(tokens_per_step)

        last = step == config.steps
        logs, saves = (step % n == 0 or last for n in (config.log_every, config.save_every))
        if (logs or saves) and not sums.isfinite().all():
            raise FloatingPointError(
                f"the loss is not finite near step {step}: lower the learning rate or use fp32; "
                f"the last good checkpoint is in {output_dir}."
            )
        if logs:
            loss, generator_loss, discriminator_loss = (sums / counted).tolist()
            figures = {
                "loss": loss,
                "generator_loss": generator_loss,
                "discriminator_loss": discriminator_loss,
                "learning_rate": schedule.get_last_lr()[0],
            }
            if step % config.evaluate_every == 0 or last:
                figures |= evaluate()
            record(step, **figures)
            sums.zero_()
            counted = 0
        if save and saves:
            state = {"step": step, "seconds": elapsed(), "config": asdict(config)}
            save_checkpoint(output_dir, bare, optimizer, state, config.keep_checkpoints)

    bar.close()
    if save and step < config.steps:
        state = {"step": step, "seconds": elapsed(), "config": asdict(config)}
        save_checkpoint(output_dir, bare, optimizer, state, config.keep_checkpoints)
    if save:
        bare.save_halves(output_dir / "final", tokenizer)
    return PretrainingResult(bare.eval(), log, output_dir, finished=step == config.steps)
