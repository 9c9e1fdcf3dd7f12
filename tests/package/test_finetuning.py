from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ElectraForPreTraining,
)

from electra_tutorial import environment, finetuning, metrics, products
from electra_tutorial.config import FineTuningConfig
from electra_tutorial.encoding import collate, encode, share_of_batch
from electra_tutorial.finetuning import bag_of_words_baseline, evaluate, fine_tune, predict
from electra_tutorial.heads import HEADS
from electra_tutorial.tasks import Task, make_split

# Many runs are too short to learn; that is what the tests of the warning itself look at.
pytestmark = pytest.mark.filterwarnings("ignore::electra_tutorial.finetuning.StayedAtChance")

FILLERS = ["the", "a", "film", "play", "was", "is", "very", "quite"]
WORDS = [*FILLERS, "good", "great", "bad", "poor", "and", "it"]
NAMES = ("negative", "positive")
QUICK = FineTuningConfig(
    learning_rate=1e-2,
    layerwise_decay=0.9,
    epochs=5,
    batch_size=8,
    max_length=16,
    dropout=0.0,
    seed=2,
)


@pytest.fixture(scope="module")
def checkpoint(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A random discriminator with 32 positions, saved in half precision."""
    folder = tmp_path_factory.mktemp("checkpoint") / "discriminator"
    settings = {"max_position_embeddings": 32, "initializer_range": 0.1}
    return make_checkpoint(folder, WORDS, dtype=torch.float16, **settings)


def make_task(pairs: bool = False) -> Task:
    """Sentences of different lengths whose adjective gives the label away."""
    random = np.random.default_rng(0)
    splits = []
    for count in (48, 16, 16):
        labels = [i % 2 for i in range(count)]
        texts = [
            " ".join(random.choice(FILLERS, random.integers(1, 8)))
            + " "
            + random.choice([["bad", "poor"], ["good", "great"]][label])
            for label in labels
        ]
        second = [text.split()[-1] for text in texts] if pairs else None
        splits.append(make_split(texts, labels, NAMES, second))
    columns = ("text", "text_pair") if pairs else ("text",)
    return Task("toy", "classification", NAMES, columns, *splits, "builtin", "sha256:0")


def test_fine_tuning_learns_and_keeps_the_best_epoch(checkpoint: Path) -> None:
    task = make_task()
    result = fine_tune(checkpoint, task, QUICK)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5]
    assert set(result.history[0]) == {
        "epoch",
        "train_loss",
        "validation_loss",
        "accuracy",
        "seconds",
    }
    assert len(result.losses) == 5 * 6
    assert result.validation.metrics["accuracy"] > 0.9
    best = max(result.history, key=lambda row: (row["accuracy"], -row["validation_loss"]))
    assert result.best_epoch == best["epoch"]
    assert result.validation.metrics["loss"] == best["validation_loss"]
    assert not result.model.training
    # The returned weights are the best epoch's.
    again = evaluate(result.model, result.tokenizer, task.validation, NAMES, max_length=16)
    assert again.metrics == result.validation.metrics


def test_an_earlier_epoch_can_be_the_best(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = finetuning.evaluate
    accuracies = iter([0.5, 0.75, 0.75])
    losses = iter([0.1, 0.3, 0.4])
    weights = []

    def fake(model, *arguments, **settings):  # type: ignore[no-untyped-def]
        weights.append(model.classifier.out_proj.weight.detach().clone())
        evaluation = real(model, *arguments, **settings)
        evaluation.metrics.update(accuracy=next(accuracies), loss=next(losses))
        return evaluation

    monkeypatch.setattr(finetuning, "evaluate", fake)
    result = fine_tune(checkpoint, make_task(), replace(QUICK, epochs=3))
    assert result.best_epoch == 2  # the higher accuracy, then the lower loss
    assert torch.equal(result.model.classifier.out_proj.weight, weights[1])
    assert not torch.equal(weights[1], weights[2])


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("tags", [False, True])
def test_the_shares_of_a_batch_add_up_to_its_gradient(
    checkpoint: Path, processes: int, tags: bool
) -> None:
    """As many rows as leave one process with fewer, or none; sentences of different lengths."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    texts = ["good", "the film was bad", "it was very very great", "a play", "poor", "it", "is bad"]
    rows: list[tuple[dict[str, list[int]], object]] = []
    for number, text in enumerate(texts):
        row = dict(tokenizer(text))
        length = len(row["input_ids"])
        words = [-100, *(i % 2 for i in range(length - 2)), -100]
        rows.append((row, words if tags else number % 2))
    head = HEADS["token-classification" if tags else "classification"]
    model, _ = finetuning.load_for_tuning(head, checkpoint, NAMES, QUICK)
    model.eval()  # without dropout

    def gradients(batch: dict[str, torch.Tensor], weight: float) -> list[torch.Tensor]:
        return list(torch.autograd.grad(model(**batch).loss * weight, list(model.parameters())))

    whole = gradients(collate([row for row, _ in rows], [label for _, label in rows]), 1.0)
    shares = [gradients(*share_of_batch(rows, rank, processes)) for rank in range(processes)]
    for expected, *parts in zip(whole, *shares, strict=True):
        torch.testing.assert_close(sum(parts) / processes, expected, rtol=1e-4, atol=1e-6)


def test_clipping_scales_the_gradient_to_its_norm(checkpoint: Path) -> None:
    """One step with an epsilon so large that Adam moves by the clipped gradient itself."""
    task, rate, epsilon = make_task(), 1.0, 1e6
    config = replace(
        QUICK,
        learning_rate=rate * epsilon,
        layerwise_decay=1.0,
        epochs=1,
        batch_size=48,
        warmup_fraction=0.0,
        adam_epsilon=epsilon,
        weight_decay=0.0,
    )
    environment.seed_everything(config.seed)
    model, tokenizer = finetuning.load_classifier(checkpoint, NAMES, config)
    rows = encode(tokenizer, task.train, 16, model.config)
    model(**collate(rows, list(task.train["label"]))).loss.backward()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    slopes = {name: p.grad for name, p in model.named_parameters()}
    norm = math.sqrt(sum(float((slope**2).sum()) for slope in slopes.values()))
    for limit in (norm / 10, 10 * norm):
        result = fine_tune(checkpoint, task, replace(config, max_grad_norm=limit))
        for name, after in result.model.named_parameters():
            step = rate * min(1.0, limit / norm) * slopes[name]
            torch.testing.assert_close(after, start[name] - step, rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_run(checkpoint: Path) -> None:
    config = replace(QUICK, epochs=1, dropout=0.1)
    first, second = (fine_tune(checkpoint, make_task(), config).losses for _ in range(2))
    assert first == second
    assert fine_tune(checkpoint, make_task(), replace(config, seed=3)).losses != first


def test_a_run_that_stays_at_chance_says_so(checkpoint: Path) -> None:
    task, still = make_task(), replace(QUICK, epochs=1, learning_rate=1e-7)
    with pytest.warns(finetuning.StayedAtChance, match="hardly learned .* take more steps") as said:
        result = fine_tune(checkpoint, task, still)
    assert result.advice == str(said[0].message)
    assert "that of guessing by the shares of the labels 0.693" in result.advice  # half and half
    with warnings.catch_warnings():
        warnings.simplefilter("error", finetuning.StayedAtChance)
        assert fine_tune(checkpoint, task, QUICK).advice is None
        assert fine_tune(checkpoint, task, still, from_scratch=True).advice is None


def test_the_advice_depends_on_the_rate() -> None:
    slow, fast = FineTuningConfig(), FineTuningConfig(learning_rate=5e-3)
    assert finetuning.advice_at_chance(0.9, 1.0, 9, slow) is None
    assert "small_set()" in str(finetuning.advice_at_chance(0.91, 1.0, 9, slow))
    assert "; lower learning_rate" in str(finetuning.advice_at_chance(0.91, 1.0, 9, fast))
    assert finetuning.advice_at_chance(0.91, 0.0, 9, slow) is None  # one label: nothing to learn
    assert finetuning.advice_at_chance(9.0, None, 9, slow) is None


def test_from_scratch_has_the_shape_but_not_the_weights(checkpoint: Path) -> None:
    pretrained = ElectraForPreTraining.from_pretrained(checkpoint, dtype=torch.float32)
    word = pretrained.electra.embeddings.word_embeddings.weight
    loaded, _ = finetuning.load_classifier(checkpoint, NAMES, QUICK)
    new, _ = finetuning.load_classifier(checkpoint, NAMES, QUICK, from_scratch=True)
    assert torch.equal(loaded.electra.embeddings.word_embeddings.weight, word)
    assert not torch.equal(new.electra.embeddings.word_embeddings.weight, word)
    assert [p.shape for p in new.parameters()] == [p.shape for p in loaded.parameters()]


def test_mixed_precision_leaves_an_ordinary_model_in_fp32(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = environment.Plan("cpu", "bf16", 8, 1)
    with monkeypatch.context() as patch:
        patch.setattr(environment, "plan", lambda *arguments: half)
        result = fine_tune(checkpoint, make_task(), QUICK)
    assert result.validation.metrics["accuracy"] > 0.8
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}
    inputs = result.tokenizer("the film was good", return_tensors="pt")
    answer, plain = result.model(**inputs), type(result.model).forward(result.model, **inputs)
    assert torch.equal(answer.logits, plain.logits)  # Accelerate's wrapper is gone
    fine_tune(checkpoint, make_task(), replace(QUICK, epochs=1))  # another precision afterwards


def test_onednn_computes_the_same(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "onednn_advantage", lambda: 2.0)
    settings = replace(QUICK, epochs=2)
    usual = fine_tune(checkpoint, make_task(), settings, device="cpu")
    other = fine_tune(
        checkpoint, make_task(), replace(settings, onednn=True), tmp_path / "m", device="cpu"
    )
    assert any(type(layer) is products.OneDnnLinear for layer in other.model.modules())
    assert other.losses == pytest.approx(usual.losses, rel=1e-3)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    assert not any(type(layer) is products.OneDnnLinear for layer in opened.modules())


def test_pairs_of_texts(checkpoint: Path) -> None:
    task = make_task(pairs=True)
    result = fine_tune(checkpoint, task, QUICK)
    assert result.validation.metrics["accuracy"] > 0.9
    encoded = encode(result.tokenizer, task.test, 16, result.model.config)
    assert set(encoded[0]["token_type_ids"]) == {0, 1}
    answer = predict(result.model, result.tokenizer, ["the film was"], ["great"])
    assert answer[0].label == "positive"


def test_what_is_saved_opens_elsewhere(checkpoint: Path, tmp_path: Path) -> None:
    result = fine_tune(checkpoint, make_task(), QUICK, output_dir=tmp_path / "runs" / "toy")
    folder = tmp_path / "runs" / "toy"
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]  # nothing unfinished
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("it was great", return_tensors="pt")
    with torch.no_grad():
        shares = model(**inputs).logits.softmax(-1)[0]
    assert model.config.id2label[int(shares.argmax())] == "positive"
    expected = predict(result.model, result.tokenizer, ["it was great"])[0].probability
    assert float(shares.max()) == pytest.approx(expected, abs=1e-5)
    facts = json.loads((folder / "fine_tuning.json").read_text())
    assert facts["task"] == {"name": "toy", "source": "builtin", "revision": "sha256:0"}
    assert facts["config"]["batch_size"] == 8
    with pytest.raises(FileExistsError, match="remove it or name another"):
        fine_tune(checkpoint, make_task(), QUICK, output_dir=folder)


def test_a_failure_while_saving_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **settings: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(finetuning.json, "dumps", fail)
    with pytest.raises(OSError, match="disk full"):
        fine_tune(checkpoint, make_task(), replace(QUICK, epochs=1), output_dir=tmp_path / "toy")
    assert not (tmp_path / "toy").exists()


# --- resume -------------------------------------------------------------------------------------


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let the next run end in this epoch, after its training and before its checkpoint."""
    real, calls = finetuning.evaluate, []

    def stop(*arguments, **settings):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == epoch:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    monkeypatch.setattr(finetuning, "evaluate", stop)


def without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: row[key] for key in row if key != "seconds"} for row in history]


@pytest.mark.parametrize("learning_rate", [3e-3, 1e-6])  # the best epoch: a later one, the first
def test_an_interrupted_run_goes_on_bit_for_bit(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learning_rate: float
) -> None:
    config = replace(QUICK, epochs=4, dropout=0.1, learning_rate=learning_rate)
    whole = fine_tune(checkpoint, make_task(), config)
    folder = tmp_path / "toy"
    for epoch in (3, 2):  # in the third epoch, and again in the second one after that
        with monkeypatch.context() as patch:
            interrupt(patch, epoch)
            with pytest.raises(KeyboardInterrupt):
                fine_tune(checkpoint, make_task(), config, folder, resume=epoch == 2)
        assert [path.name for path in tmp_path.iterdir()] == ["toy.epochs"]
    torch.manual_seed(99)  # what the process drew meanwhile does not matter
    resumed = fine_tune(checkpoint, make_task(), config, folder, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert resumed.losses == whole.losses
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert resumed.best_epoch == whole.best_epoch
    assert resumed.validation.metrics == whole.validation.metrics
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_a_run_that_only_lacks_its_last_step_is_finished(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    config, folder = replace(QUICK, epochs=2), tmp_path / "toy"
    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "_save", fail)
        with pytest.raises(OSError, match="disk full"):
            fine_tune(checkpoint, make_task(), config, folder)
    resumed = fine_tune(checkpoint, make_task(), config, folder, resume=True)
    assert without_seconds(resumed.history) == without_seconds(
        fine_tune(checkpoint, make_task(), config).history
    )
    assert (folder / "fine_tuning.json").is_file()


def test_another_run_is_not_resumed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, folder = make_task(), tmp_path / "toy"
    with pytest.raises(ValueError, match="resume needs the output_dir"):
        fine_tune(checkpoint, task, QUICK, resume=True)
    with pytest.raises(FileNotFoundError, match="leave out resume"):
        fine_tune(checkpoint, task, QUICK, folder, resume=True)
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(checkpoint, task, QUICK, folder)
    with pytest.raises(FileExistsError, match=r"toy\.epochs holds a run with .*: resume it"):
        fine_tune(checkpoint, task, QUICK, folder)
    with pytest.raises(ValueError, match=r"another epochs \(5, now 6\): resume it with what"):
        fine_tune(checkpoint, task, replace(QUICK, epochs=6), folder, resume=True)
    other = replace(task, train=task.train.select(range(40)))
    with pytest.raises(ValueError, match="another set of rows: resume it with"):
        fine_tune(checkpoint, other, QUICK, folder, resume=True)
    with pytest.raises(ValueError, match="another checkpoint or head to start from"):
        fine_tune(checkpoint, task, QUICK, folder, from_scratch=True, resume=True)
    assert fine_tune(checkpoint, task, QUICK, folder, resume=True).best_epoch > 0


def test_nothing_is_printed(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fine_tune(checkpoint, make_task(), QUICK, output_dir=tmp_path / "toy")
    assert capfd.readouterr() == ("", "")


def test_layer_rates_by_hand() -> None:
    # ELECTRA-Small: 12 layers, decay 0.8. Top layer 0.8, embeddings 0.8 ** 13 = 0.0550.
    rate = finetuning.layer_rates(12, 1.0, 0.8)
    assert rate("classifier.out_proj.weight") == 1
    assert rate("electra.encoder.layer.11.output.dense.bias") == pytest.approx(0.8)
    assert rate("electra.encoder.layer.0.attention.self.query.weight") == pytest.approx(0.8**12)
    assert rate("electra.embeddings.word_embeddings.weight") == pytest.approx(0.0550, abs=5e-5)
    assert rate("electra.embeddings_project.weight") == pytest.approx(0.0550, abs=5e-5)


def test_layer_rates_of_the_released_code_by_hand(checkpoint: Path) -> None:
    # One level too many: the top layer 0.8 ** 2, the embeddings 0.8 ** 14 (Large: 0.9 ** 2).
    rate = finetuning.layer_rates(12, 1.0, 0.8, official_exponent=True)
    assert rate("classifier.out_proj.weight") == 1
    assert rate("electra.encoder.layer.11.output.dense.bias") == pytest.approx(0.64)
    assert rate("electra.encoder.layer.0.output.dense.bias") == pytest.approx(0.8**13)
    assert rate("electra.embeddings.word_embeddings.weight") == pytest.approx(0.0440, abs=5e-5)
    large = finetuning.layer_rates(24, 1.0, 0.9, official_exponent=True)
    assert large("electra.encoder.layer.23.output.dense.bias") == pytest.approx(0.81)
    model, _ = finetuning.load_classifier(checkpoint, NAMES, QUICK)
    official = replace(QUICK, learning_rate=1.0, official_layer_decay_exponent=True)
    rates = {group["lr"] for group in finetuning.parameter_groups(model, official)}
    assert sorted(rates) == pytest.approx([0.9**4, 0.9**3, 0.9**2, 1])


def test_parameter_groups_hold_every_parameter_once(checkpoint: Path) -> None:
    model, _ = finetuning.load_classifier(checkpoint, NAMES, QUICK)
    groups = finetuning.parameter_groups(model, replace(QUICK, weight_decay=0.01))
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    # 4 levels, each with weights and without decay.
    assert len(groups) == 8
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        exempt = name.endswith("bias") or "LayerNorm" in name
        assert decays[id(parameter)] == (0 if exempt else 0.01), name


def test_the_released_codes_adam_makes_a_larger_first_step(checkpoint: Path) -> None:
    start, _ = finetuning.load_classifier(checkpoint, NAMES, QUICK)
    config = replace(QUICK, epochs=1, batch_size=48, warmup_fraction=0.0, learning_rate=1e-4)
    steps = []
    for correction in (True, False):
        result = fine_tune(checkpoint, make_task(), replace(config, bias_correction=correction))
        change = result.model.classifier.out_proj.bias - start.classifier.out_proj.bias
        steps.append(change.abs().mean().item())
    # One step of Adam is the rate; without the correction (1 - 0.9) / sqrt(1 - 0.999) of it.
    assert steps == pytest.approx([1e-4, 1e-4 * 0.1 / 0.001**0.5], rel=0.02)


def test_every_epoch_has_an_order_of_its_own(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[list[int]]] = []
    real = finetuning.LengthGroupedBatches.__iter__

    def remember(self: finetuning.LengthGroupedBatches) -> Iterator[list[int]]:
        orders.append(list(real(self)))
        yield from orders[-1]

    monkeypatch.setattr(finetuning.LengthGroupedBatches, "__iter__", remember)
    fine_tune(checkpoint, make_task(), replace(QUICK, epochs=3))
    assert len(orders) == 3
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_padding_does_not_change_an_answer_and_the_order_is_kept(checkpoint: Path) -> None:
    model, tokenizer = finetuning.load_classifier(checkpoint, NAMES, QUICK)
    texts = ["it was very very very very good", "bad", "a play", "it was quite quite poor and bad"]
    together = predict(model, tokenizer, texts)
    alone = [predict(model, tokenizer, [text])[0] for text in texts]
    assert [a.probability for a in together] == pytest.approx([a.probability for a in alone])
    assert sum(together[0].probabilities.values()) == pytest.approx(1)


def test_evaluation_by_hand() -> None:
    shares = [[0.75, 0.25], [0.5, 0.5], [0.125, 0.875], [1.0, 0.0]]
    evaluation = finetuning.Evaluation.of([0, 1, 1, 1], shares, NAMES)
    assert evaluation.predictions.tolist() == [0, 0, 1, 0]
    assert evaluation.metrics["accuracy"] == 0.5
    expected = -(math.log(0.75) + math.log(0.5) + math.log(0.875) + math.log(1e-12)) / 4
    assert evaluation.metrics["loss"] == pytest.approx(expected)
    assert evaluation.confusion_matrix.tolist() == [[1, 0], [2, 1]]
    assert "positive" in evaluation.report
    low, high = evaluation.metrics["accuracy_interval"]
    assert 0 <= low < 0.5 < high <= 1
    assert evaluation.interval(metrics.macro_f1, resamples=50)[0] >= 0


def test_bag_of_words_baseline() -> None:
    for pairs in (False, True):
        task = make_task(pairs)
        baseline = bag_of_words_baseline(task, seed=1)
        assert baseline.metrics["accuracy"] > 0.9
        texts = [
            " ".join(row) for row in zip(*(task.test[c] for c in task.text_columns), strict=True)
        ]
        predictions = finetuning.fit_bag_of_words(task).predict(texts)
        assert predictions.tolist() == baseline.predictions.tolist()


def test_bag_of_words_knows_classes_that_have_no_training_row() -> None:
    names = (*NAMES, "absent")
    task = make_task()
    splits = [
        make_split(split["text"], split["label"], names)
        for split in (task.train, task.validation, task.test)
    ]
    task = replace(task, label_names=names, train=splits[0], validation=splits[1], test=splits[2])
    assert bag_of_words_baseline(task).probabilities.shape == (16, 3)


def test_a_sequence_longer_than_the_positions_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="max_length 64 exceeds the 32 positions"):
        fine_tune(checkpoint, make_task(), replace(QUICK, max_length=64))
    model, tokenizer = finetuning.load_classifier(checkpoint, NAMES, QUICK)
    with pytest.raises(ValueError, match="use max_length=32 or less"):
        predict(model, tokenizer, ["good"], max_length=33)
    assert predict(model, tokenizer, ["good " * 100])  # the default fits the model, and cuts


def test_labels_out_of_range_are_refused(checkpoint: Path) -> None:
    task = replace(make_task(), train=Dataset.from_dict({"text": ["good", "bad"], "label": [0, 2]}))
    with pytest.raises(ValueError, match="label in row 1 of train is 2; expected .* 0 to 1"):
        fine_tune(checkpoint, task, QUICK)
    model, tokenizer = finetuning.load_classifier(checkpoint, NAMES, QUICK)
    with pytest.raises(ValueError, match="2 classes, but there are 3 label names"):
        evaluate(model, tokenizer, make_task().test, (*NAMES, "neutral"))
    with pytest.raises(ValueError, match="no column label"):
        evaluate(model, tokenizer, Dataset.from_dict({"text": ["good"]}), NAMES)


def test_empty_texts_are_refused(checkpoint: Path) -> None:
    task = replace(make_task(), train=make_split(["good", " \n"], [1, 0], NAMES))
    with pytest.raises(ValueError, match="text in row 1 of train is empty"):
        fine_tune(checkpoint, task, QUICK)
    model, tokenizer = finetuning.load_classifier(checkpoint, NAMES, QUICK)
    with pytest.raises(ValueError, match="text in row 0 of the data is empty"):
        predict(model, tokenizer, [""])
    with pytest.raises(ValueError, match="at least one row"):
        predict(model, tokenizer, [])


def test_wrong_types_are_refused(checkpoint: Path) -> None:
    with pytest.raises(TypeError, match="not str and FineTuningConfig"):
        fine_tune(checkpoint, "topics", QUICK)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not Task and dict"):
        fine_tune(checkpoint, make_task(), {"epochs": 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'mini', a folder or a hub id, not int"):
        fine_tune(3, make_task(), QUICK)  # type: ignore[arg-type]
    model, tokenizer = finetuning.load_classifier(checkpoint, NAMES, QUICK)
    with pytest.raises(TypeError, match="put it into a list"):
        predict(model, tokenizer, "good")
    with pytest.raises(TypeError, match="must be a string"):
        predict(model, tokenizer, ["good", 1])  # type: ignore[list-item]


def test_a_loss_that_is_not_finite_stops_the_run(checkpoint: Path) -> None:
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        fine_tune(checkpoint, make_task(), replace(QUICK, learning_rate=1e30))
