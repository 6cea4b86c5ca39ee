"""Whatever a file holds and whatever is typed, the answer is a result or one clear sentence: never a traceback.

FUZZ=2000 in the environment multiplies the number of cases."""
import json
import os
import shutil
import string

import numpy as np
import pandas as pd
import pytest
from conftest import btc_hedge
from hypothesis import HealthCheck, given, settings, strategies as st

from btc_hedge_rl.agents import load_hedger
from btc_hedge_rl.backtest import BacktestResult, load_result, performance_metrics, save_result
from btc_hedge_rl.ground import InputError
from btc_hedge_rl.data import read_bars, read_funding, sample_bars, write_bars
from btc_hedge_rl.pipeline import convert, find_notebooks, read_manifest, read_parameters, read_profile, resolve
from btc_hedge_rl.simulator import MarketModel, reference_model

CASES = int(os.environ.get("FUZZ", 40))
many = settings(max_examples=CASES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
some = settings(many, max_examples=max(20, CASES // 4))

JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9), lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=9), x, max_size=4), max_leaves=9)


@st.composite
def damage(draw, good: bytes):
    "A good file with a piece cut out, something put in, or a JSON value exchanged."
    i, cut = draw(st.integers(0, len(good))), draw(st.integers(0, 60))
    return good[:i] + draw(st.binary(max_size=12) | st.text(max_size=8).map(str.encode)) + good[i + cut:]


@st.composite
def altered(draw, good):
    "JSON with one value exchanged or removed, anywhere in the tree."
    if not isinstance(good, (dict, list)) or not good or draw(st.integers(0, 4)) == 0: return draw(JSON)
    keys = list(good) if isinstance(good, dict) else range(len(good))
    key, copy = draw(st.sampled_from(keys)), good.copy()
    if draw(st.integers(0, 3)) == 0: del copy[key]
    else: copy[key] = draw(altered(good[key]))
    return copy


def refused_or_read(read, *arguments):
    try: return read(*arguments)
    except InputError as error: assert str(error).strip() and len(str(error)) < 2000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_bars(kind, place):
    path, bars = place / f"bars.{kind}", sample_bars().iloc[:40]
    if kind == "parquet": write_bars(path, bars)
    else: bars.rename_axis("time").to_csv(path)
    good = path.read_bytes()

    @many
    @given(damage(good) | st.binary(max_size=200))
    def fuzz(data):
        path.write_bytes(data)
        refused_or_read(read_bars, path)
    fuzz()


def test_funding(place):
    good = b"calc_time,funding_interval_hours,last_funding_rate\n" + b"".join(b"%d,8,0.0001\n" % (1735689600003 + i * 28_800_000) for i in range(9))

    @many
    @given(damage(good) | st.binary(max_size=200))
    def fuzz(data):
        import zipfile
        with zipfile.ZipFile(place / "funding.zip", "w") as archive: archive.writestr("funding.csv", data)
        refused_or_read(read_funding, place / "funding.zip")
    fuzz()


def test_market_model(place):
    good = json.loads(reference_model().to_json(place / "model.json").read_text())

    @many
    @given(damage((place / "model.json").read_bytes()) | altered(good).map(lambda v: json.dumps(v).encode()))
    def fuzz(data):
        (place / "model.json").write_bytes(data)
        refused_or_read(MarketModel.from_json, place / "model.json")
    fuzz()


def test_profile(place):
    @many
    @given(st.text(max_size=60) | st.dictionaries(st.text(string.ascii_lowercase + "_", min_size=1, max_size=9), st.integers() | st.floats() | st.booleans(), max_size=4)
           .map(lambda d: "\n".join(f"{k} = {str(v).lower()}" for k, v in d.items())))
    def fuzz(text):
        (place / "p.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
        refused_or_read(read_profile, place / "p.toml")
        refused_or_read(read_profile, text)
    fuzz()


def test_values(study):
    declared = {p.stem: read_parameters(p) for p in find_notebooks(study)}
    every = [p for step in declared.values() for p in step.values()]

    @many
    @given(st.sampled_from(every), st.text(max_size=20) | st.integers().map(str) | st.floats().map(str) | JSON)
    def fuzz(parameter, value):
        refused_or_read(convert, parameter, value)
        refused_or_read(resolve, declared, {parameter.name: value})
    fuzz()


def test_parameters_cell(study, place):
    good = find_notebooks(study)[0].read_bytes()

    @many
    @given(damage(good) | altered(json.loads(good)).map(lambda v: json.dumps(v).encode()))
    def fuzz(data):
        (place / "01_a.ipynb").write_bytes(data)
        refused_or_read(read_parameters, place / "01_a.ipynb")
    fuzz()


def test_manifest(study, place):
    folder = place / "run"
    assert btc_hedge("run", "--profile", "", "--notebooks", study, "--out", folder, cwd=place).code == 0
    good = (folder / "manifest.json").read_bytes()

    @many
    @given(damage(good) | altered(json.loads(good)).map(lambda v: json.dumps(v).encode()))
    def fuzz(data):
        (folder / "manifest.json").write_bytes(data)
        refused_or_read(read_manifest, folder)
    fuzz()


def test_policy(place):
    names = ("hedger.json", "policy.safetensors")

    @some
    @given(st.fixed_dictionaries({n: st.none() | st.binary(max_size=80) | JSON.map(lambda v: json.dumps(v).encode()) for n in names}))
    def fuzz(files):
        for name, data in files.items():
            (place / name).unlink(missing_ok=True)
            if data is not None: (place / name).write_bytes(data)
        refused_or_read(load_hedger, place)
    fuzz()


@pytest.fixture(scope="module")
def result(place):
    "A backtest of two strategies on disk, one of them with two seeds."
    pnl = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=["bs_delta", "ppo", "ppo/1"])
    metrics = pd.DataFrame({name: performance_metrics(pnl[name].to_numpy()) for name in ("bs_delta", "ppo")}).T.rename_axis("strategy")
    samples = {"bs_delta": pnl[["bs_delta"]].to_numpy().T, "ppo": pnl[["ppo", "ppo/1"]].to_numpy().T}
    return save_result(BacktestResult(metrics, pnl, samples, {}, "bp"), place / "result")


@pytest.mark.parametrize("name", ["metrics.json", "pnl.parquet"])
def test_backtest_result(name, result):
    path = result / name
    good = path.read_bytes()
    whole = json.loads(good) if name == "metrics.json" else {}

    @many
    @given(damage(good) | st.binary(max_size=200) | altered(whole).map(lambda v: json.dumps(v).encode()))
    def fuzz(data):
        path.write_bytes(data)
        again = refused_or_read(load_result, result)
        assert again is None or set(again.samples) == {"bs_delta", "ppo"} and len(again.samples["ppo"]) == 2
    try: fuzz()
    finally: path.write_bytes(good)
    assert load_result(result).samples["ppo"].shape == (2, 30)


@pytest.mark.parametrize("break_it", [lambda f: (f / "pnl.parquet").unlink(), lambda f: pd.DataFrame({"bs_delta": [np.nan], "ppo": [1.], "ppo/1": [1.]}).to_parquet(f / "pnl.parquet"),
                                      lambda f: pd.DataFrame({"leland": [1.]}).to_parquet(f / "pnl.parquet"), lambda f: pd.DataFrame({"bs_delta": ["a"], "ppo": [1.]}).to_parquet(f / "pnl.parquet")],
                         ids=["missing", "not finite", "other strategies", "words"])
def test_backtest_result_of_another_run(break_it, result, tmp_path):
    folder = tmp_path / "result"
    shutil.copytree(result, folder)
    break_it(folder)
    with pytest.raises(InputError) as error: load_result(folder)
    assert "result" in str(error.value) and "\n" not in str(error.value)


WORDS = st.sampled_from(["run", "sweep", "fetch", "docs", "publish", "--profile", "--out", "--data", "-p", "--from", "--only", "--notebooks", "--timeout", "--seeds", "--workers",
                         "--scheduler", "--rules", "--model", "--base-url", "n_paths=-1", "n_paths=x", "seed=-3", "spread=a,b", "cost=2", "-1", "0", "nan", "1e400", "a_file", "absent",
                         "BTCUSDT", "2025-07", "2025-13", "--help", "--force", "-", "--", "=", "tcp://x", "http://"])


def test_command_line(study, place):
    "Random words never run anything here: each request lacks something, and the wrong notebooks refuse the rest."
    (place / "a_file").write_text("mine")

    @many
    @given(st.lists(WORDS | st.text(st.characters(blacklist_characters="\0", blacklist_categories=[]), max_size=9), max_size=7))
    def fuzz(words):
        if words[:1] == ["docs"] or words[:1] == ["publish"]: words.insert(1, "--bogus")  # these work on the clone itself
        if words[:1] in (["run"], ["sweep"]): words = [*words, "--notebooks", str(place / "absent"), *(["-p", "nothing=1"] if "--rules" in words else [])]
        if words[:1] == ["fetch"]: words = [*words, "--base-url", "ftp://nowhere"]
        result = btc_hedge(*words, cwd=place)
        assert result.code in (0, 2), (words, result.code, result.err)
        if result.code: assert "Traceback" not in result.err and len([line for line in result.err.splitlines() if line.startswith("btc-hedge: ")]) <= 1, result.err
        else: assert "--help" in words or not words, words
    fuzz()
