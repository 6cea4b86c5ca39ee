"""Requests that cannot be met end with one line, exit code 2, and nothing written."""
import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT, btc_hedge

from btc_hedge_rl.pipeline import find_notebooks, parameter_table

BARS = "datetime,open,high,low,close,volume\n"


def bars(days):
    "Rows of bars at ten past midnight on each of these dates."
    return BARS + "".join(f"{day} 00:{5 * i:02d},100,101,99,100,1\n" for day in days for i in range(3))


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "prose.csv").write_text("It was the best of times,\nit was the worst of times.\n")
    (tmp_path / "ambiguous.csv").write_text(bars(["03/04/2025"]))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 50)
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and then nothing")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive: archive.writestr("readme.txt", "no bars")
    (tmp_path / "a_file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    (tmp_path / "bad.toml").write_text("n_paths = = 3")
    (tmp_path / "unknown.toml").write_text("n_path = 3")
    (tmp_path / "digits.toml").write_text("n_paths = " + "1" * 10**6)
    for folder, text in (("r", '{"cells": [], "metadata": {"kernelspec": {"name": "ir", "language": "R"}}}'), ("deep", "[" * 10**6)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "01_a.ipynb").write_text(text)
    return tmp_path


def listing(folder):
    return sorted((p.relative_to(folder).as_posix(), p.stat().st_size) for p in folder.rglob("*"))


BAD = {
    "missing file": (["--data", "absent.csv"], "absent.csv"),
    "folder as data": (["--data", "mine"], "mine"),
    "text that is no bars": (["--data", "prose.csv"], "prose.csv"),
    "ambiguous dates": (["--data", "ambiguous.csv"], "ambiguous.csv"),
    "empty file": (["--data", "empty.csv"], "empty.csv"),
    "binary file": (["--data", "binary.csv"], "binary.csv"),
    "broken zip": (["--data", "broken.zip"], "broken.zip"),
    "zip without bars": (["--data", "other.zip"], "other.zip"),
    "unknown parameter": (["-p", "n_path=5"], "did you mean n_paths"),
    "negative number of paths": (["-p", "n_paths=-5"], "n_paths"),
    "word for a number": (["-p", "n_paths=many"], "whole number"),
    "not finite": (["-p", "spread=nan"], "number"),
    "not a choice": (["-p", "side=flat"], "short, long"),
    "no value": (["-p", "n_paths"], "name=value"),
    "reserved": (["-p", "run_folder=x"], "--out"),
    "folder is a file": (["--out", "a_file"], "is a file"),
    "folder below a file": (["--out", "a_file/run"], "is a file"),
    "folder of somebody": (["--out", "mine"], "not a run folder"),
    "folder name too long": (["--out", "x" * 300], "run folder"),
    "unknown profile": (["--profile", "sutdy"], "no such profile"),
    "profile out of the folder": (["--profile", "../profiles/smoke"], "no such profile"),
    "broken profile": (["--profile", "bad.toml"], "bad.toml"),
    "profile with unknown name": (["--profile", "unknown.toml"], "did you mean n_paths"),
    "no notebooks": (["--notebooks", "mine"], "--notebooks"),
    "step that is not there": (["--only", "9"], "no such step"),
    "nothing to continue": (["--from", "2"], "earlier run"),
    "from and only": (["--from", "2", "--only", "2"], "exclude"),
    "no time": (["--timeout", "-1"], "time limit"),
    "endless time": (["--timeout", "inf"], "time limit"),
    "no number for a time": (["--timeout", "nan"], "time limit"),
    "not UTF-8": (["--data", "b\udcffars.csv"], "UTF-8"),
    "twice": (["-p", "n_paths=20", "-p", "n_paths=30"], "n_paths is given twice"),
    "another language": (["--notebooks", "r"], "written in R"),
    "JSON without bottom": (["--notebooks", "deep"], "is not JSON"),
    "a number of a million digits": (["--profile", "digits.toml"], "digits.toml"),
    "unknown option": (["--fast"], "--fast"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_request(name, tree, study):
    words, expected = BAD[name]
    before = listing(tree)
    defaults = [] if "--profile" in words else ["--profile", ""]
    if "--notebooks" not in words: defaults += ["--notebooks", study]
    if "--out" not in words: defaults += ["--out", "new"]
    result = btc_hedge("run", *defaults, *words, cwd=tree)
    assert result.code == 2, result.err
    assert len(result.err.splitlines()) == 1 and expected in result.err, result.err
    assert result.out == "" and listing(tree) == before


@pytest.mark.parametrize("words", [["walk"], ["walk-forward", "absent.csv"], ["walk-forward", "--train-days", "900"], ["walk-forward", "--learners", "sac"], ["fetch"], ["fetch", "BTCUSDT", "July", "2025-08"], ["sweep"], ["docs", "--run", "absent"], ["sweep", "--rules", "-p", "cost=1e-3,0.001"],
                                   ["sweep", "--rules", "--seeds", "0,1,0"], ["sweep", "--rules", "-p", "seed=1", "--seeds", "2"]], ids=" ".join)
def test_other_bad_requests(words, tmp_path, study):
    if words == ["sweep"]: words = ["sweep", "--notebooks", study, "--profile", ""]
    result = btc_hedge(*words, cwd=tmp_path)
    assert result.code == 2 and len(result.err.splitlines()) == 1, result.err
    assert listing(tmp_path) == []


def test_one_line_in_a_process_of_its_own(tmp_path, study):
    result = btc_hedge("run", "--notebooks", study, "--profile", "", "-p", "n_paths=-1", cwd=tmp_path, process=True)
    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1) and listing(tmp_path) == []


@pytest.mark.parametrize("words", [[], ["run"], ["sweep"], ["walk-forward"], ["fetch"], ["docs"]], ids=" ".join)
def test_help(words, tmp_path):
    result = btc_hedge(*words, "--help", cwd=tmp_path)
    assert result.code == 0 and result.out.startswith(f"Usage: btc-hedge {' '.join(words)}".rstrip()) and result.err == ""


def test_help_names_the_exit_codes_and_needs_neither_time_nor_pytorch(tmp_path):
    code = "import sys, btc_hedge_rl.cli as c\ntry: c.main(['--help'])\nfinally: print(sorted({'torch', 'pandas', 'numba', 'dask', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True)
    assert "Exit codes: 0 done; 1" in " ".join(result.stdout.split()) and result.stderr == "[]\n"


def test_tensorboard_follows_the_training(tmp_path, monkeypatch):
    "A flag of the run reaches the training in its kernel, and PPO writes what TensorBoard reads."
    from btc_hedge_rl.pipeline import write_notebooks
    cell = """run_folder = '.'
# %%
from btc_hedge_rl.agents import train_ppo
from btc_hedge_rl.simulator import reference_model, simulate
train_ppo("BtcHedge/DeltaHedging-v0", simulate(reference_model(), 4), 600, progress=False)"""
    monkeypatch.delenv("BTC_HEDGE_TENSORBOARD", raising=False)
    result = btc_hedge("run", "--profile", "", "--notebooks", write_notebooks(tmp_path / "n", {"01_train": cell}), "--out", "run", "--tensorboard", "curves", cwd=tmp_path)
    monkeypatch.delenv("BTC_HEDGE_TENSORBOARD", raising=False)
    assert result.code == 0 and list((tmp_path / "curves").rglob("events.out.tfevents.*")), result.err


def test_parameters_are_listed(tmp_path):
    result = btc_hedge("run", "--list-parameters", cwd=tmp_path)
    assert result.code == 0 and result.out.strip() == parameter_table(find_notebooks()).strip()
    assert result.out.strip() in btc_hedge("run", "--help", cwd=tmp_path).out


def test_every_parameter_says_what_it_means():
    table = parameter_table(find_notebooks(ROOT / "nbs" / "research")).splitlines()
    width = table[0].index("meaning")
    assert [line for line in table[1:] if not line[width:].strip()] == []


@pytest.mark.parametrize("profile", sorted(p.stem for p in (ROOT / "btc_hedge_rl" / "profiles").glob("*.toml")))
def test_profiles_fit_the_notebooks(profile):
    from btc_hedge_rl.pipeline import read_parameters, read_profile, resolve
    resolve({p.stem: read_parameters(p) for p in find_notebooks()}, read_profile(profile))
