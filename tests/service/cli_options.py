"""List of all `rcml` verbs with their options and defaults, as recorded in `cli_options.txt`.

After an intended change to the command line, run `python -m tests.service.cli_options` to rewrite the file.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic_settings import CliSettingsSource

from service.cli import Rcml

FROZEN = Path(__file__).with_name("cli_options.txt")

_REMARK = re.compile(r"\s*\((default: .*|default factory: .*|required)\)\s*$", re.DOTALL)


@dataclass(frozen=True)
class Option:
    """Option of a verb: its names, the values that it accepts, what it does, and its default or `required`."""

    names: str
    values: str
    help: str
    remark: str


@dataclass(frozen=True)
class Verb:
    """Verb with the words before it, such as `rcml index build`; what it does, and its options."""

    name: str
    description: str
    options: tuple[Option, ...]


def verbs() -> Iterator[Verb]:
    """Yield `rcml` itself, then every verb in the order of the help."""
    source: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(Rcml)
    yield from _verbs("rcml", source.root_parser)


def options() -> str:
    """Return one line per verb, followed by one line per option with its names, accepted values and default."""
    lines = []
    for verb in verbs():
        lines.append(verb.name)
        lines += [f"  {one.names}{one.values and f' {one.values}'}  ({one.remark})" for one in verb.options]
    return "\n".join(lines) + "\n"


def _verbs(name: str, parser: argparse.ArgumentParser) -> Iterator[Verb]:
    inner: dict[str, argparse.ArgumentParser] = {}
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner |= action.choices
        elif action.option_strings and action.dest != "help":
            values = str(action.metavar) if action.metavar and action.nargs != 0 else ""
            text = action.help or ""
            remark = _REMARK.search(text)
            names = ", ".join(action.option_strings)
            found.append(Option(names, values, _REMARK.sub("", text), remark[1] if remark else ""))
    yield Verb(name, parser.description or "", tuple(found))
    for verb, own in inner.items():
        yield from _verbs(f"{name} {verb}", own)


if __name__ == "__main__":
    FROZEN.write_text(options(), encoding="utf-8")
