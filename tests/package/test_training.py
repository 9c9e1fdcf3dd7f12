"""The pre-training loop: it learns, it repeats, it resumes bit for bit, it refuses nonsense."""

from __future__ import annotations

import copy
import errno
import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from electra_tutorial import resuming
from electra_tutorial.batches import draw_batch, take_rows
from electra_tutorial.config import PretrainingConfig
from electra_tutorial.corpora import Segments
from electra_tutorial.masking import SpecialIds
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.objectives import OBJECTIVES
from electra_tutorial.optimization import build_optimizer, parameter_groups
from electra_tutorial.products import OneDnnLinear, onednn_is_there
from electra_tutorial.run_log import CLOCK_FIELDS, Meter
from electra_tutorial.tokenization import load_tokenizer
from electra_tutorial.training import (
    build_model,
    choose_attention,
    evaluate_corruptions,
    evaluate_pretraining,
    fixed_corruptions,
    frequency_corruptions,
    mask_segments,
    prepare_encoders,
    pretrain,
)

CONFIG = PretrainingConfig(
    size="nano",
    steps=6,
    batch_size=4,
    sequence_length=16,
    learning_rate=1e-3,
    warmup_steps=2,
    discriminator_weight=10.0,
    log_every=2,
    evaluate_every=4,
    save_every=2,
)


@pytest.fixture
def segments(tokenizer) -> Segments:
    """An artificial text: token b follows token a, always."""
    rng = np.random.default_rng(0)
    rows = np.zeros((40, 16), dtype=np.uint16)
    first = rng.integers(5, len(tokenizer), size=(40, 1))
    rows[:] = 5 + (first + np.arange(16)) % (len(tokenizer) - 5)
    rows[:, 0], rows[:, -1] = 2, 3
    return Segments(rows, 0)


@pytest.fixture
def ragged(segments) -> Segments:
    """The same text in rows of 4 to 16 tokens."""
    rows = np.array(segments.input_ids)
    for row, length in enumerate(np.random.default_rng(1).integers(4, 17, size=len(rows))):
        rows[row, length - 1] = 3
        rows[row, length:] = 0
    return Segments(rows, 0)


def without_clock(log):
    return [{k: v for k, v in entry.items() if k not in CLOCK_FIELDS} for entry in log]


def test_a_run_writes_its_log_checkpoints_and_both_halves(segments, tokenizer, tmp_path):
    result = pretrain(CONFIG, segments, tokenizer, tmp_path, held_out=segments.take(slice(0, 8)))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == result.log
    assert [entry["step"] for entry in lines] == [0, 2, 4, 6]
    assert result.finished
    assert lines[-1].keys() == {
        *("step", "tokens", "seconds", "loss", "generator_loss", "discriminator_loss"),
        *("masked_accuracy", "precision", "recall", "base_rate", "learning_rate"),
        *("tokens_per_second", "memory_mb", "held_out_generator_loss", "held_out_masked_accuracy"),
        *(f"held_out_{name}" for name in ("auc", "precision", "recall", "accuracy", "base_rate")),
    }
    assert lines[-1]["learning_rate"] == pytest.approx(1e-3 / 6)
    assert lines[-1]["tokens"] == 6 * 4 * 16
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-00000004",
        "checkpoint-00000006",
    ]
    again = ElectraForJointPreTraining.from_halves(tmp_path / "final").eval()
    masked = mask_segments(segments, tokenizer)
    expected = evaluate_pretraining(result.model, masked)
    assert evaluate_pretraining(again, masked) == pytest.approx(expected)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(segments, tokenizer, tmp_path):
    def losses(seed: int) -> list[float]:
        config = replace(CONFIG, seed=seed)
        result = pretrain(config, segments, tokenizer, tmp_path / str(seed), save=False)
        return [entry["loss"] for entry in result.log[1:]]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_an_interrupted_run_continues_bit_for_bit(segments, tokenizer, tmp_path):
    config = replace(CONFIG, dropout=0.1)
    whole = pretrain(config, segments, tokenizer, tmp_path / "whole")

    class Interrupted(Exception):
        pass

    def interrupt(entry):
        if entry["step"] == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        pretrain(config, segments, tokenizer, tmp_path / "cut", callback=interrupt)
    resumed = pretrain(config, segments, tokenizer, tmp_path / "cut", resume=True)

    assert without_clock(resumed.log) == without_clock(whole.log)
    for (name, a), b in zip(
        whole.model.named_parameters(), resumed.model.parameters(), strict=True
    ):
        assert torch.equal(a, b), name


def test_time_limit_stops_early_and_resumes(segments, tokenizer, tmp_path):
    stopped = pretrain(CONFIG, segments, tokenizer, tmp_path, max_seconds=1e-9)
    assert not stopped.finished
    assert list(tmp_path.glob("checkpoint-*"))
    assert pretrain(CONFIG, segments, tokenizer, tmp_path, resume=True).finished


@pytest.mark.parametrize(
    ("parts", "masking"), [(2, "exact"), (3, "exact"), (5, "exact"), (3, "with-replacement")]
)
def test_gradients_of_micro_batches_add_up_to_the_whole_batch_s(
    ragged, tokenizer, tmp_path, parts, masking, monkeypatch
):
    """Uneven parts, padded rows: both losses are divided by the counts of the whole step."""
    seen: list[list[torch.Tensor]] = []

    def keep(parameters, max_norm):
        parameters = list(parameters)
        seen.append([p.grad.clone() for p in parameters])
        return clip(parameters, max_norm)

    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", keep)
    config = replace(CONFIG, batch_size=7, steps=1, dropout=0.0, masking=masking)
    for accumulation in (1, parts):
        pretrain(
            replace(config, gradient_accumulation=accumulation),
            ragged,
            tokenizer,
            tmp_path / str(accumulation),
            save=False,
        )
    for whole, summed in zip(*seen, strict=True):
        torch.testing.assert_close(summed, whole, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped_to_the_norm_that_the_settings_name(segments, tokenizer, tmp_path):
    """One step by hand. A large epsilon makes AdamW's step follow the size of the gradient."""
    config = replace(
        CONFIG, steps=1, dropout=0.0, warmup_steps=0, max_grad_norm=1e-3, adam_epsilon=1e-2
    )
    ours = pretrain(config, segments, tokenizer, tmp_path, save=False).model
    by_hand = build_model(config, segments, tokenizer).train()
    optimizer = torch.optim.AdamW(
        parameter_groups(by_hand, config.weight_decay), lr=config.learning_rate, eps=1e-2
    )
    by_hand(**draw_batch(0, config, segments, SpecialIds(0, 2, 3, 4))).loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1e-3)
    assert norm > 1
    optimizer.step()
    for (name, expected), p in zip(by_hand.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-6, atol=1e-9, msg=name)


class Waits(TorchDispatchMode):
    """Counts the operations at which the host would have to wait for a GPU."""

    NAMES = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for indices in args
            if isinstance(indices, list | tuple)
            for index in indices
        )
        if name in self.NAMES or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_step_on_full_rows_waits_for_the_device(segments, ragged, tokenizer, objective):
    """A GPU's kernels are queued: whatever asks for a number of theirs stops the queue."""
    config = replace(CONFIG, objective=objective)
    model = build_model(config, segments, tokenizer).train()
    prepare_encoders(model, replace(config, attention="sdpa"), torch.device("cpu"))
    optimizer, meter = build_optimizer(model, config), Meter(torch.device("cpu"))
    waits = []
    for step, text in enumerate((segments, ragged, segments)):
        batch = draw_batch(step, config, text, SpecialIds(0, 2, 3, 4))
        part = take_rows(batch, slice(0, 4), torch.device("cpu"))
        with Waits() as waiting:
            output = model(**part, num_chosen=8, num_tokens=64)
            output.loss.backward()
            meter.add(output, part)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            meter.end_step(step + 1, norm)
        waits.append(waiting.seen)
    assert waits[0] == waits[2] == []
    # where there is padding, transformers looks for it: at most once in each network
    assert len(waits[1]) <= 1 + model.has_generator
    with Waits() as waiting:
        bool(torch.ones(2).isfinite().all())
    assert waiting.seen == ["_local_scalar_dense"]


def test_draws_with_replacement_reach_the_loss_as_in_the_official_code(ragged, tokenizer, tmp_path):
    """Its mean over all draws of a batch, of which some hit one position twice."""
    config = replace(
        CONFIG,
        steps=1,
        batch_size=16,
        dropout=0.0,
        mask_probability=0.4,
        masking="with-replacement",
    )
    log = pretrain(config, ragged, tokenizer, tmp_path, save=False).log
    batch = draw_batch(0, config, ragged, SpecialIds(0, 2, 3, 4))
    weights = batch["loss_weights"]
    draws = (weights / weights[weights > 0].min()).round()  # some position was drawn once
    assert draws.max() > 1
    model = build_model(config, ragged, tokenizer).eval()
    logits = model.generator(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    costs = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), batch["labels"], reduction="none"
    )
    expected = (costs * draws).sum() / draws.sum()
    assert log[1]["generator_loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert log[1]["generator_loss"] != pytest.approx(costs[draws > 0].mean().item(), abs=1e-5)


def test_coins_that_choose_nothing_leave_a_loss_of_zero(segments, tokenizer, tmp_path):
    config = replace(CONFIG, steps=2, masking="coin", mask_probability=0.0)
    log = pretrain(config, segments, tokenizer, tmp_path, save=False).log
    assert log[-1]["generator_loss"] == 0
    assert log[-1]["discriminator_loss"] > 0


def test_masks_of_held_out_text_do_not_depend_on_the_seed_of_the_run(segments, tokenizer, tmp_path):
    torch.manual_seed(0)
    model = ElectraForJointPreTraining.from_size("nano", vocab_size=len(tokenizer))
    logs = [
        pretrain(
            replace(CONFIG, steps=1, seed=seed),
            segments,
            tokenizer,
            tmp_path,
            held_out=segments.take(slice(0, 8)),
            model=copy.deepcopy(model),
            save=False,
        ).log
        for seed in (0, 1)
    ]
    first, second = map(without_clock, logs)
    assert first[0] == second[0]  # the same model before its first step, judged on the same masks
    assert "held_out_generator_loss" in first[0]
    assert first[1]["loss"] != second[1]["loss"]  # and trained on others


def test_more_parts_than_rows_are_refused(segments, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="4 rows can't be cut into 5 parts"):
        pretrain(replace(CONFIG, gradient_accumulation=5), segments, tokenizer, tmp_path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_resume_bit_for_bit(segments, tokenizer, tmp_path, precision):
    """With fp16 the scaler's scale is part of the state: here it falls at every overflow."""
    config = replace(CONFIG, precision=precision, log_every=1, save_every=3)
    whole = pretrain(config, segments, tokenizer, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-00000006")
    resumed = pretrain(config, segments, tokenizer, tmp_path / "cut", resume=True)
    assert without_clock(resumed.log) == without_clock(whole.log)
    for (name, a), b in zip(
        whole.model.named_parameters(), resumed.model.parameters(), strict=True
    ):
        assert torch.equal(a, b), name


def test_an_overflow_in_fp16_lowers_the_scale_and_the_run_goes_on(
    segments, tokenizer, tmp_path, monkeypatch
):
    first_scale = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda *a, **k: first_scale(*a, init_scale=2.0**40, **k)
    )
    config = replace(CONFIG, precision="fp16", steps=2)
    pretrain(config, segments, tokenizer, tmp_path)
    state = json.loads((tmp_path / "checkpoint-00000002" / "state.json").read_text())
    assert state["scaler"]["scale"] == 2.0**38


def test_windows_of_the_log_need_not_end_where_checkpoints_do(segments, tokenizer, tmp_path):
    config = replace(CONFIG, steps=7, log_every=3, save_every=2, evaluate_every=5)
    whole = pretrain(config, segments, tokenizer, tmp_path / "whole")
    assert [entry["step"] for entry in whole.log] == [0, 3, 5, 6, 7]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-00000007")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-00000006", ignore_errors=True)
    config = replace(config, keep_checkpoints=1)
    shutil.rmtree(tmp_path / "cut")
    for steps in (2, 4):  # stop in the middle of a window, twice

        def interrupt(entry, after=steps):
            if entry["step"] > after:
                raise RuntimeError("interrupted")

        with pytest.raises(RuntimeError, match="interrupted"):
            pretrain(
                config,
                segments,
                tokenizer,
                tmp_path / "cut",
                callback=interrupt,
                resume=steps == 4,
            )
        assert [p.name for p in (tmp_path / "cut").glob("c*")] == [f"checkpoint-{steps:08d}"]
    resumed = pretrain(config, segments, tokenizer, tmp_path / "cut", resume=True)
    assert without_clock(resumed.log) == without_clock(whole.log)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_ends_the_run_in_good_order(segments, tokenizer, tmp_path, name):
    before = signal.getsignal(signal.Signals[name])

    def send(entry):
        if entry["step"] == 4:
            signal.raise_signal(signal.Signals[name])

    config = replace(CONFIG, save_every=100)
    stopped = pretrain(config, segments, tokenizer, tmp_path, callback=send)
    assert (stopped.finished, stopped.stopped_by) == (False, name)
    assert signal.getsignal(signal.Signals[name]) == before
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000004"]
    resumed = pretrain(config, segments, tokenizer, tmp_path, resume=True)
    whole = pretrain(config, segments, tokenizer, tmp_path / "whole")
    assert without_clock(resumed.log) == without_clock(whole.log)


def test_a_run_works_in_another_thread(segments, tokenizer, tmp_path):
    """Where Python allows no signal handlers, as in some notebooks and servers."""
    with ThreadPoolExecutor() as pool:
        run = pool.submit(pretrain, replace(CONFIG, steps=2), segments, tokenizer, tmp_path)
        assert run.result().finished


@pytest.mark.slow
def test_a_generator_learns_a_regular_text(segments, tokenizer, tmp_path):
    config = replace(
        CONFIG,
        steps=300,
        batch_size=16,
        warmup_steps=20,
        evaluate_every=300,
        log_every=300,
        dropout=0.0,
        positions="sinusoid",
        initializer_range=0.1,
    )
    result = pretrain(
        config, segments, tokenizer, tmp_path, held_out=segments.take(slice(0, 16)), save=False
    )
    assert (
        result.log[-1]["held_out_generator_loss"] < 0.8 * result.log[0]["held_out_generator_loss"]
    )


def test_fixed_corruptions_compare_models(segments, tokenizer):
    torch.manual_seed(0)
    first = ElectraForJointPreTraining.from_size("nano", vocab_size=len(tokenizer))
    second = ElectraForJointPreTraining.from_size("nano", vocab_size=len(tokenizer))
    corruptions = fixed_corruptions(first, segments, tokenizer)
    original = corruptions.masked.original_ids
    assert torch.equal(corruptions.is_replaced, corruptions.corrupted_ids != original)
    a, b = (evaluate_corruptions(model, corruptions) for model in (first, second))
    assert a["base_rate"] == b["base_rate"] > 0.05
    assert a["auc"] != b["auc"]


def test_frequency_corruptions_follow_the_counts_and_are_judged_during_a_run(
    segments, tokenizer, tmp_path
):
    rows = np.full((50, 16), 7, dtype=np.uint16)
    rows[:, :4] = 9  # three quarters 7, one quarter 9
    text = Segments(rows, 0)
    masked = mask_segments(segments, tokenizer, 0.5)
    corruptions = frequency_corruptions(masked, text, tokenizer)
    drawn = corruptions.corrupted_ids[masked.chosen]
    assert set(drawn.tolist()) == {7, 9}
    assert (drawn == 7).float().mean().item() == pytest.approx(0.75, abs=0.1)
    result = pretrain(CONFIG, segments, tokenizer, tmp_path, corruptions=corruptions, save=False)
    assert 0 <= result.log[-1]["fixed_auc"] <= 1


def test_errors(segments, tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        pretrain(CONFIG, segments, tokenizer, tmp_path, resume=True)
    wrong = Segments(np.full((4, 16), 999, dtype=np.uint16), 0)
    with pytest.raises(ValueError, match="hold token 999"):
        pretrain(CONFIG, wrong, tokenizer, tmp_path)
    other = ElectraForJointPreTraining.from_size("nano", vocab_size=len(tokenizer) + 1)
    with pytest.raises(ValueError, match="the tokenizer that the model was trained with"):
        pretrain(CONFIG, segments, tokenizer, tmp_path, model=other)


def test_what_changed_since_the_run_began_is_named_and_nothing_is_lost(
    segments, tokenizer, tmp_path
):
    config = replace(CONFIG, steps=2)
    pretrain(config, segments, tokenizer, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=r"another steps \(2, now 3\)"):
        pretrain(replace(config, steps=3), segments, tokenizer, tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"another batch_size \(4, now 8\)"):
        pretrain(replace(config, batch_size=8), segments, tokenizer, tmp_path, resume=True)
    with pytest.raises(ValueError, match="another text"):
        pretrain(config, segments.take(slice(0, 20)), tokenizer, tmp_path, resume=True)
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    words[10:12] = words[11], words[10]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    swapped = load_tokenizer(tmp_path / "vocab.txt")
    with pytest.raises(ValueError, match="another tokenizer"):
        pretrain(config, segments, swapped, tmp_path, resume=True)
    with pytest.raises(FileExistsError, match="resume it, or name another folder"):
        pretrain(config, segments, tokenizer, tmp_path)
    for path, changed in before.items():
        assert path.stat().st_mtime_ns == changed
    log = replace(config, log_every=1, keep_checkpoints=1)
    assert pretrain(log, segments, tokenizer, tmp_path, resume=True).finished


def test_a_loss_that_is_not_finite_stops_the_run(segments, tokenizer, tmp_path):
    model = ElectraForJointPreTraining.from_size("nano", vocab_size=len(tokenizer))
    with torch.no_grad():
        model.discriminator.discriminator_predictions.dense_prediction.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite at step 1: no checkpoint was written"):
        pretrain(CONFIG, segments, tokenizer, tmp_path, model=model)
    assert not list(tmp_path.glob("*checkpoint-*"))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_poisoned_step_is_named_and_never_saved(
    segments, tokenizer, tmp_path, monkeypatch, where
):
    """Step 3 goes wrong; log and checkpoint come at step 4, the last good one is that of 2."""
    steps = iter(range(1, 100))
    forward = ElectraForJointPreTraining.forward

    def poisoned(self, *arguments, **named):
        output = forward(self, *arguments, **named)
        if next(steps) == 3:
            if where == "loss":
                output.loss = output.loss * torch.inf
            else:  # the loss is as before, its gradient is infinite
                weight = self.discriminator.discriminator_predictions.dense_prediction.bias
                output.loss = output.loss + (weight - weight.detach()).sum().abs().sqrt()
        return output

    monkeypatch.setattr(ElectraForJointPreTraining, "forward", poisoned)
    with pytest.raises(FloatingPointError, match="not finite at step 3: the last good") as caught:
        pretrain(CONFIG, segments, tokenizer, tmp_path)
    assert str(tmp_path / "checkpoint-00000002") in str(caught.value)
    (kept,) = tmp_path.glob("*checkpoint-*")
    weights = load_file(kept / "model.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_weights_that_are_not_finite_are_never_saved(segments, tokenizer, tmp_path):
    """Loss and gradient of the step are finite, and its rate carries the weights out of range."""
    config = replace(CONFIG, steps=1, save_every=1, learning_rate=1e42)
    with pytest.raises(FloatingPointError, match="the weights are not finite at step 1: no check"):
        pretrain(config, segments, tokenizer, tmp_path / "first")
    assert not list((tmp_path / "first").glob("*checkpoint-*"))
    assert not (tmp_path / "first" / "final").exists()

    def spoil(entry):
        if entry["step"] == 4:  # after the first checkpoint, before the second
            with torch.no_grad():
                model.generator.generator_predictions.dense.weight[0, 0] = torch.inf

    model = ElectraForJointPreTraining.from_size("nano", vocab_size=len(tokenizer))
    run = tmp_path / "second"
    with pytest.raises(
        FloatingPointError, match="at step 4: the last good checkpoint is .*00000002"
    ):
        pretrain(CONFIG, segments, tokenizer, run, model=model, callback=spoil)
    assert [p.name for p in run.glob("*checkpoint-*")] == ["checkpoint-00000002"]


def test_a_full_disk_stops_the_run_and_keeps_what_was_there(
    segments, tokenizer, tmp_path, monkeypatch
):
    whole = pretrain(CONFIG, segments, tokenizer, tmp_path / "whole")

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(entry):
        if entry["step"] == 4:
            monkeypatch.setattr(resuming, "save_file", no_space)

    with pytest.raises(OSError, match="last whole checkpoint is .*checkpoint-00000002"):
        pretrain(CONFIG, segments, tokenizer, tmp_path / "full", callback=fill)
    monkeypatch.undo()
    resumed = pretrain(CONFIG, segments, tokenizer, tmp_path / "full", resume=True)
    assert without_clock(resumed.log) == without_clock(whole.log)


def test_two_precisions_in_one_python_process(segments, tokenizer, tmp_path):
    for precision in ("fp32", "bf16", "fp32"):
        config = replace(CONFIG, precision=precision, steps=1)
        result = pretrain(config, segments, tokenizer, tmp_path, save=False)
        assert next(result.model.parameters()).dtype == torch.float32


def test_official_packing_trains_with_token_types(segments, tokenizer, tmp_path, monkeypatch):
    rows = np.array(segments.input_ids)
    rows[:, 8] = 3
    seen = []
    monkeypatch.setattr(
        "electra_tutorial.training.Meter.add", lambda self, output, part: seen.append(part)
    )
    two = Segments(rows, 0, packing="official", sep_id=3)
    pretrain(replace(CONFIG, steps=1), two, tokenizer, tmp_path, save=False)
    assert seen[0]["token_type_ids"].tolist() == [[0] * 9 + [1] * 7] * 4


def test_attention_is_chosen_for_the_machine(segments, tokenizer, tmp_path):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_attention("auto", cuda, "bf16") == "sdpa"
    assert choose_attention("auto", cpu, "bf16") == "eager"
    assert choose_attention("eager", cuda, "bf16") == "eager"
    losses = {}
    for attention in ("sdpa", "eager"):
        config = replace(CONFIG, attention=attention, dropout=0.0)
        result = pretrain(config, segments, tokenizer, tmp_path, save=False)
        assert result.model.discriminator.config._attn_implementation == attention
        losses[attention] = [entry["loss"] for entry in result.log[1:]]
    assert losses["sdpa"] == pytest.approx(losses["eager"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["compile", "onednn"])
def test_other_ways_to_compute_give_the_same_losses(way, segments, tokenizer, tmp_path):
    if way == "onednn" and not onednn_is_there():
        with pytest.raises(ValueError, match="without oneDNN"):
            pretrain(replace(CONFIG, onednn=True), segments, tokenizer, tmp_path, save=False)
        return
    config = replace(CONFIG, dropout=0.0, steps=2, log_every=1)
    plain, other = (
        pretrain(replace(config, **{way: on}), segments, tokenizer, tmp_path, save=False)
        for on in (False, True)
    )
    assert way != "onednn" or OneDnnLinear in map(type, other.model.modules())
    losses = [[entry["loss"] for entry in run.log[1:]] for run in (plain, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_trackers_get_the_log(segments, tokenizer, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = pretrain(CONFIG, segments, tokenizer, tmp_path, trackers=("tensorboard",))
    events = EventAccumulator(str(tmp_path / "pretraining"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("generator_loss")}
    logged = {entry["step"]: entry["generator_loss"] for entry in result.log[1:]}
    assert shown == pytest.approx(logged)
