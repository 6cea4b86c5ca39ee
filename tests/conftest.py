"""A miniature of the study: small notebooks that make the pipeline's tests take seconds."""
import io
import os
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
BARS = Path(os.environ.get("BTC_BARS") or ROOT.parent / "shared" / "data" / "BTC_5m.csv")

HEAD = """
import json, time
from pathlib import Path
artifacts = Path(run_folder) / "artifacts"
def save(name, value): (artifacts / name).write_text(json.dumps(value))
def load(name): return json.loads((artifacts / name).read_text())
"""
STUDY = {
    "01_bars": ("run_folder = '.'\ndata = ''\nseed = 0  # Seed\nn_paths = 100  # Paths [1, 10000]\npause = 0.0  # Seconds [0, 60]", """
import numpy as np
time.sleep(pause)
save("bars.json", np.random.default_rng(seed).normal(size=n_paths).tolist())
save("data.json", data)"""),
    "02_makers": ("run_folder = '.'\nspread = 1.0  # Half-spread [0, 10]", """
bars = load("bars.json")
save("market_making.json", {"symmetric": {"mean": spread * sum(bars), "std": 1.0, "sharpe": None, "cvar95": 2.0, "cost": 0.0}})"""),
    "03_hedges": ("run_folder = '.'\npause = 0.0  # Seconds [0, 60]\nside = 'short'  # {short|long}\nfail = ''  # {|cell|input|overwrite}", """
time.sleep(pause)
if fail == "cell": raise ValueError("the policy collapsed")
if fail == "input": raise type("InputError", (ValueError,), {})("the bars end too early.")
if fail == "overwrite": save("bars.json", [0.0])
row = {"mean": sum(load("bars.json")), "std": 1.0, "sharpe": 0.1, "cvar95": 2.0, "cost": 0.5}
save("delta_hedging.json", {"unhedged": row, "ppo": row | {"std": 0.5}})
save("option_hedging.json", {"unhedged": row})"""),
    "04_comparison": ("run_folder = '.'\nn_boot = 10  # Bootstrap draws", """
value = load("delta_hedging.json")["ppo"]["std"]
save("comparisons.json", [{"task": "delta_hedging", "value": value, "low": value - 1 / n_boot, "high": value + 1 / n_boot}])"""),
}


def write_notebooks(folder: Path, cells_of: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (parameters, *cells) in cells_of.items():
        first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        rest = [nbformat.v4.new_code_cell(cell.strip()) for cell in (HEAD, *cells)]
        nbformat.write(nbformat.v4.new_notebook(cells=[first, *rest]), folder / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    return write_notebooks(tmp_path_factory.mktemp("study") / "notebooks", STUDY)


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
