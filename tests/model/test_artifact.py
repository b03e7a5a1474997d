"""An artifact is either complete or absent, even if the process that writes it is killed."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from model.artifact import Manifest, open_artifact, read_manifest, write_artifact
from model.errors import ArtifactError
from model.plain_file import FileRecord


class Options(BaseModel):
    colour: str = "red"


def write(target: Path, content: str = "one", parents: dict[str, str] | None = None) -> None:
    with write_artifact(target, "report", Options(), parents) as draft:
        (draft.path / "pictures").mkdir()
        (draft.path / "data.txt").write_text(content)
        (draft.path / "pictures" / "a.png").write_text("picture")
        draft.counts["things"] = 3


def content(target: Path) -> str:
    open_artifact(target, "report")
    return (target / "data.txt").read_text()


def siblings(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "report"


def test_opens_written_artifact_with_its_manifest(target: Path) -> None:
    write(target, parents={"prepared": "abc"})
    manifest = open_artifact(target, "report")
    assert (manifest.kind, manifest.counts, manifest.parents) == (
        "report",
        {"things": 3},
        {"prepared": "abc"},
    )
    assert sorted(manifest.files) == ["config.json", "data.txt", "pictures/a.png"]
    assert json.loads((target / "config.json").read_text()) == {"colour": "red"}


def test_digest_depends_on_content(target: Path) -> None:
    digests: list[str] = []
    for text in ("one", "one", "two"):
        write(target, text)
        digests.append(open_artifact(target, "report").digest)
    assert digests[0] == digests[1] != digests[2]


def test_digest_depends_on_digests_of_parents(target: Path) -> None:
    write(target, parents={"prepared": "abc"})
    before = open_artifact(target, "report").digest
    write(target, parents={"prepared": "abd"})
    assert open_artifact(target, "report").digest != before


def test_rewriting_replaces_everything_and_leaves_no_other_files(target: Path) -> None:
    write(target, "one")
    write(target, "two")
    assert content(target) == "two"
    assert siblings(target) == ["report"]


def test_readme_can_be_edited_or_removed_and_does_not_affect_the_digest(target: Path) -> None:
    digests = []
    for words in ("# One\n", "# Two\n"):
        with write_artifact(target, "report", Options()) as draft:
            (draft.path / "README.md").write_text(words)
        digests.append(open_artifact(target, "report").digest)
    assert digests[0] == digests[1]
    (target / "README.md").write_text("# Three\n")
    assert open_artifact(target, "report").digest == digests[0]
    (target / "README.md").unlink()
    assert "README.md" in open_artifact(target, "report").files


def test_ignores_files_that_the_manifest_does_not_list(target: Path) -> None:
    write(target)
    (target / ".gitattributes").write_text("* text\n")
    assert content(target) == "one"


@pytest.mark.parametrize("name", ["data-2.txt", "answers/001.TT.npy", "calibration.json"])
def test_refuses_another_file_that_a_reader_could_find(name: str, target: Path) -> None:
    write(target)
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text("one")
    with pytest.raises(ArtifactError, match=f"{name.partition('/')[0]} is not listed in the manifest"):
        open_artifact(target, "report")


def test_pictures_of_an_index_are_not_compared_when_it_is_opened(target: Path) -> None:
    with write_artifact(target, "index", Options()) as draft:
        (draft.path / "pictures").mkdir()
        (draft.path / "pictures" / "a.png").write_text("picture")
    (target / "pictures" / "a.png").unlink()
    assert "pictures/a.png" in open_artifact(target, "index").files


def test_a_carried_record_is_kept_even_if_the_file_was_changed(target: Path) -> None:
    record = FileRecord(size=3, sha256="0" * 64)
    with write_artifact(target, "report", Options()) as draft:
        (draft.path / "data.txt").write_text("other")
        draft.carried["data.txt"] = record
    assert read_manifest(target, "report").files["data.txt"] == record
    with pytest.raises(ArtifactError, match=r"data\.txt was changed after it was written"):
        open_artifact(target, "report")


@pytest.mark.parametrize("name", ["data.txt", "config.json"])
def test_detects_a_changed_byte(name: str, target: Path) -> None:
    write(target)
    raw = bytearray((target / name).read_bytes())
    raw[1] ^= 1
    (target / name).write_bytes(raw)
    with pytest.raises(ArtifactError, match=rf"{name} was changed after it was written"):
        open_artifact(target, "report")


def test_detects_a_picture_with_another_size(target: Path) -> None:
    write(target)
    (target / "pictures" / "a.png").write_text("cut")
    with pytest.raises(ArtifactError, match=r"a\.png was changed after it was written"):
        open_artifact(target, "report")


def test_reports_a_missing_file(target: Path) -> None:
    write(target)
    (target / "data.txt").unlink()
    with pytest.raises(ArtifactError, match=r"data\.txt is missing although the manifest lists it"):
        open_artifact(target, "report")


def test_rejects_artifact_of_another_kind(target: Path) -> None:
    write(target)
    with pytest.raises(
        ArtifactError,
        match=r"is a report, but a checkpoint is required\. Give the folder that `rcml train` wrote",
    ):
        open_artifact(target, "checkpoint")


def test_missing_artifact_is_reported_with_the_command_that_creates_it(target: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"There is no index at {target}\. Run `rcml index build`"):
        open_artifact(target, "index")


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        ('{"format": 99}', "has format 99, but this version of rcml reads format 5"),
        ('{"format": 5}', "is damaged"),
        ("[]", "is damaged"),
        ("{", "is damaged"),
        ("\x00", "is damaged"),
    ],
)
def test_rejects_unreadable_manifest(manifest: str, complaint: str, target: Path) -> None:
    write(target)
    (target / "manifest.json").write_text(manifest)
    with pytest.raises(ArtifactError, match=complaint):
        open_artifact(target, "report")


def test_exception_keeps_the_old_artifact_and_removes_partial_output(target: Path) -> None:
    write(target, "old")

    def fail_midway() -> None:
        with write_artifact(target, "report", Options()) as draft:
            (draft.path / "data.txt").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_midway()
    assert content(target) == "old"
    assert siblings(target) == ["report"]


def test_rejects_folder_with_other_files_and_keeps_them(target: Path) -> None:
    target.mkdir(parents=True)
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"exists and is not an rcml artifact\. Choose another --out"):
        write(target)
    assert (target / "thesis.txt").read_text() == "years of work"


def test_rejects_existing_file_and_keeps_it(tmp_path: Path) -> None:
    target = tmp_path / "thesis.txt"
    target.write_text("years of work")
    with pytest.raises(ArtifactError, match=r"exists and is not an rcml artifact\. Choose another --out"):
        write(target)
    assert target.read_text() == "years of work"


def test_writes_to_an_empty_folder(target: Path) -> None:
    target.mkdir(parents=True)
    write(target)
    assert content(target) == "one"


def test_rejects_second_concurrent_writer_and_first_finishes(target: Path) -> None:
    with write_artifact(target, "report", Options()) as draft:
        with pytest.raises(ArtifactError, match=r"Another run of rcml is writing report now\. Wait"):
            write(target, "second")
        (draft.path / "data.txt").write_text("first")
    assert content(target) == "first"


def test_concurrent_reader_sees_the_old_artifact(target: Path) -> None:
    write(target, "old")
    with write_artifact(target, "report", Options()) as draft:
        (draft.path / "data.txt").write_text("new")
        assert content(target) == "old"
    assert content(target) == "new"


# Recovery after a killed process.

WRITER = """
import os, signal, sys, time
from pathlib import Path
from model.artifact import write_artifact
from tests.model.test_artifact import Options

with write_artifact(Path(sys.argv[1]), "report", Options()) as draft:
    (draft.path / "data.txt").write_text("new")
    print("writing", flush=True)
    {then}
print("written", flush=True)
time.sleep(3600)
"""

SLEEP = "time.sleep(3600)"

DIE_BETWEEN_THE_RENAMES = """
    rename = Path.rename
    def rename_and_die(path, to):
        rename(path, to)
        os.kill(os.getpid(), signal.SIGKILL)
    Path.rename = rename_and_die
"""

RACE = "[print((draft.path / f'{n}.bin').write_bytes(os.urandom(2000)), flush=True) for n in range(50)]"


def start(target: Path, then: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER.format(then=then.strip())]
    root = Path(__file__).parents[2]
    process = subprocess.Popen([*command, str(target)], stdout=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_killed_writer_leaves_no_artifact_and_next_run_reports_it(
    target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill(start(target, SLEEP))
    assert siblings(target) == [".report.partial"]
    with pytest.raises(
        ArtifactError, match=r"There is no report at .*The run that should have created it was interrupted\."
    ):
        open_artifact(target, "report")
    write(target)
    assert capsys.readouterr().err == (
        "An earlier run was interrupted before it finished report. Its partial output was removed.\n"
    )
    assert content(target) == "one"
    assert siblings(target) == ["report"]


def test_killed_writer_keeps_the_existing_artifact(target: Path) -> None:
    write(target, "old")
    kill(start(target, SLEEP))
    assert content(target) == "old"


@pytest.mark.parametrize("next_run", ["reads", "writes"])
def test_recovers_from_a_kill_between_the_two_renames(next_run: str, target: Path) -> None:
    write(target, "old")
    process = start(target, DIE_BETWEEN_THE_RENAMES)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert siblings(target) == [".report.partial", ".report.replaced"]
    if next_run == "writes":
        write(target, "newer")
    assert content(target) == {"reads": "old", "writes": "newer"}[next_run]


@pytest.mark.soak
def test_kill_at_any_moment_leaves_no_partial_artifact(target: Path) -> None:
    moments = random.Random(0)
    seen = set()
    for _ in range(150):
        write(target, "old")
        process = start(target, RACE)
        assert process.stdout is not None
        for _ in range(moments.randint(0, 51)):  # 50 files, and then the artifact
            process.stdout.readline()
        time.sleep(moments.uniform(0, 0.002))
        kill(process)
        seen.add(content(target))
        write(target, "next")
        assert (content(target), siblings(target)) == ("next", ["report"])
    assert seen == {"old", "new"}  # otherwise all kills came too early or too late


def test_manifest_contains_no_dates(target: Path) -> None:
    write(target)
    raw = (target / "manifest.json").read_text()
    assert set(json.loads(raw)) == {*Manifest.model_fields, "digest"}
    assert not re.search(r"20\d\d-\d\d", raw)


def test_files_are_fsynced_before_the_rename(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{target.parent}/"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write(target)
    staging = ".report.partial"
    files = {f"{staging}/{name}" for name in ("data.txt", "pictures/a.png", "config.json", "manifest.json")}
    assert {*files, f"{staging}/pictures"} <= set(synced[:-2])
    assert synced[-2:] == [staging, str(target.parent)]


@pytest.mark.parametrize(
    ("old", "new"), [('"rows": 3', '"rows": 4'), ("  ", " "), ('"checkpoint"', '"report"')]
)
def test_rejects_edited_manifest(old: str, new: str, target: Path) -> None:
    with write_artifact(target, "report", Options(), {"checkpoint": "c" * 64}) as draft:
        draft.counts["rows"] = 3
    path = target / "manifest.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ArtifactError, match=r"manifest\.json was changed after it was written"):
        open_artifact(target, "report")


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/hostname", "a/../../b", "a\0b"])
def test_rejects_manifest_that_lists_a_file_outside_the_artifact(name: str, target: Path) -> None:
    with write_artifact(target, "report", Options()):
        pass
    manifest = read_manifest(target, "report")
    manifest.files[name] = FileRecord(size=1, sha256="0" * 64)
    (target / "manifest.json").write_text(manifest.text)
    with pytest.raises(ArtifactError, match=f"lists {re.escape(repr(name))}, which is outside the artifact"):
        open_artifact(target, "report")


def test_an_artifact_of_another_kind_is_not_replaced(target: Path) -> None:
    write(target)
    with (
        pytest.raises(
            ArtifactError, match=r"is a report, which would be lost\. .* --out for the prepared data"
        ),
        write_artifact(target, "prepared", Options()),
    ):
        pass
    assert content(target) == "one"


@pytest.mark.parametrize("name", ["notes.txt", "pictures/extra.png"])
def test_a_file_that_the_artifact_does_not_list_is_not_deleted(name: str, target: Path) -> None:
    write(target)
    (target / name).write_text("mine")
    (target / ".DS_Store").write_text("of the file manager")
    with pytest.raises(ArtifactError, match=rf"contains {name}, which rcml did not write"):
        write(target, "two")
    assert (target / name).read_text() == "mine"
    (target / name).unlink()
    write(target, "two")
    assert content(target) == "two"


class Inputs(BaseModel):
    items: tuple[Path, ...] = ()
    backbone: str = ""


@pytest.mark.parametrize("same", [True, False])
def test_an_input_of_the_run_is_not_replaced(same: bool, target: Path) -> None:
    write(target)
    inner = target if same else target / "data.txt"
    outside = target.parent / "link"
    outside.symlink_to(inner)
    for given in (
        Inputs(items=(Path("other"), inner)),
        Inputs(items=(outside,)),
        Inputs(backbone=str(target)),
    ):
        with (
            pytest.raises(ArtifactError, match=r"is an input, and .* would replace it"),
            write_artifact(target, "report", given),
        ):
            pass
    assert content(target) == "one"


def test_an_artifact_may_lie_behind_a_link(target: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    target.parent.mkdir()
    target.symlink_to(disk / "report")
    for text in ("one", "two"):
        write(target, text)
        assert content(target) == text
    assert target.is_symlink()
    assert siblings(target) == ["report"]
    assert [path.name for path in disk.iterdir()] == ["report"]
