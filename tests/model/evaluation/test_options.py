"""Options of `rcml evaluate`: one checkpoint or several, from Python and from the command line."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from model.config import EvaluateConfig
from service.cli import main

ELSEWHERE = {"prepared": Path("prepared"), "out": Path("out")}


def test_one_folder_and_several_are_accepted() -> None:
    one = EvaluateConfig(checkpoint=Path("a"), **ELSEWHERE)
    several = EvaluateConfig(checkpoint=["a", Path("b")], blind="c", **ELSEWHERE)
    assert (one.checkpoint, one.blind, one.against) == ((Path("a"),), (), ())
    assert (several.checkpoint, several.blind) == ((Path("a"), Path("b")), (Path("c"),))
    assert EvaluateConfig.model_validate_json(several.model_dump_json()) == several


def test_at_least_one_checkpoint_is_required() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        EvaluateConfig(checkpoint=(), **ELSEWHERE)


@pytest.mark.parametrize(
    "options",
    [["--checkpoint", "FIRST,SECOND"], ["--checkpoint", "FIRST", "--checkpoint", "SECOND"]],
    ids=["commas", "repeated"],
)
def test_command_line_takes_several_checkpoints(
    options: list[str],
    checkpoints: dict[str, Path],
    prepared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = {"FIRST": str(checkpoints["rcml"]), "SECOND": str(tmp_path / "absent")}
    arguments = [
        option.replace("FIRST", folders["FIRST"]).replace("SECOND", folders["SECOND"]) for option in options
    ]
    code = main(["evaluate", *arguments, "--prepared", str(prepared), "--out", str(tmp_path / "report")])
    assert code == 1
    assert folders["SECOND"] in capsys.readouterr().err
