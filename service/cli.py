"""The `rcml` command line: one verb (subcommand) per stage, in the order of the data flow.

The options of a verb are the fields of its config class. The module of a verb is imported only when the verb runs,
to keep `rcml --help` fast. Exit codes: 0 success, 1 error with a message, 2 invalid options, 130 interrupted, and
143 if a stage that is process 1 of a container was terminated (`serve` then ends with 0).
"""

import os
import re
import signal
import sys
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    CliSubCommand,
    CliToggleFlag,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)

from indexes.config import (
    AcceptLossConfig,
    BuildConfig,
    CompactConfig,
    RestoreConfig,
    SnapshotConfig,
    StatsConfig,
    VerifyConfig,
)
from model import __version__
from model.config import (
    AblateConfig,
    EvaluateConfig,
    MakeBackboneConfig,
    TrainConfig,
    VerbConfig,
)
from model.data.prepare_config import PrepareConfig
from model.errors import InputError, RcmlError
from model.malloc import keep_freed_memory
from model.native_path import is_utf8
from service.problems.field_messages import field_message, place

from .cli_help import HelpFormatter
from .settings import ENVIRONMENT_PREFIX, DemoConfig, KeyConfig, ServeConfig


class BackboneVerbs(VerbConfig):
    """Make a backbone to train on."""

    make: CliSubCommand[MakeBackboneConfig] = Field(
        description="make a backbone from a pretrained text tower and image tower"
    )


class IndexVerbs(VerbConfig):
    """Build and maintain an index."""

    build: CliSubCommand[BuildConfig] = Field(description="build an index from a checkpoint and items")
    verify: CliSubCommand[VerifyConfig] = Field(description="check an index for missing or changed data")
    stats: CliSubCommand[StatsConfig] = Field(description="show the contents and size of an index")
    compact: CliSubCommand[CompactConfig] = Field(description="merge the changes into a new generation")
    accept_loss: CliSubCommand[AcceptLossConfig] = Field(
        description="continue without acknowledged changes that were lost"
    )
    snapshot: CliSubCommand[SnapshotConfig] = Field(description="back up an index, even while it is served")
    restore: CliSubCommand[RestoreConfig] = Field(description="restore an index from a backup")


class Rcml(BaseSettings):
    """Learn natural-language relations between items from an interaction log, and serve retrieval over HTTP."""

    model_config = SettingsConfigDict(
        cli_prog_name="rcml",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
    )

    version: CliToggleFlag[bool] = Field(False, description="print the version and exit")
    prepare: CliSubCommand[PrepareConfig] = Field(
        description="turn raw items and an interaction log into items, relations and edges"
    )
    backbone: CliSubCommand[BackboneVerbs] = Field(
        description="make a backbone from pretrained towers; see `rcml backbone --help`"
    )
    train: CliSubCommand[TrainConfig] = Field(description="train a network on prepared data")
    evaluate: CliSubCommand[EvaluateConfig] = Field(description="evaluate a checkpoint on the test items")
    ablate: CliSubCommand[AblateConfig] = Field(
        description="train variants of a network and compare them on the test items"
    )
    index: CliSubCommand[IndexVerbs] = Field(
        description="build and maintain an index; see `rcml index --help`"
    )
    key: CliSubCommand[KeyConfig] = Field(description="create an API key for `rcml serve`")
    serve: CliSubCommand[ServeConfig] = Field(description="serve an index over HTTP")
    demo: CliSubCommand[DemoConfig] = Field(description="run every stage on a generated sample shop")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the settings sources without the environment.

        Environment variables such as INDEX or TRAIN would otherwise set the subcommands of the same names.
        """
        return (init_settings,)


CONFIGS: Mapping[str, type[BaseModel]] = {
    "prepare": PrepareConfig,
    "backbone": BackboneVerbs,
    "backbone make": MakeBackboneConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "ablate": AblateConfig,
    "index": IndexVerbs,
    "index build": BuildConfig,
    "index verify": VerifyConfig,
    "index stats": StatsConfig,
    "index compact": CompactConfig,
    "index accept-loss": AcceptLossConfig,
    "index snapshot": SnapshotConfig,
    "index restore": RestoreConfig,
    "key": KeyConfig,
    "serve": ServeConfig,
    "demo": DemoConfig,
}

GROUPS: Mapping[str, type[BaseModel]] = {"backbone": BackboneVerbs, "index": IndexVerbs}
"""Verbs that take a second verb."""


_SEVERAL = ("--items", "--interactions")
"""Options of `rcml prepare` that take several values."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `rcml` with `arguments` (default: `sys.argv[1:]`) and return the exit code."""
    arguments = _repeated(sys.argv[1:] if arguments is None else arguments)
    try:
        source = CliSettingsSource[Rcml](
            Rcml, case_sensitive=False, parse_args_method=_parse, formatter_class=HelpFormatter
        )
        command = CliApp.run(Rcml, list(arguments), cli_settings_source=source)
        if command.version:
            print(f"rcml {__version__}")
            return 0
        config = get_subcommand(command, is_required=False)
        if config is None:
            CliApp.print_help(Rcml, file=sys.stderr)
            return 2
        for verb, group in GROUPS.items():
            if isinstance(config, group):
                config = get_subcommand(config, is_required=False)
                if config is None:
                    return _fail(
                        2,
                        f"rcml {verb}: no command was given. Run `rcml {verb} --help` to list the commands.",
                    )
        _refuse_unreadable_names(config)
        if os.getpid() == 1:
            _end_on_sigterm()
        keep_freed_memory()
        print(_run(config).encode(errors="surrogateescape").decode(errors="replace"))
    except ValidationError as error:
        return _fail(2, *(_invalid_option_message(one) for one in error.errors()))
    except _UnknownArgument as error:
        return _fail(2, _unknown_argument_message(str(error), arguments))
    except SettingsError as error:
        return _fail(2, _parse_error_message(error, arguments))
    except RcmlError as error:
        return _fail(1, str(error))
    except OSError as error:
        return _fail(1, _os_error_message(error))
    except KeyboardInterrupt:
        return _fail(130, "Interrupted.")
    return 0


def _end_on_sigterm() -> None:
    """Let SIGTERM end process 1 of a container, where the kernel ignores signals that have no handler.

    `serve` installs a handler of its own while it runs.
    """
    code = 128 + signal.SIGTERM  # as a shell reports it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))


def _refuse_unreadable_names(config: object) -> None:
    """Refuse a path whose name is not valid UTF-8, because torch, polars and others cannot open it.

    The folder of an index may have such a name.

    Raises:
        InputError: an option names such a path.
    """
    assert isinstance(config, BaseModel)
    for name in type(config).model_fields:
        value = getattr(config, name)
        paths = value if isinstance(value, tuple) else (value,)
        for path in paths if name != "index" else ():
            if isinstance(path, Path) and not is_utf8(path):
                raise InputError(
                    f"--{name.replace('_', '-')} {str(path)!r} has a name that is not valid UTF-8. Rename the file or "
                    "folder, or make a symbolic link to it whose name has only letters and digits."
                )


def _run(config: object) -> str:
    """Run the verb that `config` belongs to and return its one-line summary."""
    match config:
        case PrepareConfig():
            from model.data.prepare import prepare

            return prepare(config)
        case MakeBackboneConfig():
            from model.network.make_backbone import make_backbone

            return make_backbone(config)
        case TrainConfig():
            from model.training.train import train

            return train(config)
        case EvaluateConfig():
            from model.evaluation.evaluate import evaluate

            return evaluate(config)
        case AblateConfig():
            from model.experiments.ablate import ablate

            return ablate(config)
        case BuildConfig():
            from .build_index import build

            return build(config)
        case (
            VerifyConfig()
            | CompactConfig()
            | AcceptLossConfig()
            | SnapshotConfig()
            | RestoreConfig()
            | StatsConfig()
        ):
            return _run_on_index(config)
        case KeyConfig():
            from service.middleware.api_keys import make_key

            return make_key(config)
        case ServeConfig():
            from .serve import serve

            return serve(config)
        case DemoConfig():
            from .demo import run

            return run(config)
    raise AssertionError(f"no verb uses the config {config!r}")


def _run_on_index(
    config: VerifyConfig | CompactConfig | AcceptLossConfig | SnapshotConfig | RestoreConfig | StatsConfig,
) -> str:
    """Run a verb that works on an existing index, and return its one-line summary."""
    match config:
        case VerifyConfig():
            from indexes.admin.inspection import verify

            return verify(config)
        case CompactConfig():
            from indexes.admin.inspection import compact

            return compact(config)
        case SnapshotConfig():
            from indexes.admin.backup import snapshot

            return snapshot(config)
        case AcceptLossConfig():
            from indexes.admin.accept_loss import accept_loss

            return accept_loss(config)
        case RestoreConfig():
            from indexes.admin.backup import restore

            return restore(config)
        case StatsConfig():
            from indexes.admin.inspection import stats

            return stats(config)


def _fail(code: int, *lines: str) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return code


def _os_error_message(error: OSError) -> str:
    """Describe an error of the operating system that no stage has described, such as a file that cannot be read."""
    named = " and ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if name)
    reason = error.strerror or str(error) or type(error).__name__
    return (
        f"{named or 'A file or a connection'} cannot be used ({reason}). Check that it exists, that this user may read "
        "and write it, and that the disk has room. Then run the command again."
    )


def _invalid_option_message(error: ErrorDetails) -> str:
    """Describe an option value that a config class rejected; the error location starts with the verb."""
    verb, *path = error["loc"]
    if verb in GROUPS:
        verb = f"{verb} {path.pop(0)}"
    config = CONFIGS[str(verb)]
    names = [part for part in path if isinstance(part, str)]
    name = "--" + ".".join(names).replace("_", "-")
    if config is ServeConfig:
        name += f" ({ENVIRONMENT_PREFIX}{'_'.join(names).upper()})"
    return f"rcml {verb}: {field_message(error, place(config, names).field, name, 'give')}"


def _repeated(arguments: Sequence[str]) -> list[str]:
    """Return `arguments` of `rcml prepare` with an option repeated for each value, as from `part-*.csv`."""
    if list(arguments[:1]) != ["prepare"]:
        return list(arguments)
    repeated: list[str] = []
    option, values = "", 0
    for argument in arguments:
        if argument.startswith("-"):
            option, values = argument, 0
        elif option in _SEVERAL:
            values += 1
            repeated += [option] if values > 1 else []
        repeated.append(argument)
    return repeated


def _parse(parser: ArgumentParser, arguments: Sequence[str], namespace: Namespace | None = None) -> Namespace:
    """Parse `arguments` like `parser.parse_args`, but raise `_UnknownArgument` for the first argument that is unknown.

    Raises:
        _UnknownArgument: no verb or option accepts one of the arguments.
        SettingsError: an argument is invalid for another reason; `__context__` is the error of argparse.
    """
    found, unknown = parser.parse_known_args(arguments, namespace)
    if unknown:
        raise _UnknownArgument(unknown[0].partition("=")[0])
    return found


class _UnknownArgument(Exception):
    """An argument that no verb or option accepts; its value is omitted, because it may be a secret."""


def _unknown_argument_message(argument: str, arguments: Sequence[str]) -> str:
    verb = _verb(arguments)
    options = [f"--{name.replace('_', '-')}" for name in CONFIGS[verb].model_fields] if verb else []
    command = _command(verb)
    if not argument.startswith("-"):
        return (
            f"{command}: {argument} belongs to no option. If it is part of the value before it, put the whole value in "
            f"quotes. Run `{command} --help` to list the options."
        )
    hint = _hint(argument, options)
    return f"{command}: {argument} is not an option{hint}. Run `{command} --help` to list the options."


def _parse_error_message(error: SettingsError, arguments: Sequence[str]) -> str:
    """Describe a parser error: an unknown verb, an option without a value, or any other error."""
    verb = _verb(arguments)
    command = _command(verb)
    fault = error.__context__
    option = fault.argument_name if isinstance(fault, ArgumentError) else None
    if option is not None and not option.startswith("-"):  # the argument that takes a verb
        words = [argument for argument in arguments if not argument.startswith("-")]
        wrong = words[len(verb.split()) if verb else 0]
        known = [name.removeprefix(f"{verb} ") for name in CONFIGS if not verb or name.startswith(f"{verb} ")]
        return f"{command}: {wrong} is not a command{_hint(wrong, known)}. Run `{command} --help` to list the commands."
    if option in arguments:
        _, *after = arguments[arguments.index(option) :]
        if not after or after[0].startswith("-"):
            return (
                f"{command}: {option} needs a value. Run `{command} --help` to see which values it accepts."
            )
    said = str(error).removeprefix("error parsing CLI: ")
    pairs = re.fullmatch(r"Parsing error encountered for [\w.]*?(\w+): not enough values to unpack .*", said)
    if pairs:
        said = (
            f"--{pairs[1].replace('_', '-')} takes pairs of a name and a value, such as NAME=VALUE,NAME=VALUE"
        )
    return f"{command}: {said}. Run `{command} --help` to list the options."


def _verb(arguments: Sequence[str]) -> str | None:
    """Return the verb named in `arguments`, or None if they name no verb."""
    verb = next((argument for argument in arguments if argument in CONFIGS), None)
    if verb in GROUPS:
        verb = next((f"{verb} {argument}" for argument in arguments if f"{verb} {argument}" in CONFIGS), verb)
    return verb


def _command(verb: str | None) -> str:
    return f"rcml {verb}" if verb else "rcml"


def _hint(wrong: str, known: Sequence[str]) -> str:
    close = get_close_matches(wrong, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
