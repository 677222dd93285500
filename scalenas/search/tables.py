"""Small tables of our own beside Optuna's, one row or more per study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


class StudyTable:
    """The rows of one study in a table of ours; `:study` in SQL is that study. Safe to use from two threads.

    Attributes:
        NAME: Of the table.
        COLUMNS: Its columns and keys in SQL, beside `study`.
    """

    NAME: str
    COLUMNS: str

    def __init__(self, engine: Engine, study: str) -> None:
        self._engine = engine
        self._study = study

    def create_table(self) -> None:
        """Makes the table where it is not there."""
        from sqlalchemy.exc import SQLAlchemyError

        sql = f"CREATE TABLE IF NOT EXISTS {self.NAME} (study VARCHAR(300) NOT NULL, {self.COLUMNS})"
        try:
            self._write(sql)
        except SQLAlchemyError:
            # PostgreSQL may refuse when two workers make it at the same time; then it is there the second time.
            self._write(sql)

    def clear(self) -> None:
        """Drops what an earlier study left behind that had the same name and number."""
        self._write(f"DELETE FROM {self.NAME} WHERE study = :study")

    def _values(self, more: dict[str, object]) -> dict[str, object]:
        return {"study": self._study, **more}

    def _read(self, sql: str, **more: object) -> list[Any]:
        from sqlalchemy import text

        with self._engine.connect() as connection:
            return list(connection.execute(text(sql), self._values(more)).fetchall())

    def _write(self, sql: str, **more: object) -> int:
        from sqlalchemy import text

        with self._engine.begin() as connection:
            return int(connection.execute(text(sql), self._values(more)).rowcount)


class Agreed(StudyTable):
    """Figures that all workers of a study use: the first one to write a name decides."""

    NAME = "scalenas_agreed"
    COLUMNS = "name VARCHAR(300) NOT NULL, value DOUBLE PRECISION NOT NULL, PRIMARY KEY (study, name)"

    def values(self) -> dict[str, float]:
        """Returns all figures by name."""
        rows = self._read(f"SELECT name, value FROM {self.NAME} WHERE study = :study")
        return {str(name): float(value) for name, value in rows}

    def agree(self, name: str, value: float) -> float:
        """Returns the figure of `name`, which is `value` unless one is there already."""
        self._write(
            f"INSERT INTO {self.NAME} (study, name, value) VALUES (:study, :name, :value) "
            "ON CONFLICT (study, name) DO NOTHING",
            name=name,
            value=value,
        )
        return self.values()[name]
