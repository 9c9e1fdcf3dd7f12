"""The objectives of the paper's table 5, by hand and against independent formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from electra_tutorial.config import ElectraSize, PretrainingConfig
from electra_tutorial.corpora import Segments
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.objectives import (
    OBJECTIVES,
    copy_log_probabilities,
    get_objective,
    second_stage,
)
from electra_tutorial.sharing import MUST_AGREE
from electra_tutorial.training import pretrain

TINY = ElectraSize("tiny", 2, 32, 2, 128, 16, 100, 24, generator_fraction=1 / 2)
NAMES = list(OBJECTIVES)
WITH_GENERATOR = [name for name in NAMES if OBJECTIVES[name].has_generator]
PREDICTING = [name for name in NAMES if OBJECTIVES[name].predicts_tokens]
close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)


def tiny(objective: str, **changes) -> ElectraForJointPreTraining:
    torch.manual_seed(0)
    model = get_objective(objective).from_size(TINY, initializer_range=0.3, **changes)
    return model.eval()


def batch(rows: int = 3, seed: int = 1) -> dict[str, torch.Tensor]:
    """Rows of 20, 17 and 14 real tokens, some of them hidden by [MASK] (4)."""
    generator = torch.Generator().manual_seed(seed)
    original = torch.randint(5, 100, (rows, 20), generator=generator)
    real = torch.arange(20) < 20 - 3 * torch.arange(rows)[:, None]
    chosen = real & (torch.rand(rows, 20, generator=generator) < 0.3)
    return {
        "input_ids": (original * real).masked_fill(chosen, 4),
        "attention_mask": real.long(),
        "labels": original.masked_fill(~chosen, -100),
        "sampling_uniform": torch.rand(rows, 20, generator=generator),
    }


# ---------------------------------------------------------------- worked out by hand

# Eight tokens: [PAD] [UNK] [CLS] [SEP] [MASK] a b c. The text is [CLS] a b c [SEP] [PAD]; a and c
# are chosen.
TEXT = {
    "input_ids": torch.tensor([[2, 4, 6, 4, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0]]),
    "labels": torch.tensor([[-100, 5, -100, 7, -100, -100]]),
    # The generator below gives a 1/2, b 1/4, c 1/4. 0.2 draws a, which is the original; 0.6 draws
    # b in place of c. So x^corrupt is [CLS] a b b [SEP], and one token of five is replaced.
    "sampling_uniform": torch.tensor([[0.0, 0.2, 0.0, 0.6, 0.0, 0.0]]),
}
NEVER = 1e-30


def always(network, probabilities: list[float]) -> None:
    """Let a masked language model predict the same probabilities everywhere."""
    with torch.no_grad():
        network.generator_predictions.LayerNorm.weight.zero_()
        network.generator_predictions.LayerNorm.bias.zero_()
        network.generator_lm_head.bias.copy_(torch.tensor(probabilities).log())


def constant(layer: torch.nn.Linear, logit: float) -> None:
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(logit)


def by_hand(objective: str):
    model = get_objective(objective).from_size(TINY, vocab_size=8).eval()
    if model.has_generator:
        always(model.generator, [NEVER] * 5 + [1 / 2, 1 / 4, 1 / 4])
    return model


def check_generator(output) -> None:
    assert output.corrupted_ids.tolist() == [[2, 5, 6, 6, 3, 0]]
    assert output.is_replaced.tolist() == [[False, False, False, True, False, False]]
    # a costs -log 1/2, c costs -log 1/4
    assert output.generator_loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_electra_by_hand():
    model = by_hand("electra")
    # a logit of log 3: every token is called replaced with probability 3/4
    constant(model.discriminator.discriminator_predictions.dense_prediction, math.log(3))
    output = model(**TEXT)
    check_generator(output)
    # one replaced token costs -log 3/4, four originals -log 1/4 each
    expected = (math.log(4 / 3) + 4 * math.log(4)) / 5
    assert output.discriminator_loss.item() == pytest.approx(expected)
    assert output.loss.item() == pytest.approx(1.5 * math.log(2) + 50 * expected)


def test_a_position_that_was_drawn_twice_counts_twice_by_hand():
    """As the official code has it: three draws, two of them of the first chosen position."""
    drawn = {"loss_weights": torch.tensor([[0, 2, 0, 1, 0, 0]])}
    expected = (2 * math.log(2) + math.log(4)) / 3  # a costs -log 1/2, c costs -log 1/4
    for objective in ("electra", "electra-15"):
        model = by_hand(objective)
        constant(model.discriminator.discriminator_predictions.dense_prediction, math.log(3))
        output = model(**TEXT, **drawn)
        assert output.generator_loss.item() == pytest.approx(expected)
        if objective == "electra":  # all tokens learn, each once
            of_discriminator = model(**TEXT).discriminator_loss.item()
        else:  # an original at the first chosen position, a replaced token at the second
            of_discriminator = (2 * math.log(4) + math.log(4 / 3)) / 3
        assert output.discriminator_loss.item() == pytest.approx(of_discriminator)
    for objective in ("replace-mlm", "mlm"):
        model = by_hand(objective)
        always(model.discriminator, [NEVER] * 5 + [1 / 8, 1 / 8, 3 / 4])
        of_the_other = (2 * math.log(8) + math.log(4 / 3)) / 3  # a at 1/8, c at 3/4
        assert model(**TEXT, **drawn).discriminator_loss.item() == pytest.approx(of_the_other)
    # weights in units of their mean, with the number of positions as divisor: the same
    scaled = {"loss_weights": drawn["loss_weights"] / 1.5, "num_chosen": 2}
    assert by_hand("electra")(**TEXT, **scaled).generator_loss.item() == pytest.approx(expected)


def test_electra_15_by_hand():
    model = by_hand("electra-15")
    constant(model.discriminator.discriminator_predictions.dense_prediction, math.log(3))
    output = model(**TEXT)
    check_generator(output)
    # of the two chosen positions the first holds an original, the second a replaced token
    expected = (math.log(4) + math.log(4 / 3)) / 2
    assert output.discriminator_loss.item() == pytest.approx(expected)
    assert output.loss.item() == pytest.approx(1.5 * math.log(2) + 50 * expected)


def test_replace_mlm_by_hand():
    model = by_hand("replace-mlm")
    always(model.discriminator, [NEVER] * 5 + [1 / 8, 1 / 8, 3 / 4])
    output = model(**TEXT)
    check_generator(output)
    expected = (math.log(8) + math.log(4 / 3)) / 2  # a at 1/8, c at 3/4
    assert output.discriminator_loss.item() == pytest.approx(expected)
    assert output.loss.item() == pytest.approx(1.5 * math.log(2) + expected)


def test_all_tokens_mlm_by_hand():
    model = by_hand("all-tokens-mlm")
    always(model.discriminator, [1 / 8] * 8)
    constant(model.discriminator.copy_gate, math.log(3))  # D = 3/4
    output = model(**TEXT)
    check_generator(output)
    # four tokens are what they were: 3/4 + 1/4 * 1/8 = 25/32. For c stands b: 1/4 * 1/8 = 1/32.
    expected = (4 * math.log(32 / 25) + math.log(32)) / 5
    assert output.discriminator_loss.item() == pytest.approx(expected)
    assert output.loss.item() == pytest.approx(1.5 * math.log(2) + expected)


def test_mlm_by_hand():
    model = by_hand("mlm")
    always(model.discriminator, [NEVER] * 5 + [1 / 8, 1 / 8, 3 / 4])
    output = model(**TEXT)
    assert output.corrupted_ids.tolist() == TEXT["input_ids"].tolist()  # it reads [MASK]
    assert output.loss.item() == pytest.approx((math.log(8) + math.log(4 / 3)) / 2)
    assert output.generator_loss.item() == 0
    assert model.generator is None


# ---------------------------------------------------------------- against other formulas


@settings(deadline=None, max_examples=5)
@given(rows=st.integers(1, 3), seed=st.integers(0, 100))
def test_losses_equal_independent_ones(rows, seed):
    given_batch = batch(rows, seed)
    labels, mask = given_batch["labels"], given_batch["attention_mask"]
    chosen = labels != -100
    if not chosen.any():
        return
    plain = {"attention_mask": mask, "labels": labels}

    model = tiny("mlm")
    close(model(**given_batch).loss, model.discriminator(given_batch["input_ids"], **plain).loss)

    model = tiny("replace-mlm")
    output = model(**given_batch)
    close(output.discriminator_loss, model.discriminator(output.corrupted_ids, **plain).loss)

    model = tiny("electra-15")
    output = model(**given_batch)
    logits = model.discriminator(output.corrupted_ids, attention_mask=mask).logits
    expected = log_loss(
        output.is_replaced[chosen].numpy(),
        logits[chosen].double().sigmoid().detach().numpy(),
        labels=[False, True],
    )
    assert output.discriminator_loss.item() == pytest.approx(expected, abs=1e-5)

    model = tiny("all-tokens-mlm")
    output = model(**given_batch)
    network = model.discriminator
    vocabulary = network(output.corrupted_ids, attention_mask=mask).logits.double().softmax(-1)
    hidden = network.electra(output.corrupted_ids, attention_mask=mask).last_hidden_state
    copies = network.copy_gate(hidden).double().sigmoid()
    copy = torch.nn.functional.one_hot(output.corrupted_ids, 100)
    mixed = copies * copy + (1 - copies) * vocabulary
    original = torch.where(chosen, labels, output.corrupted_ids)
    likelihood = mixed.gather(-1, original[..., None]).squeeze(-1)[mask.bool()]
    assert output.discriminator_loss.item() == pytest.approx(-likelihood.log().mean().item())


def test_copying_is_stable_where_probabilities_vanish():
    logits = torch.tensor([[0.0, 500.0, -500.0]]).expand(4, 3).clone().requires_grad_()
    gate = torch.tensor([-200.0, 200.0, 0.0, 0.0], requires_grad=True)
    ids = torch.tensor([0, 1, 2, 1])
    mixed = copy_log_probabilities(logits, gate, ids)
    close(mixed.logsumexp(-1), torch.zeros(4))
    assert mixed.isfinite().all()
    # a shut gate predicts, an open one copies, a half open one does both
    close(mixed[0, 1:], logits[0, 1:].log_softmax(-1))
    close(mixed[1, 1], torch.tensor(0.0))
    close(mixed[2, 2], torch.tensor(math.log(0.5)))
    mixed[:, 2].sum().backward()
    assert logits.grad.isfinite().all()
    assert gate.grad.isfinite().all()


# ---------------------------------------------------------------- one interface


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns_and_parts_add_up_to_the_whole(name):
    model, whole = tiny(name), batch()
    output = model(**whole)
    output.loss.backward()
    expected = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    counts = {
        "num_chosen": (whole["labels"] != -100).sum(),
        "num_tokens": whole["attention_mask"].sum(),
    }
    for rows in (slice(0, 1), slice(1, 3)):
        model(**{key: value[rows] for key, value in whole.items()}, **counts).loss.backward()
    for key, parameter in model.named_parameters():
        close(parameter.grad, expected[key], msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_saved_halves_open_with_the_auto_classes_and_join_again(name, tokenizer, tmp_path):
    model = tiny(name)
    model.save_halves(tmp_path / "run", tokenizer)
    folder = tmp_path / "run" / "discriminator"
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    ids = batch()["input_ids"]
    close(
        classifier.electra(ids).last_hidden_state,
        model.discriminator.electra(ids).last_hidden_state,
    )
    if name == "mlm":
        assert not (tmp_path / "run" / "generator").exists()
        close(
            AutoModelForMaskedLM.from_pretrained(folder).eval()(ids).logits,
            model.discriminator(ids).logits,
        )
    again = OBJECTIVES[name].from_halves(tmp_path / "run").eval()
    close(again(**batch()).loss, model(**batch()).loss)
    model.save_pretrained(tmp_path / "joint")
    close(
        OBJECTIVES[name].from_pretrained(tmp_path / "joint")(**batch()).loss, again(**batch()).loss
    )
    other = OBJECTIVES["electra" if name != "electra" else "mlm"]
    with pytest.raises(ValueError, match=f"trained with the objective '{name}'"):
        other.from_halves(tmp_path / "run")


@pytest.mark.parametrize("name", PREDICTING)
@pytest.mark.parametrize("sharing", ["none", "token-embeddings", "all"])
def test_objectives_that_predict_tokens_share_too(name, sharing):
    fraction = 1.0 if sharing == "all" else 0.5
    model = tiny(name, sharing=sharing, generator_fraction=fraction)
    model(**batch()).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    head, embeddings = model.discriminator.generator_lm_head, model.discriminator.electra.embeddings
    assert head.weight is embeddings.word_embeddings.weight


@pytest.mark.parametrize("name", WITH_GENERATOR)
def test_the_second_networks_loss_reaches_no_weight_of_the_generators_own(name):
    model = tiny(name)
    model(**batch()).discriminator_loss.backward()
    kept = {id(p) for p in model.discriminator.parameters()}
    own = [p for p in model.generator.parameters() if id(p) not in kept]
    assert own
    assert all(p.grad is None for p in own)


# ---------------------------------------------------------------- in the loop

RUN = PretrainingConfig(
    size="nano",
    steps=4,
    batch_size=4,
    sequence_length=16,
    learning_rate=1e-3,
    warmup_steps=1,
    log_every=2,
    evaluate_every=2,
    save_every=2,
)


@pytest.fixture
def segments(tokenizer) -> Segments:
    rows = np.random.default_rng(0).integers(5, len(tokenizer), size=(12, 16)).astype(np.uint16)
    rows[:, 0], rows[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    return Segments(rows, tokenizer.pad_token_id)


class Interrupted(Exception):
    pass


def interrupt(entry: dict) -> None:
    if entry["step"] == 4:
        raise Interrupted


def weights(model: ElectraForJointPreTraining) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def check_resume(config, segments, tokenizer, folder, make_model=lambda: None):
    """Train whole, and with a break after the checkpoint of step 2: both give one model."""
    run = partial(pretrain, config, segments, tokenizer, held_out=segments)
    whole = run(folder / "whole", model=make_model())
    with pytest.raises(Interrupted):
        run(folder / "cut", model=make_model(), callback=interrupt)
    resumed = run(folder / "cut", model=make_model(), resume=True)
    expected = weights(whole.model)
    for name, parameter in weights(resumed.model).items():
        assert torch.equal(parameter, expected[name]), name
    return whole


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_trains_and_resumes(name, segments, tokenizer, tmp_path):
    config = replace(RUN, objective=name)
    result = check_resume(config, segments, tokenizer, tmp_path)
    assert type(result.model) is OBJECTIVES[name]
    judged = "kept_loss" if name in PREDICTING else "auc"
    assert f"held_out_{judged}" in result.log[-1]
    again = OBJECTIVES[name].from_halves(tmp_path / "whole" / "final")
    final = weights(result.model)
    for key, parameter in weights(again).items():
        assert torch.equal(parameter, final[key]), key


@pytest.mark.parametrize("sharing", ["all", "gradient-disentangled"])  # the odd ones
def test_sharing_modes_train_and_resume(sharing, segments, tokenizer, tmp_path):
    fraction = 1.0 if sharing == "all" else None
    config = replace(RUN, sharing=sharing, generator_fraction=fraction)
    result = check_resume(config, segments, tokenizer, tmp_path)
    assert result.model.config.sharing == sharing


def test_two_stages_train_and_resume(segments, tokenizer, tmp_path):
    first = pretrain(replace(RUN, objective="mlm"), segments, tokenizer, tmp_path / "first")
    learnt = weights(first.model.discriminator)

    def make_model():
        return second_stage(first.model.discriminator)

    result = check_resume(RUN, segments, tokenizer, tmp_path, make_model)
    for name, parameter in weights(result.model.generator).items():
        assert torch.equal(parameter, learnt[name]), name
    moved = weights(result.model.discriminator.electra)
    assert any(not torch.equal(p, learnt[f"electra.{name}"]) for name, p in moved.items())


# ---------------------------------------------------------------- two stages


def test_a_second_stage_starts_from_the_first_and_freezes_it():
    first = tiny("mlm")
    ids = batch()["input_ids"]
    expected = first.discriminator(ids).logits
    second = second_stage(first.discriminator, discriminator_weight=20.0).train()
    close(second.generator(ids).logits, expected)
    second.discriminator.eval()
    close(
        second.discriminator.electra(ids).last_hidden_state,
        first.discriminator.electra(ids).last_hidden_state,
    )
    optimizer = torch.optim.AdamW(second.parameters(), lr=1e-3)
    output = second(**batch())
    close(output.loss, 20 * output.discriminator_loss)
    output.loss.backward()
    optimizer.step()
    assert torch.equal(second.generator(ids).logits, expected)
    assert second(**batch()).loss < output.loss
    # the first stage's own network is a copy: it has not moved
    assert torch.equal(first.discriminator(ids).logits, expected)


def test_a_saved_second_stage_is_still_frozen(tokenizer, tmp_path):
    second = second_stage(tiny("mlm").discriminator)
    second.save_halves(tmp_path / "run", tokenizer)
    again = ElectraForJointPreTraining.from_halves(tmp_path / "run")
    assert again.config.frozen_generator
    assert not any(p.requires_grad for p in again.generator.parameters())


def test_the_settings_know_the_objectives_and_the_sharing_modes():
    for name in OBJECTIVES:
        assert PretrainingConfig(objective=name).objective == name
    for mode in MUST_AGREE:
        assert PretrainingConfig(sharing=mode).sharing == mode
    with pytest.raises(ValueError, match=f"objective must be one of {', '.join(OBJECTIVES)},"):
        PretrainingConfig(objective="gan")
    with pytest.raises(ValueError, match=f"sharing must be one of {', '.join(MUST_AGREE)},"):
        PretrainingConfig(sharing="some")


def test_errors():
    with pytest.raises(ValueError, match="unknown objective 'gan': choose one of electra"):
        get_objective("gan")
    with pytest.raises(ValueError, match="'mlm' has no generator"):
        second_stage(tiny("mlm").discriminator, "mlm")
    with pytest.raises(ValueError, match="made for a discriminator"):
        tiny("replace-mlm", sharing="gradient-disentangled")
