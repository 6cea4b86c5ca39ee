"""What happens to work when the machine misbehaves: kills at random moments, full and read-only disks, dying workers, broken downloads.

Long versions run with HARD=1 in the environment."""
import hashlib
import http.server
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import OUT, ROOT, btc_hedge, start

from btc_hedge_rl.data import sample_bars
from btc_hedge_rl.pipeline import write_notebooks

HARD = bool(os.environ.get("HARD"))
PLAIN = ("--profile", "")


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def below(folder):
    "Processes that work in this folder."
    found = []
    for process in psutil.process_iter(["cwd"]):
        if (process.info["cwd"] or "").startswith(str(folder)): found.append(process.pid)
    return found


def gone(folder):
    "Whether the processes in a folder end within two seconds."
    for _ in range(40):
        if not below(folder): return True
        time.sleep(.05)
    return False


def broken(run):
    "Artifacts that the manifest calls done and that are not what it says."
    path = run / "manifest.json"
    steps = json.loads(path.read_text())["steps"] if path.exists() else {}
    return [name for record in steps.values() if record["status"] == "done" for name, digest in record["artifacts"].items()
            if not (run / "artifacts" / name).exists() or sha(run / "artifacts" / name) != digest]


def test_killed_at_random_moments(reference, study, tmp_path):
    rng, kills = random.Random(6), 0
    words = ("run", *PLAIN, "--notebooks", study, "--out", "run", "-p", "pause=.3")
    for _ in range(20 if HARD else 4):
        process = start(*words, cwd=tmp_path)
        time.sleep(rng.uniform(.5, 4))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        assert gone(tmp_path / "run") and broken(tmp_path / "run") == []
    assert kills > 1 and btc_hedge(*words, cwd=tmp_path).code == 0
    assert (tmp_path / "run" / "metrics.json").read_bytes() == reference[2]


@pytest.mark.skipif(not HARD, reason="takes minutes; set HARD=1")
def test_the_study_killed_at_random_moments(tmp_path):
    rng, words = random.Random(6), ("run", "--profile", "smoke", "--out")
    assert btc_hedge(*words, "reference", cwd=tmp_path, process=True).code == 0
    for _ in range(20):
        process = start(*words, "run", cwd=tmp_path)
        time.sleep(rng.uniform(1, 30))
        process.kill()
        process.communicate()
        assert gone(tmp_path / "run") and broken(tmp_path / "run") == []
    assert btc_hedge(*words, "run", cwd=tmp_path, process=True).code == 0
    assert (tmp_path / "run" / "metrics.json").read_bytes() == (tmp_path / "reference" / "metrics.json").read_bytes()


@pytest.fixture
def finished(reference, tmp_path):
    "A copy of a finished run."
    shutil.copytree(reference[0] / OUT, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("text", ['{"steps": {"01_paths": {"status": "done"}}}', "[]", '{"steps": {"01', '{"created": 3, "steps": {}}'])
def test_a_damaged_manifest_is_refused(text, finished, study, tmp_path):
    (finished / "manifest.json").write_text(text)
    result = btc_hedge("run", *PLAIN, "--notebooks", study, "--out", "run", cwd=tmp_path)
    assert result.code == 2 and len(result.err.splitlines()) == 1 and "manifest.json" in result.err, result.err


@pytest.mark.parametrize("name", ["04_summary.ipynb", "metrics.json", "artifacts/comparisons.json"])
def test_edited_results_are_made_again(name, finished, reference, study, tmp_path):
    with open(finished / name, "a") as file: file.write("\n ")
    result = btc_hedge("run", *PLAIN, "--notebooks", study, "--out", "run", cwd=tmp_path)
    assert result.code == 0 and ("edited" in result.out) == (name != "metrics.json"), result.err
    assert (finished / "metrics.json").read_bytes() == reference[2]


# Disks

@pytest.fixture
def disk(tmp_path):
    "Mounts a small file system of its own; needs root."
    mounted = []
    def mount(options):
        folder = tmp_path / "disk"
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode: pytest.skip("file systems cannot be mounted here")
        mounted.append(folder)
        return folder
    yield mount
    for folder in mounted: subprocess.run(["umount", "-l", folder], check=True)


FILL = {"01_fill": """
run_folder = '.'
megabytes = 9  # Written by the step
# %%
from pathlib import Path
Path(run_folder, 'artifacts', 'big.bin').write_bytes(bytes(megabytes * 2**20))""", "02_print": """
run_folder = '.'
printed = 0  # Characters in the notebook
# %%
print('x' * printed)"""}


def one_clear_error(result, *words):
    lines = result.err.splitlines()
    assert lines[-1].startswith("btc-hedge: ") and all(w in lines[-1] for w in words), result.err
    assert sum(line.startswith("btc-hedge: ") for line in lines) == 1 and "During handling" not in result.err
    return lines


@pytest.mark.parametrize("values", [["megabytes=9"], ["megabytes=1", "printed=9_000_000"]], ids=["artifact", "notebook"])
def test_full_disk(values, disk, tmp_path):
    folder, notebooks = disk("size=4m"), write_notebooks(tmp_path / "notebooks", FILL)
    words = ("run", *PLAIN, "--notebooks", notebooks, "--out", folder / "run", *[w for v in values for w in ("-p", v)])
    result = btc_hedge(*words, cwd=tmp_path, process=True)
    assert result.code == 1
    one_clear_error(result, "No space left on device")
    assert gone(folder) and broken(folder / "run") == [] and not (folder / "run" / "metrics.json").exists()
    again = btc_hedge(*words[:7], "-p", "megabytes=1", cwd=tmp_path)
    assert again.code == 0, again.err


def test_disk_without_room_for_a_manifest(disk, study, tmp_path):
    folder = disk("size=4m,nr_inodes=5")
    result = btc_hedge("run", *PLAIN, "--notebooks", study, "--out", folder / "run", cwd=tmp_path, process=True)
    assert result.code == 1
    assert len(one_clear_error(result, "No space left on device")) == 1


def test_read_only_disk(disk, study, tmp_path):
    folder = disk("size=4m,ro")
    result = btc_hedge("run", *PLAIN, "--notebooks", study, "--out", folder / "run", cwd=tmp_path)
    assert result.code == 2 and len(one_clear_error(result, "cannot be written")) == 1


@pytest.mark.parametrize("break_it, words", [(lambda f: os.mkfifo(f / "pipe"), ""), (lambda f: (f / "loop").symlink_to("loop"), ""), (lambda f: (f / "a\udcff").touch(), "printable text"),
                                             (lambda f: (f / "notes.txt").write_text("mine"), "")], ids=["pipe", "loop", "no text", "notes"])
def test_stray_files_among_the_artifacts(break_it, words, finished, study, tmp_path):
    "They are ignored, or refused in one line, while nothing has to run, and deleted with a word in the log before a step runs."
    break_it(finished / "artifacts")
    words_of = ("run", *PLAIN, "--notebooks", study, "--out", "run")
    result = btc_hedge(*words_of, cwd=tmp_path)
    assert result.code == (2 if words else 0) and len(result.err.splitlines()) == bool(words) and words in result.err, result.err
    result = btc_hedge(*words_of, "-p", "n_boot=7", cwd=tmp_path)
    assert result.code == 0 and "artifacts deleted before 04_summary: " in (finished / "run.log").read_text(), result.err


def test_a_header_that_lies_about_the_size(tmp_path):
    "A member of 300 MiB that claims to be small is read no further than it claims, and refused."
    import struct
    import zipfile
    path = tmp_path / "lie.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file: file.writestr("a.csv", b"0" * (300 * 2**20))
    data = bytearray(path.read_bytes())
    i = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, i + 24, 1000)
    path.write_bytes(data)
    result = btc_hedge("run", *PLAIN, "--data", path, "--out", "run", cwd=tmp_path)
    assert result.code == 2 and len(result.err.splitlines()) == 1 and "damaged zip archive" in result.err, result.err


@pytest.mark.parametrize("code, words", [("simulate(reference_model(), 10_000_000)", "let simulate_to write them in parts"), ("simulate(reference_model(), 5, seed=1.5)", "seed is 1.5: it must be a whole number"),
                                         ("bootstrap_facts(sample_bars(), seed=1.5)", "seed is 1.5: it must be a whole number")])
def test_what_plain_papermill_hands_on_is_refused(code, words):
    from btc_hedge_rl.data import bootstrap_facts
    from btc_hedge_rl.ground import InputError
    from btc_hedge_rl.simulator import reference_model, simulate
    with pytest.raises(InputError) as error: eval(code, {"simulate": simulate, "reference_model": reference_model, "bootstrap_facts": bootstrap_facts, "sample_bars": sample_bars})
    assert words in str(error.value) and "\n" not in str(error.value)


# Sweeps

POINT = {"01_point": """
run_folder = '.'
seed = 0
scale = 1.0  # Of the profits
side = 'short'  # {short|long}
# %%
import json, time
from pathlib import Path
import numpy as np
time.sleep(.2)
pnl = scale * (-1 if side == "short" else 1) * np.random.default_rng(seed).normal(size=1000)
row = {"mean": pnl.mean(), "std": pnl.std(), "cvar95": -np.sort(pnl)[:50].mean(), "cost": 0.0}
Path(run_folder, "artifacts", "delta_hedging.json").write_text(json.dumps({"unhedged": row}))"""}
GRID = ("sweep", *PLAIN, "-p", "scale=1,2", "-p", "side=short,long", "--seeds", "0,1")


@pytest.fixture(scope="module")
def point(tmp_path_factory):
    return write_notebooks(tmp_path_factory.mktemp("point") / "notebooks", POINT)


@pytest.fixture(scope="module")
def eight(point, tmp_path_factory):
    "The table of eight points from one process."
    folder = tmp_path_factory.mktemp("alone")
    result = btc_hedge(*GRID, "--notebooks", point, "--workers", 0, "--out", "sweep", cwd=folder)
    assert result.code == 0 and "8 points" in result.out, result.err
    return pd.read_parquet(folder / "sweep" / "sweep.parquet")


def dask(name, *words, cwd, root=ROOT):
    return subprocess.Popen([sys.executable, "-m", "distributed.cli." + name, *map(str, words)], cwd=cwd, env=os.environ | {"PYTHONPATH": str(root)},
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(tmp_path):
    "A scheduler on loopback, and a function that starts a worker of it by its command line."
    file, here = tmp_path / "scheduler.json", tmp_path / "cluster"
    here.mkdir()
    scheduler = dask("dask_scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file, cwd=here)
    for _ in range(600):
        if file.exists() and file.read_text().endswith("}"): break
        time.sleep(.05)
    address, processes = json.loads(file.read_text())["address"], []
    def worker(root=ROOT):
        words = ("dask_worker", address, "--nthreads", 1, "--no-nanny", "--no-dashboard", "--local-directory", here / "scratch")
        processes.append(dask(*words, cwd=here, root=root))
        return processes[-1]
    yield address, scheduler, worker
    for process in (*processes, scheduler):
        process.kill()
        process.wait()


def finished_points(folder, n, process):
    "Wait until this many points of a sweep are finished."
    for _ in range(1200):
        if len(list(folder.glob("*/metrics.json"))) >= n: return
        assert process.poll() is None, process.communicate()
        time.sleep(.05)
    raise AssertionError(f"{n} points were not finished in a minute")


def test_eight_points_on_two_workers(eight, point, tmp_path):
    result = btc_hedge(*GRID, "--notebooks", point, "--workers", 2, "--out", "sweep", cwd=tmp_path, process=True)
    assert result.code == 0, result.err
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "sweep" / "sweep.parquet"), eight)


def test_a_cluster_with_a_killed_worker_and_one_of_another_version(eight, point, cluster, tmp_path):
    "The dead worker's point goes to another one, the stranger is named and gets nothing, and the table is that of one process."
    address, _, worker = cluster
    other = tmp_path / "other"
    shutil.copytree(ROOT / "btc_hedge_rl", other / "btc_hedge_rl", ignore=shutil.ignore_patterns("__pycache__"))
    with open(other / "btc_hedge_rl" / "strategies" / "bands.py", "a") as file: file.write("\nODD = 1\n")
    worker(other)
    first = worker()
    process = start(*GRID, "--notebooks", point, "--scheduler", address, "--out", "sweep", cwd=tmp_path)
    finished_points(tmp_path / "sweep", 2, process)
    first.kill()
    worker()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    refused = [line for line in errors.splitlines() if "refused: worker tcp://127.0.0.1:" in line]
    assert len(refused) == 1 and "runs btc_hedge_rl 0.1.0 (" in refused[0] and " instead of 0.1.0 (" in refused[0], errors
    table = tmp_path / "sweep" / "sweep.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(table), eight)
    assert gone(tmp_path / "sweep")


def test_a_lost_scheduler_is_a_line_a_point(eight, point, cluster, tmp_path):
    "What was not finished is named, a line a point; the same command continues, elsewhere if need be; no kernel is left."
    address, scheduler, worker = cluster
    worker()
    words = (*GRID, "--notebooks", point, "--out", "sweep")
    process = start(*words, "--scheduler", address, cwd=tmp_path)
    finished_points(tmp_path / "sweep", 1, process)
    scheduler.kill()
    _, errors = process.communicate(timeout=60)
    lines = errors.splitlines()
    assert process.returncode == 1 and "the same command continues" in lines[-1] and "Traceback" not in errors, errors
    lost = [line for line in lines if "the scheduler was lost" in line]
    assert len(lost) == int(lines[-1].removeprefix("btc-hedge: ").split()[0]) >= 5 and gone(tmp_path / "sweep"), errors
    assert btc_hedge(*words, "--workers", 0, cwd=tmp_path).code == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "sweep" / "sweep.parquet"), eight)


def test_stopping_a_sweep_stops_the_work_elsewhere(point, cluster, tmp_path):
    address, _, worker = cluster
    worker()
    slow = write_notebooks(tmp_path / "slow", {"01_point": POINT["01_point"].replace("time.sleep(.2)", "time.sleep(60)")})
    process = start(*GRID, "--notebooks", slow, "--scheduler", address, "--out", "sweep", cwd=tmp_path)
    for _ in range(600):
        if below(tmp_path / "sweep"): break
        time.sleep(.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and errors.splitlines()[-1] == "btc-hedge: stopped; the same command continues.", errors
    assert any(gone(tmp_path / "sweep") for _ in range(3)), "a kernel on a worker outlived the sweep"


def test_a_worker_without_the_folder_is_refused(point, cluster, tmp_path):
    "Before anything starts there: a cluster without a common disk."
    from btc_hedge_rl.pipeline import play_task
    address, _, worker = cluster
    worker()
    from dask.distributed import Client
    from btc_hedge_rl.ground import identity, told_apart
    with Client(address) as client:
        _, traits, value = client.submit(play_task, identity() | {"the folder /elsewhere": "seen"}, "/elsewhere/token", print, "never").result()
    assert value is None and told_apart(traits, identity() | {"the folder /elsewhere": "seen"}) == "the folder /elsewhere not seen instead of seen"


def test_no_scheduler_there(point, tmp_path):
    result = btc_hedge(*GRID, "--notebooks", point, "--scheduler", "tcp://127.0.0.1:9", "--out", "sweep", cwd=tmp_path)
    assert result.code == 2 and "no Dask scheduler answers" in result.err and len(result.err.splitlines()) == 1


CONSTANT = ("np.sqrt(8 / np.pi)", "np.sqrt(9 / np.pi)")  # of Leland's number


def test_a_changed_constant_changes_the_sweep(tmp_path):
    "The same command after an edit of a rule plays again, and the other rules keep their numbers."
    package = tmp_path / "edited"     # with what is compiled already: Numba knows it by the time and size of its source
    shutil.copytree(ROOT / "btc_hedge_rl", package / "btc_hedge_rl", ignore=shutil.ignore_patterns("*.pyc", "*.tmp.*"))
    def swept():
        words = ["sweep", "--rules", "-p", "n_paths=40", "--workers", "0", "--out", "sweep"]
        code = "from btc_hedge_rl.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(package)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        table = pd.read_parquet(tmp_path / "sweep" / "sweep.parquet")
        return table[table.metric == "std"].set_index("strategy").value
    before, again = swept(), swept()
    room = package / "btc_hedge_rl" / "strategies" / "hedgers.py"
    text = room.read_text()
    assert text.count(CONSTANT[0]) == 1
    room.write_text(text.replace(*CONSTANT))
    after = swept()
    assert before.equals(again) and after["leland"] != before["leland"] and (after.drop("leland") == before.drop("leland")).all()


def measured(paths, folder, workers=2):
    "Seconds of a backtest by the clock, of its processes, and their largest memory at one moment, bytes (pages that processes share count once)."
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    process, largest, before, started = start("sweep", "--rules", "--seeds", "0", "-p", f"n_paths={paths}", "--workers", workers, "--out", f"s{paths}", cwd=folder), 0, used(), time.monotonic()
    whole = psutil.Process(process.pid)
    while process.poll() is None:
        try: largest = max(largest, sum(p.memory_full_info().pss for p in (whole, *whole.children(recursive=True))))
        except psutil.Error: pass
        time.sleep(.2)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.monotonic() - started, used() - before, largest


def test_memory_does_not_grow_with_paths(tmp_path):
    small, large = (measured(n, tmp_path)[2] for n in (4_000, 16_000))
    assert large < 1.2 * small and large < 4 * 2**30


@pytest.mark.skipif(not HARD, reason="takes a quarter of an hour; set HARD=1")
def test_a_million_paths(tmp_path):
    "Linear in processor time (by the clock a busy computer is slower for reasons of its own), flat in memory."
    measured(2_000, tmp_path)  # compiles
    curve = {n: measured(n, tmp_path) for n in (10_000, 100_000, 1_000_000)}
    for n, (wall, processor, memory) in curve.items(): print(f"{n:>9,} paths  {wall:6.1f} s by the clock  {processor:7.1f} s of processors  {memory / 2**30:.2f} GiB")
    assert curve[1_000_000][2] < 1.2 * curve[100_000][2] < 4 * 2**30 and curve[1_000_000][1] < 13 * curve[100_000][1]


# The archive from a loopback server, through the command

class Archive(http.server.SimpleHTTPRequestHandler):
    busy = set()  # paths that answer 500 once

    def log_message(self, *words): pass

    def do_GET(self):
        if self.path in Archive.busy:
            Archive.busy.discard(self.path)
            return self.send_error(500)
        super().do_GET()


@pytest.fixture
def archive(tmp_path):
    import zipfile
    from functools import partial
    root = tmp_path / "archive"
    def publish(period, member=None, content=None, digest=None):
        kind, bars = ("monthly", sample_bars().loc[period]) if len(period) == 7 else ("daily", sample_bars().loc[period])
        name = f"BTCUSDT-5m-{period}"
        path = root / f"futures/um/{kind}/klines/BTCUSDT/5m/{name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = "".join(f"{t.value // 10**6},{r.open},{r.high},{r.low},{r.close},{r.volume},{t.value // 10**6 + 299999},0,1,0,0,0\n" for t, r in zip(bars.index, bars.itertuples()))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file: file.writestr(member or f"{name}.csv", rows if content is None else content)
        path.with_name(path.name + ".CHECKSUM").write_text(f"{digest or sha(path)}  {path.name}\n")
        return path
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Archive, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield publish, root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(address, folder, *words):
    return btc_hedge("fetch", "BTCUSDT", *words, "--base-url", address, "--cache", folder / "cache", "--out", "bars.parquet", cwd=folder)


def test_fetch(archive, tmp_path):
    publish, root, address = archive
    publish("2025-01")
    for day in pd.period_range("2025-02-01", "2025-02-28"): publish(str(day))
    Archive.busy = {f"/{p.relative_to(root)}" for p in root.rglob("*2025-01.zip*")}
    result = fetch(address, tmp_path, "2025-01", "2025-02")
    assert result.code == 0 and "16,992 bars" in result.out, result.err
    bars = pd.read_parquet(tmp_path / "bars.parquet")
    assert (bars["close"].to_numpy() == sample_bars().loc["2025-01":"2025-02"]["close"].to_numpy()).all()


@pytest.mark.parametrize("options, words", [({"digest": "0" * 64}, "not downloaded"), ({"member": "../../../etc/bars.csv"}, "has a path"), ({"content": "hello"}, "BTCUSDT-5m-2025-01"),
                                            ({"content": b"0" * (257 * 2**20)}, "above the limit")], ids=["checksum", "path", "prose", "bomb"])
def test_fetch_refuses(options, words, archive, tmp_path):
    publish, _, address = archive
    publish("2025-01", **options)
    result = fetch(address, tmp_path, "2025-01", "2025-01")
    assert result.code == 2 and len([line for line in result.err.splitlines() if line.startswith("btc-hedge")]) == 1 and words in result.err, result.err
    assert not list((tmp_path / "cache").rglob("*.zip")) and not (tmp_path / "bars.parquet").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"archive", "cache"}


class Slow(http.server.BaseHTTPRequestHandler):
    "A server with bad manners; `habit` says which."
    habit = ""

    def log_message(self, *words): pass

    def do_GET(self):
        if self.habit == "headers": return self.drip(b"HTTP/1.1 200 OK\r\nX-Wait: " + b"x" * 10**5)
        if self.habit == "elsewhere": return self.answer(302, Location="http://elsewhere.example/x.zip")
        if self.habit == "patience": return self.answer(503, **{"Retry-After": "86400"})
        if self.path.endswith(".CHECKSUM"): return self.answer(200, b"0" * 64 + b"  BTCUSDT-5m-2025-01.zip\n")
        self.send_response(200)
        self.end_headers()
        self.drip(b"x" * 10**5)

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items(): self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, data):
        try:
            for byte in data:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(.05)
        except OSError: pass


SLOW = {"headers": "no whole answer within 2 s", "body": "slower than 1000 bytes a second", "elsewhere": "another host, elsewhere.example", "patience": "not downloaded"}


@pytest.mark.parametrize("habit", SLOW)
def test_fetch_does_not_hang(habit, tmp_path, monkeypatch):
    "A drip of bytes, a wait of a day, a way to a stranger: one line within seconds."
    from btc_hedge_rl.data import archive as room
    monkeypatch.setattr(room, "PATIENCE", .5)
    monkeypatch.setattr(room, "ANSWER", 2.)
    monkeypatch.setattr(room, "LONGEST_WAIT", .2)
    monkeypatch.setattr(Slow, "habit", habit)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    started = time.monotonic()
    result = fetch(f"http://127.0.0.1:{server.server_port}", tmp_path, "2025-01", "2025-01")
    server.shutdown()
    assert result.code == 2 and SLOW[habit] in result.err and len(result.err.splitlines()) == 1 and time.monotonic() - started < 15, result.err


def test_fetch_twice_asks_nothing(archive, tmp_path):
    publish, root, address = archive
    publish("2025-01")
    assert fetch(address, tmp_path, "2025-01", "2025-01").code == 0
    shutil.rmtree(root)
    assert fetch(address, tmp_path, "2025-01", "2025-01").code == 0
