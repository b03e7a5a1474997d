"""Array files whose header lies about the array are refused by name before anything is mapped."""

from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

from indexes.storage.arrays import map_array, read_array, save_array
from model.errors import ArtifactError


def write(path: Path, header: dict[str, object], data: bytes = b"\0" * 24) -> Path:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(data)
    return path


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ({"descr": "<f2", "fortran_order": False, "shape": (3, 2)}, "an array of float16"),
        ({"descr": "|O", "fortran_order": False, "shape": (3, 1)}, "an array of object"),
        ({"descr": "<f4", "fortran_order": True, "shape": (3, 2)}, "in Fortran order"),
        ({"descr": "<f4", "fortran_order": False, "shape": (3, 3)}, "24 bytes of data"),
        ({"descr": "<f4", "fortran_order": False, "shape": (2, 2)}, "24 bytes of data"),
        ({"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**20)}, "24 bytes of data"),
        ({"descr": "<f4", "fortran_order": False, "shape": (-3, -2)}, "24 bytes of data"),
        ({"descr": "<f4", "fortran_order": False, "shape": (6,)}, "with 2 axes"),
    ],
)
def test_refuses_a_header_that_does_not_fit(
    header: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "text.npy", header)
    with pytest.raises(ArtifactError, match=rf"text\.npy is damaged \(.*{complaint}"):
        map_array(path, "<f4", 2)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x02\x00", b"[" * 10**6])
def test_refuses_what_is_no_array(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"text\.npy is damaged"):
        map_array(tmp_path / "text.npy", "<f4", 2)


@pytest.mark.parametrize("array", [np.arange(6, dtype="<f4").reshape(3, 2), np.empty((0, 2), "<f4")])
def test_maps_and_reads_what_was_saved(array: ndarray, tmp_path: Path) -> None:
    save_array(tmp_path / "text.npy", array)
    for found in (map_array(tmp_path / "text.npy", "<f4", 2), read_array(tmp_path / "text.npy", "<f4", 2)):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.array_equal(found, array)
