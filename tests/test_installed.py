"""The package as a wheel installs it: outside a clone, read-only, without a home."""
import ctypes
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT

from btc_hedge_rl.ground import package_hash
from btc_hedge_rl.pipeline import find_notebooks, parameter_table


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "A folder that holds the package as it is installed, and nothing else; nobody may write there."
    tree, site = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("site")
    for name in ("settings.ini", "setup.py", "README.md", "LICENSE"): shutil.copy(ROOT / name, tree)
    for name in ("btc_hedge_rl", "nbs/research"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    build = [sys.executable, "setup.py", "-q", "build", "--build-base", "b", "--build-lib", str(site)]
    done = subprocess.run(build, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folders = [site, *(p for p in site.rglob("*") if p.is_dir())]
    for folder in folders: folder.chmod(0o555)
    yield site
    for folder in folders: folder.chmod(0o755)


def mortal():
    "Permissions hold for root, too, from here on: CAP_DAC_OVERRIDE leaves the bounding set."
    if os.geteuid() == 0: ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


def python(installed, cwd, code, *words, **environment):
    "Run a line of Python with the installed package, without a home."
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "TMPDIR": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=cwd, env=own, preexec_fn=mortal, capture_output=True, text=True, timeout=600)


CLI = "from btc_hedge_rl.cli import main; main()"


def test_it_carries_the_study_without_outputs(installed, tmp_path):
    done = python(installed, tmp_path, CLI, "run", "--list-parameters")
    assert done.returncode == 0 and done.stdout.strip() == parameter_table(find_notebooks()).strip(), done.stderr
    notebooks = sorted((installed / "btc_hedge_rl" / "research").iterdir())
    assert [p.name for p in notebooks] == [p.name for p in find_notebooks()]
    for path in notebooks:
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert cells and not any(c["outputs"] or c["execution_count"] for c in cells)


def test_it_is_the_same_package(installed):
    "So a worker with the wheel and one with a clone of the same commit may share a sweep."
    assert package_hash(installed / "btc_hedge_rl") == package_hash()


@pytest.mark.parametrize("words", [["docs"], ["publish", "run"]], ids=" ".join)
def test_what_needs_a_clone_says_so(words, installed, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("manifest.json", "metrics.json"): (tmp_path / "run" / name).write_text("{}")
    done = python(installed, tmp_path, CLI, *words)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "clone" in done.stderr, done.stderr


@pytest.mark.parametrize("home", ["missing", "closed", "unset"])
def test_read_only_and_without_a_home(home, installed, study, tmp_path):
    "Nothing can be written but the temporary folder and the run: help, a kernel that is compiled, and a study."
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    environment = {} if home == "unset" else {"HOME": str(closed if home == "closed" else closed / "nobody")}
    done = python(installed, tmp_path, CLI, "--help", **environment)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    done = python(installed, tmp_path, "from btc_hedge_rl.ground import normals; print(normals(0, 0, 2, 2).shape)", **environment)
    assert done.returncode == 0 and done.stdout == "(2, 2)\n" and done.stderr == "", done.stderr
    if home != "closed": return
    done = python(installed, tmp_path, CLI, "run", "--profile", "", "--notebooks", study, "--out", "run", **environment)
    assert done.returncode == 0 and (tmp_path / "run" / "metrics.json").exists(), done.stderr
    assert list(closed.iterdir()) == []


def test_one_thread_of_linear_algebra_under_plain_papermill(tmp_path):
    "A notebook that loads NumPy before the package computes with one BLAS thread all the same."
    code = "import numpy, btc_hedge_rl, ctypes, re\nfor p in set(re.findall(r'/\\S*openblas\\S*', open('/proc/self/maps').read())): print(ctypes.CDLL(p).scipy_openblas_get_num_threads64_())"
    environment = {k: v for k, v in os.environ.items() if "_NUM_THREADS" not in k} | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout
    assert set(said.split()) <= {"1"}, said


def test_every_requirement_of_the_package_is_named():
    "What the modules import at their top is required, by the core or by an extra."
    import ast
    import configparser
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    listed = lambda key: {word.split("<")[0].split(">")[0].split("=")[0].replace("-", "_").lower() for word in settings["DEFAULT"][key].split()}
    core, train, dev = listed("requirements"), listed("train_requirements"), listed("dev_requirements")
    assert train | listed("dask_requirements") <= dev and not core & {"torch", "stable_baselines3", "dask", "distributed", "nbdev"}
    missing = {}
    for module in (ROOT / "btc_hedge_rl").rglob("*.py"):
        allowed = core | (train if module.parent.name in ("agents", "envs") else dev if module.parent.name == "site" else set()) | {"llvmlite", "btc_hedge_rl", "yaml" if module.parent.name == "site" else ""}
        top = [node for node in ast.parse(module.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0)]
        names = {(node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0] for node in top for alias in node.names}
        if unknown := {n for n in names if n.lower() not in allowed and n not in sys.stdlib_module_names}: missing[module.name] = unknown
    missing.pop("_modidx.py", None)
    assert missing == {}


def test_rules_and_their_sweeps_need_no_pytorch(tmp_path):
    "Simulation, rules, their backtests and sweeps work where PyTorch, Stable-Baselines3 and Dask are not installed."
    code = """
import sys
class Absent:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("torch", "stable_baselines3", "safetensors", "tensorboard", "dask", "distributed"): raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from btc_hedge_rl.backtest import backtest
from btc_hedge_rl.pipeline import sweep_backtests
from btc_hedge_rl.simulator import reference_model, simulate
from btc_hedge_rl.strategies import DeltaHedge
print(len(backtest({"bs_delta": DeltaHedge()}, simulate(reference_model(), 3)).pnl))
import btc_hedge_rl.cli as cli
cli.main(["sweep", "--rules", "-p", "n_paths=20", "--workers", "0", "--out", "sweep"])"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("3\n") and "1 points" in done.stdout, done.stderr
