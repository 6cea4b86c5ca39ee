"""A hole in the bars is a seam for every chapter: nothing that is computed from bars looks across it."""
import json

import numpy as np
import pandas as pd
import pytest
from conftest import btc_hedge

from btc_hedge_rl.backtest import cut_windows
from btc_hedge_rl.data import PRICES, cut_out, follows, load_bars, sample_bars, stylized_facts, write_bars
from btc_hedge_rl.market import bar_reaches
from btc_hedge_rl.simulator import Paths, calibrate, detect_jumps, hourly_increments
from btc_hedge_rl.worlds import world

LEAP = 1.3  # what the price does in the hole; a five-minute return of 26 % if anybody takes it for one


@pytest.fixture(scope="module")
def bars():
    "The sample without three weeks, at another price level after them."
    whole = sample_bars()
    torn = cut_out(whole, whole.index[12_000], whole.index[12_000 + 21 * 288 - 1])
    scale = np.where(torn.index > whole.index[12_000], LEAP, 1)
    return torn.assign(**{c: torn[c] * scale for c in PRICES})


def test_file(bars, tmp_path):
    kept = load_bars(write_bars(tmp_path / "bars.parquet", bars))
    pd.testing.assert_frame_equal(kept, bars, check_freq=False, check_exact=True)
    assert kept.attrs["repairs"] == {"splice": 1} and (~follows(kept.index)).sum() == 1
    kept.to_csv(tmp_path / "bars.csv")
    pd.testing.assert_frame_equal(load_bars(tmp_path / "bars.csv", "splice"), bars, check_freq=False)


def test_facts(bars):
    whole, torn = stylized_facts(sample_bars()), stylized_facts(bars)
    assert abs(torn["annual_vol"] / whole["annual_vol"] - 1) < .1 and torn["excess_kurtosis"] < 2 * whole["excess_kurtosis"]


def test_jumps_and_drift(bars):
    jumps, seam = detect_jumps(bars), int(np.flatnonzero(~follows(bars.index))[0]) + 1
    assert seam not in jumps.index and np.abs(jumps.size).max() < .9 * np.log(LEAP)
    y, part = hourly_increments(bars, jumps)
    assert np.abs(np.diff(y)).max() > .9 * np.log(LEAP) > 2 * np.abs(np.diff(y) - part).max()


def test_model(bars):
    whole, torn = calibrate(sample_bars()), calibrate(bars)
    assert abs(torn.qed.sigma / whole.qed.sigma - 1) < .1
    rate = lambda model: (model.provenance["n_up"] + model.provenance["n_down"]) / model.provenance["n_bars"]
    assert abs(rate(torn) / rate(whole) - 1) < .25


@pytest.mark.parametrize("name", ["stochastic-vol", "volatility-shock", "crash-replay"])
def test_worlds(bars, name):
    whole, torn = world(name, sample_bars()), world(name, bars)
    vol = lambda model: getattr(model, "annual_vol", getattr(model, "vol", None))
    assert abs(vol(torn) / vol(whole) - 1) < .15


def test_windows(bars):
    windows = Paths.from_bars(bars, 2016, 288)
    assert np.abs(np.diff(np.log(windows.close), axis=1)).max() < .5 * np.log(LEAP)
    assert len(windows) < len(Paths.from_bars(bars.reset_index(drop=True), 2016, 288))


def test_reaches(bars):
    assert bar_reaches(bars).shape[1] == len(bars) - 2 and bar_reaches(bars).max() < .5 * (LEAP - 1)


def test_times_of_windows(bars):
    windows = cut_windows(bars, days=7)
    assert (windows.paths.close[:, 0] == bars["close"][windows.starts]).all()


def test_command_line(bars, study, tmp_path):
    "A hole stops a run with its cure; with the cure it runs, and the manifest says what was done."
    bars.to_csv(tmp_path / "torn.csv")
    run = lambda *words: btc_hedge("run", "--data", "torn.csv", "--notebooks", study, "--profile", "", "--out", "r", *words, cwd=tmp_path)
    refused = run()
    assert refused.code == 2 and "--repair splice" in refused.err and not (tmp_path / "r" / "metrics.json").exists()
    assert run("--repair", "glue").code == 2 and "choose from sort" in run("--repair", "glue").err
    done = run("--repair", "splice")
    assert done.code == 0, done.err
    data = json.loads((tmp_path / "r" / "manifest.json").read_text())["data"]
    assert (data["repair"], data["repairs"], data["bars"]) == ("splice", {"splice": 1}, len(bars))
    assert "reused" in run("--repair", "splice").out and "reused" not in run("--repair", "sort,splice").out
    orphan = btc_hedge("run", "--repair", "splice", "--notebooks", study, "--out", "s", cwd=tmp_path)
    assert orphan.code == 2 and "name it with --data" in orphan.err


def test_inventions_are_limited(study, tmp_path):
    number = np.arange(2000)
    sample_bars().iloc[:2000][number % 50 != 7].to_csv(tmp_path / "spotted.csv")
    run = lambda *words: btc_hedge("run", "--data", "spotted.csv", "--notebooks", study, "--profile", "", "--out", "r", *words, cwd=tmp_path)
    refused = run("--repair", "fill-gaps")
    assert refused.code == 2 and "40 of 2,000 bars would be invented (2.0%" in refused.err and "--max-invented 0.02" in refused.err
    assert run("--repair", "fill-gaps", "--max-invented", ".02").code == 0
