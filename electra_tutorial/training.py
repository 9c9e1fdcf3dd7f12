"""Pre-training: one loop on Accelerate, to be read top to bottom.

On one process:

    electra-tutorial pretrain --corpus TEXT --size mini --output RUN
    ... and to continue it, the same line with --resume

On the eight GPUs of one machine:

    accelerate launch --multi_gpu --num_processes 8 -m electra_tutorial.cli pretrain ...

On two machines of eight GPUs each, the same line on both, with --machine_rank 0 on the first and 1
on the second; RUN must be a folder that both see:

    accelerate launch --multi_gpu --num_machines 2 --num_processes 16 --machine_rank 0
        --main_process_ip ADDRESS_OF_THE_FIRST --main_process_port 29500
        -m electra_tutorial.cli pretrain ...

On the CPU, in two processes:

    torchrun --nproc-per-node 2 -m electra_tutorial.cli pretrain ...

``batch_size`` is the batch of all processes together. Everything random in a step (which segments,
which positions, which samples, dropout) follows from ``(seed, step)`` alone, and of dropout also
from the process. A resumed run therefore continues exactly where it stopped, with no random state
to store, and two processes compute the gradient of one.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from tqdm import tqdm

from electra_tutorial import continuing, resuming
from electra_tutorial.batches import draw_batch, dropout_seed, rows_of_micro_batches, take_rows
from electra_tutorial.batches import rows_of_step as rows_of_step
from electra_tutorial.config import PretrainingConfig, get_size
from electra_tutorial.corpora import Segments
from electra_tutorial.evaluation import Corruptions as Corruptions
from electra_tutorial.evaluation import corrupt_segments as corrupt_segments
from electra_tutorial.evaluation import discriminate as discriminate
from electra_tutorial.evaluation import evaluate_corruptions as evaluate_corruptions
from electra_tutorial.evaluation import evaluate_pretraining as evaluate_pretraining
from electra_tutorial.evaluation import fixed_corruptions as fixed_corruptions
from electra_tutorial.evaluation import frequency_corruptions as frequency_corruptions
from electra_tutorial.evaluation import mask_segments as mask_segments
from electra_tutorial.initialization import (
    cooccurrence_embeddings,
    sinusoid_positions,
    start_embeddings,
)
from electra_tutorial.masking import IGNORED, SpecialIds
from electra_tutorial.modeling import ElectraForJointPreTraining, ElectraJointConfig
from electra_tutorial.objectives import get_objective
from electra_tutorial.optimization import build_optimizer, set_learning_rate
from electra_tutorial.optimization import learning_rate_factor as learning_rate_factor
from electra_tutorial.optimization import parameter_groups as parameter_groups
from electra_tutorial.products import use_faster_products
from electra_tutorial.run_log import Meter, RunLog, Sums, check_trackers, memory_figures, read_log
from electra_tutorial.stopping import SIGNALS, StopRequest

FIXED = ("auc", "kept_loss", "kept_masked_accuracy")
"""What is logged of :func:`discriminate` on a fixed set, as ``fixed_...``."""


@dataclass
class PretrainingResult:
    """What a run leaves behind.

    Attributes:
        model: the trained model, in evaluation mode.
        log: one dictionary for each logged step; see :func:`pretrain`. Complete in the first
            process only.
        output_dir: where the run was written.
        finished: false if the run stopped early.
        stopped_by: ``"time limit"``, ``"SIGTERM"`` or ``"SIGINT"`` if it did.
    """

    model: ElectraForJointPreTraining
    log: list[dict[str, Any]]
    output_dir: Path
    finished: bool
    stopped_by: str | None = None


# ---------------------------------------------------------------- the model


def choose_attention(attention: str, device: torch.device, precision: str) -> str:
    """Return the implementation that ``"auto"`` stands for: the one measured faster.

    On a CPU in bf16, transformers' own "eager" attention makes a whole step 1.1 to 1.35 times as
    fast as PyTorch's fused one (4 layers x 256, length 128). In fp32 the two differ by less than
    5 %, and on a GPU the fused one ("sdpa") needs no memory for the attention matrices.
    """
    if attention != "auto":
        return attention
    return "eager" if device.type == "cpu" and precision == "bf16" else "sdpa"


def build_model(
    config: PretrainingConfig, segments: Segments, tokenizer: Any
) -> ElectraForJointPreTraining:
    """Build a new joint model with the start that the configuration asks for."""
    model = _new_model(config, len(tokenizer))
    size = get_size(config.size)
    words = positions = None
    if config.embeddings == "cooccurrence":
        words = cooccurrence_embeddings(
            segments, len(tokenizer), size.embedding_size, ignore_ids=tokenizer.all_special_ids
        )
    if config.positions == "sinusoid":
        positions = sinusoid_positions(size.max_position_embeddings, size.embedding_size)
    start_embeddings(model, words, positions)
    return model


def _new_model(config: PretrainingConfig, vocab_size: int | None) -> ElectraForJointPreTraining:
    torch.manual_seed(config.seed)
    return get_objective(config.objective).from_size(
        get_size(config.size),
        vocab_size=vocab_size,
        discriminator_weight=config.discriminator_weight,
        generator_fraction=config.generator_fraction,
        sharing=config.sharing,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        initializer_range=config.initializer_range,
    )


def model_of_checkpoint(
    folder: str | Path, vocab_size: int | None = None
) -> ElectraForJointPreTraining:
    """Build the model of a run's ``checkpoint-...``, to start another run from it.

    Args:
        folder: the checkpoint.
        vocab_size: number of tokens, needed for a checkpoint of before models were described in it.

    Raises:
        FileNotFoundError: if the folder is no such checkpoint.
        ValueError: if the vocabulary has another size.
    """
    folder = Path(folder)
    if not (folder / resuming.STATE).is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint of a run: name a checkpoint-... of it.")
    state = json.loads((folder / resuming.STATE).read_text())
    if "model" in state:
        described = ElectraJointConfig.from_dict(state["model"])
        model = get_objective(state["config"]["objective"])(described)
    else:
        model = _new_model(PretrainingConfig(**state["config"]), vocab_size)
    resuming.load_weights(folder, model)
    if model.config.frozen_generator:
        model.freeze_generator()
    return model


def prepare_encoders(model: Any, config: PretrainingConfig, device: torch.device) -> None:
    """Choose the attention of both halves and, on request, how they are computed."""
    attention = choose_attention(config.attention, device, config.precision)
    if config.onednn:
        use_faster_products(model, force=True)
    for half in (model.generator, model.discriminator):
        if half is not None:
            half.set_attn_implementation(attention)
            if config.compile:
                half.electra.encoder.compile()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which matrix products are computed in 16 bits; in fp32 it does nothing."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


# ---------------------------------------------------------------- the run


def start_accelerator(output_dir: Path, trackers: Sequence[str] = ()) -> Accelerator:
    """Join the other processes, if there are any, and find this one's device.

    Raises:
        ValueError: if a tracker is unknown.
        ModuleNotFoundError: if a tracker's package is not installed.
    """
    check_trackers(trackers)
    join_processes()
    # Precision is the loop's own affair: Accelerate's setting holds for a whole Python process.
    return Accelerator(
        mixed_precision="no",
        cpu=not torch.cuda.is_available(),
        log_with=list(trackers) or None,
        project_dir=output_dir,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def join_processes() -> PartialState:
    """Meet the processes that ``accelerate launch`` or ``torchrun`` started beside this one.

    One of them may tokenize or evaluate for a while: the others wait for up to two hours.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=2))


def _check_fit(segments: Segments, tokenizer: Any, model: Any) -> None:
    segments.check_tokenizer(tokenizer)
    if model is not None and model.config.discriminator["vocab_size"] != len(tokenizer):
        raise ValueError(
            f"the model has {model.config.discriminator['vocab_size']} tokens and the tokenizer "
            f"{len(tokenizer)}: use the tokenizer that the model was trained with."
        )


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
    trackers: Sequence[str] = (),
) -> PretrainingResult:
    """Train generator and discriminator together.

    A log entry holds ``step``, ``tokens``, the mean losses since the last entry, of the training
    batches since then ``masked_accuracy``, ``precision``, ``recall`` and ``base_rate`` (the share
    of tokens that were replaced), the ``learning_rate`` of the step, and what a clock or a meter
    says: ``seconds``, ``tokens_per_second``, ``memory_mb`` (:data:`run_log.CLOCK_FIELDS`). At
    evaluations (step 0, every ``evaluate_every`` steps, the last step) ``held_out_...`` and
    ``fixed_auc`` join them. An AUC stands in these entries only, and only where there is
    ``held_out`` or ``corruptions``: it needs the scores of all tokens at once, and of the training
    batches nothing but sums is kept.

    SIGTERM and SIGINT end a run that saves between two steps, with a checkpoint.

    Args:
        config: the settings.
        segments: training text, ``(num_segments, seq_len)``.
        tokenizer: the tokenizer that made them.
        output_dir: gets ``log.jsonl``, ``checkpoint-*`` and at the end ``final/discriminator`` and
            ``final/generator``. All processes must see it.
        held_out: text to evaluate on, with masks drawn once; the corruptions are the run's own.
        corruptions: a fixed set on which the discriminator is judged as well (``fixed_auc``).
        model: continue from this model; a new one is built from ``config`` if absent. What
            ``config`` leaves at its default is then recorded as the model has it; what it chooses
            must agree, or is set in the model (:func:`continuing.settings_for`).
        resume: continue the run in ``output_dir`` from its last checkpoint.
        max_seconds: stop after this time; a checkpoint is written if ``save``.
        save: write checkpoints and the final model.
        callback: called with each log entry, by the first process.
        show_progress: a bar with tokens/s and time left; by default only on a terminal.
        trackers: Accelerate's names of programs that show the log as well, for instance
            ``("tensorboard",)``; they write into ``output_dir``.

    Raises:
        ValueError: if the tokenizer or the settings do not fit the segments or the model, if the
            settings, the text or the tokenizer differ from those of the run to resume, or a tracker
            is unknown.
        FileNotFoundError: if there is nothing to resume.
        FileExistsError: if a new run would overwrite another.
        ModuleNotFoundError: if a tracker's package is not installed.
        FloatingPointError: if the loss, its gradient or a weight is no longer finite; nothing is
            saved then.
        OSError: if a checkpoint or the log can't be written.
    """
    output_dir = Path(output_dir)
    special_ids = SpecialIds.from_tokenizer(tokenizer)
    _check_fit(segments, tokenizer, model)
    if model is not None:
        config = continuing.settings_for(model, config)
    accelerator = start_accelerator(output_dir, trackers)
    device, is_main = accelerator.device, accelerator.is_main_process
    place = {"process": accelerator.process_index, "processes": accelerator.num_processes}
    micro_batches = rows_of_micro_batches(config, **place)

    bare = (build_model(config, segments, tokenizer) if model is None else model).to(device)
    prepare_encoders(bare, config, device)
    optimizer = build_optimizer(bare, config)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    meter = Meter(device)
    facts = resuming.fingerprints(tokenizer, segments)
    step, earlier_seconds, entries = 0, 0.0, []
    with accelerator.main_process_first():  # it may have to set unreadable checkpoints aside
        if resume:
            state = resuming.resume(output_dir, bare, optimizer, config, facts)
            step, earlier_seconds = state["step"], state["seconds"]
            entries = read_log(output_dir, step)
            meter.load(Sums(**state.get("sums", {})), **place)
            if scaler.is_enabled():
                scaler.load_state_dict(state["scaler"])
        else:
            resuming.refuse_to_overwrite(output_dir)
            output_dir.mkdir(parents=True, exist_ok=True)
    network = accelerator.prepare_model(bare)  # in several processes: wrapped, gradients averaged

    tokens_per_step = config.batch_size * segments.sequence_length
    callbacks = [] if callback is None else [callback]
    if trackers:
        accelerator.init_trackers("pretraining", config=asdict(config))
        callbacks.append(lambda entry: accelerator.log(entry, step=entry["step"]))
    run_log = RunLog(output_dir, entries, tokens_per_step, earlier_seconds, is_main, callbacks)
    evaluation = (
        mask_segments(held_out, tokenizer, config.mask_probability)
        if held_out is not None
        else None
    )
    bar = tqdm(
        total=config.steps * tokens_per_step,
        initial=step * tokens_per_step,
        unit="token",
        unit_scale=True,
        disable=not (is_main and (sys.stderr.isatty() if show_progress is None else show_progress)),
    )

    def evaluate() -> dict[str, float]:
        figures: dict[str, float] = {}
        if evaluation is not None and is_main:
            own = evaluate_pretraining(bare, evaluation)
            figures |= {f"held_out_{name}": value for name, value in own.items()}
        if corruptions is not None and is_main:
            fixed = discriminate(bare, corruptions)
            figures |= {f"fixed_{name}": fixed[name] for name in FIXED if name in fixed}
        accelerator.wait_for_everyone()
        return figures

    def read_sums() -> Sums:
        """Read what the steps left on the device, and make sure that all of them were finite."""
        sums = meter.read(accelerator.gather)
        # a scaler leaves out the steps whose gradient overflows in fp16; all of them is too many
        lost = scaler.is_enabled() and scaler.get_scale() < 1e-3
        if lost or math.isfinite(sums.first_bad):
            raise FloatingPointError(
                resuming.advice_not_finite(int(min(sums.first_bad, step)), output_dir)
            )
        return sums

    def save_state(sums: Sums) -> None:
        # A finite gradient can still lead to weights that are not. Every process looks, and sees
        # the same: none is left waiting for one that stopped.
        if not torch.stack([weight.isfinite().all() for weight in bare.parameters()]).all():
            raise FloatingPointError(
                resuming.advice_not_finite(step, output_dir, "the weights are")
            )
        if is_main:
            state = {"step": step, "seconds": run_log.seconds, "config": asdict(config), **facts}
            state |= {"sums": asdict(sums), "scaler": scaler.state_dict()}
            state |= {"model": bare.config.to_dict()}
            resuming.save_checkpoint(output_dir, bare, optimizer, state, config.keep_checkpoints)
        accelerator.wait_for_everyone()

    network.train()
    if not entries:
        run_log.record(0, evaluate())
    run_log.start_lap(step)
    saved_at, stopped_by = step if resume else None, None
    with StopRequest(handle_signals=save, num_processes=accelerator.num_processes) as stop:
        while step < config.steps:
            stopped_by = stop.decide(run_log.seconds - earlier_seconds > (max_seconds or math.inf))
            if stopped_by is not None:
                break
            rate = set_learning_rate(optimizer, step, config)
            batch = draw_batch(step, config, segments, special_ids)
            counts = {
                "num_chosen": int((batch["labels"] != IGNORED).sum()),
                "num_tokens": int(batch["attention_mask"].sum()),
            }
            torch.manual_seed(dropout_seed(step, config, accelerator.process_index))
            for micro in micro_batches:
                part = take_rows(batch, micro, device)
                last = micro is micro_batches[-1]
                with nullcontext() if last else accelerator.no_sync(network):
                    with autocast(device, config.precision):
                        output = network(**part, **counts)
                    # each loss is a share of the step's; the mean over processes needs their sum
                    scaler.scale(output.loss * accelerator.num_processes).backward()
                meter.add(output, part)
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(bare.parameters(), config.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            meter.end_step(step, None if scaler.is_enabled() else norm)
            bar.update(tokens_per_step)

            due = {
                name: step == config.steps or step % every == 0
                for name, every in (
                    ("log", config.log_every),
                    ("evaluation", config.evaluate_every),
                    ("checkpoint", config.save_every),
                )
            }
            if not any(due.values()):
                continue
            sums = read_sums()
            if due["log"] or due["evaluation"]:
                figures = sums.figures() | {"learning_rate": rate}
                figures |= {"tokens_per_second": run_log.tokens_per_second(step)}
                figures |= memory_figures(device) | (evaluate() if due["evaluation"] else {})
                run_log.record(step, figures)
                sums = meter.restart()
            if save and due["checkpoint"]:
                save_state(sums)
                saved_at = step
            run_log.start_lap(step)
        bar.close()
        if save and saved_at != step:
            save_state(read_sums())

    for tracker in accelerator.trackers:
        tracker.finish()
    if save and stopped_by not in SIGNALS and is_main:  # after a signal there may be little time
        with resuming.named_failure("the final model", output_dir):
            bare.save_halves(output_dir / "final", tokenizer)
    accelerator.wait_for_everyone()
    finished = step == config.steps
    return PretrainingResult(bare.eval(), run_log.entries, output_dir, finished, stopped_by)
