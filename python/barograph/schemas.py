"""What the columns of a frame are: kinds and roles, inferred, printed, kept in a file, overridden."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from barograph import _barograph
from barograph.errors import InvalidArgumentError, NotFoundError
from barograph.frames import Frame, parts

__all__ = ["Kind", "Role", "Schema"]

Kind: TypeAlias = Literal["number", "category", "boolean", "time", "text", "embedding", "unsupported"]
Role: TypeAlias = Literal["feature", "prediction", "score", "label", "id", "time", "latency", "segment", "weight", "version", "error"]


class Schema:
    """Kind and role of each column.

    Ids, times, labels and text never enter a drift verdict. Inference looks at names, types and the share of distinct values
    among the first 10,000 rows; `with_roles` and `with_kinds` override it.

    >>> schema = Schema.infer({"user_id": [7, 8, 9] * 20, "amount": [1.0, 2.0, 3.0] * 20})
    >>> schema.roles["amount"]
    'feature'
    >>> schema.with_roles(user_id="id").roles["user_id"]
    'id'
    """

    def __init__(self, columns: list[dict[str, str]]) -> None:
        for column in columns:
            _word("kind", column.get("kind"), get_args(Kind))
            _word("role", column.get("role"), get_args(Role))
        self._columns = [{"name": str(column["name"]), "kind": column["kind"], "role": column["role"]} for column in columns]

    @classmethod
    def infer(cls, frame: Frame, **roles: Role) -> Schema:
        """Kinds and roles of a frame's columns; `roles` overrides by column name."""
        for part in parts(frame):
            return cls(json.loads(_barograph.infer_schema(part))["columns"]).with_roles(**roles)
        raise InvalidArgumentError("the frame has no columns to infer a schema from")

    @property
    def kinds(self) -> dict[str, str]:
        """Kind by column name."""
        return {column["name"]: column["kind"] for column in self._columns}

    @property
    def roles(self) -> dict[str, str]:
        """Role by column name."""
        return {column["name"]: column["role"] for column in self._columns}

    def names(self, role: Role) -> list[str]:
        """Columns of one role."""
        return [column["name"] for column in self._columns if column["role"] == role]

    def with_roles(self, roles: Mapping[str, Role] | None = None, /, **more: Role) -> Schema:
        """The same with other roles: `schema.with_roles(user="id")`, or a mapping for names that are no identifiers."""
        return self._changed("role", {**(roles or {}), **more})

    def with_kinds(self, kinds: Mapping[str, Kind] | None = None, /, **more: Kind) -> Schema:
        """The same with other kinds."""
        return self._changed("kind", {**(kinds or {}), **more})

    def _changed(self, what: str, changes: Mapping[str, str]) -> Schema:
        unknown = [name for name in changes if name not in self.kinds]
        if unknown:
            raise NotFoundError(f"no column {unknown[0]!r} in the schema", f"it has {', '.join(self.kinds) or 'none'}")
        return Schema([{**column, what: changes.get(column["name"], column[what])} for column in self._columns])

    def to_json(self) -> str:
        """The schema as editable JSON."""
        rows = ",\n".join("    " + json.dumps(column, ensure_ascii=False) for column in self._columns)
        return f'{{\n  "columns": [\n{rows}\n  ]\n}}\n'

    def save(self, path: str | Path) -> None:
        """Writes the JSON to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Schema:
        """Reads a file that `save` wrote, edited or not."""
        try:
            document: Any = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(document["columns"])
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgumentError(f"{path} is not a schema: {error}", "write one with `Schema.infer(frame).save(path)`") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self._columns == other._columns

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        width = max((len(name) for name in self.kinds), default=0)
        lines = [f"  {c['name']:<{width}}  {c['kind']:<11} {c['role']}" for c in self._columns]
        return "Schema(\n" + "\n".join(lines) + "\n)"


def _word(what: str, got: object, known: tuple[str, ...]) -> None:
    if got not in known:
        raise InvalidArgumentError(f"`{what}` must be one of {', '.join(known)}, got {got!r}")
