"""Processes of the tests' own. They are forked from a server that has imported torch, which takes seconds, and has done
nothing else; a test of what an import does starts `sys.executable` instead."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_context = get_context("forkserver")
_context.set_forkserver_preload(
    ["torch.distributed", "torch.nn.parallel", "accelerate", "sklearn.datasets", "robustperf.ops"]
)


def start(function: Callable[..., Any], *arguments: Any, log: Path, **environment: str) -> BaseProcess:
    """Starts `function(*arguments)`, both importable, with these variables in its environment. `log` gets what it
    prints."""
    process = _context.Process(target=_call, args=(function, arguments, log, environment))
    process.start()
    return process


def _call(function, arguments, log, environment):
    # a shell that runs tests in the background has them ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(environment)
    function(*arguments)


def execute(script: str, *arguments: str) -> None:
    """Like `python -c script arguments`."""
    sys.argv = ["-c", *arguments]
    exec(compile(script, "script", "exec"), {"__name__": "__main__"})


def killed(script: str, *arguments: str, log: Path) -> None:
    """Runs a script that kills its process; an AssertionError where it ends otherwise."""
    process = start(execute, script, *arguments, log=log)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, log.read_text()


def on_two_processes(function: Callable[..., Any], *arguments: Any, log: Path) -> None:
    """Runs `function(*arguments)` on two processes with the environment that `torchrun` gives them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [start(function, *arguments, log=log, RANK=rank, LOCAL_RANK=rank, **shared) for rank in ("0", "1")]
    for process in both:
        process.join(120)
        if process.exitcode != 0:  # the other one waits for it
            for each in both:
                each.kill()
        assert process.exitcode == 0, log.read_text()
