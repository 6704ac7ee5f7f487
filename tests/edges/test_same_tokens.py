"""Which two models read the same tokens, and what becomes of special ones that differ."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.same_tokens import differing_tokens, require_shared_tokens


def renamed(pair: PairConfig, folder: Path, names: dict[str, str]) -> PairConfig:
    """The pair with other names for some tokens of the second model's tokenizer."""
    shutil.copytree(pair.rl.path, folder)
    for file in folder.glob("tokenizer*"):
        text = file.read_text()
        for old, new in names.items():
            text = text.replace(f'"{old}"', f'"{new}"')
        file.write_text(text)
    return replace(pair, rl=replace(pair.rl, path=str(folder)))


def with_special(pair: PairConfig, folder: Path, *tokens: str) -> PairConfig:
    shutil.copytree(pair.rl.path, folder)
    tokenizer = load_tokenizer(pair.rl)
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.save_pretrained(folder)
    return replace(pair, rl=replace(pair.rl, path=str(folder)))


def test_the_same_tokenizer_shares_everything(tiny_pair):
    both = load_tokenizer(tiny_pair.base), load_tokenizer(tiny_pair.rl)
    assert differing_tokens(*both) == {}
    require_shared_tokens(tiny_pair, [range(100)])


def test_another_familys_is_refused_with_what_compares_families(tiny_pair, tiny_neox_pair):
    mixed = replace(tiny_pair, rl=tiny_neox_pair.rl)
    with pytest.raises(ConfigError, match=r"another tokenizer .*share a tokenizer .*make match"):
        require_shared_tokens(mixed)


def test_ordinary_tokens_that_trade_places_are_refused(tiny_pair, tmp_path):
    other = renamed(tiny_pair, tmp_path / "rl", {"ash": "birch", "birch": "ash_", "ash_": "ash"})
    with pytest.raises(ConfigError, match="another tokenizer"):
        require_shared_tokens(other)


def test_bos_and_eos_may_be_called_otherwise(tiny_pair, tmp_path):
    plain = load_tokenizer(tiny_pair.base)
    other = renamed(
        tiny_pair, tmp_path / "rl", {plain.bos_token: "<begin>", plain.eos_token: "<done>"}
    )
    assert load_tokenizer(other.rl).bos_token == "<begin>"
    require_shared_tokens(other, [[plain.bos_token_id, 20, plain.eos_token_id]])


def test_a_special_token_of_one_matters_only_where_a_text_holds_it(tiny_pair, tmp_path):
    other = with_special(tiny_pair, tmp_path / "rl", "<|user|>")
    new = len(load_tokenizer(tiny_pair.base))
    both = load_tokenizer(other.base), load_tokenizer(other.rl)
    assert differing_tokens(*both) == {new: ("", "<|user|>")}
    require_shared_tokens(other, [[1, 20, 30]])
    refused = rf"token {new} is nothing to .* and '<.user.>' to .*pair\.rl\.tokenizer="
    with pytest.raises(ConfigError, match=refused) as refusal:
        require_shared_tokens(other, [[1, 20], [new, 30]])
    assert f"pair.rl.tokenizer={tiny_pair.base.path}" in str(refusal.value)
    alike = replace(other, rl=replace(other.rl, tokenizer=tiny_pair.base.path))
    require_shared_tokens(alike, [[1, 20], [new - 1, 30]])
