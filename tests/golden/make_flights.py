"""Makes the demo's flights from a table with more columns: `python make_flights.py SOURCE TARGET`."""

import sys

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

PLAIN = ("flight_id", "prediction_timestamp")


def main(source: str, target: str) -> None:
    small = {"flight_id": pl.Int32, "distance_mi": pl.Int16, "dep_delay_min": pl.Int16, "air_time_min": pl.Int16, "y_true": pl.Int8}
    names = ["flight_id", "prediction_timestamp", "carrier", "origin", "dest", *list(small)[1:]]
    frame = pl.read_parquet(source).sort("prediction_timestamp", "flight_id").select(names).cast(small)
    text = {name: pa.string() for name in ("carrier", "origin", "dest")}
    table = frame.to_arrow()
    table = table.cast(pa.schema([pa.field(field.name, text.get(field.name, field.type)) for field in table.schema]))
    pq.write_table(
        table,
        target,
        compression="zstd",
        compression_level=22,
        row_group_size=1 << 20,
        use_dictionary=[name for name in names if name not in PLAIN],
        column_encoding=dict.fromkeys(PLAIN, "DELTA_BINARY_PACKED"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
