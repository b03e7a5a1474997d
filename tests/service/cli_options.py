"""List of all `rcml` verbs with their options and defaults, as recorded in `cli_options.txt`.

After an intended change to the command line, run `python -m tests.service.cli_options` to rewrite the file.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic_settings import CliSettingsSource

from service.cli import Rcml

FROZEN = Path(__file__).with_name("cli_options.txt")


def options() -> str:
    """Return one line per verb, followed by one line per option with its names, accepted values and default."""
    source: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(Rcml)
    return "\n".join(_lines("rcml", source.root_parser)) + "\n"


def _lines(verb: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield verb
    verbs: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            verbs |= action.choices
        elif action.option_strings and action.dest != "help":
            takes = f" {action.metavar}" if action.metavar and action.nargs != 0 else ""
            remark = re.search(
                r"\((default: .*|default factory: .*|required)\)\s*$", action.help or "", re.DOTALL
            )
            yield f"  {', '.join(action.option_strings)}{takes}  ({remark[1] if remark else ''})"
    for name, inner in verbs.items():
        yield from _lines(f"{verb} {name}", inner)


if __name__ == "__main__":
    FROZEN.write_text(options(), encoding="utf-8")
