"""Runner of the commands shown in the documentation: requests are sent to the service, other commands are checked.

Commands that take minutes, or that need a network or another server, are not run. Everything that such a command names
must exist: the verb and its options with valid values, or the target, the extra, the profile or the module.
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
from service.cli import BackboneVerbs, IndexVerbs, Rcml, main
from service.settings import KeyConfig, ServeConfig

from .documents import ROOT, Block

SHOWN = "http://127.0.0.1:8000"
"""Base URL of the service in the documentation."""


def commands(text: str, prompt: str = "") -> Iterator[str]:
    """Yield the commands of a block; a backslash at the end of a line joins it with the next line."""
    for line in text.replace("\\\n", " ").splitlines():
        assert line.startswith(prompt), f"{line!r} does not start with {prompt!r}"
        yield line.removeprefix(prompt)


@dataclass
class Shell:
    """Working folder, client of the service, and the variables set by earlier commands."""

    folder: Path
    service: httpx.Client
    variables: dict[str, str]

    def do(self, block: Block) -> list[httpx.Response | None]:
        """Run a block, one command after another, and return the responses of the service."""
        if block.kind in ("console", "sh"):
            return [
                self.run(command) for command in commands(block.text, "$ " if block.kind == "console" else "")
            ]
        method, path = block.rest.split()
        media_type = {"json": "application/json", "jsonl": "application/x-ndjson"}[block.kind]
        return [self.service.request(method, path, content=block.text, headers={"Content-Type": media_type})]

    def run(self, command: str) -> httpx.Response | None:
        """Run a command, or check what it names; return the response if the command is a request to the service."""
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
            case _ if scripts := [word for word in words if word.startswith("examples/")]:
                assert all((ROOT / script).is_file() for script in scripts)  # tests/examples runs them
            case _:
                raise AssertionError(f"{command!r} is not a command that this runner supports")
        return None

    def _request(self, options: str, source: str) -> httpx.Request:
        """Return the request that curl would send; the body `@-` is the standard output of the command `source`."""
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
        assert given.url.startswith(SHOWN), f"{given.url} does not start with the documented base URL"
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
        """Create a key for `rcml key`, create the application for `rcml serve`, and only parse all other verbs."""
        file = None
        if ">>" in words:
            *words, _, file = words
        config = config_of(words)
        if isinstance(config, KeyConfig):
            assert file is not None, "the example must write the key line to a file"
            with (self.folder / file).open("a") as out, redirect_stdout(out):
                assert main(words) == 0
        elif isinstance(config, ServeConfig):
            keys = config.keys and self.folder / config.keys
            create_app(config.model_copy(update={"keys": keys}))


def config_of(words: list[str]) -> Any:
    """Return the config that `rcml` parses from `words`; raise if an option or a value is invalid."""
    config = get_subcommand(CliApp.run(Rcml, words))
    return get_subcommand(config) if isinstance(config, BackboneVerbs | IndexVerbs) else config


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def composes(options: list[str]) -> bool:
    """Return whether `docker compose` with these options starts any service."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"].values()
    profiles = {profile for service in services for profile in service.get("profiles", [])}
    return not options or (options[0] == "--profile" and options[1] in profiles)


def values(kind: str, text: str) -> Any:
    """Return the parsed JSON of a block or a response: one value, or a list with one value per line."""
    return json.loads(text) if kind == "json" else [json.loads(line) for line in text.splitlines()]


def extras_of(package: str) -> set[str]:
    """Return the extras of `rcml[...]`, or of `.[...]` in a clone; the empty set if no extras are named."""
    found = re.fullmatch(r"(?:rcml|\.)(?:\[([a-z,]+)\])?", package)
    assert found, f"{package!r} is not a package of this project"
    extras = set(found[1].split(",")) if found[1] else set()
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert extras <= tomllib.load(file)["project"]["optional-dependencies"].keys()
    return extras
