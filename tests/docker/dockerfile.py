"""Dockerfiles as data: the stages and instructions of a Dockerfile, and the files that .dockerignore lets into a build.

Only what the project's Dockerfiles use is understood. Anything else raises `ValueError`, so that `clean_root` never
leaves out an instruction silently.
"""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

INSTRUCTIONS = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "RUN", "USER", "VOLUME", "WORKDIR"),
}


class Instruction(NamedTuple):
    """Instruction such as `COPY --from=build a b`: name "COPY", flags {"from": "build"}, text "a b"."""

    name: str
    flags: dict[str, str]
    text: str

    @property
    def command(self) -> list[str]:
        """Return the words of a command in exec form, or the shell that runs a command in shell form."""
        given = self.text.removeprefix("CMD ") if self.name == "HEALTHCHECK" else self.text
        return json.loads(given) if given.startswith("[") else ["/bin/sh", "-c", given]


@dataclass(frozen=True)
class Stage:
    """Stage of a build: `FROM image AS name` and the instructions after it."""

    image: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)


def read_stages(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile.

    Raises:
        ValueError: an instruction is not one of `INSTRUCTIONS`, or has a flag that is not understood.
    """
    stages: list[Stage] = []
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            image, _, stage = rest.partition(" AS ")
            stages.append(Stage(image, stage))
            continue
        flags: dict[str, str] = {}
        while found := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            flags[found[1]] = found[2]
            rest = rest[found.end() :]
        allowed = {"COPY": {"from"}, "HEALTHCHECK": {"interval", "timeout", "start-period"}}.get(name, set())
        if name not in INSTRUCTIONS or rest.startswith("--") or not flags.keys() <= allowed or not stages:
            raise ValueError(f"{line.strip()!r} cannot be run without a Docker engine. Add it to {__name__}.")
        stages[-1].instructions.append(Instruction(name, flags, rest.strip()))
    return stages


def substituted(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$NAME` and `${NAME}` by variables, as Docker does in all instructions but RUN and commands."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: variables.get(found[1] or found[2], ""), text)


def assignments(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that `A=1 B="2 3"` sets, the text of an ENV or ARG instruction."""
    parts = (substituted(part, variables).partition("=") for part in shlex.split(text))
    return {name: value for name, _, value in parts}


def context_files(root: Path) -> Iterator[str]:
    """Yield the paths in a folder that its .dockerignore lets into the build context, relative to the folder.

    Source: docs.docker.com, "Build context": the last matching line decides, and a line matches all below a folder.
    """
    lines = (root / ".dockerignore").read_text("utf-8").splitlines()
    rules = [
        (not line.startswith("!"), _pattern(line.removeprefix("!")))
        for line in lines
        if line and not line.startswith("#")
    ]
    for folder, _, names in os.walk(root):
        for name in names:
            path = (Path(folder) / name).relative_to(root).as_posix()
            ignored = False
            for ignores, pattern in rules:
                if pattern.fullmatch(path):
                    ignored = ignores
            if not ignored:
                yield path


def _pattern(line: str) -> re.Pattern[str]:
    translated = re.escape(line).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.compile(f"{translated}(?:/.*)?")
