"""The mixed frame of ten columns."""

import numpy as np
import polars as pl


def mixed(rows: int, seed: int = 42, shift: float = 0.0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    columns = {
        "f_normal": rng.normal(shift, 1, rows),
        "f_lognormal": rng.lognormal(shift, 1, rows),
        "f_uniform": rng.random(rows) + shift,
        "f_pareto": 1 + rng.pareto(1.5, rows),
        "f_nearly_constant": np.where(rng.random(rows) < 0.999, 1.0, 1 + rng.random(rows)),
        "f_bimodal": np.where(rng.random(rows) < 0.5, rng.normal(-3, 1, rows), rng.normal(3 + shift, 0.5, rows)),
    }
    frame = pl.DataFrame(columns)
    nulls = {name: pl.when(pl.Series(rng.random(rows) >= 0.02)).then(pl.col(name)) for name in columns}
    weights = 1 / np.arange(1, 1001) ** 1.1
    names = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(rows)).clip(0, 999)
    return frame.with_columns(**nulls).with_columns(
        i_small=pl.Series(rng.integers(0, 20, rows)),
        i_id=pl.Series(rng.integers(0, 2**62, rows)),
        s_zipf="category_" + pl.Series(names).cast(pl.String),
        s_many=pl.Series(rng.integers(0, 1_000_000, rows)).cast(pl.String).str.zfill(32),
    )
