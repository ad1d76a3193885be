"""Snapshots as pictures: latents and codes in the plane of the latents' first two principal components."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...diagnostics.recording.recent import Recent
from ...diagnostics.recording.snapshots import Snapshot, read_snapshot, snapshot_steps
from ...diagnostics.run import RunDirectory
from ..page.sections import Panel
from ..page.style import DEAD, LIVE, few_ticks, theme
from ..page.words import counted

Points = NDArray[np.floating]


def snapshot_panels(run: RunDirectory, codebook: str, end: Recent | None) -> Iterator[Panel]:
    """Latents and codes, at the first snapshot and at the last one.

    Args:
        run: The run.
        codebook: One of its codebooks.
        end: Its last records, which say what codes had no hit; None where there are none, or not of every code: those
            that each sample uses are drawn.

    Raises:
        InputError: A snapshot cannot be read.
    """
    folder = run.snapshots / codebook
    steps = snapshot_steps(folder)
    taken = [read_snapshot(folder, step) for step in dict.fromkeys(steps[:1] + steps[-1:])]
    planes = [Plane(snapshot) for snapshot in taken if len(snapshot.latents) > 2]
    if not planes:
        return
    shown = " and ".join(f"after {counted(plane.snapshot.step, 'step')}" for plane in planes)
    if end is None or taken[0].codes is None or len(taken[0].codes) != len(end.hits):
        end, codes = None, "points are the codes that this sample uses"
    else:
        unused = f"{int(end.unused.sum()):,} codes of {len(end.hits):,}"
        codes = f"triangles are the {unused} without a hit in {end}, points the others"
    share = " and ".join(f"{100 * plane.share:.0f} %" for plane in planes)
    yield Panel(
        f"{codebook}-snapshot",
        "Latents and codes, seen from above",
        f"{len(taken[-1].latents):,} latents (grey) and the codebook {shown}, in the plane of the latents' first two"
        f" principal components, which hold {share} of their variance; {codes}. Codes away from the grey cloud, or"
        " in a heap within it, are codes that no latent chooses; what lies apart in other dimensions is not seen here.",
        clouds(planes, end),
        wide=len(planes) > 1,
    )


class Plane:
    """The plane of a snapshot: the first two principal components of its latents."""

    def __init__(self, snapshot: Snapshot):
        self.snapshot = snapshot
        self.centre = snapshot.latents.mean(0)
        _, values, self.axes = np.linalg.svd(snapshot.latents - self.centre, full_matrices=False)
        parts = np.square(values, dtype=np.float64)
        self.share = float(parts[:2].sum() / max(parts.sum(), 1e-30))

    def place(self, points: Points) -> Points:
        """(n, 2) where points (n, D) lie in it; latents of one dimension lie on a line."""
        flat = (points - self.centre) @ self.axes[:2].T
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


@theme()
def clouds(planes: list[Plane], end: Recent | None) -> Figure:
    """One square per plane, the latents grey, codes with hits as points and those without one as triangles."""
    figure = Figure(figsize=(5.2 * len(planes) + 0.4, 5.4), layout="constrained")
    panes = figure.subplots(1, len(planes), squeeze=False)[0]
    for axes, plane in zip(panes, planes, strict=True):
        _draw_plane(axes, plane, end)
    handles, labels = panes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", markerscale=1.5)
    return figure


def _draw_plane(axes: Axes, plane: Plane, end: Recent | None) -> None:
    snapshot = plane.snapshot
    look = {"linewidths": 0, "rasterized": True}
    axes.scatter(*plane.place(snapshot.latents).T, s=9, color="#9a9a9a", alpha=0.5, label="latents", **look)
    if end is None or snapshot.codes is None:
        codes = {"codes in use": (np.unique(snapshot.assigned, axis=0), LIVE, "o")}
    else:
        unused, used = (f"codes {name}" if " " in name else f"{name} codes" for name in end.names)
        codes = {unused: (snapshot.codes[end.unused], DEAD, "^"), used: (snapshot.codes[~end.unused], LIVE, "o")}
    size = float(np.clip(8000 / max(1, sum(len(points) for points, _, _ in codes.values())), 6, 26))
    for name, (points, colour, marker) in sorted(codes.items(), key=lambda item: -len(item[1][0])):  # few ones on top
        if len(points):
            axes.scatter(*plane.place(points).T, s=size, color=colour, marker=marker, alpha=0.8, label=name, **look)
    axes.set_title(f"after {counted(snapshot.step, 'step')}", loc="left")
    axes.set_xlabel("first component (latent units)")
    axes.set_ylabel("second component (latent units)")
    axes.set_aspect("equal", adjustable="datalim")
    few_ticks(axes.xaxis)
    few_ticks(axes.yaxis)
