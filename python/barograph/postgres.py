"""What a sidecar has kept, in PostgreSQL: `barograph store export --postgres` (extra `barograph[postgres]`).

Four tables of a schema, each with the model's name before the columns that `store export` writes as Parquet: `history`, `alerts`,
`profiles` (a snapshot per tile) and `columns` (numbers and sketches per tile and column). Rows come by binary `COPY`. A model's rows are
replaced whole, in one transaction: an export that is repeated changes nothing, and one that is broken off leaves what was there. Folders
of several sidecars may go into one schema.

Format: <https://www.postgresql.org/docs/current/sql-copy.html>.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from barograph.errors import BarographError, InvalidArgumentError

if TYPE_CHECKING:
    import polars as pl

TABLES = ("history", "alerts", "profiles", "columns")
"""Tables by name, in the order that they are written."""


class Tables:
    """The tables of a schema.

    Parameters
    ----------
    address
        Where the database is, as libpq takes it: `postgresql://user@host/database`, or `key=value` pairs. What it does not say
        comes from the environment (`PGHOST`, `PGPASSWORD`, `PGPASSFILE`, …). Schema and tables are made if they are not there.
    schema
        Name of the schema.

    Raises
    ------
    BarographError
        Without psycopg, and for a database that cannot be reached or written to.
    InvalidArgumentError
        For an address or name that cannot be.

    """

    def __init__(self, address: str, schema: str = "barograph") -> None:
        try:
            import psycopg
        except ImportError as error:
            raise BarographError(
                "`store export --postgres` needs psycopg, which is not there", "pip install 'barograph[postgres]'"
            ) from error
        if not schema or len(schema.encode()) > 63 or "\0" in schema:
            raise InvalidArgumentError(f"`schema` must have 1 to 63 bytes, got {schema!r}")
        self._psycopg, self._schema = psycopg, schema
        try:
            if "password" in psycopg.conninfo.conninfo_to_dict(address):
                hint = "state it as PGPASSWORD, or in ~/.pgpass"
                raise InvalidArgumentError("`--postgres` must hold no password: what stands in a command line is read by others", hint)
            self._connection = psycopg.connect(address, connect_timeout=10, application_name="barograph")
        except psycopg.ProgrammingError as error:
            # What it says would repeat a password.
            raise InvalidArgumentError("`--postgres` is no address of a database", "such as postgresql://user@host/database") from error
        except psycopg.Error as error:
            raise BarographError(f"the database could not be reached: {_words(error)}") from error

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def replace(self, model: str, tables: Iterable[tuple[str, pl.DataFrame]]) -> dict[str, int]:
        """Puts rows of a model in the place of those that it has; gives how many by table.

        Parameters
        ----------
        model
            Its name.
        tables
            Names of tables and frames; a table may come several times, so that not all of it is in memory at once.

        Raises
        ------
        BarographError
            For what the database refuses: nothing was changed then.

        """
        from psycopg import sql

        counts = dict.fromkeys(TABLES, 0)
        emptied: set[str] = set()
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self._schema)))
                for name, frame in tables:
                    table, types = (
                        sql.Identifier(self._schema, name),
                        ["text", *(_type(name, dtype) for name, dtype in frame.schema.items())],
                    )
                    names = ["model", *frame.columns]
                    if name not in emptied:
                        emptied.add(name)
                        columns = sql.SQL(", ").join(
                            sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind))
                            for column, kind in zip(names, types, strict=True)
                        )
                        cursor.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(table, columns))
                        cursor.execute(
                            sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} (model)").format(sql.Identifier(f"{name}_model"), table)
                        )
                        cursor.execute(sql.SQL("DELETE FROM {} WHERE model = %s").format(table), [model])
                    into = sql.SQL(", ").join(map(sql.Identifier, names))
                    with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(table, into)) as copy:
                        copy.set_types(types)
                        for row in frame.iter_rows():
                            copy.write_row((model, *row))
                    counts[name] += len(frame)
                for name in TABLES:
                    cursor.execute("SELECT to_regclass(%s)", [sql.Identifier(self._schema, name).as_string(cursor)])
                    if name not in emptied and (cursor.fetchone() or [None])[0] is not None:
                        cursor.execute(sql.SQL("DELETE FROM {} WHERE model = %s").format(sql.Identifier(self._schema, name)), [model])
        except self._psycopg.Error as error:
            raise BarographError(f"the database refused {model}: {_words(error)}", "nothing was changed") from error
        return counts


def _type(name: str, dtype: pl.DataType) -> str:
    import polars as pl

    known: dict[Any, str] = {
        pl.String: "text",
        pl.Float64: "float8",
        pl.Int64: "int8",
        pl.Boolean: "bool",
        pl.Binary: "bytea",
        pl.Datetime: "timestamptz",
    }
    kind = known.get(dtype.base_type())
    if kind is None:
        raise BarographError(f"column {name} is of {dtype}, which no column of PostgreSQL is known for")
    return kind


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
