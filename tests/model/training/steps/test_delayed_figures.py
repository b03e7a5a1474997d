"""Tests of delayed figures: what is read later is what the device had computed then."""

import torch

from model.training.steps.delayed_figures import DelayedFigures


def test_figures_are_those_of_their_step_although_later_steps_write_into_same_memory() -> None:
    loss, norm = torch.tensor(1.5), torch.tensor(2.5)
    figures = DelayedFigures(loss, norm)
    loss.fill_(7.0)
    norm.fill_(float("nan"))
    assert figures.read() == (1.5, 2.5)
