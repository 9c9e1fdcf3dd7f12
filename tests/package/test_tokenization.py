"""Tokenizers: what they cut, what they keep through a save, what they refuse."""

from __future__ import annotations

import pytest

from electra_tutorial.tokenization import (
    SPECIAL_TOKENS,
    load_tokenizer,
    train_characters,
    train_wordpiece,
)


def test_wordpiece_has_berts_special_tokens_first_and_wraps_sentences(tokenizer):
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    ids = tokenizer("The ferry", "left")
    tokens = tokenizer.convert_ids_to_tokens(ids["input_ids"])
    assert (tokens[0], tokens[-1], tokens.count("[SEP]")) == ("[CLS]", "[SEP]", 2)
    assert ids["token_type_ids"][-1] == 1


def test_wordpiece_lower_cases_strips_accents_and_spells_unknown_words(tokenizer):
    assert tokenizer.tokenize("Ápples") == tokenizer.tokenize("apples")
    assert "".join(tokenizer.tokenize("dawntime")).replace("##", "") == "dawntime"
    assert tokenizer.tokenize("ж") == ["[UNK]"]


def test_wordpiece_is_deterministic_and_bounded():
    texts = ["a sentence about tokens", "another sentence about pieces of words"]
    first, second = train_wordpiece(texts, 60), train_wordpiece(texts[::-1], 60)
    assert first.get_vocab() == second.get_vocab()
    assert 50 < len(first) <= 60
    assert not any(token.startswith("##") for token in first.all_special_tokens)
    assert first.decode(first("pieces tokens")["input_ids"], skip_special_tokens=True) == (
        "pieces tokens"
    )


def test_characters_keep_the_most_frequent_and_show_spaces():
    tokenizer = train_characters(["aaa bb c"], max_characters=3)
    assert len(tokenizer) == 8
    assert tokenizer.tokenize("A b\nc") == ["a", "▁", "b", "▁", "[UNK]"]
    ids = tokenizer("ab a")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab a"


def test_saved_tokenizers_load_again(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded("red apples")["input_ids"] == tokenizer("red apples")["input_ids"]
    assert loaded.mask_token_id == tokenizer.mask_token_id


def test_a_vocabulary_file_loads(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, "fog", "##gy"]) + "\n")
    assert load_tokenizer(path).tokenize("Foggy") == ["fog", "##gy"]


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="no text to train"):
        train_wordpiece(["", "  "])
    with pytest.raises(ValueError, match="no text to train"):
        train_characters([])
    with pytest.raises(TypeError, match="several strings"):
        train_wordpiece("one string")
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "missing" / "folder")
    with pytest.raises(ValueError, match="no tokenizer could be loaded"):
        load_tokenizer(tmp_path)


def test_a_text_that_is_read_as_it_comes_gives_the_same_vocabulary(corpus):
    class Anew:
        def __iter__(self):
            yield from corpus.documents

    expected = train_wordpiece(list(corpus.documents), vocab_size=90).get_vocab()
    assert train_wordpiece(Anew(), vocab_size=90).get_vocab() == expected
    assert train_wordpiece(iter(Anew()), vocab_size=90).get_vocab() == expected  # read only once
