"""A damaged index is refused by the name of the damaged file, before any search; the last whole one goes on.

Each mutant is one file of an index changed as disks and careless copies change them: a flipped bit, a shorter
file, a zeroed or repeated page, a file that is missing or another's.
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
"""Opening checks the size of a picture; `rcml index verify` reads it."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    """With every kind of file there is."""
    return write_shop(tmp_path_factory.mktemp("shop"), token_store=True)


def mutant(content: bytes, rng: random.Random) -> bytes:
    """`content` damaged in one way; never the same."""
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
    """An index of two generations and some changes since, and what it holds."""
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
        # With the generation before, it goes on whole; the check of every answer is slow, so of some.
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
    """How the changes are refused; where they are not, what was damaged is in no change: they must be whole."""
    try:
        opened = Index.open(index)
    except (ArtifactError, MismatchError) as error:
        return str(error)
    try:
        expected.check(opened)
    except ArtifactError as error:  # a picture is compared when it is asked for
        return str(error)
    finally:
        opened.close()
    return None


def test_a_damaged_generation_is_refused_and_the_one_before_goes_on(shop: FakeShop, tmp_path: Path) -> None:
    run_generations(shop, tmp_path, mutants=150)


def test_damaged_changes_are_refused_or_whole(shop: FakeShop, tmp_path: Path) -> None:
    run_journals(shop, tmp_path, mutants=150)


@pytest.mark.soak
def test_8000_damaged_generations_are_refused(shop: FakeShop, tmp_path: Path) -> None:
    run_generations(shop, tmp_path, mutants=8_000)


@pytest.mark.soak
def test_2000_damaged_journals_are_refused_or_whole(shop: FakeShop, tmp_path: Path) -> None:
    run_journals(shop, tmp_path, mutants=2_000)


def test_a_missing_file_is_named(shop: FakeShop, tmp_path: Path) -> None:
    index, _ = changed(shop, tmp_path)
    older, newest = sorted(index.glob("generation-*"))
    shutil.rmtree(older)
    for path in files(newest):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(ArtifactError, match=re.escape(path.name)):
            Index.open(index)
        path.write_bytes(content)


def test_a_foreign_checkpoint_is_named(shop: FakeShop, tmp_path: Path) -> None:
    index, _ = changed(shop, tmp_path)
    foreign = tmp_path / "foreign"
    write_checkpoint(foreign, seed=9)
    with pytest.raises(MismatchError, match=re.escape(str(foreign))):
        Index.open(index, foreign)
