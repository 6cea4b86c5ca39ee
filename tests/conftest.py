"""What several tests share: the miniature of the study, and the command line."""
import functools
import io
import json
import os
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock

from btc_hedge_rl import envs
from btc_hedge_rl.pipeline import write_notebooks

OUT = "run"
ROOT = Path(__file__).parent.parent
BARS = Path(os.environ.get("BTC_BARS") or ROOT.parent / "shared" / "data" / "BTC_5m.csv")

@functools.cache
def compile_market():
    "Compile the kernels of the market in one order; the first worker does it, and the others find it done."
    (ROOT / ".pytest_cache").mkdir(exist_ok=True)
    with FileLock(ROOT / ".pytest_cache" / "market.lock"):
        for task in envs.TASKS:
            batch = envs.batch_of(task, n=2)
            batch.reset(np.arange(2))
            batch.advance(np.zeros(2, int))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    "Nothing is compiled twice at a time; browsers need nothing compiled, and start at once."
    if os.environ.get("PYTEST_XDIST_WORKER") and "driver" not in item.fixturenames: compile_market()


COSTLY = "driver smoke_run lab quotes eight".split()     # fixtures of half a minute and more, which a worker keeps to itself
WAITING = ("test_lab", "test_hard", "test_pipeline", "test_cores", "test_score")      # files whose tests mostly wait, for kills, time limits and pages


def turn(item):
    """When the turn of a test comes. The browsers come first, at a low priority: they use what tests that wait leave idle, and slow down
    nobody. Then the study, in minutes, and at the end what is so short that no worker waits for another: the notebooks."""
    if "driver" in item.fixturenames: return 0 if "looks" in item.fixturenames else 1
    if "smoke" in item.name or "smoke_run" in item.fixturenames: return 3
    if item.path.stem in WAITING: return 2
    if item.path.stem != "test_notebooks": return 4
    return 5 if "passes_its_own_tests" in item.name else 6


@pytest.hookimpl(wrapper=True)      # the groups must be there when the workers' plugin reads them
def pytest_collection_modifyitems(config, items):
    "Tests that share a costly fixture go to one worker; those that take minutes come first."
    for item in items:
        shared = [name for name in COSTLY if name in item.fixturenames]
        if shared: item.add_marker(pytest.mark.xdist_group(shared[0]))
    items.sort(key=turn)
    yield
    grouped = [item for item in items if item.get_closest_marker("xdist_group")]
    if getattr(config.option, "loadgroup", False) and not all("@" in item.nodeid for item in grouped):
        raise pytest.UsageError("pytest-xdist does not see the groups of tests: use the versions of constraints.txt.")


def once(tmp_path_factory, name, make):
    "A folder that the first worker to ask for it fills; what `make(folder)` returns, as JSON, is there for all."
    place = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"): place = place.parent     # the workers' common folder
    folder, told = place / name, place / f"{name}.json"
    with FileLock(place / f"{name}.lock"):
        if not told.exists():
            folder.mkdir()
            told.write_text(json.dumps(make(folder)))
    return folder, json.loads(told.read_text())


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    "The miniature of the study, whose tests take seconds: the same notebooks for all."
    folder, _ = once(tmp_path_factory, "study", lambda folder: str(write_notebooks(folder / "notebooks")))
    return folder / "notebooks"


@pytest.fixture(scope="session")
def reference(study, tmp_path_factory):
    "The miniature, run once and undisturbed: its folder, what the command said, and the bytes of its metrics."
    def run(folder):
        result = btc_hedge("run", "--profile", "", "--out", OUT, "--notebooks", study, cwd=folder, process=True)
        assert result.code == 0, result.err
        return vars(result)
    folder, said = once(tmp_path_factory, "reference", run)
    return folder, SimpleNamespace(**said), (folder / OUT / "metrics.json").read_bytes()


def start(*words, cwd=None, **options):
    "Start the command line in a process of its own."
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    if os.environ.get("PYTEST_XDIST_WORKER"): environment |= {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}     # see `one_thread`
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


def smoke(folder, *words):
    "The study itself, in its smallest profile: what it said, and its metrics."
    result = btc_hedge("run", "--profile", "smoke", "--out", OUT, *words, cwd=folder, process=True)
    assert result.code == 0, result.out + result.err
    metrics = json.loads((folder / OUT / "metrics.json").read_text())
    assert {"unhedged", "bs_delta", "leland", "whalley_wilmott", "ppo"} <= metrics["delta_hedging"].keys()
    assert {"unhedged", "rule_puts", "rule_delta", "ppo"} <= metrics["option_hedging"].keys()
    assert {"symmetric", "inventory_skew", "avellaneda_stoikov", "glft"} <= metrics["market_making"].keys()
    assert metrics["comparisons"] and all(c["low"] <= c["high"] for c in metrics["comparisons"])
    for task in ("market_making", "delta_hedging", "option_hedging"):
        for row in metrics[task].values():
            assert {"mean", "std", "sharpe", "sortino", "skew", "kurtosis", "win_rate", "var95", "cvar95", "cvar99", "max_drawdown", "turnover", "cost"} <= row.keys()
    return result.out, metrics


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    "Folder, printed words and metrics of the smallest study of the sample, run once for all tests."
    folder, (out, metrics) = once(tmp_path_factory, "smoke", smoke)
    return folder, out, metrics


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "The built site, once for all tests; or one that is there, for those who develop: SITE=_docs."
    if os.environ.get("SITE"): return Path(os.environ["SITE"])
    def build(folder):
        from btc_hedge_rl.site import build_docs
        started = sum(os.times()[:4])     # processor time, children's included: a busy computer is no reason to fail
        build_docs(folder / "docs")
        return sum(os.times()[:4]) - started
    folder, seconds = once(tmp_path_factory, "site", build)
    assert seconds < 90, "building the site takes minutes"
    return folder / "docs"
