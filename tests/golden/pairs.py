"""Real column pairs: the rows of a reference and of what is compared with it."""

from datetime import datetime
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl

HERE = Path(__file__).parent


def _flights(column: str, month: int) -> tuple[pl.Series, pl.Series]:
    frame = pl.read_parquet(str(files("barograph") / "data" / "flights_nyc_2013.parquet"))
    time = pl.col("prediction_timestamp")
    frame = frame.with_columns(sched_dep_hour=time.dt.hour().cast(pl.Int32))
    reference = frame.filter(time.is_between(datetime(2013, 3, 1), datetime(2013, 5, 1), closed="left"))
    current = frame.filter(time.is_between(datetime(2013, month, 1), datetime(2013, month + 1, 1), closed="left"))
    return reference[column], current[column]


def _halves(table: str, column: str) -> tuple[pl.Series, pl.Series]:
    series = pl.read_parquet(HERE / "data" / f"{table}.parquet")[column]
    return series[: len(series) // 2], series[len(series) // 2 :]


def _rows(table: str, *columns: str) -> tuple[np.ndarray, np.ndarray]:
    rows = pl.read_parquet(HERE / "data" / f"{table}.parquet").select(columns).drop_nulls().to_numpy().astype(float)[:5000]
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def _correlated(rho: float) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.random.default_rng(1).normal(size=(2, 2000, 3))
    b[:, 1] = rho * b[:, 0] + np.sqrt(1 - rho**2) * b[:, 1]
    return a, b


NUMBERS = {
    "flights dep_delay_min, April to July": lambda: _flights("dep_delay_min", 7),
    "flights dep_delay_min, April to September": lambda: _flights("dep_delay_min", 9),
    "flights distance_mi, April to July": lambda: _flights("distance_mi", 7),
    "flights sched_dep_hour, April to November": lambda: _flights("sched_dep_hour", 11),
    "car loan car_value": lambda: _halves("nannyml_car_loan", "car_value"),
    "car loan debt_to_income_ratio": lambda: _halves("nannyml_car_loan", "debt_to_income_ratio"),
    "car loan y_score": lambda: _halves("nannyml_car_loan", "y_score"),
    "titanic age": lambda: _halves("nannyml_titanic", "age"),
    "titanic fare": lambda: _halves("nannyml_titanic", "fare"),
    "image segments hue_mean": lambda: _halves("river_image_segments", "hue_mean"),
    "image segments rawred_mean": lambda: _halves("river_image_segments", "rawred_mean"),
}
NAMES = {
    "flights carrier, April to July": lambda: _flights("carrier", 7),
    "flights dest, April to July": lambda: _flights("dest", 7),
    "flights origin, April to November": lambda: _flights("origin", 11),
    "car loan salary_range": lambda: _halves("nannyml_car_loan", "salary_range"),
    "car loan size_of_downpayment": lambda: _halves("nannyml_car_loan", "size_of_downpayment"),
    "titanic sex": lambda: _halves("nannyml_titanic", "sex"),
    "image segments category": lambda: _halves("river_image_segments", "category"),
}
ROWS = {
    "image segments": lambda: _rows("river_image_segments", "hue_mean", "rawred_mean"),
    "car loan": lambda: _rows("nannyml_car_loan", "car_value", "debt_to_income_ratio", "loan_length", "y_score"),
    "no correlation against 0.5": lambda: _correlated(0.5),
    "the same law": lambda: _correlated(0.0),
}
