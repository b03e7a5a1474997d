"""Help of the command line: says what values an option takes, and its default, in words instead of Python's terms."""

import re
from argparse import Action, RawDescriptionHelpFormatter
from collections.abc import Iterable
from typing import Any

from pydantic import ByteSize

_WORDS = {
    "Path": "PATH",
    "str": "TEXT",
    "int": "INTEGER",
    "float": "NUMBER",
    "ByteSize": "SIZE",
    "SecretStr": "KEY",
}
"""Words for types of values."""

_NO_DEFAULT = re.compile(r" \((default: (None|\(\)|)|default factory: .*)\)$")


class HelpFormatter(RawDescriptionHelpFormatter):
    """Formatter that rewrites the types and defaults which pydantic-settings takes from the fields of a model."""

    def add_usage(
        self, usage: str | None, actions: Iterable[Action], groups: Iterable[Any], prefix: str | None = None
    ) -> None:
        """Add the usage line, with words for the values of all options."""
        actions = [_reworded(action) for action in actions]
        super().add_usage(usage, actions, groups, prefix)

    def add_argument(self, action: Action) -> None:
        """Add an option with its description, with words for its values and its default."""
        super().add_argument(_reworded(action))


def _reworded(action: Action) -> Action:
    if isinstance(action.metavar, str):
        action.metavar = values_in_words(action.metavar)
    if action.help:
        action.help = default_in_words(action.help, is_size=action.metavar == _WORDS["ByteSize"])
    return action


def values_in_words(kind: str) -> str:
    """Return words for the values of a type, such as "PATH,..." for `tuple[Path,...]`. Words are left as they are."""
    if pairs := re.fullmatch(r"dict\[str,(.*)\]", kind):
        return f"NAME={values_in_words(pairs[1])},..."
    if several := re.fullmatch(r"tuple\[(.*),\.\.\.\]", kind):
        return f"{values_in_words(several[1])},..."
    return re.sub(r"\w+", lambda found: _WORDS.get(found[0], found[0]), kind)


def default_in_words(description: str, is_size: bool = False) -> str:
    """Return the description of an option with its default as a user would write it, or without an empty default."""
    description = _NO_DEFAULT.sub("", description)
    if several := re.search(r"\(default: \((.*)\)\)$", description):
        names = ",".join(re.findall(r"'([^']*)'", several[1]))
        return f"{description[: several.start()]}(default: {names})"
    if is_size and (size := re.search(r"\(default: (\d+)\)$", description)):
        return (
            f"{description[: size.start()]}(default: {ByteSize(int(size[1])).human_readable(separator=' ')})"
        )
    return description
