"""Files in folders whose names are not valid UTF-8 are read and written by libraries that take only UTF-8."""

import os
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexes.vectors.ann_index import read_index, write_index
from model.native_path import is_utf8, native_path


@pytest.mark.parametrize(
    ("name", "valid"), [(b"caf\xc3\xa9", True), (b"caf\xe9", False), (b"\xff", False), (b"a", True)]
)
def test_tells_names_that_are_valid_utf8(name: bytes, valid: bool) -> None:
    assert is_utf8(Path(os.fsdecode(name))) is valid


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff\xfe", "Lädchen".encode()])
def test_native_library_writes_and_reads_a_file_in_any_folder(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name) / "vectors.faiss"
    path.parent.mkdir()
    index = faiss.IndexFlatIP(2)
    index.add(np.array([[3.0, 4.0]], np.float32))
    write_index(index, path)
    assert read_index(path, faiss.IO_FLAG_MMAP_IFC).reconstruct(0).tolist() == [3.0, 4.0]
    assert path.stat().st_mode & 0o111 == 0


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), native_path(tmp_path / os.fsdecode(b"\xe9")):
        pass
