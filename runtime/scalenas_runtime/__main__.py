"""`python -m scalenas_runtime measure`: does one measure job, or serves as a measuring process."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from scalenas_runtime.canonical import pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 2 user error."""
    parser = argparse.ArgumentParser(prog="python -m scalenas_runtime")
    verbs = parser.add_subparsers(dest="verb", required=True)
    measure = verbs.add_parser("measure", help="do a measure job (JSON) and write the record (JSON)")
    measure.add_argument("--job", type=Path, help="file with the job; stdin without it")
    measure.add_argument("--out", type=Path, help="file for the record; stdout without it")
    measure.add_argument("--serve", action="store_true", help="read requests line by line until stdin ends")
    options = parser.parse_args(arguments)
    from scalenas_runtime.measure.server import lines_while_open, private_stdout, serve

    if options.serve:
        with private_stdout() as answers:
            serve(lines_while_open(sys.stdin), answers)
        return 0
    try:
        _measure(options.job, options.out)
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _measure(job: Path | None, out: Path | None) -> None:
    from scalenas_runtime.measure import MeasureJob, run_job
    from scalenas_runtime.records import to_plain

    text = sys.stdin.read() if job is None else job.read_text()
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"the measure job is not JSON: {error}") from None
    record = pretty_json(to_plain(run_job(MeasureJob.from_json(plain))))
    if out is None:
        sys.stdout.write(record)
    else:
        write_text(out, record)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
