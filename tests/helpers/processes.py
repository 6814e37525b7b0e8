"""Trains as several processes of one machine, in float64; run by tests as a program."""

import json
import os
import socket
import sys
import traceback

import torch

from helpers.trainings import config
from rtil import train
from rtil.training import loop


def to_double(u8):
    return u8.double() / 127.5 - 1


def one(rank, world, port, overrides):
    """Trains as one of so many processes."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_default_dtype(torch.float64)
    loop.to_float = to_double
    run = loop.run
    trained = []

    def keep(training):
        trained.append(training)
        return run(training)

    loop.run = keep
    train.train(config(*overrides))
    (training,) = trained
    parts = {name: part.state_dict() for name, part in training.nets.parts().items()}
    torch.save(parts, training.settings.run_dir / f"rank{rank}.pt")


def trained(world, overrides):
    """Trains as so many processes; forked, so that torch is imported once for all."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            try:
                one(rank, world, port, overrides)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    if any(codes):
        sys.exit(1)


if __name__ == "__main__":
    for world, overrides in json.loads(sys.argv[1]):
        trained(world, overrides)
