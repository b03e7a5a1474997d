"""Tests for the `rcml` command line: verbs, messages about invalid options, and imports."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_settings import CliApp

from service.cli import Rcml, main

HEAVY = {"torch", "transformers", "polars", "faiss", "sqlalchemy", "fastapi", "numpy", "sklearn", "PIL"}
VERBS = ["prepare", "backbone", "train", "evaluate", "ablate", "index", "key", "serve", "demo"]


def parse(*arguments: str) -> Rcml:
    return CliApp.run(Rcml, list(arguments))


@pytest.mark.parametrize("verb", ["", *VERBS, "index build", "backbone make"])
def test_help_imports_no_heavy_packages(verb: str) -> None:
    code = f"""
import sys
from service.cli import main
try:
    main([*{verb.split()}, "--help"])
except SystemExit as done:
    assert done.code == 0
print("LOADED", *{HEAVY} & set(sys.modules))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"usage: rcml {verb}".rstrip() in shown
    assert shown.splitlines()[-1] == "LOADED"


def test_help_lists_verbs_in_data_flow_order(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert f"{{{','.join(VERBS)}}}" in capsys.readouterr().out


def test_help_of_ablate_does_not_offer_several_domains_which_it_refuses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["ablate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "a study compares on one domain" in shown
    assert "are domains of one training" not in shown


def test_prints_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rcml 0.")


def test_shows_help_and_exits_with_2_without_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: rcml" in capsys.readouterr().err


def test_parses_options_into_stage_config() -> None:
    train = parse("train", "--prepared", "p", "--out", "o", "--small.width", "64", "--no-augment").train
    assert train is not None
    assert (train.prepared, train.small.width, train.small.text_layers) == ((Path("p"),), 64, 2)
    assert not train.augment


def test_parses_comma_separated_list() -> None:
    options = ["--items", "i", "--out", "o", "--interactions", "l", "--text-fields", "title,categories"]
    prepare = parse("prepare", *options).prepare
    assert prepare is not None
    assert prepare.text_fields == ("title", "categories")


def test_only_serve_reads_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDEX", "x")
    monkeypatch.setenv("RCML_INDEX", "from/environment")
    monkeypatch.setenv("RCML_PORT", "81")
    parsed = parse("serve", "--port", "82")
    assert parsed.serve is not None
    assert parsed.index is None
    assert (parsed.serve.index, parsed.serve.port) == (Path("from/environment"), 82)


TRAIN = ["train", "--prepared", "p", "--out", "o"]
PREPARE = ["prepare", "--items", "i", "--out", "o"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [*TRAIN, "--steps", "0"],
            '--steps must be at least 1; "0" was given. Give a whole number from 1 to 100',
        ),
        ([*TRAIN, "--steps", "many"], '--steps cannot be "many". Give a whole number from 1 to 10000000.'),
        ([*TRAIN, "--small.width", "65"], '--small.width must be a multiple of 16; "65" was given.'),
        ([*TRAIN, "--objective", "rmcl"], '--objective cannot be "rmcl". Give one of rcml, clip, blind,'),
        (
            [*TRAIN, "--stps", "3"],
            "--stps is not an option (did you mean --steps?). Run `rcml train --help` to list",
        ),
        (
            [*PREPARE, "--columns", "log.item_id=Item", "SKU,user_id=Customer"],
            "rcml prepare: SKU,user_id belongs to no option. If it is part of the value before it, put the whole value",
        ),
        (["train", "--prepared"], "--prepared needs a value."),
        (["train", "--prepared", "p"], "--out is missing. Give a path: folder to write the checkpoint to."),
        (
            PREPARE,
            "exactly one of --interactions and --edges is required. Give a log, or edges with --relation-texts.",
        ),
        (
            [*PREPARE, "--interactions", "l", "--text-fields", "title,colour"],
            '--text-fields cannot be "colour". Give a list of values (title, categories, description).',
        ),
        (
            [*PREPARE, "--interactions", "l", "--columns", "price"],
            "--columns takes pairs of a name and a value, such as NAME=VALUE,NAME=VALUE.",
        ),
        (
            [*PREPARE, "--interactions", "l", "--min-user-items", "9", "--max-user-items", "3"],
            "--min-user-items 9 is more than --max-user-items 3, so no user is left. Choose a lower minimum.",
        ),
        ([*PREPARE, "--interactions", "l", "--min-rating", "nan"], '--min-rating cannot be "nan".'),
        (
            [*PREPARE, "--interactions", "l", "--fetch-hosts", "pictures.intranet"],
            "--fetch-cache and --fetch-hosts need --fetch. Add it, or leave them out.",
        ),
        (["trian"], "trian is not a command (did you mean train?)."),
        (["index", "buidl"], "rcml index: buidl is not a command (did you mean build?)."),
        (["index"], "rcml index: no command was given."),
        (["backbone", "mkae"], "rcml backbone: mkae is not a command (did you mean make?)."),
        (["backbone", "build"], "rcml backbone: build is not a command. Run `rcml backbone --help`"),
        (["backbone"], "rcml backbone: no command was given."),
        (["backbone", "make", "--text", "t", "--out", "o"], "rcml backbone make: --image is missing."),
        (
            ["backbone", "make", "--dmi", "3"],
            "--dmi is not an option (did you mean --dim?). Run `rcml backbone make",
        ),
        (
            ["index", "build", "--knd", "flat"],
            "--knd is not an option (did you mean --kind?). Run `rcml index build",
        ),
        (["index", "verify"], "rcml index verify: --index is missing."),
        (["serve", "--index", "i", "--read-kys=secret"], "--read-kys is not an option (did you mean"),
        (
            ["serve", "--index", "i", "--cors-origins", "*"],
            "'*' is not an origin. Give only a scheme and a host, such as",
        ),
        (
            ["serve", "--index", "i", "--read-keys", "[secret"],
            "RCML_READ_KEYS starts with [ but is not a JSON list",
        ),
        (
            ["serve", "--index", "i", "--admin-keys", '["secret", 5]'],
            "RCML_ADMIN_KEYS starts with [ but is not a",
        ),
        (["serve", "--index", "i", "--port", "65536"], "--port (RCML_PORT) must be at most 65535;"),
    ],
)
def test_reports_invalid_option_in_one_line_with_remedy(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""
    assert "pydantic" not in shown.err
    assert "secret" not in shown.err


def test_prints_message_of_known_error_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", f"{tmp_path}/none", "--prepared", "p", "--out", "o"]
    assert main(["index", "build", *options]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"There is no checkpoint at {tmp_path}/none. Run `rcml train` to create it."
    ]


def test_prepare_takes_several_files_after_one_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("item_id,title\na,Mug\n")
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    rest = ["--interactions", *files, "--out", str(tmp_path / "out")]
    assert main(["prepare", "--items", *files, *rest]) == 1
    assert capsys.readouterr().err.strip().endswith(f"{files[1]} does not exist. Check the path.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["prepare", "--items", "caf\udce9/items.csv", "--interactions", "log.csv", "--out", "out"],
        ["prepare", "--items", "items.csv", "--interactions", "log.csv", "--out", "\udcff"],
        ["serve", "--index", "index", "--checkpoint", "caf\udce9/ck"],
    ],
)
def test_name_that_is_not_utf8_is_told_with_its_option(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "has a name that is not valid UTF-8. Rename" in said
    assert len(said.splitlines()) == 1


def test_error_of_the_operating_system_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", "/data/items.csv")

    monkeypatch.setattr("service.cli._run", fail)
    assert main(["index", "stats", "--index", "index"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("/data/items.csv cannot")
    assert "be used (Permission denied). Check that it exists" in said
    assert len(said.splitlines()) == 1
