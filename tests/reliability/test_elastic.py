"""Training on two machines: two agents of torchrun over loopback, one process each."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rtil.process.digest import digest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TRAIN = ("hardware=cpu", "hardware.threads=1", "scale=tiny", "data.num_train=64", "rtil=vanilla")
LENGTH = ("batch=8", "total_nimg=320", "checkpoint_every=16", "log_every=1", "run_dir=run")
PATIENCE = 120.0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def agents(folder, restarts):
    """The command of each machine; the two find each other at an address."""
    where = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    group = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=test"]
    command = [sys.executable, "-m", "torch.distributed.run", *group, where]
    command += [f"--max-restarts={restarts}", "-m", "rtil.train", *TRAIN, *LENGTH]
    folder.mkdir()
    started = []
    for node in range(2):
        with open(folder / f"node{node}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
                },
            )
        started.append(process)
    return started


def children(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.02)


def ended(processes, folder):
    codes = [process.wait(PATIENCE) for process in processes]
    logs = [(folder / f"node{node}.log").read_text() for node in range(2)]
    assert codes == [0, 0], "\n".join(log[-3000:] for log in logs)
    rows = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    generator = torch.load(folder / "run" / "generator.pt", weights_only=True)
    return logs, [row["nimg"] for row in rows], digest(generator["G_ema"])


def test_a_killed_worker_restarts_the_group_which_ends_as_if_undisturbed(tmp_path):
    whole = agents(tmp_path / "whole", 0)
    logs, steps, weights = ended(whole, tmp_path / "whole")
    assert all("Waiting for 2 processes." in log for log in logs)
    assert steps == [*range(8, 321, 8)]

    folder = tmp_path / "killed"
    processes = agents(folder, 3)
    for node, nimg in enumerate((64, 160)):
        wait_for(lambda nimg=nimg: newest(folder / "run") >= nimg)
        (worker,) = children(processes[node])
        os.kill(worker, signal.SIGKILL)
    logs, steps_again, weights_again = ended(processes, folder)
    assert steps_again == steps and weights_again == weights


def newest(run_dir):
    return max((int(path.stem[-10:]) for path in run_dir.glob("checkpoint-*.pt")), default=0)
