"""Runs jobs one after another or in parallel, in processes of this machine or of a cluster."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from joblib import Parallel, delayed, parallel_config

from datagen.errors import ConfigError, DataFormatError

if TYPE_CHECKING:
    from datagen.pipeline import Job, JobSettings


def execute(jobs: Sequence[Job], settings: JobSettings) -> Iterator[tuple[Job, float | str]]:
    """Yield jobs in the order in which they end, with their run time [s] or why they failed."""
    if settings.backend == "sequential" or len(jobs) <= 1 or settings.n_jobs == 1:
        for job in jobs:
            yield job, _timed(job)
        return
    with _backend(settings):
        parallel = Parallel(n_jobs=settings.n_jobs, return_as="generator_unordered")
        numbered = (delayed(_numbered)(number, job) for number, job in enumerate(jobs))
        for number, outcome in parallel(numbered):
            yield jobs[number], outcome


@contextlib.contextmanager
def _backend(settings: JobSettings) -> Iterator[None]:
    """Choose joblib's backend; workers keep their numerical libraries at one thread."""
    if settings.backend == "loky":
        with parallel_config(backend="loky", inner_max_num_threads=1):
            yield
        return
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ConfigError(
            "data_gen.backend = 'dask' needs the packages dask and distributed; "
            "install them with pip install 'skyfold[dask]'",
            value="dask",
        ) from error
    # Its remarks on workers that end as they should read like failures.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    if dask.config.get("scheduler-address", None):
        with Client(), parallel_config(backend="dask"):
            yield
        return
    cluster = LocalCluster(
        n_workers=settings.n_jobs if settings.n_jobs > 0 else None,
        threads_per_worker=1,
        dashboard_address=None,
    )
    with cluster, Client(cluster), parallel_config(backend="dask"):
        yield


def _numbered(number: int, job: Job) -> tuple[int, float | str]:
    return number, _timed(job)


def _timed(job: Job) -> float | str:
    start = time.perf_counter()
    try:
        job.run()
    except DataFormatError as error:
        if not job.may_fail:
            raise
        return str(error)
    return time.perf_counter() - start
