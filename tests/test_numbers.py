"""Every result that is shown equals the run it came from: README, front page and conclusions against metrics.json."""
import json
import re
from html.parser import HTMLParser

import pytest
from conftest import ROOT

RESULTS = ROOT / "nbs" / "results"
METRICS, MANIFEST = (json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("metrics", "manifest"))
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?%?")


def outputs(notebook, mime):
    "Saved outputs of a notebook that have this type, in order."
    cells = json.loads((ROOT / "nbs" / notebook).read_text(encoding="utf-8"))["cells"]
    found = [o["data"][mime] for c in cells for o in c.get("outputs", []) if mime in o.get("data", {})]
    return [text if isinstance(text, str) else "".join(text) for text in found]


class Table(HTMLParser):
    "Rows of a table in HTML."
    def __init__(self, html):
        super().__init__()
        self.rows, self.text = [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "tr": self.rows.append([])
        if tag in ("td", "th"): self.text = ""

    def handle_data(self, data):
        if self.text is not None: self.text += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[-1].append(self.text.strip())
            self.text = None


def names():
    from btc_hedge_rl.ground import STRATEGY_NAMES
    return STRATEGY_NAMES


def shown_as(value, text):
    "Whether `text` is `value`, rounded to the digits it shows."
    return text == f"{value:.{len(text.partition('.')[2])}f}"


def check_table(rows, task):
    "Every cell of a table of strategies × metrics."
    header, *body = [row for row in rows if any(row)]
    called = {label: key for key, label in names().items() if key in METRICS[task]}
    assert {row[0] for row in body} == set(called), "a strategy is missing, or is not in the run"
    wrong = [(row[0], metric, text) for row in body for metric, text in zip(header[1:], row[1:], strict=True)
             if not shown_as(METRICS[task][called[row[0]]][metric.lower()], text)]
    assert wrong == []


def results_block():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(r"<!-- results -->\n(.*?)<!-- /results -->", readme, re.S)[1].strip()


def headline():
    from btc_hedge_rl.pipeline import headline
    return headline(METRICS, MANIFEST)


def test_readme_table():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in results_block().splitlines() if line.startswith("|") and not line.startswith("|---")]
    check_table(rows, "delta_hedging")


def test_front_page_tables():
    tables = outputs("index.ipynb", "text/html")
    for table, task in zip(tables, ("delta_hedging", "option_hedging"), strict=True): check_table(Table(table).rows, task)


@pytest.mark.parametrize("where", ["README", "front page"])
def test_sentences(where):
    "The sentences are those the numbers give, and nothing is typed beside them."
    text = results_block() if where == "README" else outputs("index.ipynb", "text/markdown")[0]
    assert headline() in text
    prose = re.sub(r"^\|.*$|^!\[.*$", "", text.replace(headline(), ""), flags=re.M)
    if where == "README": prose = prose.replace("Short 14-day call", "")
    assert NUMBER.findall(prose) == []


def comparison(task, other, world="qed-hawkes", metric="cvar95"):
    wanted = (task, world, "ppo", other, metric)
    return next(c for c in METRICS["comparisons"] if (c["task"], c["world"], c["first"], c["second"], c["metric"]) == wanted)


def test_sentences_say_what_the_run_found():
    "The percentages, differences and shares of the headline, computed here once more from the metrics."
    tail = lambda world, name, task="delta_hedging": METRICS["worlds"][world][task][name]["cvar95"]
    expected = []
    for world in ("qed-hawkes", "stochastic-vol"):
        found, share = comparison("delta_hedging", "best_rule", world), METRICS["shares"][world]
        change = abs(tail(world, "ppo") / tail(world, "best_rule") - 1)
        if not found["low"] <= 0 <= found["high"]: expected.append(f"{change:.{0 if change >= .005 else 1}%}")
        if share["share"] is not None:
            assert share["share"] == pytest.approx((tail(world, "best_rule") - tail(world, "ppo")) / (tail(world, "best_rule") - tail(world, "pathwise")))
            expected += [f"{share[k]:.0%}" for k in ("share", "low", "high") if share[k] is not None]
    for other in ("unhedged", "rule_delta"):
        found = comparison("option_hedging", other)
        change = abs(METRICS["option_hedging"]["ppo"]["cvar95"] / METRICS["option_hedging"][other]["cvar95"] - 1)
        if not found["low"] <= 0 <= found["high"]: expected.append(f"{change:.{0 if change >= .005 else 1}%}")
    assert re.findall(r"-?\d+(?:\.\d+)?%", headline()) == expected
    sizes = re.findall(r"([-+]\d+\.\d) \[([-+]\d+\.\d), ([-+]\d+\.\d)\] bp", headline())
    shown = [world for world in METRICS["worlds"] if world in ("qed-hawkes", "stochastic-vol") or comparison("delta_hedging", "best_rule", world)["verdict"] != "better"]
    differences = [comparison("delta_hedging", "best_rule", world) for world in shown]
    differences += [c for world in METRICS["worlds"] if (c := comparison("delta_hedging", "best_rule", world, "risk_cost"))["verdict"] == "worse"]
    assert sizes == [tuple(f"{c[k]:+.1f}" for k in ("difference", "low", "high")) for c in differences], "a market in which it does not win is missing, or a number is another"


def test_front_page_source_holds_no_result():
    "What is written by hand on the front page says how the study is made, not what came out."
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    prose = " ".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    prose = re.sub(r"```.*?```|`[^`]*`|\([^)]*\.ipynb\)", "", prose, flags=re.S)
    assert set(re.findall(r"\d+(?:\.\d+)?(?= ?(?:%|BTC))|\d+\.\d+", prose)) == set()


def test_pages_are_those_of_the_run():
    "The outputs of the study's notebooks are the published run's, and the page on trust shows its card."
    from btc_hedge_rl.pipeline import outputs_hash
    published = {step: record["outputs"] for step, record in MANIFEST["steps"].items() if "outputs" in record}
    shown = {step: outputs_hash(json.loads((ROOT / "nbs" / "research" / f"{step}.ipynb").read_text(encoding="utf-8"))) for step in published}
    assert shown == published, "executed by hand since: publish a run"
    rows = dict(row for table in outputs("guides/05_trust.ipynb", "text/html")[:1] for row in Table(table).rows if len(row) == 2)
    assert (rows["made"], rows["hash of the metrics"]) == (MANIFEST["created"], MANIFEST["metrics_sha256"][:12])
    assert str(MANIFEST["seeds"]["seed"]) == rows["seed"] and MANIFEST["git"]["commit"][:12] in rows["package"]


def test_conclusions():
    "Each difference and interval in the conclusions is one of the run's comparisons."
    text, solutions = "\n".join(outputs("research/07_rl_vs_baseline_evaluation.ipynb", "text/markdown")).split("Paired ")
    said = re.findall(r"\*\*(better|worse|not distinguishable)\*\* (?:than|from) ([^(\n]+?) \(([-+][\d.]+) [\w ]+?, 95% interval ([-+][\d.]+) to ([-+][\d.]+)[;)]", text)
    digits = lambda value, text: f"{value:+.{len(text.partition('.')[2])}f}" == text
    verdicts = {"better": "better", "worse": "worse", "not distinguishable": "undecided"}
    assert len(said) >= 10
    for verdict, other, *numbers in said:
        rows = [c for c in METRICS["comparisons"] if names()[c["second"]] == other and c["verdict"] == verdicts[verdict]]
        assert any(all(digits(c[k], n) for k, n in zip(("difference", "low", "high"), numbers)) for c in rows), (other, numbers)
    of, best = (METRICS["delta_hedging"][name] for name in ("ppo", "best_rule"))
    told = re.findall(r"On \*\*(\w+)\*\*, PPO is \*\*[\w ]+\*\* (?:than|from) Best tuned rule \(([-+][\d.]+) bp", solutions)
    assert len(told) == 4 and all(digits(of[metric.lower()] - best[metric.lower()], gap) for metric, gap in told)


def pictures_to_turn():
    "What the pictures of the guide draw, the bars of the run and the intervals between its strategies last."
    return [json.loads(text) for page in outputs("guides/10_turn.ipynb", "text/html") for text in re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)]


def test_who_against_whom_is_of_this_run():
    "Each interval that can be turned to is one the run compared, first less second; whoever is not compared has none."
    from btc_hedge_rl.backtest import known_pairs
    told, known = pictures_to_turn()[-1], known_pairs(METRICS)
    strategies = [names()[name] for name in METRICS["delta_hedging"]]
    assert told["names"] == strategies and told["up"] == [True, False, False, False]
    drawn = {}
    for metric, by_market in zip(("mean", "std", "cvar95", "risk_cost"), told["rows"], strict=True):
        for world, by_rival in zip(METRICS["worlds"], by_market, strict=True):
            for second, rows in zip(METRICS["delta_hedging"], by_rival, strict=True):
                drawn |= {(world, metric, first, second): row for first, row in zip(METRICS["delta_hedging"], rows, strict=True) if row}
    assert drawn.keys() == {key for key in known if key[1] in ("mean", "std", "cvar95", "risk_cost")}
    assert all(row == [pytest.approx(value, rel=1e-3) for value in known[key]] for key, row in drawn.items())


def test_the_picture_to_turn_is_of_this_run():
    "Each bar of the picture of the guide is the run's number."
    from btc_hedge_rl.ground import readable
    told = pictures_to_turn()[-2]
    (_, measures), (_, markets) = told["knobs"]
    bars = dict(zip(measures, told["lines"][0][3], strict=True))
    assert told["x"] == [names()[name] for name in METRICS["delta_hedging"]] and len(bars) == 4
    assert [market.lower() for market in markets] == [readable(world).lower() for world in METRICS["worlds"]]
    for label, metric in {"mean": "mean", "std": "std", "CVaR95": "cvar95", "cost": "cost"}.items():
        for drawn, world in zip(bars[label], METRICS["worlds"].values(), strict=True):
            assert drawn == [pytest.approx(row[metric], rel=1e-3) for row in world["delta_hedging"].values()]


def test_picture_is_of_this_run():
    "The picture of the README is drawn from the same comparisons."
    import matplotlib.pyplot as plt
    from btc_hedge_rl.pipeline import plot_headline
    plt.switch_backend("Agg")
    plot_headline(METRICS)
    drawn = [line.get_xdata()[0] for ax in plt.gcf().axes for line in ax.lines if line.get_marker() == "o"]
    plt.close()
    calls = [(METRICS["worlds"][world]["delta_hedging"], comparison("delta_hedging", "best_rule", world)) for world in METRICS["worlds"]]
    books = [(METRICS["option_hedging"], c) for c in METRICS["comparisons"] if c["task"] == "option_hedging" and c["metric"] == "cvar95"]
    expected = [100 * c["difference"] / rows[c["second"]]["cvar95"] for rows, c in calls + books]
    assert drawn == pytest.approx(expected)
    assert (RESULTS / "headline.png").read_bytes()[:4] == b"\x89PNG"
