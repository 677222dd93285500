"""Measures engines on the device they run on, each in a process of its own, by one written protocol."""

from scalenas_runtime.measure.job import BOUNDARIES, FLAGS, GRADES, MeasureJob, Measurement
from scalenas_runtime.measure.lock import device_locks
from scalenas_runtime.measure.process import MeasuringFailed, MeasuringProcess, ServedProcess
from scalenas_runtime.measure.protocol import Plan, run_job, run_jobs

__all__ = [
    "BOUNDARIES",
    "FLAGS",
    "GRADES",
    "MeasureJob",
    "Measurement",
    "MeasuringFailed",
    "MeasuringProcess",
    "Plan",
    "ServedProcess",
    "device_locks",
    "run_job",
    "run_jobs",
]
