"""Files that people hand over by mistake: each gets one clear line and exit code 2 from the command line, and nothing is written."""
import gzip
import io
import json
import os
import pickle
import sqlite3
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
from conftest import btc_hedge

from btc_hedge_rl.data import PRICES, sample_bars

BARS = sample_bars().iloc[:3000]
TEXT = BARS.to_csv()
HEAD, *LINES = TEXT.splitlines()


def zipped(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items(): archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return out.getvalue()


def parquet(frame, **how):
    out = io.BytesIO()
    frame.to_parquet(out, **how)
    return out.getvalue()


def tarred(data):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        entry = tarfile.TarInfo("bars.csv")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def database(tmp_path):
    with sqlite3.connect(tmp_path / "x.db") as db: db.execute("create table bars (time text, close real)")
    data = (tmp_path / "x.db").read_bytes()
    os.unlink(tmp_path / "x.db")
    return data


def saved(save, value):
    out = io.BytesIO()
    save(out, value)
    return out.getvalue()


def prices(change):
    "The bars with other prices."
    return BARS.assign(**change(BARS[PRICES])).to_csv()


number = np.arange(len(BARS))
trades = pd.DataFrame({"id": range(50), "price": 1e5, "qty": .01, "quote_qty": 1e3, "time": 1753258200000 + np.arange(50), "is_buyer_maker": True})
CONTAINERS = {
    "gzipped.csv": (lambda: gzip.compress(TEXT.encode()), "gzipped.csv"),
    "tar.csv.gz": (lambda: tarred(TEXT.encode()), "tar.csv.gz"),
    "sheet.xlsx": (lambda: zipped(xl__workbook_xml="<x/>", Content_xml="<x/>"), "sheet.xlsx"),
    "two.zip": (lambda: zipped(one_csv=TEXT, two_csv=TEXT), "two.zip"),
    "nested.zip": (lambda: zipped(inner_zip=zipped(bars_csv=TEXT)), "nested.zip"),
    "empty.zip": (lambda: zipped(), "empty.zip"),
    "cut.zip": (lambda: zipped(bars_csv=TEXT)[:-300], "cut.zip"),
    "bars.pkl": (lambda: pickle.dumps(BARS), "bars.pkl"),
    "bars.npz": (lambda: saved(lambda f, v: np.savez(f, close=v), BARS["close"].to_numpy()), "bars.npz"),
    "picture.csv": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(200), "picture.csv"),
    "letter.csv": (lambda: b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n<<>>\nendobj\n", "letter.csv"),
    "cut.parquet": (lambda: parquet(BARS)[:-40], "cut.parquet"),
    "timeless.parquet": (lambda: parquet(BARS.reset_index(drop=True)), "timeless.parquet"),
    "words.parquet": (lambda: parquet(BARS.astype(str).assign(close="dear")), "words.parquet"),
    "lists.parquet": (lambda: parquet(BARS.assign(close=[[1.]] * len(BARS))), "lists.parquet"),
    "nobody.parquet": (lambda: parquet(BARS.iloc[:0]), "nobody.parquet"),
}
TEXTS = {
    "page.csv": (lambda: "<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>", "page.csv"),
    "answer.csv": (lambda: json.dumps({"code": -1121, "msg": "Invalid symbol."}), "answer.csv"),
    "klines.json": (lambda: json.dumps([[1753258200000, "1", "2", "0.5", "1.5", "9"]] * 20), "klines.json"),
    "pointer.csv": (lambda: "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "pointer.csv"),
    "trades.csv": (lambda: trades.to_csv(index=False), "trades.csv"),
    "funding.csv": (lambda: "calc_time,funding_interval_hours,last_funding_rate\n" + "1753258200000,8,0.0001\n" * 9, "funding.csv"),
    "closes.csv": (lambda: BARS[["close"]].to_csv(), "closes.csv"),
    "commas.csv": (lambda: ",,,,,\n" * 50, "commas.csv"),
    "blank.csv": (lambda: "\r\n" * 500, "blank.csv"),
    "twice.csv": (lambda: "\n".join([HEAD.replace("open", "close"), *LINES]), "twice.csv"),
    "ragged.csv": (lambda: "\n".join([HEAD, *LINES[:20], LINES[20] + ",7,8", *LINES[21:]]), "ragged.csv"),
    "short.csv": (lambda: "\n".join([HEAD, *LINES[:20], LINES[20][:30], *LINES[21:]]), "short.csv"),
    "zeros.csv": (lambda: TEXT.encode()[:5000] + bytes(64) + TEXT.encode()[5000:], "zeros.csv"),
    "log.csv": (lambda: "2025-07-23 08:10:00 INFO started\n" * 40, "log.csv"),
}
DEGENERATE = {
    "constant.csv": (lambda: prices(lambda p: {c: 1e5 for c in PRICES}), "does not move"),
    "inverted.csv": (lambda: prices(lambda p: {"open": 1 / p["open"], "high": 1 / p["high"], "low": 1 / p["low"], "close": 1 / p["close"]}), "column high"),
    "cents.csv": (lambda: prices(lambda p: {c: p[c] * np.where(number > 1500, 100, 1) for c in PRICES}), "factor of 1"),
    "two_sources.csv": (lambda: prices(lambda p: {c: p[c] * np.where(number % 2, 12, 1) for c in PRICES}), "factor of 1"),
    "swapped.csv": (lambda: BARS.rename(columns={"high": "low", "low": "high"}).to_csv(), "column"),
    "backwards.csv": (lambda: BARS[::-1].to_csv(), "--repair sort"),
    "office_hours.csv": (lambda: BARS[(BARS.index.hour >= 9) & (BARS.index.hour < 17)].to_csv(), "--repair splice"),
    "spotted.csv": (lambda: BARS[number % 3 > 0].to_csv(), "missing"),
    "joined.csv": (lambda: "\n".join([HEAD, *LINES, *LINES]), "--repair"),
    "hours.csv": (lambda: BARS[::12].to_csv(), "60 minutes apart"),
}
FILES = CONTAINERS | TEXTS | DEGENERATE


def listing(folder):
    return sorted((p.relative_to(folder).as_posix(), p.lstat().st_size) for p in folder.rglob("*"))


def refused(tmp_path, *words):
    "The one line that a request gets."
    before = listing(tmp_path)
    result = btc_hedge(*words, cwd=tmp_path)
    assert (result.code, result.out) == (2, "") and listing(tmp_path) == before, result.err
    line, = result.err.splitlines()
    assert line.startswith("btc-hedge: ") and len(line) < 600 and "Traceback" not in line
    return line


@pytest.mark.parametrize("name", FILES)
def test_file_is_refused(name, study, tmp_path):
    make, expected = FILES[name]
    data = make()
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    line = refused(tmp_path, "run", "--data", name, "--notebooks", study, "--profile", "", "--out", "new")
    assert name in line and expected in line, line


def test_database(study, tmp_path):
    (tmp_path / "bars.db").write_bytes(database(tmp_path))
    assert "bars.db" in refused(tmp_path, "run", "--data", "bars.db", "--notebooks", study, "--profile", "", "--out", "new")


@pytest.mark.parametrize("name", ["constant.csv", "hours.csv", "page.csv", "cut.parquet", "office_hours.csv"])
def test_a_walk_refuses_them_too(name, tmp_path):
    make, expected = FILES[name]
    data = make()
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    line = refused(tmp_path, "walk-forward", name, "--out", "new")
    assert name in line and expected in line, line


def test_loops_and_devices(study, tmp_path):
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    for name in ("loop.csv", "/dev/null"):
        assert name in refused(tmp_path, "run", "--data", name, "--notebooks", study, "--profile", "", "--out", "new")
