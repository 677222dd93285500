"""Who owns which candidate: a small table beside Optuna's, with leases that end when a worker dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalenas.search.ledger import Outcome
from scalenas.search.storage import clock
from scalenas.search.tables import StudyTable
from scalenas.search.workers import Owner

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


@dataclass(frozen=True, slots=True)
class Claim:
    """A candidate that is reserved and not finished."""

    number: int
    draft: str
    owner: Owner
    tries: int
    lapsed: bool


class Claims(StudyTable):
    """The claims of one study, as one worker sees and makes them; safe to use from two threads."""

    NAME = "scalenas_claims"
    # One row per candidate of a study. The draft is what a worker needs that takes the candidate over.
    COLUMNS = """
        number INTEGER NOT NULL,
        key VARCHAR(64) NOT NULL,
        draft TEXT NOT NULL,
        owner VARCHAR(300) NOT NULL,
        lease_until DOUBLE PRECISION NOT NULL,
        tries INTEGER NOT NULL,
        done INTEGER NOT NULL,
        PRIMARY KEY (study, number),
        UNIQUE (study, key)
    """

    def __init__(self, engine: Engine, study: str, owner: Owner, *, lease: float) -> None:
        super().__init__(engine, study)
        self._owner = owner
        self._lease = lease
        self._now = clock(engine)

    def next_number(self) -> int:
        """Returns the lowest number that nobody has."""
        row = self._read("SELECT MAX(number) FROM scalenas_claims WHERE study = :study")[0]
        return 0 if row[0] is None else int(row[0]) + 1

    def reserve(self, number: int, key: str, draft: str) -> Outcome:
        """Returns whether the candidate is this worker's now, or what of it somebody else has."""
        from sqlalchemy.exc import IntegrityError

        try:
            self._write(
                "INSERT INTO scalenas_claims (study, number, key, draft, owner, lease_until, tries, done) "
                f"VALUES (:study, :number, :key, :draft, :owner, {self._now} + :lease, 1, 0)",
                number=number,
                key=key,
                draft=draft,
            )
        except IntegrityError:
            taken = self._read("SELECT 1 FROM scalenas_claims WHERE study = :study AND key = :key", key=key)
            return "key taken" if taken else "number taken"
        return "mine"

    def open(self) -> list[Claim]:
        """Returns all claims that are not finished, by number."""
        rows = self._read(
            f"SELECT number, draft, owner, tries, lease_until < {self._now} AS lapsed FROM scalenas_claims "
            "WHERE study = :study AND done = 0 ORDER BY number"
        )
        return [Claim(row[0], row[1], Owner.parse(row[2]), row[3], bool(row[4])) for row in rows]

    def take(self, claim: Claim) -> bool:
        """Returns whether a dead owner's claim is this worker's now; only one of those who try gets it."""
        # An owner that only seemed dead has renewed its lease in the meantime.
        lapsed = f"AND lease_until < {self._now}" if claim.lapsed else ""
        changed = self._write(
            f"UPDATE scalenas_claims SET owner = :owner, lease_until = {self._now} + :lease, tries = tries + 1 "
            f"WHERE study = :study AND number = :number AND done = 0 AND owner = :former AND tries = :tries {lapsed}",
            number=claim.number,
            former=str(claim.owner),
            tries=claim.tries,
        )
        return changed == 1

    def is_mine(self, number: int) -> bool:
        """Returns whether this worker owns a candidate that is not finished."""
        return bool(
            self._read(
                "SELECT 1 FROM scalenas_claims WHERE study = :study AND number = :number AND owner = :owner "
                "AND done = 0",
                number=number,
            )
        )

    def renew(self, number: int) -> None:
        """Gives a claim of this worker a new lease."""
        self._write(
            f"UPDATE scalenas_claims SET lease_until = {self._now} + :lease "
            "WHERE study = :study AND number = :number AND owner = :owner AND done = 0",
            number=number,
        )

    def finish(self, number: int) -> None:
        """Closes a claim."""
        self._write(
            "UPDATE scalenas_claims SET done = 1, draft = '' WHERE study = :study AND number = :number", number=number
        )

    def release(self, number: int) -> None:
        """Lets others have a claim of this worker at once; it does not count as a death."""
        self._write(
            "UPDATE scalenas_claims SET lease_until = 0, tries = tries - 1 "
            "WHERE study = :study AND number = :number AND owner = :owner AND done = 0",
            number=number,
        )

    @contextmanager
    def kept(self, number: int) -> Iterator[None]:
        """Renews the lease of a claim from a thread while the block runs."""
        ended = threading.Event()

        def renew() -> None:
            from sqlalchemy.exc import SQLAlchemyError

            while not ended.wait(self._lease / 4):
                try:
                    self.renew(number)
                except SQLAlchemyError:
                    # The next beat tries again; a storage that stays away is reported when the result is written.
                    continue

        thread = threading.Thread(target=renew, name="scalenas-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _values(self, more: dict[str, object]) -> dict[str, object]:
        return {**super()._values(more), "owner": str(self._owner), "lease": self._lease}
