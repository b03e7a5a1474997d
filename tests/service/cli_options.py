"""Lists every verb of `rcml` with its options and defaults, as `cli_options.txt` freezes them.

`python -m tests.service.cli_options` writes the file again, after the command line was changed on purpose.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic_settings import CliSettingsSource

from service.cli import Rcml

FROZEN = Path(__file__).with_name("cli_options.txt")


def options() -> str:
    """One line a verb, and one for each of its options: names, values it takes, default."""
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
