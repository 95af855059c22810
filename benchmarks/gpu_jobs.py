"""Independent checks side by side: what takes their time is compiling, a core each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import torch

from .gpu_record import NOT_RUN, DeviceLostError, Record

_MOST_PROCESSES = 16  # each keeps half a gigabyte of the GPU's memory for itself

Outcome = tuple[str, str]  # PASS, FAIL or NOT RUN, and why
_TIME_IS_UP: Outcome = (NOT_RUN, "the time is up")


class Job(NamedTuple):
    """A line of the record that another process can find out."""

    what: str
    call: Callable[[], Outcome]  # is pickled


def run_here(record: Record, jobs: Iterable[Job]) -> None:
    """Run the jobs one after the other in this process."""
    for job in jobs:
        status, reason = job.call() if record.budget.left() else _TIME_IS_UP
        record.line(status, job.what, reason)


def run_side_by_side(record: Record, jobs: list[Job]) -> None:
    """Run the jobs in a process for each core.

    Raises:
        DeviceLostError: a job took the device with it, or its process ended.
    """
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    pool = ProcessPoolExecutor(
        min(os.cpu_count() or 1, _MOST_PROCESSES),
        mp_context=spawn,
        initializer=torch.set_num_threads,  # of the oracle
        initargs=(1,),
    )
    try:
        futures = [pool.submit(job.call) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            status, reason = _outcome(future, record.budget.left())
            record.line(status, job.what, reason)
            record.write()
    except BrokenProcessPool as error:
        raise DeviceLostError(f"a process of the checks ended: {error}") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(future: Future[Outcome], seconds: float) -> Outcome:
    try:
        return future.result(timeout=seconds)
    except TimeoutError:
        future.cancel()
        return _TIME_IS_UP
