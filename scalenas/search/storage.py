"""Databases of studies: how they are named, opened, and what is said when they cannot be."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenas_runtime.errors import UserError, missing_extra

if TYPE_CHECKING:
    import optuna
    from sqlalchemy.engine import Engine

Storage = str | Path


class NoStudy(UserError):
    """The storage can be used, and there is no such study in it."""


_WAIT = 60
_TRIES = 6
_SQLITE_MAGIC = b"SQLite format 3\x00"


def storage_url(storage: Storage) -> str:
    """Returns the SQLAlchemy URL of a storage: a file's name means SQLite, PostgreSQL goes through psycopg.

    Raises:
        UserError: the kind of database is another one.
    """
    text = str(storage)
    if "://" not in text:
        return f"sqlite:///{text}"
    kind, _, rest = text.partition("://")
    if kind in ("postgresql", "postgres"):
        return f"postgresql+psycopg://{rest}"
    if kind == "sqlite" or kind.startswith("postgresql+"):
        return text
    raise UserError(
        f"storage {_shown(text)} is of kind {kind!r}; known: a file such as study.db, sqlite:///FILE, "
        "postgresql://USER@HOST/DATABASE"
    )


def open_database(storage: Storage, *, create: bool) -> optuna.storages.RDBStorage:
    """Returns Optuna's storage, ready for several processes.

    Args:
        storage: A file or a URL; see `storage_url`.
        create: Make the file and Optuna's tables where they are not there.

    Raises:
        UserError: it cannot be reached, is not there, is broken, or is no storage of studies.
        MissingExtra: Optuna or the database's driver is not installed.
    """
    try:
        import optuna  # noqa: F401 - `_connected` takes it for granted
    except ImportError:
        raise missing_extra("optuna", "search") from None
    url = storage_url(storage)
    _check_url(url, storage)
    if url.startswith("sqlite"):
        _prepare_file(url, create=create)
        arguments: dict[str, Any] = {"connect_args": {"timeout": _WAIT}}
    else:
        arguments = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
    with storage_errors(storage), quiet_optuna():
        try:
            database = _connected(url, arguments, create=create)
        except ImportError:
            raise missing_extra("psycopg", "postgresql") from None
        except RuntimeError as error:
            # Optuna's check of its tables' version; its text says how to upgrade.
            raise UserError(f"storage {shown(storage)}: {' '.join(str(error).split())}") from None
    if url.startswith("sqlite"):
        _fast_commits(database.engine)
    return database


def study_names(storage: Storage) -> list[str]:
    """Returns the names of all studies of a storage, other programs' included.

    Raises:
        UserError: as `open_database`.
    """
    database = open_database(storage, create=False)
    try:
        with storage_errors(storage):
            return [study.study_name for study in database.get_all_studies()]
    finally:
        database.engine.dispose()


@contextmanager
def storage_errors(storage: Storage) -> Iterator[None]:
    """Turns a database's errors into one line that names the storage and a remedy.

    Raises:
        UserError: the block met an error of the database.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise _explained(storage, error) from error


def _check_url(url: str, storage: Storage) -> None:
    """Accepts a URL that can be read; SQLAlchemy says what is wrong in errors of several kinds.

    Raises:
        UserError: it cannot, such as for a port that is no number.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(url)
    except (ArgumentError, ValueError) as error:
        raise UserError(
            f"storage {shown(storage)} is no URL of a database ({error}); needed is one such as "
            "postgresql://USER@HOST:5432/DATABASE"
        ) from None


def clock(engine: Engine) -> str:
    """Returns SQL for the database's time in seconds: workers on several hosts compare leases by one clock."""
    if engine.dialect.name == "sqlite":
        return "((julianday('now') - 2440587.5) * 86400.0)"
    return "extract(epoch from clock_timestamp())"


def shown(storage: Storage) -> str:
    """Returns the storage's name for people, without a password."""
    return _shown(str(storage))


def _shown(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    account, at, host = rest.rpartition("@")
    if not separator or not at or ":" not in account:
        return text
    return f"{scheme}://{account.partition(':')[0]}:***@{host}"


def _connected(url: str, arguments: dict[str, Any], *, create: bool) -> optuna.storages.RDBStorage:
    import optuna
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    for attempt in range(_TRIES):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=arguments, skip_table_creation=not create)
        except (SQLAlchemyError, StorageInternalError) as error:
            text = f"{error} {error.__cause__}"
            # Another worker is making the same tables: they are there the next time.
            taken = any(words in text for words in ("already exists", "duplicate key", "UNIQUE constraint"))
            if not (create and taken) or attempt == _TRIES - 1:
                raise
        time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


def _prepare_file(url: str, *, create: bool) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    if url == "sqlite://" or str(path) in ("", ".", ":memory:"):
        raise UserError("a study in SQLite needs a file such as study.db; in memory it would not outlive the search")
    try:
        if not path.exists():
            if not create:
                raise NoStudy(f"there is no study storage {path}; `search --storage {path}` makes one")
            path.parent.mkdir(parents=True, exist_ok=True)
        elif path.is_dir():
            raise UserError(f"storage {path} is a folder; name a file such as {path / 'study.db'}")
        else:
            with path.open("rb") as stream:
                start = stream.read(len(_SQLITE_MAGIC))
            if start and start != _SQLITE_MAGIC:
                raise UserError(f"storage {path} is not an SQLite database; name another file, such as study.db")
        # Readers and a writer do not block each other then; the mode stays with the file.
        with closing(sqlite3.connect(path, timeout=_WAIT)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        raise _explained(path, error) from None
    except OSError as error:
        raise UserError(f"storage {path} cannot be opened: {error.strerror or error}") from None


def _fast_commits(engine: Engine) -> None:
    from sqlalchemy import event

    def on_connect(connection: sqlite3.Connection, _: object) -> None:
        # In WAL mode a commit survives a killed process without waiting for the disk.
        connection.execute("PRAGMA synchronous=NORMAL")

    engine.dispose()
    event.listen(engine, "connect", on_connect)


def _explained(storage: Storage, error: BaseException) -> UserError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    cause = getattr(cause, "orig", None) or cause
    text = " ".join(str(cause).split()) or type(cause).__name__
    name = shown(storage)
    if "malformed" in text or "not a database" in text:
        return UserError(f"storage {name} is broken ({text}); name another file, or restore this one from a copy")
    if "locked" in text:
        return UserError(
            f"storage {name} was locked for {_WAIT} s ({text}); end what holds it, or use PostgreSQL for many workers"
        )
    if "no such table" in text or "UndefinedTable" in type(cause).__name__:
        return NoStudy(f"storage {name} holds no studies ({text}); name another one")
    if "readonly" in text or "unable to open" in text or "disk is full" in text:
        return UserError(f"storage {name} cannot be used: {text}; name a file in a folder that can be written")
    return UserError(
        f"storage {name} cannot be used: {text}; start the server, correct the URL, or name a file such as study.db"
    )


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keeps Optuna, which tells on stderr of every study that it makes, quiet in the block."""
    logger = logging.getLogger("optuna")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
