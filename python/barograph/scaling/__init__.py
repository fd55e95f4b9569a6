"""Beyond one process: the same profiles from the engines that are there already, and what monitoring may cost.

>>> from barograph.scaling import leaf, merge, read
>>> read(merge(leaf({"x": [1, 2]}), leaf({"x": [3]}))).rows
3

`leaves` is what every engine needs; `processes`, `spark`, `ray`, `dask` and `capacity` are modules of their own, imported when they are
asked for.
"""

from __future__ import annotations

from barograph.scaling.leaves import Segments, leaf, merge, read, read_segments

__all__ = ["Segments", "leaf", "merge", "read", "read_segments"]
