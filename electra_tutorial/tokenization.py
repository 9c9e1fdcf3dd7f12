"""WordPiece, or single characters: train a tokenizer, load a tokenizer.

The result is always a transformers fast tokenizer with BERT's five special tokens. It lower-cases
and strips accents, as BERT uncased and ELECTRA do (Wu et al., 2016; Devlin et al., 2019).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_ALPHABET = 400
SPACE = "\u2581"  # how the character tokenizer writes a space, so that it can be seen


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Add [CLS] and [SEP] to every sequence and name the special tokens."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _require_text(texts: Iterable[str]) -> Iterable[str]:
    """Return what can be read twice: the texts themselves, or a list of what comes only once."""
    if isinstance(texts, str):
        raise TypeError("texts must be several strings, not one: put the text into a list.")
    if isinstance(texts, Iterator):
        texts = list(texts)
    if not any(text.strip() for text in texts):
        raise ValueError("there is no text to train a tokenizer on: every string given is empty.")
    return texts


def _most_frequent(
    texts: Iterable[str], normalizer: normalizers.Normalizer, number: int
) -> list[str]:
    """Return the most frequent characters of the normalised text, white space left out."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    # ties are broken by the character itself: the order of the texts must not matter
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    return [character for character in ranked if not character.isspace()][:number]


def train_wordpiece(
    texts: Iterable[str], vocab_size: int = 8_192, lowercase: bool = True
) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer.

    Args:
        texts: the text, in any number of strings; it is read twice and may be larger than memory.
        vocab_size: number of tokens, special tokens included.
        lowercase: lower-case and strip accents first.

    Raises:
        ValueError: if all texts are empty.
    """
    texts = _require_text(texts)
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    # The library numbers letters in the order of a hash table, which differs from run to run, and
    # breaks ties by these numbers. Naming the letters first, in a fixed order, makes training
    # repeatable.
    alphabet = sorted(_most_frequent(texts, normalizer, MAX_ALPHABET))
    continued = [f"##{character}" for character in alphabet]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *continued],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizer
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    learner.train_from_iterator(iter(texts), trainer)

    # a fresh tokenizer, for which the continued letters are ordinary tokens
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _wrap(tokenizer)


def train_characters(
    texts: Iterable[str], max_characters: int = 60, lowercase: bool = True
) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose tokens are the most frequent characters of the text.

    Args:
        texts: the text, in any number of strings.
        max_characters: how many characters to keep; the rest become [UNK]. The vocabulary has five
            more entries, the special tokens.
        lowercase: lower-case and strip accents first.

    Raises:
        ValueError: if all texts are empty.
    """
    folding: list[normalizers.Normalizer] = (
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
        if lowercase
        else []
    )
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Replace(" ", SPACE)]
    normalizer = normalizers.Sequence([*folding, *spaces])
    ranked = _most_frequent(_require_text(texts), normalizer, max_characters)
    vocabulary = [*SPECIAL_TOKENS, *ranked]

    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    return _wrap(tokenizer)


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    """Load a tokenizer.

    Args:
        source: ``"mini"`` (the bundled checkpoint's), a folder that holds one, a ``vocab.txt``, or
            a hub id such as ``"google/electra-small-discriminator"``.

    Raises:
        FileNotFoundError: if a path was named and nothing is there.
        ValueError: if the folder holds no tokenizer, or the hub can't give one.
    """
    if source == "mini":
        source = Path(str(files("electra_tutorial"))) / "builtin" / "mini" / "discriminator"
    path = Path(source)
    if path.is_file():
        return BertTokenizer(vocab=str(path), do_lower_case=True)
    hub_id = re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", str(source))
    if not path.exists() and not hub_id:
        raise FileNotFoundError(
            f"no tokenizer at {source}: name a folder that holds tokenizer.json, a vocab.txt, "
            "a hub id, or 'mini'."
        )
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no tokenizer could be loaded from {str(source)!r} ({type(error).__name__}): name a "
            "folder that holds tokenizer.json, a vocab.txt, a hub id that you can reach, or 'mini'."
        ) from error
    return tokenizer
