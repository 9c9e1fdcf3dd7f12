"""Sharing modes: what is counted once, where gradients flow, what a file keeps."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from transformers import AutoModelForSequenceClassification, ElectraForPreTraining

from electra_tutorial.config import ElectraSize
from electra_tutorial.initialization import start_embeddings
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.sharing import MUST_AGREE, TABLES, DisentangledEmbedding

# two layers, 32 wide, embeddings of 16 for 100 tokens, 24 positions and 2 token types
TINY = ElectraSize("tiny", 2, 32, 2, 128, 16, 100, 24, generator_fraction=1 / 2)
TABLE_WEIGHTS = 100 * 16 + 24 * 16 + 2 * 16
LAYER_NORM = 2 * 16
MODES = list(MUST_AGREE)


def tiny(sharing: str, fraction: float = 0.5) -> ElectraForJointPreTraining:
    torch.manual_seed(0)
    return ElectraForJointPreTraining.from_size(
        TINY,
        sharing=sharing,
        generator_fraction=1.0 if sharing == "all" else fraction,
        initializer_range=0.3,
    ).eval()


def batch(rows: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(5, 100, (rows, 20), generator=generator)
    chosen = torch.rand(rows, 20, generator=generator) < 0.3
    return {
        "input_ids": labels.masked_fill(chosen, 4),
        "labels": labels.masked_fill(~chosen, -100),
        "sampling_uniform": torch.rand(rows, 20, generator=generator),
    }


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("sharing", MODES)
def test_shared_weights_are_counted_once(sharing):
    model = tiny(sharing)
    apart = count(model.discriminator) + count(model.generator)
    if sharing == "all":
        shared = count(model.discriminator.electra)
    else:
        # a disentangled discriminator has a table of differences for each of the generator's
        shared = {"token-embeddings": 1600, "embeddings": TABLE_WEIGHTS + LAYER_NORM}.get(
            sharing, 0
        )
    assert count(model) == apart - shared


@pytest.mark.parametrize("sharing", MODES)
def test_the_generators_output_matrix_is_its_word_embeddings(sharing):
    generator = tiny(sharing).generator
    assert generator.generator_lm_head.weight is generator.electra.embeddings.word_embeddings.weight


@pytest.mark.parametrize("sharing", MODES)
def test_the_discriminators_loss_reaches_no_weight_of_the_generators_own(sharing):
    model = tiny(sharing)
    model(**batch()).discriminator_loss.backward()
    discriminators = {id(p) for p in model.discriminator.parameters()}
    own = [p for p in model.generator.parameters() if id(p) not in discriminators]
    assert own
    assert all(p.grad is None for p in own)
    assert all(p.grad is not None and p.grad.any() for p in model.discriminator.parameters())


@pytest.mark.parametrize("sharing", MODES)
def test_every_weight_learns_from_the_whole_loss(sharing):
    model = tiny(sharing)
    model(**batch()).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_gradient_disentangled_by_hand():
    # E = B + delta. Ids 0, 2, 2 look up rows 0, 2, 2; a loss that sums the result gives delta the
    # gradient 1 in row 0 and 2 in row 2, and B none.
    base, own = torch.nn.Embedding(3, 2), torch.nn.Embedding(3, 2)
    table = DisentangledEmbedding(base, own)
    torch.testing.assert_close(table.weight, own.weight)
    ids = torch.tensor([0, 2, 2])
    torch.testing.assert_close(table(ids), own(ids))
    table(ids).sum().backward()
    assert table.delta.grad.tolist() == [[1, 1], [0, 0], [2, 2]]
    assert base.weight.grad is None
    with torch.no_grad():
        base.weight += 1
    torch.testing.assert_close(table(ids), own(ids) + 1)  # it follows the generator
    assert [name for name, _ in table.named_parameters()] == ["delta"]


def test_gradient_disentangled_starts_at_the_generators_embeddings():
    model = tiny("gradient-disentangled")
    for name in TABLES:
        table = getattr(model.discriminator.electra.embeddings, name)
        assert not table.delta.any()
        base = getattr(model.generator.electra.embeddings, name)
        assert torch.equal(table.weight, base.weight)


def test_gradient_disentangled_tables_get_the_two_gradients_apart():
    """Equal weights: its two gradients must be those that full sharing adds up."""
    apart, shared = tiny("gradient-disentangled"), tiny("embeddings")
    shared.generator.load_state_dict(apart.generator.state_dict())
    state = apart.discriminator.state_dict()
    state = {name: value for name, value in state.items() if not name.endswith(".delta")}
    shared.discriminator.load_state_dict(state, strict=False)
    for model in (apart, shared):
        model(**batch()).loss.backward()
    for name in TABLES:
        delta = getattr(apart.discriminator.electra.embeddings, name).delta.grad
        base = getattr(apart.generator.electra.embeddings, name).weight.grad
        together = getattr(shared.discriminator.electra.embeddings, name).weight.grad
        torch.testing.assert_close(base + delta, together, atol=1e-5, rtol=1e-5)


def stir(model: torch.nn.Module) -> None:
    """Move every weight, differences and biases included, as training would."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("sharing", MODES)
@pytest.mark.parametrize("form", ["joint", "halves", "copy"])
def test_saving_and_loading_keeps_weights_and_sharing(
    sharing, form, tokenizer, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model = tiny(sharing)
    stir(model)
    with caplog.at_level(logging.WARNING):
        if form == "joint":
            model.save_pretrained(tmp_path)
            again = ElectraForJointPreTraining.from_pretrained(tmp_path)
        elif form == "halves":
            model.save_halves(tmp_path / "run", tokenizer)
            again = ElectraForJointPreTraining.from_halves(tmp_path / "run")
        else:
            again = copy.deepcopy(model)
    assert not caplog.records
    assert count(again) == count(model)
    expected = model(**batch())
    torch.testing.assert_close(again.eval()(**batch()).loss, expected.loss, atol=1e-4, rtol=1e-5)
    again(**batch()).discriminator_loss.backward()
    model.zero_grad()
    expected.discriminator_loss.backward()
    for (name, p), q in zip(again.named_parameters(), model.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name


@pytest.mark.parametrize("sharing", MODES)
def test_named_parameters_are_a_whole_checkpoint(sharing):
    """Checkpoints store what ``named_parameters`` gives: copied in place, all of it comes back."""
    model, other = tiny(sharing), tiny(sharing)
    stir(model)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(weights.pop(name))
    assert not weights
    assert torch.equal(other(**batch()).loss, model(**batch()).loss)


def test_a_saved_disentangled_discriminator_is_an_ordinary_model(tokenizer, tmp_path):
    model = tiny("gradient-disentangled")
    stir(model)
    model.save_halves(tmp_path / "run", tokenizer)
    plain, loading = ElectraForPreTraining.from_pretrained(
        tmp_path / "run" / "discriminator", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    ids = batch()["input_ids"]
    torch.testing.assert_close(
        plain.eval()(ids).logits, model.discriminator(ids).logits, atol=1e-5, rtol=1e-5
    )
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "discriminator")


@pytest.mark.parametrize("sharing", MODES)
def test_started_embeddings_reach_both_halves(sharing):
    model = tiny(sharing)
    words, positions = torch.rand(100, 16), torch.rand(24, 16)
    start_embeddings(model, words, positions)
    for half in (model.discriminator, model.generator):
        assert torch.equal(half.electra.embeddings.word_embeddings.weight, words)
        assert torch.equal(half.electra.embeddings.position_embeddings.weight, positions)


@pytest.mark.parametrize("sharing", ["none", "gradient-disentangled"])
def test_a_frozen_generator_stays_as_it_is(sharing, tmp_path):
    model = tiny(sharing)
    model.freeze_generator()
    model.save_pretrained(tmp_path)
    for frozen in (model, ElectraForJointPreTraining.from_pretrained(tmp_path)):
        frozen.train()
        assert not frozen.generator.training
        assert frozen.discriminator.training
        output = frozen(**batch())
        torch.testing.assert_close(output.loss, 50 * output.discriminator_loss)
        output.loss.backward()
        assert all(p.grad is None for p in frozen.generator.parameters())
        assert all(p.grad is not None for p in frozen.discriminator.parameters())


def test_errors():
    with pytest.raises(ValueError, match="unknown sharing 'some': choose one of none"):
        tiny("some")
    with pytest.raises(ValueError, match="hidden_size must agree.*generator_fraction=1"):
        ElectraForJointPreTraining.from_size(TINY, sharing="all")
    with pytest.raises(ValueError, match="would change the frozen generator"):
        tiny("embeddings").freeze_generator()
