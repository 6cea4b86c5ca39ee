"""Jobs in processes: a worker that is killed, a parent that is killed, and nobody with more than one thread."""
import os
import signal
import subprocess
import sys
import time

import psutil
from conftest import ROOT

from btc_hedge_rl.ground import Job, do_jobs


def die_unless(parent, number):
    "Kill the process that does this, unless it is the parent."
    if os.getpid() != parent: os.kill(os.getpid(), signal.SIGKILL)
    return number


def threads_of(number):
    "Threads of the compiled loops and of PyTorch in the process that does this; whether it is a worker."
    import numba
    import torch
    return numba.get_num_threads(), torch.get_num_threads(), os.getppid() != number


def test_a_killed_worker_costs_no_result():
    jobs = {"one": Job(pow, (2, 3)), "fatal": Job(die_unless, (os.getpid(), 4)), "after": Job(pow, (2,), after="fatal")}
    assert do_jobs(jobs, workers=2, progress=False) == {"one": 8, "fatal": 4, "after": 16}


def test_workers_have_one_thread():
    jobs = {number: Job(threads_of, (-1,)) for number in range(2)}
    assert do_jobs(jobs, workers=2, progress=False) == {0: (1, 1, True), 1: (1, 1, True)}


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "sleeping.py").write_text("import os, time\ndef sleep(i):\n    open(f'{i}.pid', 'w').write(str(os.getpid())); time.sleep(600)\n")
    code = "if __name__ == '__main__':\n    from sleeping import sleep\n    from btc_hedge_rl.ground import Job, do_jobs\n    do_jobs({i: Job(sleep, (i,)) for i in range(2)}, workers=2)\n"
    (tmp_path / "parent.py").write_text(code)
    parent = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}, stderr=subprocess.DEVNULL)
    files = [tmp_path / f"{i}.pid" for i in range(2)]
    for _ in range(600):
        if all(f.exists() and f.read_text() for f in files): break
        time.sleep(.1)
    workers = [psutil.Process(int(f.read_text())) for f in files]
    parent.kill()
    parent.wait()
    assert psutil.wait_procs(workers, timeout=30)[1] == []
