"""Checkpoints are whole or absent, the last ones are kept, and what can't be read is named."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from electra_tutorial import resuming
from electra_tutorial.config import PretrainingConfig
from electra_tutorial.corpora import Segments
from electra_tutorial.optimization import build_optimizer
from electra_tutorial.tokenization import train_wordpiece

CONFIG = PretrainingConfig(size="nano", sequence_length=16)


class Network(torch.nn.Module):
    """Two layers that share a weight, as the halves share their embeddings."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first = torch.nn.Linear(width, width)
        self.second = torch.nn.Linear(width, width)
        self.second.weight = self.first.weight


def trained(
    steps: int, config: PretrainingConfig = CONFIG
) -> tuple[Network, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = Network()
    optimizer = build_optimizer(network, config)
    for _ in range(steps):
        network.second(network.first(torch.ones(2, 3))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return network, optimizer


def save(folder: Path, step: int, keep: int = 2, config: PretrainingConfig = CONFIG) -> Path:
    state = {"step": step, "config": asdict(config), "tokenizer": "a", "text": "b"}
    return resuming.save_checkpoint(folder, *trained(step, config), state, keep)


def load(folder: Path, config: PretrainingConfig = CONFIG, **facts: str):
    network = Network()
    optimizer = build_optimizer(network, config)
    state = resuming.resume(folder, network, optimizer, config, facts)
    return state, network, optimizer


@pytest.mark.parametrize("bias_correction", [True, False])
def test_weights_and_moments_come_back_bit_for_bit(tmp_path, bias_correction):
    config = replace(CONFIG, bias_correction=bias_correction)
    save(tmp_path, 5, config=config)
    network, optimizer = trained(5, config)
    state, again, its_optimizer = load(tmp_path, config)
    assert state["step"] == 5
    for net, opt in ((network, optimizer), (again, its_optimizer)):  # and they go on alike
        net.second(net.first(torch.ones(2, 3))).square().sum().backward()
        opt.step()
    for a, b in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_last_ones_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        save(tmp_path, step)
    assert [p.name for p in resuming.checkpoints_in(tmp_path)] == [
        "checkpoint-00000003",
        "checkpoint-00000010",
    ]
    assert sorted(p.name for p in resuming.checkpoints_in(tmp_path)[1].iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    save(tmp_path, 10)  # the same step again replaces it
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("failing", ["save_file", "_to_disk"])
def test_a_full_disk_leaves_the_older_checkpoint_and_no_half_one(tmp_path, monkeypatch, failing):
    whole = save(tmp_path, 1, keep=1)

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resuming, failing, no_space)
    with pytest.raises(OSError, match="checkpoint of step 2 could not be written") as caught:
        save(tmp_path, 2, keep=1)
    assert "(No space left on device): make room, then go on with resume" in str(caught.value)
    assert str(whole) in str(caught.value)
    assert list(tmp_path.iterdir()) == [whole]
    assert load(tmp_path)[0]["step"] == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_read(
    tmp_path, caplog, file, damage
):
    save(tmp_path, 1)
    save(tmp_path, 2)
    damage(tmp_path / "checkpoint-00000002" / file)
    state, network, _ = load(tmp_path)
    assert state["step"] == 1
    assert torch.equal(network.first.weight, trained(1)[0].first.weight)
    (message,) = caplog.messages
    assert "checkpoint-00000002" in message
    assert "goes on from checkpoint-00000001" in message
    # it is set aside, does not count as kept, and nothing of it is lost
    assert (tmp_path / "unreadable-checkpoint-00000002").is_dir()
    save(tmp_path, 2, keep=1)
    assert load(tmp_path)[0]["step"] == 2


def test_if_no_checkpoint_can_be_read_the_run_does_not_start_anew(tmp_path):
    cut(save(tmp_path, 1) / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="Not readable: checkpoint-00000001 .SafetensorErr"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint in .* to resume from"):
        load(tmp_path / "elsewhere")


def test_leftovers_of_a_killed_save_are_swept_away(tmp_path):
    whole = save(tmp_path, 1)
    shutil.copytree(whole, tmp_path / ".checkpoint-00000002.partial")
    shutil.copytree(whole, tmp_path / ".checkpoint-00000000.old")
    assert load(tmp_path)[0]["step"] == 1
    assert list(tmp_path.iterdir()) == [whole]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 7}, r"another steps \(1000000, now 7\): resume it with what"),
        ({"batch_size": 4}, r"another batch_size \(128, now 4\)"),
        ({"masking": "coin"}, r"another masking \('exact', now 'coin'\)"),
        ({"bias_correction": False, "seed": 3}, r"bias_correction \(True, now False\), seed \(0"),
    ],
)
def test_changed_settings_are_refused_and_named(tmp_path, change, message):
    save(tmp_path, 1)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, replace(CONFIG, **change))


def test_another_tokenizer_or_text_is_refused(tmp_path):
    save(tmp_path, 1)
    load(tmp_path, tokenizer="a", text="b")
    with pytest.raises(ValueError, match="another tokenizer: resume"):
        load(tmp_path, tokenizer="x", text="b")
    with pytest.raises(ValueError, match="another text: resume"):
        load(tmp_path, tokenizer="a", text="x")


def test_what_is_only_reported_may_change_and_new_settings_have_their_default(tmp_path):
    folder = save(tmp_path, 1)
    load(tmp_path, replace(CONFIG, log_every=1, evaluate_every=1, save_every=1, keep_checkpoints=9))
    state = json.loads((folder / "state.json").read_text())
    for newer in ("bias_correction", "masking"):  # written before the setting existed
        del state["config"][newer]
    (folder / "state.json").write_text(json.dumps(state))
    load(tmp_path)
    with pytest.raises(ValueError, match="another bias_correction"):
        load(tmp_path, replace(CONFIG, bias_correction=False))
    with pytest.raises(ValueError, match="another masking"):
        load(tmp_path, replace(CONFIG, masking="with-replacement"))


def test_another_model_is_refused_and_kept_as_it_was(tmp_path):
    folder = save(tmp_path, 1)
    other = Network(width=4)
    before = other.first.weight.clone()
    with pytest.raises(ValueError, match="holds another model .first.bias differs"):
        resuming.load_weights(folder, other)
    assert torch.equal(other.first.weight, before)


def test_a_new_run_does_not_overwrite_another(tmp_path):
    resuming.refuse_to_overwrite(tmp_path)
    save(tmp_path, 1)
    with pytest.raises(FileExistsError, match="holds a run with checkpoint-00000001: resume it"):
        resuming.refuse_to_overwrite(tmp_path)


def test_fingerprints_know_vocabulary_and_text():
    one = train_wordpiece(["red apples and winter fog"], 60)
    two = train_wordpiece(["red apples and summer fog"], 60)
    rows = np.arange(6_000 * 4, dtype=np.uint16).reshape(6_000, 4)
    facts = resuming.fingerprints(one, Segments(rows, 0))
    assert resuming.fingerprints(one, Segments(rows.astype(np.int32), 0)) == facts
    assert resuming.fingerprints(two, Segments(rows, 0))["tokenizer"] != facts["tokenizer"]
    for other in (rows[:-1], rows + 1, rows.reshape(3_000, 8)):
        assert resuming.fingerprints(one, Segments(other, 0))["text"] != facts["text"]


def test_the_advice_names_the_last_good_checkpoint(tmp_path):
    assert "at step 7: no checkpoint was written yet" in resuming.advice_not_finite(7, tmp_path)
    folder = save(tmp_path, 4)
    advice = resuming.advice_not_finite(7, tmp_path)
    assert f"the last good checkpoint is {folder}" in advice
    assert "lower learning rate" in advice
