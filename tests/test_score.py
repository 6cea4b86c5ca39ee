"""Outsiders on the command line: a card each, and one line for every kind of cheat or failure, with nothing written."""
import json
from dataclasses import replace

import pytest
from conftest import btc_hedge

from btc_hedge_rl.leaderboard import frozen, track_named
from btc_hedge_rl.strategies import ConstantBand, DeltaHedge

HONEST = "import numpy as np\nclass Mine:\n    def __call__(self, state): return np.clip(state.position, state.delta - .05, state.delta + .05)\n"


@pytest.fixture(scope="module")
def track(tmp_path_factory):
    "A track that is played in a second."
    small = track_named("calibrated-v1")
    small = replace(small, name="small", n_paths=600, task=replace(small.task, decision_bars=48))
    return frozen(small, {"bs_delta": DeltaHedge(), "constant_band": ConstantBand(.04)}).to_json(tmp_path_factory.mktemp("track") / "small.json")


def enter(folder, track, code, *words):
    (folder / "mine.py").write_text(code)
    return btc_hedge("score", "mine.py:Mine", "--track", track, "--out", "card.json", *words, cwd=folder)


def test_a_card_is_the_same_from_one_process_and_from_two(tmp_path, track):
    cards = []
    for workers in (1, 2):
        done = enter(tmp_path, track, HONEST, "--allow-code", "--workers", workers)
        assert done.code == 0 and "rank 1 of 3" in done.out, done.err
        cards.append((tmp_path / "card.json").read_bytes())
    assert cards[0] == cards[1]
    assert len(json.loads(cards[0])["profits"]) == 600


CHEATS = {
    "next bar": ("import sys\nMine = lambda state: sys._getframe(3).f_locals['batch'].paths.close[:, state.step[0] + 48]", "raised"),
    "knows the paths": (
        "import numpy as np\nfrom btc_hedge_rl.leaderboard import track_from\nends = track_from('TRACK').paths().close\n"
        "class Mine:\n"
        "    def __call__(self, state):\n"
        "        if state.step[0] < 96: return state.delta\n"
        "        if state.step[0] == 96:\n"
        "            apart = np.abs(ends[None, :, 96] - state.spot[:, None])\n"
        "            self.end = np.where(apart.min(1) < 1e-6, ends[apart.argmin(1), -1], np.nan)\n"
        "        return np.where(np.isnan(self.end), state.delta, self.end > state.strike)\n", "It knows the paths of the track"),
    "no number": ("import numpy as np\nMine = lambda state: np.full(len(state.spot), np.nan)", "no finite number at bar 0"),
    "for ever": ("def Mine(state):\n    while True: pass", "took longer than 5 s"),
    "fifty gigabytes": ("import numpy as np\nMine = lambda state: np.ones(50 << 27)[:len(state.spot)]", "asked for more than 8 GB of memory"),
    "not allowed": (HONEST, "say --allow-code"),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_cheats_are_one_line_and_leave_nothing(tmp_path, track, cheat):
    code, complaint = CHEATS[cheat]
    done = enter(tmp_path, track, code.replace("TRACK", str(track)), "--time-limit", 5, *["--allow-code"] * (cheat != "not allowed"))
    assert done.code == 2 and complaint in done.err and len(done.err.splitlines()) == 1, done.err
    assert not (tmp_path / "card.json").exists()


def test_a_card_that_was_edited_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("from btc_hedge_rl.strategies import DeltaHedge as Mine")
    assert btc_hedge("leaderboard", cwd=tmp_path).code == 0
    (tmp_path / "card.json").write_text(json.dumps({"card": 1, "track": "calibrated-v1", "hash": "0"}))
    done = btc_hedge("leaderboard", "card.json", cwd=tmp_path)
    assert done.code == 2 and "was edited" in done.err and len(done.err.splitlines()) == 1


def test_own_bars_become_a_track(tmp_path):
    from btc_hedge_rl.data import sample_bars, write_bars
    write_bars(tmp_path / "bars.parquet", sample_bars())
    made = btc_hedge("track", "bars.parquet", "--out", "own.json", "--every", 48, cwd=tmp_path)
    assert made.code == 0 and "Best tuned rule" in made.out, made.err
    done = enter(tmp_path, "own.json", HONEST, "--allow-code")
    assert done.code == 0 and "rank" in done.out and "1.5 std" in done.out, done.err
    table = btc_hedge("leaderboard", "card.json", "--track", "own.json", cwd=tmp_path)
    assert table.code == 0 and "Mine | entry" in table.out, table.err
    assert btc_hedge("leaderboard", "card.json", cwd=tmp_path).code == 2
    short = btc_hedge("track", "bars.parquet", "--share", .9, "--out", "short.json", cwd=tmp_path)
    assert short.code == 2 and "at least 56" in short.err and len(short.err.splitlines()) == 1, short.err
    assert not (tmp_path / "short.json").exists()
