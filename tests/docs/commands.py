"""The commands that the documentation shows: sent where they ask the service, and looked up where they do not.

What takes minutes, a network or a server of someone else is not run. Of such a command everything it names must be
there: the verb and its options, with values that they can have; the target, the extra, the profile, the module.
"""

import json
import re
import shlex
import subprocess
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

import httpx
import yaml  # type: ignore[import-untyped]
from pydantic_settings import CliApp, get_subcommand

from service.app import create_app
from service.cli import IndexVerbs, Rcml, main
from service.settings import KeyConfig, ServeConfig

from .documents import ROOT, Block

SHOWN = "http://127.0.0.1:8000"
"""Where the documentation says that the service is."""


def commands(text: str, prompt: str = "") -> Iterator[str]:
    """The commands of a block, a backslash at the end of a line joining it with the next."""
    for line in text.replace("\\\n", " ").splitlines():
        assert line.startswith(prompt), f"{line!r} does not begin with {prompt!r}"
        yield line.removeprefix(prompt)


@dataclass
class Shell:
    """A folder to stand in, a service to ask, and the variables that were set."""

    folder: Path
    service: httpx.Client
    variables: dict[str, str]

    def do(self, block: Block) -> list[httpx.Response | None]:
        """Do what a block says, command after command; the answers of the service."""
        if block.kind in ("console", "sh"):
            return [
                self.run(command) for command in commands(block.text, "$ " if block.kind == "console" else "")
            ]
        method, path = block.rest.split()
        media_type = {"json": "application/json", "jsonl": "application/x-ndjson"}[block.kind]
        return [self.service.request(method, path, content=block.text, headers={"Content-Type": media_type})]

    def run(self, command: str) -> httpx.Response | None:
        """Do what a command says, or look up what it names; the answer, where it asks the service."""
        command = Template(command.partition("  #")[0]).safe_substitute(self.variables)
        source, piped, asked = command.rpartition("| curl ")
        if piped or command.startswith("curl "):
            return self.service.send(self._request(asked.removeprefix("curl "), source))
        words = shlex.split(command)
        if all(re.fullmatch(r"[A-Z]+=.*", word) for word in words):
            self.variables |= dict(word.split("=", 1) for word in words)
            return None
        match words:
            case ["rcml", *rest]:
                self._rcml(rest)
            case ["torchrun", "--nproc-per-node", _, "--no-python", "rcml", *rest]:
                self._rcml(rest)
            case ["make", target]:
                assert target in targets()
            case ["pip", "install", package]:
                extras_of(package)
            case ["docker", "compose", *options, "up"]:
                assert composes(options)
            case ["python", "-m", module, *_]:
                assert find_spec(module)
            case ["tensorboard", "--logdir", _]:
                assert distribution("tensorboard")
            case _:
                raise AssertionError(f"{command!r} is no command that is known here")
        return None

    def _request(self, options: str, source: str) -> httpx.Request:
        """What curl would send; the standard output of `source` is its standard input."""
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("url")
        parser.add_argument("-s", action="store_true")
        parser.add_argument("-X", dest="method")
        parser.add_argument("-H", dest="headers", action="append", default=[])
        parser.add_argument("-d", dest="data")
        parser.add_argument("--data-binary")
        parser.add_argument("-F", dest="form", action="append")
        parser.add_argument("-o", dest="out")
        given = parser.parse_args(shlex.split(options))
        assert given.url.startswith(SHOWN), f"{given.url} is not where the service is said to be"
        sent: dict[str, Any] = {}
        fields = (header.partition(":") for header in given.headers)
        headers = {name: value.strip() for name, _, value in fields if value}
        if given.form:
            parts = dict(part.split("=", 1) for part in given.form)
            files = {name: value[1:] for name, value in parts.items() if value.startswith("@")}
            sent["data"] = {name: value for name, value in parts.items() if name not in files}
            sent["files"] = {name: (file, (self.folder / file).read_bytes()) for name, file in files.items()}
        elif body := given.data or given.data_binary:
            if body == "@-":
                sent["content"] = subprocess.run(
                    source, shell=True, cwd=self.folder, check=True, capture_output=True
                ).stdout
            elif body.startswith("@"):
                sent["content"] = (self.folder / body[1:]).read_bytes()
            else:
                sent["content"] = body.encode()
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        method = given.method or ("POST" if sent else "GET")
        return self.service.build_request(method, given.url.removeprefix(SHOWN), headers=headers, **sent)

    def _rcml(self, words: list[str]) -> None:
        """Make a key where one is to be made; begin to serve as far as the guard; else read the options alone."""
        file = None
        if ">>" in words:
            *words, _, file = words
        config = config_of(words)
        if isinstance(config, KeyConfig):
            assert file is not None, "a key is of no use that is not kept"
            with (self.folder / file).open("a") as out, redirect_stdout(out):
                assert main(words) == 0
        elif isinstance(config, ServeConfig):
            keys = config.keys and self.folder / config.keys
            create_app(config.model_copy(update={"keys": keys}))


def config_of(words: list[str]) -> Any:
    """What the command line makes of `rcml` and these words; refuses options and values that there are not."""
    config = get_subcommand(CliApp.run(Rcml, words))
    return get_subcommand(config) if isinstance(config, IndexVerbs) else config


def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def composes(options: list[str]) -> bool:
    """Whether `docker compose` with these options has something to start."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"].values()
    profiles = {profile for service in services for profile in service.get("profiles", [])}
    return not options or (options[0] == "--profile" and options[1] in profiles)


def values(kind: str, text: str) -> Any:
    """The JSON of a block or an answer, or all of it where each line is one."""
    return json.loads(text) if kind == "json" else [json.loads(line) for line in text.splitlines()]


def extras_of(package: str) -> set[str]:
    """The extras of `rcml[...]`, or of `.[...]` in a clone; none of `rcml` or `.` alone."""
    found = re.fullmatch(r"(?:rcml|\.)(?:\[([a-z,]+)\])?", package)
    assert found, f"{package!r} is no package of this project"
    extras = set(found[1].split(",")) if found[1] else set()
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert extras <= tomllib.load(file)["project"]["optional-dependencies"].keys()
    return extras
