"""Foreign files in an artifact: what lies where a file should be, or next to it, is refused by name or has no effect.

A file is replaced by a FIFO, a folder, a link, a socket, an empty or huge file, or JSON that no parser likes. Or a copy
lies next to it under a name that a reader could look for. Another process opens the artifact, so that a hang or a file
without end is found.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from model.artifact import write_artifact
from tests.indexes.fakes import FakeShop, write_shop

from .opened_artifact import Opener, opener


class _Options(BaseModel):
    pass


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    """Return a shop with every kind of artifact that a server reads."""
    shop = write_shop(tmp_path_factory.mktemp("shop"), token_store=True)
    figures = '{"queries": 3, "hit_at_5": 0.5, "claims": 0, "validity_auc": null, "validity_ece": null'
    with write_artifact(shop.index.parent / "report", "report", _Options(), {"rcml": "of"}) as draft:
        (draft.path / "report.json").write_text(
            f'{{"relations": [{figures}, "relation_id": "gardeners"}}]}}\n'
        )
        (draft.path / "report.md").write_text("# Report\n")
    return shop


@pytest.fixture(scope="module")
def process() -> Iterator[Opener]:
    with opener() as running:
        yield running


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def empty(path: Path) -> None:
    path.touch()


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def latin_1(path: Path) -> None:
    path.write_bytes('{"title": "Tasse für Tee"}'.encode("latin-1"))


def brackets(path: Path) -> None:
    path.write_bytes(b"[" * 1_000_000)


def digits(path: Path) -> None:
    path.write_bytes(b'{"format": ' + b"9" * 5_000 + b"}")


REPLACEMENTS = (fifo, folder, loop, endless, dangling, socket, empty, huge, latin_1, brackets, digits)

ARTIFACTS = ("index", "checkpoint", "prepared", "report")

NEIGHBOURS = {
    "answers": ("001.TT.npy", "004.AVG.npy", "copy.npy"),
    "vectors": ("000.text.hnsw.faiss", "004.text.faiss", "milvus.json"),
    "tokens": ("video.npy", "text.npy.json"),
    ".": ("added.safetensors", "calibration.json", "special_tokens_map.json", "log.parquet", "chat.jinja"),
}
"""Names that readers, or the libraries that read a folder, could look for, by folder."""


def root_of(shop: FakeShop, kind: str) -> Path:
    """Return the folder of an artifact with a manifest."""
    return shop.generation if kind == "index" else shop.index.parent / kind


def files_of(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.is_file()]


def replace(
    shop: FakeShop, kind: str, path: Path, make: Callable[[Path], None], aside: Path, process: Opener
) -> dict[str, str]:
    """Return what comes of opening an artifact in which `make` has replaced the file at `path`."""
    path.rename(aside)
    try:
        make(path)
        return process.open(kind, shop.index if kind == "index" else root_of(shop, kind))
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
        aside.rename(path)


def run(shop: FakeShop, kind: str, every: int, aside: Path, process: Opener) -> int:
    """Replace every `every`-th pair of a file and a replacement, and return their number."""
    opened_as = shop.index if kind == "index" else root_of(shop, kind)
    whole = process.open(kind, opened_as)
    assert whole.keys() == {"read"}, whole
    cases = [(path, make) for path in files_of(root_of(shop, kind)) for make in REPLACEMENTS][::every]
    for path, make in cases:
        found = replace(shop, kind, path, make, aside, process)
        described = f"{path} replaced by {make.__name__}: {found}"
        if path.name == "README.md":
            assert found == whole, described
        elif path.parent.name == "pictures" and kind == "index":
            assert found.keys() == {"read"}, described
            assert found != whole, described
        else:
            assert found.keys() == {"refused"}, described
            assert path.name in found["refused"], described
            assert "\n" not in found["refused"], described
    assert process.open(kind, opened_as) == whole
    return len(cases)


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_refuses_foreign_files_by_name(kind: str, shop: FakeShop, tmp_path: Path, process: Opener) -> None:
    # 7 is no divisor of the number of replacements, so all of them occur.
    assert run(shop, kind, 7, tmp_path / "aside", process) >= 4


@pytest.mark.soak
@pytest.mark.parametrize("kind", ARTIFACTS)
def test_refuses_every_foreign_file_by_name(
    kind: str, shop: FakeShop, tmp_path: Path, process: Opener
) -> None:
    assert run(shop, kind, 1, tmp_path / "aside", process) >= 40


@pytest.mark.parametrize("make", REPLACEMENTS, ids=lambda make: make.__name__)
def test_refuses_a_foreign_manifest(
    make: Callable[[Path], None], shop: FakeShop, tmp_path: Path, process: Opener
) -> None:
    found = replace(shop, "index", shop.generation / "manifest.json", make, tmp_path / "aside", process)
    assert found.keys() == {"refused"}, found
    assert "manifest.json" in found["refused"]


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_refuses_a_copy_under_a_name_that_a_reader_could_look_for(
    kind: str, shop: FakeShop, process: Opener
) -> None:
    root = root_of(shop, kind)
    for place in [one for one in NEIGHBOURS if (root / one).is_dir()]:
        source = next(path for path in sorted((root / place).iterdir()) if path.is_file())
        for name in NEIGHBOURS[place]:
            copy = root / place / name
            if copy.exists():
                continue
            shutil.copyfile(source, copy)
            found = process.open(kind, shop.index if kind == "index" else root)
            copy.unlink()
            assert found.keys() == {"refused"}, (copy, found)
            assert f"{name} is not listed in the manifest" in found["refused"]


@pytest.mark.parametrize("name", [".DS_Store", ".gitattributes", "LICENSE", "NOTES.md", "lost+found/"])
def test_ignores_files_that_nobody_reads(name: str, shop: FakeShop, process: Opener) -> None:
    whole = process.open("checkpoint", shop.checkpoint)
    path = shop.checkpoint / name
    if name.endswith("/"):
        path.mkdir()
    else:
        os.mkfifo(path)  # whoever opens it hangs
    try:
        assert process.open("checkpoint", shop.checkpoint) == whole
    finally:
        if name.endswith("/"):
            path.rmdir()
        else:
            path.unlink()


def test_a_card_that_is_no_utf_8_is_refused_only_when_it_is_read(
    shop: FakeShop, tmp_path: Path, process: Opener
) -> None:
    whole = process.open("checkpoint", shop.checkpoint)
    path = shop.checkpoint / "README.md"
    assert replace(shop, "checkpoint", path, latin_1, tmp_path / "aside", process) == whole
    path.rename(tmp_path / "aside")
    latin_1(path)
    found = process.open("card", shop.checkpoint)
    (tmp_path / "aside").rename(path)
    assert "README.md is not UTF-8 (byte 19:" in found["refused"]
