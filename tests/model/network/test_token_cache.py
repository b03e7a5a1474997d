"""Tests of the token cache: it returns the tokens that were encoded, and encodes them only once."""

from pathlib import Path

import pytest
import torch
from jaxtyping import Int
from torch import Tensor

from model.errors import InputError
from model.network import token_cache
from model.network.inputs import Tokens
from model.network.token_cache import keep_tokens, shared_batches

LENGTHS = [3, 1, 5, 2]
WIDTH = 4


def tokens_of(rows: Int[Tensor, " batch"]) -> Tokens:
    """Return tokens with the item and the place of each token as their value; the last token is the summary."""
    lengths = torch.tensor([LENGTHS[row] for row in rows.tolist()])
    places = torch.arange(int(lengths.max()))
    mask = places < lengths[:, None]
    states = (10.0 * rows[:, None] + places)[..., None].expand(-1, -1, WIDTH)
    return Tokens(states, mask, lengths - 1)


def test_taken_tokens_equal_encoded_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "CACHE_BATCH_ITEMS", 3)
    stored = keep_tokens(tmp_path / "cache" / "text.npy", 4, 6, tokens_of, "encoding")
    assert len(stored) == 4
    rows = torch.tensor([3, 0])
    found, expected = stored.take(rows), tokens_of(rows)
    assert found.states.dtype == torch.float32
    assert found.mask.tolist() == expected.mask.tolist() == [[True, True, False], [True, True, True]]
    assert found.summary.tolist() == [1, 2]
    assert found.states[found.mask].tolist() == expected.states[expected.mask].tolist()


def test_complete_cache_is_not_encoded_again(tmp_path: Path) -> None:
    first = keep_tokens(tmp_path / "text.npy", 4, 5, tokens_of, "encoding")

    def refuse(rows: Int[Tensor, " batch"]) -> Tokens:
        raise AssertionError("encoded twice")

    again = keep_tokens(tmp_path / "text.npy", 4, 5, refuse, "encoding")
    assert torch.equal(again.take(torch.arange(4)).states, first.take(torch.arange(4)).states)


def test_incomplete_cache_is_encoded_again(tmp_path: Path) -> None:
    file = tmp_path / "text.npy"

    def fail(rows: Int[Tensor, " batch"]) -> Tokens:
        if rows[0] > 0:
            raise KeyboardInterrupt
        return tokens_of(rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_cache, "CACHE_BATCH_ITEMS", 2)
        with pytest.raises(KeyboardInterrupt):
            keep_tokens(file, 4, 5, fail, "encoding")
    assert file.is_file()
    stored = keep_tokens(file, 4, 5, tokens_of, "encoding")
    assert stored.take(torch.tensor([2])).states[0, :, 0].tolist() == [20.0, 21.0, 22.0, 23.0, 24.0]


def test_too_little_disk_space_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 100})()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"need 0\.0 GB, but .* has only 0\.0 GB free"):
        keep_tokens(tmp_path / "text.npy", 4, 5, tokens_of, "encoding")
    assert not (tmp_path / "text.npy").exists()


def test_shared_batches_are_encoded_once_and_kept_exactly(tmp_path: Path) -> None:
    asked: list[int] = []

    def thirds(rows: Int[Tensor, " batch"]) -> Tokens:
        asked.extend(rows.tolist())
        found = tokens_of(rows)
        return Tokens(found.states / 3, found.mask, found.summary)

    batches = torch.tensor([2, 0, 3, 1]).split(3)
    for _ in range(2):
        encode = shared_batches(tmp_path / "text", thirds)
        for rows in batches:
            found, expected = encode(rows), tokens_of(rows)
            assert torch.equal(found.states, expected.states / 3)
            assert torch.equal(found.mask, expected.mask)
            assert torch.equal(found.summary, expected.summary)
    assert asked == [2, 0, 3, 1]


def test_shared_batches_are_not_kept_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": token_cache.MIN_FREE_BYTES})()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    encode, rows = shared_batches(tmp_path, tokens_of), torch.tensor([2, 0])
    for _ in range(2):
        assert torch.equal(encode(rows).states, tokens_of(rows).states)
    assert list(tmp_path.iterdir()) == []


def test_other_batches_cannot_be_read_from_a_shared_folder(tmp_path: Path) -> None:
    encode = shared_batches(tmp_path, tokens_of)
    encode(torch.tensor([2, 0]))
    with pytest.raises(AssertionError, match="other batches"):
        encode(torch.tensor([2, 1]))
