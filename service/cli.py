"""The command `rcml`: one verb a stage, in the order in which the data flows.

Every verb's options are the fields of its stage's config. A verb's own module is imported only when it runs,
so that `rcml --help` answers at once. Exit codes: 0 done, 1 refused for a reason that is printed, 2 options
that cannot be, 130 interrupted.
"""

import sys
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
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
    BuildConfig,
    CompactConfig,
    RestoreConfig,
    SnapshotConfig,
    StatsConfig,
    VerifyConfig,
)
from model import __version__
from model.config import EvaluateConfig, PrepareConfig, TrainConfig, VerbConfig
from model.errors import RcmlError
from model.malloc import keep_freed_memory
from service.problems.field_messages import field_message, place

from .settings import ENVIRONMENT_PREFIX, DemoConfig, KeyConfig, ServeConfig


class IndexVerbs(VerbConfig):
    """Make an index and look after it."""

    build: CliSubCommand[BuildConfig] = Field(description="a checkpoint and items -> an index")
    verify: CliSubCommand[VerifyConfig] = Field(description="is all of an index there and unchanged?")
    stats: CliSubCommand[StatsConfig] = Field(description="what an index holds and takes")
    compact: CliSubCommand[CompactConfig] = Field(description="changes folded into a new generation")
    snapshot: CliSubCommand[SnapshotConfig] = Field(description="a copy of an index, also while it is served")
    restore: CliSubCommand[RestoreConfig] = Field(description="an index as a snapshot of it was")


class Rcml(BaseSettings):
    """Learn natural-language relations between items from a log of purchases, and serve them over HTTP."""

    model_config = SettingsConfigDict(
        cli_prog_name="rcml",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
    )

    version: CliToggleFlag[bool] = Field(False, description="print the version and stop")
    prepare: CliSubCommand[PrepareConfig] = Field(
        description="raw items and a log -> items, relations and edges"
    )
    train: CliSubCommand[TrainConfig] = Field(description="prepared data -> a checkpoint")
    evaluate: CliSubCommand[EvaluateConfig] = Field(description="a checkpoint and prepared data -> a report")
    index: CliSubCommand[IndexVerbs] = Field(
        description="a checkpoint and items -> an index; `rcml index --help` lists its verbs"
    )
    key: CliSubCommand[KeyConfig] = Field(description="nothing -> an API key for `rcml serve`")
    serve: CliSubCommand[ServeConfig] = Field(description="an index -> answers over HTTP")
    demo: CliSubCommand[DemoConfig] = Field(description="nothing -> all of the above on a sample shop")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave the environment alone: a variable named INDEX or TRAIN is none of ours."""
        return (init_settings,)


CONFIGS: Mapping[str, type[BaseModel]] = {
    "prepare": PrepareConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "index": IndexVerbs,
    "index build": BuildConfig,
    "index verify": VerifyConfig,
    "index stats": StatsConfig,
    "index compact": CompactConfig,
    "index snapshot": SnapshotConfig,
    "index restore": RestoreConfig,
    "key": KeyConfig,
    "serve": ServeConfig,
    "demo": DemoConfig,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `rcml` with `arguments` (default: those of the process) and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        source = CliSettingsSource[Rcml](Rcml, case_sensitive=False, parse_args_method=_parse)
        command = CliApp.run(Rcml, list(arguments), cli_settings_source=source)
        if command.version:
            print(f"rcml {__version__}")
            return 0
        config = get_subcommand(command, is_required=False)
        if config is None:
            CliApp.print_help(Rcml, file=sys.stderr)
            return 2
        if isinstance(config, IndexVerbs):
            config = get_subcommand(config, is_required=False)
            if config is None:
                return _fail(2, "rcml index: name a verb. `rcml index --help` lists them.")
        keep_freed_memory()
        print(_run(config))
    except ValidationError as error:
        return _fail(2, *(_invalid_option_message(one) for one in error.errors()))
    except _UnknownArgument as error:
        return _fail(2, _unknown_argument_message(str(error), arguments))
    except SettingsError as error:
        return _fail(2, _parse_error_message(error, arguments))
    except RcmlError as error:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _run(config: object) -> str:
    """Do the work of one verb; returns its one-line summary."""
    match config:
        case PrepareConfig():
            from model.data.prepare import prepare

            return prepare(config)
        case TrainConfig():
            from model.training.train import train

            return train(config)
        case EvaluateConfig():
            from model.evaluation.evaluate import evaluate

            return evaluate(config)
        case BuildConfig():
            from .build_index import build

            return build(config)
        case VerifyConfig():
            from indexes.admin.inspection import verify

            return verify(config)
        case CompactConfig():
            from indexes.admin.inspection import compact

            return compact(config)
        case SnapshotConfig():
            from indexes.admin.backup import snapshot

            return snapshot(config)
        case RestoreConfig():
            from indexes.admin.backup import restore

            return restore(config)
        case StatsConfig():
            from indexes.admin.inspection import stats

            return stats(config)
        case KeyConfig():
            from service.middleware.api_keys import make_key

            return make_key(config)
        case ServeConfig():
            from .serve import serve

            return serve(config)
        case DemoConfig():
            from .demo import run

            return run(config)
    raise AssertionError(f"no verb has the options {config!r}")


def _fail(code: int, *lines: str) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return code


def _invalid_option_message(error: ErrorDetails) -> str:
    """Word a value that a stage's config rejected; the error's location begins with the verb."""
    verb, *path = error["loc"]
    if verb == "index":
        verb = f"index {path.pop(0)}"
    config = CONFIGS[str(verb)]
    names = [part for part in path if isinstance(part, str)]
    name = "--" + ".".join(names).replace("_", "-")
    if config is ServeConfig:
        name += f" ({ENVIRONMENT_PREFIX}{'_'.join(names).upper()})"
    return f"rcml {verb}: {field_message(error, place(config, names).field, name, 'give')}"


def _parse(parser: ArgumentParser, arguments: Sequence[str], namespace: Namespace | None = None) -> Namespace:
    """Parse `arguments` as `parser.parse_args` does, but say what is wrong in data and not in argparse's English.

    Raises:
        _UnknownArgument: nothing takes one of them.
        SettingsError: another one cannot be; its context is argparse's own error.
    """
    found, unknown = parser.parse_known_args(arguments, namespace)
    if unknown:
        raise _UnknownArgument(unknown[0].partition("=")[0])
    return found


class _UnknownArgument(Exception):
    """An argument that no verb or option takes, without its value, which may be a secret."""


def _unknown_argument_message(argument: str, arguments: Sequence[str]) -> str:
    verb = _verb(arguments)
    options = [f"--{name.replace('_', '-')}" for name in CONFIGS[verb].model_fields] if verb else []
    command = _command(verb)
    hint = _hint(argument, options)
    return f"{command}: there is no option {argument}{hint}. `{command} --help` lists those there are."


def _parse_error_message(error: SettingsError, arguments: Sequence[str]) -> str:
    """Word what the parser could not make sense of: a verb, an option without its value, or anything else."""
    verb = _verb(arguments)
    command = _command(verb)
    fault = error.__context__
    option = fault.argument_name if isinstance(fault, ArgumentError) else None
    if option is not None and not option.startswith("-"):  # what takes a verb is no option
        words = [argument for argument in arguments if not argument.startswith("-")]
        wrong = words[len(verb.split()) if verb else 0]
        known = [name.removeprefix(f"{verb} ") for name in CONFIGS if " " in name or not verb]
        return f"{command}: there is no verb {wrong}{_hint(wrong, known)}. `{command} --help` lists them."
    if option in arguments:
        _, *after = arguments[arguments.index(option) :]
        if not after or after[0].startswith("-"):
            return f"{command}: {option} needs a value. `{command} --help` says which."
    said = str(error).removeprefix("error parsing CLI: ")
    return f"{command}: {said}. `{command} --help` lists the options."


def _verb(arguments: Sequence[str]) -> str | None:
    """Find the verb that was named, if there is one."""
    verb = next((argument for argument in arguments if argument in CONFIGS), None)
    if verb == "index":
        verb = next((f"index {argument}" for argument in arguments if f"index {argument}" in CONFIGS), verb)
    return verb


def _command(verb: str | None) -> str:
    return f"rcml {verb}" if verb else "rcml"


def _hint(wrong: str, known: Sequence[str]) -> str:
    close = get_close_matches(wrong, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
