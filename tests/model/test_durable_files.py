"""Errors while files are written are told in words, and files have the permissions that the umask leaves."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from model.artifact import open_artifact
from model.durable_files import make_folder, share, storing
from model.errors import ArtifactError, ReadOnlyError, StorageError
from tests.rights import closed, ordinary_rights

from .test_artifact import content, write


@pytest.fixture(params=[0o022, 0o027, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_file_of_an_artifact_is_readable_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    target = tmp_path / "report"
    write(target)
    assert {mode(path) for path in target.rglob("*") if path.is_file()} == {0o666 & ~umask}
    assert {mode(path) for path in (target, target / "pictures")} == {0o777 & ~umask}


def test_file_of_a_library_with_own_modes_is_shared(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    save_file({"a": np.ones(2, np.float32)}, folder / "a.safetensors")
    (folder / "a.safetensors").chmod(0o600)  # as some versions of the library leave it
    share(folder / "a.safetensors")
    assert mode(folder / "a.safetensors") == 0o666 & ~umask


def test_hard_link_of_another_artifact_keeps_its_mode(tmp_path: Path) -> None:
    picture, link = tmp_path / "a.png", tmp_path / "b.png"
    picture.touch(0o600)
    link.hardlink_to(picture)
    share(link)
    assert mode(picture) == 0o600


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_full_disk_or_quota_is_told(code: int, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=os.strerror(code)) as raised, storing(tmp_path / "out"):
        raise OSError(code, os.strerror(code))
    assert "Free disk space, raise the quota" in str(raised.value)
    assert not isinstance(raised.value, ReadOnlyError)


@pytest.mark.parametrize(
    "said",
    [
        "parquet: underlying IO error: File too large (os error 27)",
        'Error while serializing: I/O error: Os { code: 28, kind: StorageFull, message: "No space left" }',
    ],
)
def test_full_disk_told_by_a_library_without_errno_is_recognised(said: str, tmp_path: Path) -> None:
    told = pytest.raises(StorageError, match=r"out could not be written \((File too large|No space left)")
    with told, storing(tmp_path / "out"):
        raise pl.exceptions.ComputeError(said)


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(pl.exceptions.ComputeError, match="cannot cast"), storing(tmp_path / "out"):
        raise pl.exceptions.ComputeError("cannot cast")
    elsewhere = PermissionError(errno.EACCES, "Permission denied", "/data/items.csv")
    with pytest.raises(PermissionError), storing(tmp_path / "out"):
        raise elsewhere


@pytest.mark.parametrize("below", ["report", "deep/er/report"])
def test_closed_folder_is_told_and_stays_as_it_was(below: str, tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir()
    with closed(shut), pytest.raises(ReadOnlyError, match=r"may not be written by this user \(Permission"):
        write(shut / below)
    assert list(shut.iterdir()) == []


def test_artifact_in_a_closed_folder_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "shut" / "report"
    write(target, "one")
    with closed(tmp_path / "shut"), pytest.raises(ReadOnlyError):
        write(target, "two")
    assert content(target) == "one"


def test_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match=r"cannot be created \(Not a directory"),
        storing(tmp_path / "file" / "out"),
    ):
        make_folder(tmp_path / "file" / "out")


def test_artifact_that_may_only_be_read_is_opened(tmp_path: Path) -> None:
    target = tmp_path / "shut" / "report"
    write(target, "one")
    with closed(tmp_path / "shut"):
        assert content(target) == "one"


@pytest.mark.parametrize("name", ["manifest.json", "data.txt", "."])
def test_artifact_that_may_not_be_read_is_told(name: str, tmp_path: Path) -> None:
    target = tmp_path / "report"
    write(target)
    before = mode(target / name)
    (target / name).chmod(0)
    with ordinary_rights(), pytest.raises(ArtifactError, match="may not be read by this user"):
        open_artifact(target, "report")
    (target / name).chmod(before)
