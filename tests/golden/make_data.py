"""Makes the small tables beside it from their sources: `python make_data.py FOLDER`."""

import sys
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent / "data"
TABLES = {
    "nannyml_car_loan": ["car_value", "salary_range", "debt_to_income_ratio", "loan_length", "size_of_downpayment", "y_true", "y_score"],
    "nannyml_titanic": ["age", "fare", "sex", "embarked"],
    "river_image_segments": ["hue_mean", "rawred_mean", "category"],
}


def main(folder: str) -> None:
    for name, columns in TABLES.items():
        frame = pl.read_parquet(Path(folder) / f"{name}.parquet").select(columns)
        if name == "nannyml_car_loan":
            # Every fifth row of both halves, scores as they are.
            frame = frame.gather_every(5)
        frame.write_parquet(HERE / f"{name}.parquet", compression="zstd", compression_level=22)


if __name__ == "__main__":
    main(*sys.argv[1:])
