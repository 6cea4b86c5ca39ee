"""What a notebook cannot test of itself: stopping, killing, continuing, and the study from end to end."""
import json
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from conftest import BARS, OUT, btc_hedge, smoke, start

from btc_hedge_rl.pipeline import write_notebooks

PLAIN = ("run", "--profile", "", "--out", OUT)


def manifest(folder):
    return json.loads((folder / OUT / "manifest.json").read_text())


def states(result):
    "Step number → what its progress line says."
    said = result if isinstance(result, str) else result.out
    return {line[1]: line.split(" s  ")[1] for line in said.splitlines() if line.startswith("[")}


def wait_for(step, folder):
    "Wait until this step runs."
    for _ in range(2400):
        time.sleep(.05)
        if (folder / OUT / "manifest.json").exists() and manifest(folder)["steps"].get(step, {}).get("status") == "running":
            return
    raise AssertionError(f"{step} did not start")


def kernels(folder):
    "Processes that work in this run folder."
    found = []
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] and Path(process.info["cwd"]) == folder / OUT: found.append(process.pid)
    return found


def test_run_leaves_what_it_promises(reference):
    folder, result, metrics = reference
    assert sorted(p.name for p in (folder / OUT).glob("*.ipynb")) == ["01_paths.ipynb", "02_makers.ipynb", "03_hedges.ipynb", "04_summary.ipynb"]
    assert set(json.loads(metrics)) == {"market_making", "delta_hedging", "option_hedging", "comparisons"}
    record = manifest(folder)
    assert record["status"] == "done" and record["seeds"] == {"seed": 0} and "numpy" in record["versions"]
    assert record["steps"]["01_paths"]["artifacts"].keys() == {"paths.npy", "data.json"}
    assert all(len(r["notebook"]) == 64 and r["seconds"] > 0 for r in record["steps"].values())
    for name in record["steps"]:
        kept = nbformat.read(folder / OUT / f"{name}.ipynb", as_version=4)
        told = [c.source for c in kept.cells if "provenance" in c.metadata.get("tags", [])]
        assert len(told) == 1 and "run **run**" in told[0] and kept.metadata["provenance"]["package"] == record["package"]
    for title in ("Market making", "Delta hedging", "Option hedging"): assert title in result.out
    assert "Symmetric" in result.out and "cvar95" in result.out and list(states(result)) == list("1234")


def test_same_seed_same_metrics(reference, study, tmp_path):
    assert btc_hedge(*PLAIN, "--notebooks", study, cwd=tmp_path).code == 0
    assert (tmp_path / OUT / "metrics.json").read_bytes() == reference[2]
    other = btc_hedge(*PLAIN, "--notebooks", study, "-p", "seed=1", cwd=tmp_path)
    assert other.code == 0 and (tmp_path / OUT / "metrics.json").read_bytes() != reference[2]


def test_cache(study, tmp_path):
    run = lambda *words: states(btc_hedge(*PLAIN, "--notebooks", study, *words, cwd=tmp_path))
    assert all(s == "done (new)" for s in run().values())
    assert all(s == "reused" for s in run().values())
    assert run("-p", "n_boot=20") == {"1": "reused", "2": "reused", "3": "reused", "4": "done (changed: parameters n_boot)"}
    (tmp_path / OUT / "artifacts" / "paths.npy").write_text("[0.5]")
    assert run("-p", "n_boot=20") == {"1": "done (artifact paths.npy was edited)", "2": "reused", "3": "reused", "4": "reused"}
    (tmp_path / OUT / "artifacts" / "option_hedging.json").unlink()
    assert run("-p", "n_boot=20")["3"] == "done (artifact option_hedging.json is missing)"
    changed = run("-p", "n_boot=20", "-p", "spread=2")
    assert changed == {"1": "reused", "2": "done (changed: parameters spread)", "3": "reused", "4": "reused"}     # nobody reads what 2 wrote
    moved = run("-p", "n_boot=20", "-p", "spread=2", "-p", "sigma=.5")
    assert moved["2"] == moved["3"] == "done (changed: artifacts paths.npy)" and moved["4"] == "done (changed: artifacts delta_hedging.json)"
    assert all(s == "done (asked for)" for s in run("--force").values())


SHY = {"01_a": """
run_folder = '.'
number = 1  # Written
# %%
from pathlib import Path
Path(run_folder, "artifacts", "a.txt").write_text(str(number))
Path(run_folder, "artifacts", "b.txt").write_text("b")""", "02_b": """
run_folder = '.'
# %%
from pathlib import Path
print(Path(run_folder, "artifacts", "b.txt").read_text())"""}


def test_a_step_that_asks_for_nothing_may_have_read_everything(tmp_path):
    notebooks = write_notebooks(tmp_path / "notebooks", SHY)
    run = lambda *words: states(btc_hedge(*PLAIN, "--notebooks", notebooks, *words, cwd=tmp_path))
    run()
    assert run()["2"] == "reused" and run("-p", "number=2")["2"] == "done (changed: artifacts)"


def test_an_interrupted_run_leaves_nothing_of_the_old_seed(reference, study, tmp_path):
    "Artifacts of the old seed go before the first step of the new one runs, or as soon as its bytes are known."
    shutil.copytree(reference[0] / OUT, tmp_path / OUT)
    process = start(*PLAIN, "--notebooks", study, "-p", "seed=1", "-p", "pause=3", cwd=tmp_path)
    wait_for("03_hedges", tmp_path)
    process.kill()
    process.communicate()
    left = {p.name for p in (tmp_path / OUT / "artifacts").iterdir()}
    assert {"paths.npy", "market_making.json"} <= left and not {"delta_hedging.json", "comparisons.json"} & left and not (tmp_path / OUT / "metrics.json").exists()
    assert {k: r["status"] for k, r in manifest(tmp_path)["steps"].items()}["04_summary"] == "outdated"
    assert btc_hedge(*PLAIN, "--notebooks", study, cwd=tmp_path).code == 0
    assert (tmp_path / OUT / "metrics.json").read_bytes() == reference[2]


def test_log_and_json(study, tmp_path):
    done = btc_hedge(*PLAIN, "--notebooks", study, "--json", cwd=tmp_path)
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [e["event"] for e in events] == ["begin", "done"] * 4 and events[-1]["step"] == "04_summary" and events[0]["of"] == 4
    failed = btc_hedge(*PLAIN, "--notebooks", study, "--json", "-p", "fail=cell", cwd=tmp_path)
    assert failed.code == 1 and json.loads(failed.out.splitlines()[-1])["event"] == "failed"
    log = (tmp_path / OUT / "run.log").read_text()
    assert log.count("asked for: ") == 2 and "fail = 'cell'" in log and "ValueError: the policy collapsed" in log and manifest(tmp_path)["processor"] in log


def test_from_and_only(study, tmp_path):
    run = lambda *words: btc_hedge(*PLAIN, "--notebooks", study, *words, cwd=tmp_path)
    run()
    assert states(run("--from", "3")) == {"1": "reused", "2": "reused", "3": "done (asked for)", "4": "done (asked for)"}
    assert states(run("--only", "02_makers")) == {"1": "reused", "2": "done (asked for)"}
    assert (tmp_path / OUT / "metrics.json").exists()
    partly = run("--only", "1", "-p", "seed=7")
    assert partly.code == 0 and "not up to date: 02_makers" in partly.out and not (tmp_path / OUT / "metrics.json").exists()
    (tmp_path / OUT / "artifacts" / "paths.npy").unlink()
    refused = run("--from", "2")
    assert refused.code == 2 and "01_paths is not finished" in refused.err


def test_failing_cell(study, tmp_path):
    result = btc_hedge(*PLAIN, "--notebooks", study, "-p", "fail=cell", cwd=tmp_path)
    assert result.code == 1 and result.err.splitlines()[-1].startswith("btc-hedge: 03_hedges, cell ")
    assert "ValueError: the policy collapsed" in result.err and 4 < len(result.err.splitlines()) < 25
    assert "FAILED" in states(result)["3"] and manifest(tmp_path)["status"] == "failed"
    kept = nbformat.read(tmp_path / OUT / "03_hedges.ipynb", as_version=4)
    assert "ValueError" in [o.get("ename") for c in kept.cells for o in c.get("outputs", [])]
    assert not (tmp_path / OUT / "metrics.json").exists()
    assert states(btc_hedge(*PLAIN, "--notebooks", study, cwd=tmp_path))["3"] == "done (failed before)"


def test_input_error_in_a_cell_is_one_line(study, tmp_path):
    result = btc_hedge(*PLAIN, "--notebooks", study, "-p", "fail=input", cwd=tmp_path)
    assert result.code == 2 and result.err == "btc-hedge: 03_hedges: the bars end too early.\n"


def test_a_step_may_not_change_earlier_artifacts(study, tmp_path):
    result = btc_hedge(*PLAIN, "--notebooks", study, "-p", "fail=overwrite", cwd=tmp_path)
    assert result.code == 1 and "artifacts/paths.npy, which belongs to an earlier step" in result.err


def test_time_limit(study, tmp_path):
    result = btc_hedge(*PLAIN, "--notebooks", study, "-p", "pause=50", "--timeout", "4", cwd=tmp_path)
    assert result.code == 1 and "01_paths: the notebook took longer than its limit of 4 s" in result.err
    kept = nbformat.read(tmp_path / OUT / "01_paths.ipynb", as_version=4)
    assert "TimeoutError" in [o.get("ename") for c in kept.cells for o in c.get("outputs", [])]
    assert kernels(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_stopped_and_continued(number, reference, study, tmp_path):
    words = (*PLAIN, "--notebooks", study, "-p", "pause=3")
    process = start(*words, cwd=tmp_path)
    wait_for("03_hedges", tmp_path)
    time.sleep(1.5)
    assert kernels(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130), errors
    if number != signal.SIGKILL: assert errors.splitlines() == ["btc-hedge: stopped; the same command continues."]
    for _ in range(40):
        if not kernels(tmp_path): break
        time.sleep(.05)
    assert kernels(tmp_path) == []
    (tmp_path / OUT / "artifacts" / "half_written.tmp").write_text("left by a kill")
    again = states(btc_hedge(*words, cwd=tmp_path))
    assert again["1"] == again["2"] == "reused" and again["3"] == "done (was interrupted)"
    assert (tmp_path / OUT / "metrics.json").read_bytes() == reference[2]
    assert not (tmp_path / OUT / "artifacts" / "half_written.tmp").exists()


def test_second_run_is_told_who_holds_the_folder(study, tmp_path):
    words = (*PLAIN, "--notebooks", study, "-p", "pause=50")
    process = start(*words, cwd=tmp_path)
    wait_for("01_paths", tmp_path)
    second = btc_hedge(*words, cwd=tmp_path)
    process.terminate()
    process.communicate(timeout=20)
    assert second.code == 2 and f"in use by process {process.pid}" in second.err and len(second.err.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(study, tmp_path):
    tmp_path.chmod(0o500)
    result = btc_hedge(*PLAIN, "--notebooks", study, cwd=tmp_path)
    tmp_path.chmod(0o700)
    assert result.code == 2 and "cannot be written" in result.err


def test_names_that_are_hard_on_papermill(study, tmp_path):
    "Braces are fields to papermill, spaces and quotes are syntax to a shell."
    notebooks = tmp_path / "{note} 'books'"
    shutil.copytree(study, notebooks)
    result = btc_hedge("run", "--profile", "", "--out", "a {run} $HOME; ls", "--notebooks", notebooks, cwd=tmp_path)
    assert result.code == 0, result.err
    assert (tmp_path / "a {run} $HOME; ls" / "metrics.json").exists()


def test_sweep_on_dask_and_alone(study, tmp_path):
    words = ("sweep", "--notebooks", study, "--profile", "", "-p", "spread=1,2", "--seeds", "0,1")
    tables = []
    for workers in (2, 0):
        result = btc_hedge(*words, "--out", f"sweep{workers}", "--workers", workers, cwd=tmp_path, process=workers > 0)
        assert result.code == 0 and "4 points" in result.out, result.err
        tables.append(pd.read_parquet(tmp_path / f"sweep{workers}" / "sweep.parquet"))
        assert (tmp_path / f"sweep{workers}" / "sweep.png").stat().st_size > 5_000
    pd.testing.assert_frame_equal(*tables)
    makers = tables[0].query("task == 'market_making' and metric == 'mean'").set_index(["spread", "seed"]).value
    assert makers[2.0, 0] == pytest.approx(2 * makers[1.0, 0]) and makers[1.0, 0] != makers[1.0, 1]


def test_a_failing_point_does_not_stop_the_sweep(study, tmp_path):
    words = ("sweep", "--notebooks", study, "--profile", "", "-p", "fail=cell,", "-p", "n_boot=10,20", "--workers", "0", "--out", "sweep")
    result = btc_hedge(*words, cwd=tmp_path)
    assert result.code == 1 and "2 of 2 points failed" in result.err and (tmp_path / "sweep" / "sweep.parquet").exists()


# The study itself, in its smallest profile

def test_smoke_on_the_sample(smoke_run):
    folder, out, _ = smoke_run
    assert len(states(out)) == 8 and manifest(folder)["data"] == "synthetic sample"
    kept = [o.get("data", {}) for path in (folder / OUT).glob("0*.ipynb") for c in nbformat.read(path, 4).cells for o in c.get("outputs", [])]
    assert sum("image/svg+xml" in data for data in kept) > 5 and not any({"image/svg+xml", "image/png"} <= data.keys() for data in kept)
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])     # processor time: a busy computer is no reason to fail
    before = used()
    again, _ = smoke(folder)
    assert set(states(again).values()) == {"reused"} and used() - before < 10


def test_smoke_twice_is_identical(smoke_run, tmp_path):
    smoke(tmp_path)
    assert (tmp_path / OUT / "metrics.json").read_bytes() == (smoke_run[0] / OUT / "metrics.json").read_bytes()


@pytest.mark.skipif(not BARS.exists(), reason="no bars here; name a file with BTC_BARS")
def test_smoke_on_real_bars(tmp_path):
    smoke(tmp_path, "--data", BARS)
    assert manifest(tmp_path)["data"]["bars"] > 1000
