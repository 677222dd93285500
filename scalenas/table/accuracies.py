"""Accuracies of nets by spec, as lines of a file that grows while they are computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from scalenas.spec import SubnetSpec
from scalenas.table.lines import append_line, read_lines
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.evaluate import Evaluation
from scalenas_runtime.records import Record, read_record, to_plain


class Accuracy(Record, frozen=True, kw_only=True):
    """The accuracy of one net.

    Attributes:
        spec: Digest of the spec of the family `scalenas`.
        metric: `pck`, `oks`, `miou`, ...
        value: 0..1.
        interval: Bounds of 95 % over pictures, or None.
        run: What the figure depends on besides: digest of the weights, data, number of pictures.
    """

    spec: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    run: dict[str, int | str]

    @classmethod
    def of(cls, spec: SubnetSpec, done: Evaluation, run: Mapping[str, int | str]) -> Accuracy:
        """Returns the entry for an evaluation.

        Raises:
            UserError: nothing could be judged.
        """
        if done.value != done.value:
            raise UserError(f"no accuracy of {spec.digest[:12]}: nothing in the data could be judged ({done.counts})")
        return cls(spec=spec.digest, metric=done.metric, value=done.value, interval=done.interval, run=dict(run))

    def fits(self, run: Mapping[str, int | str]) -> bool:
        """Returns whether the figure was found under `run`."""
        return self.run == dict(run)


def append(path: Path, accuracy: Accuracy) -> None:
    """Adds an entry to a file.

    Raises:
        OSError: the file cannot be written.
    """
    append_line(path, cast(Json, to_plain(accuracy)))


def read(path: Path) -> list[Accuracy]:
    """Returns the entries of a file.

    Raises:
        UserError: the file cannot be read, or holds other lines.
    """
    return [read_record(Accuracy, value, what=f"{path}") for value in read_lines(path)]
