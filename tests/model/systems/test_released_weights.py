"""Tests of reading released weights and CLIP's tokenizer."""

import argparse
import gzip
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.errors import InputError
from model.systems.released_processors import MERGES_FILE, clip_tokenizer
from model.systems.released_weights import Release, renamed

from .releases import write_merges

RELEASE = Release("Example", "https://example.org/weights.pth")


def test_single_precision_weights_without_prefix_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.a": torch.ones(2).half()}, "step": 1}, tmp_path / "w.pt")
    found = RELEASE.read(tmp_path)
    assert list(found) == ["a"]
    assert found["a"].dtype == torch.float32
    assert found["a"].tolist() == [1.0, 1.0]


def test_safetensors_are_preferred(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pt")
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    assert RELEASE.read(tmp_path)["a"].tolist() == [1.0]


def test_missing_weights_name_their_source(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no weights of Example .*https://example\.org/weights\.pth into this folder"
    ):
        RELEASE.read(tmp_path)


def test_two_files_with_weights_are_rejected(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    with pytest.raises(InputError, match=r"a\.pth, b\.pth"):
        RELEASE.read(tmp_path)


def test_file_that_contains_more_than_weights_is_rejected(tmp_path: Path) -> None:
    torch.save({"model": {}, "config": argparse.Namespace()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="contains more than weights"):
        RELEASE.read(tmp_path)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_file_is_rejected(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"damaged" * 100)
    with pytest.raises(InputError, match=r"w\.(pth|safetensors)"):
        RELEASE.read(tmp_path)


def test_weights_are_renamed_split_and_dropped() -> None:
    weights = {"x.3.qkv": torch.arange(3.0), "y": torch.ones(1), "z": torch.ones(1)}
    found = renamed(weights, [(r"x\.(\d)\.qkv", r"a.\1.{q,k,v}.b"), ("y", "c")])
    assert {name: weight.tolist() for name, weight in found.items()} == {
        "a.3.q.b": [0.0],
        "a.3.k.b": [1.0],
        "a.3.v.b": [2.0],
        "c": [1.0],
    }


def test_tokens_are_numbered_as_in_clip(tmp_path: Path) -> None:
    write_merges(tmp_path)
    # CLIP numbers the bytes from "!", then the bytes that end a word, then the merges: hat is the second, red the last.
    assert clip_tokenizer(tmp_path)("Hat  red a!")["input_ids"] == [516, 513, 515, 256 + 64, 256, 517]
    assert clip_tokenizer(tmp_path, "<|mask|>")("hat")["input_ids"] == [517, 513, 518]


def test_missing_merges_name_their_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"Download https://github\.com/openai/CLIP/.*{MERGES_FILE}"):
        clip_tokenizer(tmp_path)


def test_damaged_merges_are_rejected(tmp_path: Path) -> None:
    (tmp_path / MERGES_FILE).write_bytes(gzip.compress(b"#version\nh a\n")[:-6])
    with pytest.raises(InputError, match="cannot be read"):
        clip_tokenizer(tmp_path)
