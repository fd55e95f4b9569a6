"""Two months of flights: which columns moved, and by how much?"""

from importlib.resources import files

import barograph as bg
import polars as pl

flights = pl.scan_parquet(str(files("barograph") / "data" / "flights_nyc_2013.parquet"))
month = pl.col("prediction_timestamp").dt.month()

schema = bg.Schema.infer(flights).with_roles(y_true="label")
reference = bg.Reference(flights.filter(month == 4), schema=schema)
report = bg.compare(reference, flights.filter(month == 9))

print(report)
moved = report.to_frame().filter(pl.col("verdict").is_in(["warning", "critical"]))
print(moved.select("column", "method", "value", "lower", "upper", "reason"))
