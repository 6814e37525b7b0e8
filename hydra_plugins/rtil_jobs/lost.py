"""Jobs whose process was killed: they leave no result, and a launcher ends with the first of them.

Here such a job becomes one that failed, like any other, whatever the launcher. How failures are
told is said in the sweeper. A launcher that keeps its jobs apart needs nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

KILLED = "its process was killed, most likely because memory ran out"


def launched(launcher: Launcher, jobs: Sequence[Sequence[str]]) -> list[JobReturn]:
    """What each job returned; one whose process was killed has failed.

    Args:
        jobs: overrides of each.
    """
    with _results_of_all(launcher):
        try:
            return list(launcher.launch(jobs, initial_job_idx=0))
        except BrokenExecutor:
            # A pool of processes ends with the first that is killed, and does not say whose it
            # was. One at a time each ends or is killed by itself; what is finished says so.
            return [_alone(launcher, number, words) for number, words in enumerate(jobs)]


def _alone(launcher: Launcher, number: int, words: Sequence[str]) -> JobReturn:
    try:
        return launcher.launch([words], initial_job_idx=number)[0]
    except BrokenExecutor:
        return _lost(f"{KILLED}.")


def _lost(text: str) -> JobReturn:
    return JobReturn(_return_value=RuntimeError(text), status=JobStatus.FAILED)


@contextmanager
def _results_of_all(launcher: Launcher) -> Iterator[None]:
    """Within, a job of submitit that left no result has failed.

    Its launcher asks one job after the other, and would raise at the first that has none.
    """
    if "submitit" not in type(launcher).__module__:
        yield
        return
    from submitit.core.core import Job
    from submitit.core.utils import UncompletedJobError

    results = Job.results

    def or_lost(job: Job[Any]) -> list[Any]:
        try:
            return results(job)
        except UncompletedJobError:
            ended = f"{KILLED} (state {job.state} of job {job.job_id}; log {job.paths.stderr})."
            return [_lost(ended)]

    Job.results = or_lost  # type: ignore[method-assign]
    try:
        yield
    finally:
        Job.results = results  # type: ignore[method-assign]
