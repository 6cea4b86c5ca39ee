"""No parameter of the study is without effect: pages 03 and 04 are played at two values of each; in the others every parameter flows into something that is written or shown."""
import ast
import json

import matplotlib.pyplot as plt
import pytest
from conftest import ROOT

from btc_hedge_rl.data import sample_bars
from btc_hedge_rl.simulator import reference_model

PAGES = sorted((ROOT / "nbs" / "research").glob("0*.ipynb"))
WRITERS = {"write_json", "save", "save_result", "to_json", "to_parquet", "save_task", "write_text"}
EVERYWHERE = {"data", "run_folder"}        # where the run reads and writes


def cells(path):
    "Code cells of a page, and its parameters cell."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    tagged = ["".join(c["source"]) for c in code if "parameters" in c["metadata"].get("tags", [])]
    return ["".join(c["source"]) for c in code], tagged[0]


def parameters(path):
    return [t.id for s in ast.parse(cells(path)[1]).body for t in s.targets if t.id not in EVERYWHERE]


def names(statement):
    "What a statement sets or changes, and what it reads."
    found = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
    into = {n.value.id for n in ast.walk(statement) if isinstance(n, ast.Subscript | ast.Attribute) and isinstance(n.ctx, ast.Store) and isinstance(n.value, ast.Name)}
    return {n.id for n in found if not isinstance(n.ctx, ast.Load)} | into, {n.id for n in found if isinstance(n.ctx, ast.Load)}


def writes(statement):
    calls = [n.func for n in ast.walk(statement) if isinstance(n, ast.Call)]
    return any((f.id if isinstance(f, ast.Name) else getattr(f, "attr", "")) in WRITERS for f in calls)


def shown(statement):
    "Whether a statement is an expression that a reader sees: a table, a figure, a sentence."
    return isinstance(statement, ast.Expr) or any(isinstance(n, ast.Call) and getattr(n.func, "id", "") == "display" for n in ast.walk(statement))


def behind(path, sink):
    "The statements that what a page hands on depends on, in order, and all names they read."
    body = [s for source in cells(path)[0] for s in ast.parse(source).body]
    kept, needed = [], set()
    for s in reversed(body):
        made, read = names(s)
        if sink(s) or made & needed or isinstance(s, ast.Import | ast.ImportFrom):
            kept.append(s)
            needed |= read
    return kept[::-1], needed


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_every_parameter_flows_into_something(path):
    _, needed = behind(path, lambda s: writes(s) or shown(s))
    assert [name for name in parameters(path) if name not in needed] == []


def test_a_parameter_without_effect_is_found(tmp_path):
    source = ["alpha = 1\nbeta = 2\nrun_folder = ''", "x = alpha + 1\ny = beta + 1\nprint(y)", "write_json(run_folder, x)"]
    page = {"cells": [{"cell_type": "code", "source": s, "metadata": {"tags": ["parameters"] * (not i)}} for i, s in enumerate(source)]}
    (tmp_path / "page.ipynb").write_text(json.dumps(page))
    _, needed = behind(tmp_path / "page.ipynb", writes)
    assert "alpha" in needed and "beta" not in needed


SMALL = {"n_train_paths": 12, "n_paths": 12, "n_days": 3}
OTHERWISE = {
    "03_option_market_layer": {
        "seed": 1, "vol_window": "6h", "reversion": "48h", "skew": -.1, "convexity": .8, "spread_scale": 2., "option_fee_bp": 1., "cost": 2e-4, "maker_fee": 2e-4,
        "impact_bp": .5, "stress": 0., "funding_bp": 1., "funding_innovation_bp": 0., "fill_within_bp": 8.},
    "04_baseline_mm_strategy": {
        "seed": 1, "n_train_paths": 100, "n_paths": 16, "n_days": 4, "half_spread_bp": 4., "max_inventory": 8., "order_size": .5, "maker_half_life": "3h"}}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    "A run folder with what 01 and 02 leave behind, in miniature."
    artifacts = tmp_path_factory.mktemp("parameters") / "artifacts"
    artifacts.mkdir()
    bars = sample_bars().iloc[:9_000]
    bars.reset_index().to_parquet(artifacts / "bars.parquet")
    reference_model().to_json(artifacts / "market_model.json")
    return artifacts.parent


def artifacts_at(path, folder, values):
    "What the page writes with these parameters: file name → text."
    kept, _ = behind(path, writes)
    before = {f.name: f.read_bytes() for f in (folder / "artifacts").iterdir()}
    given = SMALL | values | {"run_folder": str(folder)}
    for s in kept:
        if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name) and s.targets[0].id in given and isinstance(s.value, ast.Constant | ast.UnaryOp):
            s.value = ast.parse(repr(given[s.targets[0].id]), mode="eval").body
    module = ast.fix_missing_locations(ast.Module(kept, []))
    exec(compile(module, path.name, "exec"), {"__name__": "page", "display": lambda *a: None})
    plt.close("all")
    return {f.name: f.read_bytes() for f in (folder / "artifacts").iterdir() if f.read_bytes() != before.get(f.name) or f.name in WRITTEN[path.stem]}


WRITTEN = {"03_option_market_layer": {"option_market.json", "perpetual.json", "fills.json", "option_evidence.json"},
           "04_baseline_mm_strategy": {"maker.json", "market_making.json", "making.json"}}


@pytest.mark.parametrize("page", OTHERWISE)
def test_every_parameter_changes_an_artifact(page, base):
    path = next(p for p in PAGES if p.stem == page)
    assert set(OTHERWISE[page]) == set(parameters(path))
    usual, idle = artifacts_at(path, base, {}), []
    assert set(usual) >= WRITTEN[page]
    for name, value in OTHERWISE[page].items():
        if artifacts_at(path, base, {name: value}) == usual: idle.append(name)
    artifacts_at(path, base, {})               # for the page that reads them
    assert idle == []
