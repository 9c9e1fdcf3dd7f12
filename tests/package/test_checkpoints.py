from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraForSequenceClassification,
)

from electra_tutorial.checkpoints import (
    find_checkpoint,
    load_joint_model,
    load_pretrained,
    load_tokenizer_of,
)


@pytest.fixture(scope="module")
def checkpoint(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A random discriminator, saved in half precision."""
    folder = tmp_path_factory.mktemp("checkpoint") / "discriminator"
    return make_checkpoint(folder, ["a", "b"], dtype=torch.float16)


def test_a_checkpoint_is_found_by_name_folder_or_hub_id(checkpoint: Path) -> None:
    assert Path(find_checkpoint("mini")).parts[-3:] == ("builtin", "mini", "discriminator")
    assert find_checkpoint(checkpoint) == find_checkpoint(str(checkpoint)) == str(checkpoint)
    hub_id = "google/electra-small-discriminator"
    assert find_checkpoint(hub_id) == hub_id


def test_a_half_precision_file_is_loaded_in_fp32(checkpoint: Path) -> None:
    model, new = load_pretrained(ElectraForPreTraining, str(checkpoint))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert new == []


def test_weights_that_the_file_lacks_are_named(checkpoint: Path) -> None:
    _, new = load_pretrained(ElectraForSequenceClassification, str(checkpoint), num_labels=3)
    assert new == [
        f"classifier.{layer}.{kind}"
        for layer in ("dense", "out_proj")
        for kind in ("bias", "weight")
    ]


def test_nothing_is_printed(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_pretrained(ElectraForSequenceClassification, str(checkpoint))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/absent/model", "no checkpoint at runs/absent/model"),
        ("/absent/model", "no checkpoint at /absent/model"),
        ("small", "or 'mini'"),
        ("", "name is empty: name 'mini', a folder or a hub id"),
        (Path("someone/model"), "no checkpoint at someone"),
    ],
)
def test_an_unknown_checkpoint_is_refused(name: str | Path, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        find_checkpoint(name)


def test_a_folder_above_the_checkpoint_is_refused_with_a_hint(checkpoint: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a folder inside it: discriminator"):
        find_checkpoint(checkpoint.parent)


def test_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="'mini', a folder or a hub id, not int"):
        find_checkpoint(3)  # type: ignore[arg-type]


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    BertModel(
        BertConfig(
            vocab_size=30,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
        )
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"No ELECTRA .* \(it is a bert model\)"):
        load_pretrained(ElectraForPreTraining, str(tmp_path))


# ---------------------------------------------------------------- two halves


def save_pair(folder: Path, width: int) -> tuple[Path, Path]:
    """Write a pair as it lies on the hub: two folders that know nothing of each other."""
    common = {"vocab_size": 7, "num_hidden_layers": 1, "max_position_embeddings": 16}
    torch.manual_seed(0)
    ours = ElectraForPreTraining(ElectraConfig(**common))  # 256 wide, four heads
    heads = {"num_attention_heads": width // 64, "intermediate_size": 4 * width}
    theirs = ElectraForMaskedLM(ElectraConfig(**common, hidden_size=width, **heads))
    theirs.electra.embeddings.load_state_dict(ours.electra.embeddings.state_dict())
    for name, half in (("theirs", theirs), ("ours", ours)):
        half.save_pretrained(folder / name)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
        (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
        BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder / name)
    return folder / "ours", folder / "theirs"


def test_a_discriminator_and_its_generator_are_joined(tmp_path: Path) -> None:
    ours, theirs = save_pair(tmp_path, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_joint_model(str(ours), str(theirs), "electra-15")
    assert (model.objective, model.config.sharing) == ("electra-15", "embeddings")
    expected = ElectraForMaskedLM.from_pretrained(theirs).eval()
    ids = torch.tensor([[2, 5, 6, 4, 3]])
    torch.testing.assert_close(model.eval().generator(ids).logits, expected(ids).logits)
    assert len(load_tokenizer_of(ours)) == 7
    with pytest.raises(ValueError, match="'mlm' has no generator"):
        load_joint_model(ours, theirs, "mlm")


def test_a_pair_of_the_wrong_widths_is_named(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"as wide as the discriminator \(256 units, 4 heads\)"):
        load_joint_model(*save_pair(tmp_path, 256))


def test_the_bundled_pair_is_found_by_its_name() -> None:
    model = load_joint_model("mini")
    assert model.config.discriminator["vocab_size"] == len(load_tokenizer_of("mini")) == 8192


def test_a_discriminator_alone_is_refused(tmp_path: Path) -> None:
    ours, _ = save_pair(tmp_path, 64)
    for name in (ours, "google/electra-small-discriminator"):
        with pytest.raises(FileNotFoundError, match=r"its generator too \(--generator\)"):
            load_joint_model(name)
    with pytest.raises(ValueError, match="hub ids that you can reach") as caught:
        load_joint_model("nobody/no-such-model", "nobody/no-such-generator")
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="that you can reach") as caught:
        load_pretrained(ElectraForPreTraining, "nobody/no-such-model")
    assert "\n" not in str(caught.value)
