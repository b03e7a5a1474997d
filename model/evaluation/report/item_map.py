"""Maps of items under one relation beside the same items without a relation (t-SNE, van der Maaten & Hinton 2008)."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from model.data.pictures.thumbnails import thumbnail

from .examples import MAX_MAPPED, OTHER, MappedItems
from .system_plots import WIDTH, new_figure, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUP_COLOURS = ("#2a6f97", "#e9a03b", "#5b8c5a", "#c8553d", "#8d6a9f", "#3fb0ac", "#b5838d", "#6b4f3a")

OTHER_COLOUR = "#c9c5bd"

MIN_ITEMS = 5
"""Minimum number of items for a map."""

PERPLEXITY = 30
"""Maximum perplexity; with few items it is a third of their number."""

MIN_SIDE, MAX_SIDE = 28, 40
"""Least and largest side of a picture on a map in pixels; the fewer items there are, the larger it is."""

CANVAS = 880
"""Side of a map of pictures in pixels."""


def draw_item_maps(mapped: MappedItems, folder: Path, seed: int) -> tuple[str, ...]:
    """Write item_map.png and, if there are pictures, picture_map.png; return the names of the files written."""
    if len(mapped.items) < MIN_ITEMS:
        return ()
    maps = {
        "without a relation": layout(mapped.unconditioned, seed),
        f"under {mapped.relation_id}": layout(mapped.conditioned, seed),
    }
    _draw_points(maps, mapped, folder / "item_map.png")
    side = round(min(MAX_SIDE, MIN_SIDE * (MAX_MAPPED / len(mapped.items)) ** 0.5))
    pictures = [thumbnail(item.picture, side) for item in mapped.items]
    if not any(pictures):
        return ("item_map.png",)
    _draw_pictures(maps, mapped, pictures, side, folder / "picture_map.png")
    return ("item_map.png", "picture_map.png")


def layout(vectors: Float[ndarray, "items dim"], seed: int) -> Float[ndarray, "items 2"]:
    """Place items on a plane so that similar items are close, scaled to [0, 1]. The same seed gives the same places."""
    from sklearn.manifold import TSNE

    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    left, strength, _ = np.linalg.svd(centred, full_matrices=False)
    start = left[:, :2] * strength[:2]
    # scikit-learn's own initialisation divides by zero if all vectors are equal.
    start = start / max(float(start[:, 0].std()), 1e-12) * 1e-4
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    places = TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=seed).fit_transform(
        vectors
    )
    least, most = places.min(axis=0), places.max(axis=0)
    return np.asarray((places - least) / np.maximum(most - least, 1e-12), dtype=np.float64)


def group_colours(group: tuple[str, ...]) -> dict[str, str]:
    """Return the colour of each category, the most frequent first and `OTHER` last."""
    names = sorted(set(group) - {OTHER}, key=lambda name: (-group.count(name), name))
    colours = dict(zip(names, GROUP_COLOURS, strict=False))
    return colours | ({OTHER: OTHER_COLOUR} if OTHER in group else {})


def _draw_points(maps: dict[str, Float[ndarray, "items 2"]], mapped: MappedItems, path: Path) -> None:
    colours = group_colours(mapped.group)
    legend_rows = -(-len(colours) // 3)
    figure = new_figure(WIDTH / 2 + 0.3 + 0.22 * legend_rows)
    for axes, (title, places) in zip(figure.subplots(1, 2), maps.items(), strict=True):
        for name, colour in colours.items():
            own = [row for row, group in enumerate(mapped.group) if group == name]
            axes.scatter(*places[own].T, s=16, color=colour, linewidths=0, label=plain(name), alpha=0.9)
        _bare(axes, title)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, ncols=3, frameon=False, loc="outside lower center", fontsize=8.5, handletextpad=0.1
    )
    save(figure, path)


def _draw_pictures(
    maps: dict[str, Float[ndarray, "items 2"]],
    mapped: MappedItems,
    pictures: list[Image.Image | None],
    side: int,
    path: Path,
) -> None:
    colours = group_colours(mapped.group)
    figure = new_figure(2 * WIDTH + 0.4)
    for axes, (title, places) in zip(figure.subplots(2, 1), maps.items(), strict=True):
        canvas = Image.new("RGB", (CANVAS, CANVAS), "white")
        # Rows of a picture count from the top, the places from the bottom.
        corners = np.rint(np.abs(places - (0, 1)) * (CANVAS - side)).astype(int).tolist()
        for (x, y), picture, group in zip(corners, pictures, mapped.group, strict=True):
            if picture is None:
                canvas.paste(colours[group], (x + 10, y + 10, x + side - 10, y + side - 10))
            else:
                canvas.paste(picture, (x, y))
        axes.imshow(np.asarray(canvas))
        _bare(axes, title)
    save(figure, path)


def _bare(axes: "Axes", title: str) -> None:
    """Draw no axes: the places of a t-SNE map have no unit."""
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.set_title(plain(title), loc="left", fontsize=10)
    axes.spines[:].set_color("#dedbd4")
