"""Damaged index files: opening fails with the name of the damaged file, or falls back to the previous generation.

Each mutant damages one file of an index as a faulty disk or an incomplete copy may do: a flipped bit, a truncated or
empty file, or a page that is zeroed, overwritten or repeated. Other tests use a missing file and a foreign checkpoint.
"""

import random
import re
import shutil
from pathlib import Path

import pytest

from indexes.index import Index
from indexes.journal.sqlite_store import JOURNAL_FILE
from model.errors import ArtifactError, MismatchError
from tests.indexes.changes import Expected, copied, made
from tests.indexes.fakes import FakeShop, write_checkpoint, write_shop

PAGE = 4_096

NEVER_READ = re.compile(r"pictures/")
"""Pattern of files that opening an index does not read: it checks only their size.

`rcml index verify` reads them completely.
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    """Return a shop whose index contains every kind of file."""
    return write_shop(tmp_path_factory.mktemp("shop"), token_store=True)


def mutant(content: bytes, rng: random.Random) -> bytes:
    """Damage `content` in one random way; the result always differs from `content`."""
    while True:
        at = rng.randrange(len(content))
        page = at - at % PAGE
        damaged = bytearray(content)
        match rng.choice(["flip", "truncate", "zero", "tear", "repeat", "empty"]):
            case "flip":
                damaged[at] ^= 1 << rng.randrange(8)
            case "truncate":
                del damaged[at:]
            case "zero":
                damaged[page : page + PAGE] = bytes(len(damaged[page : page + PAGE]))
            case "tear":
                damaged[at : page + PAGE] = rng.randbytes(len(damaged[at : page + PAGE]))
            case "repeat":
                damaged[at:at] = damaged[page : page + PAGE]
            case "empty":
                damaged.clear()
        if bytes(damaged) != content:
            return bytes(damaged)


def changed(shop: FakeShop, folder: Path) -> tuple[Path, Expected]:
    """Return the path of an index with two generations and later changes, and its expected contents."""
    index = Index.open(copied(shop, folder))
    expected = Expected(shop)
    for start in (0, 4):
        changes = [made(f"new-{n}", n) for n in range(start, start + 4)]
        index.apply(changes)
        expected.apply(*changes)
        if start == 0:
            index.compact()
    index.close()
    return index.path, expected


def files(folder: Path) -> list[Path]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if not NEVER_READ.search(path.relative_to(folder).as_posix())]


def run_generations(shop: FakeShop, folder: Path, mutants: int) -> None:
    rng = random.Random(mutants)
    index, expected = changed(shop, folder)
    older, newest = sorted(index.glob("generation-*"))
    aside = folder / "aside"
    targets = files(newest)
    for number in range(mutants):
        path = targets[number % len(targets)]
        content = path.read_bytes()
        path.write_bytes(mutant(content, rng))
        # The previous generation is used instead. Checking all answers is slow, so it is done only sometimes.
        went_on = Index.open(index)
        assert went_on.snapshot.generation.path == older, path
        if number % 50 == 0:
            expected.check(went_on)
        went_on.close()
        older.rename(aside)
        with pytest.raises(ArtifactError, match=re.escape(path.name)):
            Index.open(index)
        aside.rename(older)
        path.write_bytes(content)
    whole = Index.open(index)
    assert whole.snapshot.generation.path == newest
    expected.check(whole)
    whole.close()


def run_journals(shop: FakeShop, folder: Path, mutants: int) -> None:
    rng = random.Random(mutants)
    index, expected = changed(shop, folder)
    path = index / JOURNAL_FILE
    content = path.read_bytes()
    refused = 0
    for _ in range(mutants):
        path.write_bytes(mutant(content, rng))
        for log in index.glob(f"{JOURNAL_FILE}-*"):
            log.unlink()
        error = what_is_said(index, expected)
        assert error is None or JOURNAL_FILE in error
        refused += error is not None
    assert refused > mutants / 2


def what_is_said(index: Path, expected: Expected) -> str | None:
    """Open an index with a damaged journal, and return the error message.

    Return None if the damage affects no change; all changes must then be intact.
    """
    try:
        opened = Index.open(index)
    except (ArtifactError, MismatchError) as error:
        return str(error)
    try:
        expected.check(opened)
    except ArtifactError as error:  # the digest of a picture is checked when the picture is read
        return str(error)
    finally:
        opened.close()
    return None


def test_rejects_150_damaged_generations_and_uses_previous(shop: FakeShop, tmp_path: Path) -> None:
    run_generations(shop, tmp_path, mutants=150)


def test_rejects_150_damaged_journals_or_reads_all_changes(shop: FakeShop, tmp_path: Path) -> None:
    run_journals(shop, tmp_path, mutants=150)


@pytest.mark.soak
def test_rejects_8000_damaged_generations_and_uses_previous(shop: FakeShop, tmp_path: Path) -> None:
    run_generations(shop, tmp_path, mutants=8_000)


@pytest.mark.soak
def test_rejects_2000_damaged_journals_or_reads_all_changes(shop: FakeShop, tmp_path: Path) -> None:
    run_journals(shop, tmp_path, mutants=2_000)


def test_error_names_missing_file(shop: FakeShop, tmp_path: Path) -> None:
    index, _ = changed(shop, tmp_path)
    older, newest = sorted(index.glob("generation-*"))
    shutil.rmtree(older)
    for path in files(newest):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(ArtifactError, match=re.escape(path.name)):
            Index.open(index)
        path.write_bytes(content)


def test_error_names_foreign_checkpoint(shop: FakeShop, tmp_path: Path) -> None:
    index, _ = changed(shop, tmp_path)
    foreign = tmp_path / "foreign"
    write_checkpoint(foreign, seed=9)
    with pytest.raises(MismatchError, match=re.escape(str(foreign))):
        Index.open(index, foreign)
