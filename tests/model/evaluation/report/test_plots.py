"""The plots show the figures of `report.json`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.evaluation.report.plots import NETWORK_COLOURS, draw_plots

from .contents import report

NETWORKS = report(rcml=0.6, clip=0.3, blind=0.5, siglip=0.4, unicl=0.35, declip=0.42, against=0.45)


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    draw_plots(NETWORKS, folder)
    return folder


def coloured(picture: Path, colour: str) -> int:
    rgb = tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return int((np.asarray(Image.open(picture).convert("RGB")) == rgb).all(axis=2).sum())


@pytest.mark.parametrize("name", ["hit_at_5.png", "tasks.png"])
def test_bar_sizes_are_proportional_to_figures(name: str, plots: Path) -> None:
    rcml, clip, blind = (
        coloured(plots / name, NETWORK_COLOURS[network]) for network in ("rcml", "clip", "blind")
    )
    assert rcml > blind > clip > 5000
    if name == "hit_at_5.png":
        assert rcml / clip == pytest.approx(2.0, abs=0.3)


def test_reliability_plot_has_a_panel_per_network(plots: Path) -> None:
    for colour in NETWORK_COLOURS.values():
        assert coloured(plots / "reliability.png", colour) > 500


def test_plots_of_equal_reports_are_byte_identical(plots: Path, tmp_path: Path) -> None:
    draw_plots(NETWORKS, tmp_path)
    for name in ("hit_at_5.png", "tasks.png", "reliability.png"):
        assert (tmp_path / name).read_bytes() == (plots / name).read_bytes()
