"""`barograph store`: the data folder of a sidecar that is not running."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barograph import _barograph
from barograph.errors import InvalidArgumentError

if TYPE_CHECKING:
    import polars as pl

_PART_BYTES = 64 << 20
"""Snapshots and sketches of one Parquet file of profiles, about."""


def run(options: argparse.Namespace) -> int:
    """Runs one of the commands and gives its exit code."""
    stated = {name: getattr(options, name) for name in ("config", "data")}
    nothing: dict[str, Any] = {"listen": [], "health_listen": None, "token_file": None, "statsd": None, "test_alert": False}
    folder = json.dumps({**nothing, **stated})
    if options.what == "check":
        return _check(folder, options.json)
    if options.what == "compact":
        before, after = _barograph.store_compact(folder)
        print(f"{before:,} bytes before, {after:,} after")
    elif options.what == "export":
        if (options.folder is None) == (options.postgres is None):
            raise InvalidArgumentError("`store export` needs either DIR or --postgres ADDRESS")
        if options.postgres is None:
            _export(folder, Path(options.folder), options.model)
        else:
            _export_to_database(folder, options.postgres, options.schema or "barograph", options.model)
    else:
        _erase(folder, options.model, options.id, options.yes)
    return 0


def _check(folder: str, as_json: bool) -> int:
    text = _barograph.store_check(folder)
    found = json.loads(text)
    if as_json:
        print(text)
    else:
        heads = ["model", "state", "events", "labels", "alerts", "waiting", "bytes"]
        rows = [[str(model[head]) if isinstance(model[head], str) else f"{model[head]:,}" for head in heads] for model in found["models"]]
        widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
        for row in [[head.upper() for head in heads], *rows]:
            cells = zip(row, widths, range(len(heads)), strict=True)
            print("  ".join(text.ljust(width) if at < 2 else text.rjust(width) for text, width, at in cells))
        print(f"{found['bytes']:,} bytes, {found['audit']:,} rows of the audit log")
        for line in found["damage"]:
            print(f"damage: {line}")
        if not found["damage"]:
            print("no damage")
    return 1 if found["damage"] else 0


def _erase(folder: str, model: str, id: str | None, certain: bool) -> None:
    if id is None:
        if not certain:
            raise InvalidArgumentError(f"this forgets the whole model {model!r}", "say --yes, or name an --id")
        _barograph.store_erase(folder, model)
        print(f"{model} is forgotten")
        return
    try:
        known = json.loads(id)
    except ValueError:
        known = id
    if isinstance(known, bool) or not isinstance(known, int | str):
        known = id
    _barograph.store_erase(folder, model, json.dumps(known))
    print(f"what was held for {json.dumps(known)} is forgotten")


def _models(store: _barograph.Store, model: str | None) -> Iterator[str]:
    """Names of the models that have something to export; those that have nothing are told."""
    names = store.names()
    if model is not None and model not in names:
        raise InvalidArgumentError(f"there is no model {model!r}", f"the folder has {', '.join(names)}")
    for name in [model] if model is not None else names:
        if store.reference(name) is None:
            print(f"{name}: it learns; there is nothing to export yet")
        else:
            yield name


def _export(folder: str, to: Path, model: str | None) -> None:
    from barograph.reports import alerts_frame, rows_frame

    if to.exists() and any(to.iterdir()):
        raise InvalidArgumentError(f"`DIR` must be a folder that is new or empty, {to} holds files")
    store = _barograph.Store(folder)
    for name in _models(store, model):
        place = to / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "reference.bin").write_bytes(store.reference(name) or b"")
        history, alerts = rows_frame(json.loads(store.history(name))), alerts_frame(json.loads(store.alerts(name)))
        history.write_parquet(place / "history.parquet")
        alerts.write_parquet(place / "alerts.parquet")
        tiles = 0
        for number, (profiles, columns) in enumerate(_parts(store, name)):
            profiles.write_parquet(place / f"profiles-{number:05}.parquet")
            columns.write_parquet(place / f"columns-{number:05}.parquet")
            tiles += len(profiles)
        _told(name, len(history), len(alerts), tiles)


def _export_to_database(folder: str, address: str, schema: str, model: str | None) -> None:
    from barograph.postgres import Tables
    from barograph.reports import alerts_frame, rows_frame

    with Tables(address, schema) as tables:
        store = _barograph.Store(folder)
        for name in _models(store, model):
            single = [("history", rows_frame(json.loads(store.history(name)))), ("alerts", alerts_frame(json.loads(store.alerts(name))))]
            several = (part for parts in _parts(store, name) for part in zip(("profiles", "columns"), parts, strict=True))
            counts = tables.replace(name, chain(single, several))
            _told(name, counts["history"], counts["alerts"], counts["profiles"])


def _told(name: str, history: int, alerts: int, tiles: int) -> None:
    print(f"{name}: {history:,} rows of history, {alerts:,} changes of alerts, {tiles:,} profiles")


def _parts(store: _barograph.Store, model: str) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Profiles and their columns, in frames of a bounded size."""
    import polars as pl

    from barograph.profiles import Profile

    time, size = -(1 << 63), 0
    profiles: list[dict[str, Any]] = []
    columns: list[pl.DataFrame] = []
    window = {"window_start": pl.Datetime("ns", "UTC"), "window_end": pl.Datetime("ns", "UTC")}
    while (tile := store.next_tile(model, time)) is not None:
        start, end, snapshot = tile
        profile = Profile.from_bytes(snapshot)
        profiles.append({"window_start": start, "window_end": end, "rows": profile.rows, "profile": snapshot})
        sketches = [(profile[name].kll(), profile[name].frequent_items()) for name in profile]
        both = {"kll": [kll for kll, _ in sketches], "frequent_items": [items for _, items in sketches]}
        columns.append(
            pl.concat(
                [
                    pl.select(pl.lit(moment).repeat_by(len(profile)).explode().cast(dtype).alias(name))
                    for moment, (name, dtype) in zip((start, end), window.items(), strict=True)
                ]
                + [profile.to_frame(), pl.DataFrame(both, schema=dict.fromkeys(both, pl.Binary()))],
                how="horizontal",
            )
        )
        size += len(snapshot) + sum(len(data) for data in (*both["kll"], *both["frequent_items"]) if data is not None)
        if size > _PART_BYTES:
            yield _frame(profiles), pl.concat(columns)
            profiles, columns, size = [], [], 0
        time = start + 1
    if profiles:
        yield _frame(profiles), pl.concat(columns)


def _frame(profiles: list[dict[str, Any]]) -> pl.DataFrame:
    import polars as pl

    schema = {"window_start": pl.Int64(), "window_end": pl.Int64(), "rows": pl.Int64(), "profile": pl.Binary()}
    return pl.DataFrame(profiles, schema=schema).with_columns(pl.col("window_start", "window_end").cast(pl.Datetime("ns", "UTC")))
