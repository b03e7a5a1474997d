"""The plots of all systems show the figures of `report.json`."""

from pathlib import Path

import pytest

from model.evaluation.report.plots import NETWORK_COLOURS
from model.evaluation.report.system_plots import SYSTEM_COLOURS, draw_system_plots

from .contents import report
from .test_plots import coloured


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    draw_system_plots(report(rcml=0.8, blind=0.4), folder)
    return folder


@pytest.mark.parametrize("name", ["retrieval.png", "relation_type.png", "sensitivity.png"])
def test_bars_are_proportional_to_figures(name: str, plots: Path) -> None:
    rcml, blind = (coloured(plots / name, SYSTEM_COLOURS[network]) for network in ("rcml", "blind"))
    assert rcml / blind == pytest.approx(2.0, abs=0.25)
    assert coloured(plots / name, SYSTEM_COLOURS["membership"]) > 500


def test_validity_shows_networks_only(plots: Path) -> None:
    assert coloured(plots / "validity.png", SYSTEM_COLOURS["rcml"]) > 500
    assert coloured(plots / "validity.png", SYSTEM_COLOURS["membership"]) == 0


def test_each_system_has_its_own_colour_in_all_plots() -> None:
    assert len(set(SYSTEM_COLOURS.values())) == len(SYSTEM_COLOURS)
    assert SYSTEM_COLOURS.items() >= NETWORK_COLOURS.items()


def test_plots_of_equal_reports_are_byte_identical(plots: Path, tmp_path: Path) -> None:
    draw_system_plots(report(rcml=0.8, blind=0.4), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["relation_type.png", "retrieval.png", "sensitivity.png", "validity.png"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (plots / name).read_bytes()
