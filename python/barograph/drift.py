"""Current rows against a reference."""

from __future__ import annotations

import json
from typing import Literal

from barograph import _barograph
from barograph.errors import InvalidArgumentError
from barograph.frames import Frame
from barograph.profiles import Profile, profile
from barograph.references import Reference
from barograph.reports import DriftReport

__all__ = ["compare"]


def compare(
    reference: Reference | Frame,
    current: Frame | Profile,
    *,
    confidence: float = 0.99,
    unions: int = 10,
    smoothing: float = 0.5,
    dependence: bool = True,
    combination: Literal["bh", "by"] = "bh",
    psi_tolerances: tuple[float, float, float] = (0.02, 0.1, 0.25),
    share_tolerances: tuple[float, float, float] = (0.005, 0.02, 0.1),
) -> DriftReport:
    """Says which columns moved beyond a tolerance, with a stated confidence.

    reference: a `Reference`, or a frame to make one of. current: a frame, or a profile; one made with `reference=` is compared on
    its exact bins, any other on the cells of its histograms. confidence: of every test and one-sided limit; the false discovery
    rate over columns is 1 - confidence. unions: bins of the PSI test. smoothing: rows added to each of them. dependence: divide
    counts by how much rows of one window resemble each other in the reference (it must have had a column of times). combination: "by"
    where columns depend on each other in any way. Tolerances: info, warning, critical; a warning is drift.
    """
    if not isinstance(reference, Reference):
        if isinstance(reference, Profile):
            raise InvalidArgumentError("`reference` must be a Reference or a frame, got a Profile", "wrap it: `Reference(profile)`")
        reference = Reference(reference)
    if not isinstance(current, Profile):
        current = profile(current, reference=reference)
    settings = {
        "confidence": confidence,
        "unions": unions,
        "smoothing": smoothing,
        "dependence": dependence,
        "combination": combination,
        "psi_tolerances": list(psi_tolerances),
        "share_tolerances": list(share_tolerances),
    }
    return DriftReport(json.loads(_barograph.compare(reference._native, current._native, json.dumps(settings))))
