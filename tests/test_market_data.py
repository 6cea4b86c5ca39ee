"""The market described is the market quoted: what the pages of the market chapter say of real chains, trades and funding, where the files are."""
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from btc_hedge_rl.ground import BP
from btc_hedge_rl.market import (QUOTED_LEVEL, QUOTED_SLIPPAGE, IVSurface, OptionSpread, Perpetual, FundingModel, arbitrage_slack, calibrate_book, calibrate_spread, calibrate_surface,
                                 call_delta, deribit_quotes, fit_funding, level_forecasts, model_smiles, quoted_smiles, smile_medians)

DATA = ROOT.parent / "shared" / "data"
CHAINS = Path(os.environ.get("BTC_CHAINS") or DATA / "deribit_btc_chains_2021-06.parquet")
TRADES = Path(os.environ.get("BTC_TRADES") or DATA)
FUNDING = Path(os.environ.get("BTC_FUNDING") or DATA / "binance_usdm_btcusdt_funding.parquet")
BOOK = [TRADES / f"usdm_btcusdt_20240808_{name}.parquet" for name in ("bbo", "trades")]


@pytest.fixture(scope="module")
def quotes():
    if not CHAINS.is_file(): pytest.skip("no option chains at hand")
    return deribit_quotes(pd.read_parquet(CHAINS))


@pytest.fixture(scope="module")
def surface_fit(quotes):
    return calibrate_surface(quotes)


def test_surface_fits_a_month_of_chains(quotes, surface_fit):
    two = np.isfinite(quotes["half_spread"]).to_numpy()
    middle = two & (call_delta(quotes) > .25) & (call_delta(quotes) < .75)
    error = 100 * np.abs(surface_fit.fitted(quotes) - quotes["iv"]).to_numpy()
    assert two.sum() > 6_500 and error[two].mean() <= 2.5 and error[middle].mean() <= 1.5
    assert min(arbitrage_slack(surface_fit.surface).values()) > 0
    totals = surface_fit.levels.assign(total=surface_fit.levels["vol"]**2 * surface_fit.levels["tau"])
    assert (totals.groupby("time")["total"].diff().dropna() > 0).all()


def test_level_forgets_in_days(surface_fit):
    ahead = level_forecasts(surface_fit)
    error = ahead.drop(columns="came").sub(ahead["came"], axis=0).abs().mean()
    assert len(ahead) == 23 and error["model"] < .06 < error["no change"]


def test_packaged_surface_and_spreads_are_the_fitted_ones(quotes, surface_fit):
    fitted, packaged = surface_fit.surface, IVSurface.quoted()
    for name in ("long_run_vol", "rho", "eta"): assert abs(getattr(fitted, name) - getattr(packaged, name)) < .01, name
    for name in ("put_fade", "call_fade"): assert abs(getattr(fitted, name) / getattr(packaged, name) - 1) < .05, name
    assert calibrate_spread(quotes) == OptionSpread.quoted()


@pytest.mark.skipif(not all(file.is_file() for file in BOOK), reason="no trades at hand")
def test_slippage_is_within_thirty_percent_at_every_size():
    fit = calibrate_book(*map(pd.read_parquet, BOOK))
    table, packaged = fit.compare(), Perpetual()
    assert table["ratio"].between(.7, 1.3).all()
    charged = (packaged.half_spread + packaged.impact * table["mean size, BTC"]) / BP
    assert (charged / table["seen, bp"]).between(.7, 1.3).all()
    cost = [packaged.cost_of(q, 1e5) / (q * 1e5) / BP for q in (1., 50.)]
    assert cost[0] == pytest.approx(5, abs=.15) and cost[1] > 7


@pytest.mark.skipif(not FUNDING.is_file(), reason="no funding rates at hand")
def test_packaged_funding_is_the_fitted_one():
    fitted, packaged = fit_funding(pd.read_parquet(FUNDING)["funding_rate"]), FundingModel()
    assert fitted.mean / BP == pytest.approx(packaged.mean / BP, abs=.01) == pytest.approx(Perpetual().funding_rate / BP, abs=.01)
    assert fitted.persistence == pytest.approx(packaged.persistence, abs=.01)
    assert fitted.innovation / BP == pytest.approx(packaged.innovation / BP, abs=.01)


def test_packaged_tables_are_those_of_the_quotes(quotes, surface_fit):
    made = smile_medians(quotes, surface_fit.levels)
    assert np.allclose(made, quoted_smiles(), atol=6e-4)
    assert 100 * QUOTED_LEVEL * (model_smiles(surface_fit.surface) - made).abs().mean().mean() < 2


@pytest.mark.skipif(not all(file.is_file() for file in BOOK), reason="no trades at hand")
def test_packaged_slippage_is_that_of_the_trades():
    seen = calibrate_book(*map(pd.read_parquet, BOOK)).compare()
    assert np.allclose(list(QUOTED_SLIPPAGE), seen["mean size, BTC"], rtol=.01) and np.allclose(list(QUOTED_SLIPPAGE.values()), seen["seen, bp"], rtol=.01)
