"""A process that has ready what most notebooks need, and forks a fresh one for each: the libraries, the package without what needs
PyTorch, and a Numba that has compiled once, which takes it half a second in every process."""
import atexit
import importlib
import json
import os
import pkgutil
import re
import sys
from pathlib import Path

import gymnasium, pandas, scipy.optimize, scipy.stats, seaborn     # noqa: E401, F401
import numba
import numpy as np
from nbdev.test import test_nb

from btc_hedge_rl.ground import ONE_THREAD

ROOT = Path(__file__).parent.parent

for chapter in ("ground", "data", "simulator", "worlds", "market", "strategies"):
    door = importlib.import_module(f"btc_hedge_rl.{chapter}")
    for room in pkgutil.iter_modules(door.__path__, door.__name__ + "."): importlib.import_module(room.name)
numba.njit(lambda x: x[1:] + 1)(np.ones(3))


def one_thread():
    """Where several workers test, a notebook that defines no loop of several threads has one: every core has a worker already, and
    threads that wait for each other on a busy core cost several times the work."""
    if not os.environ.get("PYTEST_XDIST_WORKER"): return
    os.environ.update(ONE_THREAD)
    numba.config.reload_config()
    numba.set_num_threads(1)


def run_notebook(path, flags, compiled, log):
    "Run the cells of a notebook in this process, which reads nothing and prints into `log`; whether all passed."
    with open(log, "w") as out, open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
        for stream in (1, 2): os.dup2(out.fileno(), stream)
    os.environ["PYTHONPATH"], os.environ["XDG_CACHE_HOME"] = str(ROOT), str(compiled)
    os.environ.pop("IN_TEST", None)
    if not re.search(r"num_threads|in_parts|prange|parallel=True", Path(path).read_text(encoding="utf-8"), re.I): one_thread()
    passed, _ = test_nb(Path(path), skip_flags=flags, basepath=ROOT)
    return passed


def serve():
    "Fork for every line of the input, which says what to run, and answer with the exit code of the process."
    for line in sys.stdin:
        if not (child := os.fork()):
            passed = run_notebook(*json.loads(line))
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(not passed)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
