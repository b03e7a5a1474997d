"""Plain files: whatever lies at the path of a file is read as it is, or refused with its kind, and nothing waits."""

import os
import stat
from pathlib import Path

import pytest
from pydantic import BaseModel

from model.errors import ArtifactError
from model.plain_file import (
    FileRecord,
    decode_json,
    decoding,
    open_plain,
    plain_status,
    read_json,
    read_model,
    read_plain,
    read_text,
)


class Options(BaseModel):
    colour: str


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def outside(path: Path) -> None:
    (path.parent.parent / "elsewhere").write_text("{}")
    path.symlink_to("../elsewhere")


def socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("{}")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (fifo, r"is a FIFO \(named pipe\), not a plain file"),
        (folder, "is a folder, not a plain file"),
        (loop, r"cannot be read \(Too many levels of symbolic links\)"),
        (endless, "is a link out of its folder, to /dev/zero"),
        (outside, "is a link out of its folder, to .*elsewhere"),
        (socket, "is a socket, not a plain file"),
        (huge, "has 1,099,511,627,776 bytes, but at most 16,777,216 are read"),
        (below_a_file, r"cannot be read \(Not a directory\)"),
    ],
)
def test_refuses_what_is_no_plain_file(make, complaint: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "own" / "run.json"
    path.parent.mkdir()
    make(path)
    with pytest.raises(ArtifactError, match=f"run.json {complaint}"):
        read_json(path)


def test_missing_file_is_not_an_error_of_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "run.json")


def test_follows_links_within_the_folder_as_kubernetes_makes_them(tmp_path: Path) -> None:
    (tmp_path / "..2026_11_27").mkdir()
    (tmp_path / "..2026_11_27" / "config.json").write_text('{"colour": "red"}')
    (tmp_path / "..data").symlink_to("..2026_11_27")
    (tmp_path / "config.json").symlink_to("..data/config.json")
    assert read_model(Options, tmp_path / "config.json") == Options(colour="red")


def test_follows_links_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    commit = tmp_path / "models--owner--name" / "snapshots" / "abc"
    commit.mkdir(parents=True)
    (commit.parent.parent / "blobs").mkdir()
    (commit.parent.parent / "blobs" / "0a1b").write_text("weights")
    (commit / "model.bin").symlink_to("../../blobs/0a1b")
    assert read_plain(commit / "model.bin") == b"weights"
    assert plain_status(commit / "model.bin", commit).st_size == len("weights")


def test_refuses_a_file_in_a_linked_folder_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "text.npy").write_bytes(b"tokens")
    (tmp_path / "own" / "tokens").symlink_to("../other")
    with pytest.raises(ArtifactError, match="link out of its folder"):
        open_plain(tmp_path / "own" / "tokens" / "text.npy", tmp_path / "own")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"format": ' + b"9" * 5_000 + b"}", "4300 digits"),
        (b"\xff{}", "invalid start byte"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"kind": "index", "kind": "report"}', "the name 'kind' occurs twice"),
        (b'{"loss": NaN}', "NaN is not a number of JSON"),
        (b'{"loss": -Infinity}', "-Infinity is not a number of JSON"),
        (b"", "Expecting value"),
        (b"\0" * 4_096, "Expecting value"),
    ],
)
def test_names_the_file_whose_json_cannot_be_decoded(content: bytes, complaint: str) -> None:
    with pytest.raises(ArtifactError, match=f"^run.json is damaged .*{complaint}"):
        decode_json(content, Path("run.json"))


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"colour": 3}', "{}"])
def test_names_the_file_whose_json_is_of_another_type(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"config\.json is damaged \(.*\)\. Restore") as raised:
        read_model(Options, tmp_path / "config.json")
    assert "\n" not in str(raised.value)


def test_names_the_byte_of_a_text_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"# Mugs \xe9\n")
    with pytest.raises(ArtifactError, match=r"README\.md is not UTF-8 \(byte 8: "):
        read_text(tmp_path / "README.md")


def test_does_not_read_a_huge_file_to_compare_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npy"
    path.write_bytes(b"tokens")
    record = FileRecord.of(path)
    record.check(path, tmp_path)
    os.truncate(path, 2**40)  # reading it would take minutes
    with pytest.raises(ArtifactError, match=r"tokens\.npy was changed after it was written"):
        record.check(path, tmp_path)


def test_a_library_error_becomes_one_line_with_the_file() -> None:
    with (
        pytest.raises(ArtifactError, match=r"^a\.npy is damaged \(RuntimeError: no index\)"),
        decoding(Path("a.npy")),
    ):
        raise RuntimeError("no\n  index")
