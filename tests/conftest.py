"""What several tests share: the miniature of the study, and the command line."""
import io
import os
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from btc_hedge_rl import envs
from btc_hedge_rl.pipeline import write_notebooks

ROOT = Path(__file__).parent.parent
BARS = Path(os.environ.get("BTC_BARS") or ROOT.parent / "shared" / "data" / "BTC_5m.csv")

COSTLY = "site lab quotes smoke_run eight".split()     # fixtures of half a minute and more


def pytest_sessionstart(session):
    "Compile the kernels of the market once and in one order, before several workers would each compile them."
    if not getattr(session.config.option, "numprocesses", None): return
    for task in envs.TASKS:
        batch = envs.batch_of(task, n=2)
        batch.reset(np.arange(2))
        batch.advance(np.zeros(2, int))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    "Tests that share a costly fixture go to one worker; the studies, which take minutes, come first."
    for item in items:
        for name in COSTLY:
            if name in item.fixturenames: item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: "smoke" not in item.name)


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    "The miniature of the study, whose tests take seconds."
    return write_notebooks(tmp_path_factory.mktemp("study") / "notebooks")


def start(*words, cwd=None, **options):
    "Start the command line in a process of its own."
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    code = "from btc_hedge_rl.cli import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=cwd, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def btc_hedge(*words, cwd, process=False):
    "Run the command line to its end, in this process unless asked otherwise; the result has .code, .out and .err."
    if process:
        started = start(*words, cwd=cwd)
        out, err = started.communicate(timeout=1800)
        return SimpleNamespace(code=started.returncode, out=out, err=err)
    from btc_hedge_rl.cli import main
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP)}
    with chdir(cwd), redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try: main([str(word) for word in words])
        except SystemExit as end: code = end.code
    for number, handler in handlers.items(): signal.signal(number, handler)
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())
