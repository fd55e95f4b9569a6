"""`barograph plan`: what a budget buys, before it is spent."""

from __future__ import annotations

import argparse
import json
import sys

from barograph.errors import InvalidArgumentError
from barograph.scaling.budget import SHIPPED, measure_costs, plan

__all__ = ["run"]

_POSSIBLE, _IMPOSSIBLE = 0, 2


def run(options: argparse.Namespace) -> int:
    """Plans and prints; gives the exit code."""
    made = plan(
        options.rows,
        _columns(options.columns),
        cpu=options.cpu,
        memory=options.memory,
        disk=options.disk,
        wire=options.wire,
        segments=options.segments,
        days=options.days,
        window=options.window,
        rows_per_batch=options.batch,
        home=options.home,
        sampling=not options.no_sampling,
        costs=measure_costs() if options.measure else SHIPPED,
    )
    if options.json:
        print(json.dumps(made.to_dict(), ensure_ascii=False, allow_nan=False))
    elif options.toml:
        print(made.to_toml(), end="")
    else:
        print(made)
    if options.json or options.toml:
        # Else it stands in what was printed.
        for line in [*(f"impossible: {reason}" for reason in made.reasons), *(f"possible: {way}" for way in made.instead)]:
            print(f"barograph: {line}", file=sys.stderr)
    return _POSSIBLE if made.possible else _IMPOSSIBLE


def _columns(text: str) -> int | dict[str, int]:
    """A number of columns, or `number=40,category=10`."""
    try:
        if "=" not in text:
            return int(text)
        pairs = [part.partition("=") for part in text.split(",")]
        return {kind.strip(): int(count) for kind, _, count in pairs}
    except ValueError:
        raise InvalidArgumentError(
            f"`--columns` must be a number or counts by kind, got {text!r}", "such as number=40,category=10"
        ) from None
