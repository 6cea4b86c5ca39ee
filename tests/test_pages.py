"""The pages of the study: their frame, their boxes, figures, formulas, sources and exercises; and sentences that turn with the result."""
import json
import re
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import OUT, ROOT

RESEARCH = sorted((ROOT / "nbs" / "research").glob("[0-9]*.ipynb"))
GLOSSARY, SOURCES = ROOT / "nbs" / "guides" / "09_glossary.ipynb", ROOT / "nbs" / "references.json"
FIGURES, TABLES, WORDS = 4, 3, (45, 110)     # unfolded on a page at most; words of a box


def name(path):
    return path.stem


def cells(path, kind=None):
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in found if kind in (None, c["cell_type"])]


@pytest.fixture(scope="module")
def pages():
    "Every page of the study as the site lays it out: its cells, in order, with what they show."
    from btc_hedge_rl.site import make_page, read_boxes, read_references
    hosts = {"doc_host": "https://docs.example", "git_url": "https://git.example"}
    boxes, sources = read_boxes(GLOSSARY), read_references(SOURCES)
    laid = {}
    for path in RESEARCH:
        nb = json.loads(path.read_text(encoding="utf-8"))
        page = make_page(nb, f"research/{path.name}", hosts, ROOT / "btc_hedge_rl", sources, boxes)
        laid[path] = [c | {"source": "".join(c["source"])} for c in page["cells"]]
    return laid


def unfolded(page):
    "Cells that a reader sees without opening anything."
    depth = 0
    for cell in page:
        if cell["source"].startswith('<details class="more">'): depth += 1
        if not depth: yield cell
        if cell["source"] == "</details>": depth -= 1
    assert depth == 0


def shows(cell, what):
    data = [o["data"] for o in cell.get("outputs", []) if "data" in o]
    if what == "figure": return sum(any(mime.startswith("image/") for mime in d) for d in data)
    return sum("<table" in "".join(d.get("text/html", "")) for d in data)


@pytest.mark.parametrize("path", RESEARCH, ids=name)
def test_a_page_shows_few_figures_and_tables(path, pages):
    open_cells = list(unfolded(pages[path]))
    figures, tables = (sum(shows(cell, what) for cell in open_cells) for what in ("figure", "table"))
    assert 1 <= figures <= FIGURES and tables <= TABLES


@pytest.mark.parametrize("path", RESEARCH, ids=name)
def test_a_page_asks_answers_and_ends_with_its_sources(path, pages):
    "Title, strip, question, computed answer; at the end exercises, sources, run and notebook."
    texts = [cell["source"] for cell in pages[path]]
    assert texts[1].startswith('<nav class="strip"') and texts[2].startswith("**Question.**") and "\n\n" not in texts[2]
    answer = pages[path][4]
    assert texts[3] == '<div class="answer">' and answer["cell_type"] == "code" and "#| lead: true" in answer["source"] and "Markdown(" in answer["source"]
    told = [text for text in texts if not text.startswith(("<small>", "<p class=\"download\">"))]
    assert told[-1].startswith("## References") and texts[-1].startswith('<p class="download">')
    limits, exercises = (next(i for i, t in enumerate(told) if word in t) for word in ("What this does not show", "## Exercises"))
    assert limits < exercises


@pytest.mark.parametrize("path", RESEARCH, ids=name)
def test_a_page_has_two_exercises_with_solutions_to_open(path, pages):
    texts = [cell["source"] for cell in pages[path]]
    after = texts[next(i for i, text in enumerate(texts) if text.startswith("## Exercises")):]
    assert [len(re.findall(rf"^\*\*{k}\. ", "\n".join(after), re.M)) for k in (1, 2, 3)] == [1, 1, 0]
    opened = [text for text in after if text.startswith("<details")]
    assert opened == [f'<details class="more"><summary>Solution {k}</summary>' for k in (1, 2)]
    solutions = [after[i + 1] for i, text in enumerate(after) if text.startswith("<details")]
    assert not any("code-fold" in code for code in solutions), "the code of a solution is what one opens it for"


def test_solutions_run(smoke_run):
    "Every solution runs with its step and says something."
    folder, silent = smoke_run[0] / OUT, []
    for path in RESEARCH:
        run = json.loads((folder / path.name).read_text(encoding="utf-8"))["cells"]
        solutions = [c for c in run if "".join(c["source"]).startswith("#| details: Solution")]
        assert len(solutions) == 2
        silent += [(path.stem, "".join(c["source"])[:60]) for c in solutions if not c["outputs"]]
    assert silent == []


def test_runs_keep_their_figures(smoke_run):
    "A page that a run executed shows as many unfolded figures as a page may, and at least one."
    for path in RESEARCH:
        run = json.loads((smoke_run[0] / OUT / path.name).read_text(encoding="utf-8"))["cells"]
        shown = sum(shows(c, "figure") for c in run if not "".join(c["source"]).startswith("#| details"))
        assert 1 <= shown <= FIGURES, (path.stem, shown)


@pytest.mark.parametrize("path", RESEARCH, ids=name)
def test_formulas_have_numbers_and_are_referred_to(path, pages):
    prose = re.sub(r"`[^`]*`", "", "\n\n".join(cells(path, "markdown")))
    displayed, labels = len(re.findall(r"\$\$", prose)) // 2, re.findall(r"\$\$\s*\{#(eq-[\w-]+)\}", prose)
    assert displayed == len(labels) == len(set(labels)) >= 1
    assert set(re.findall(r"(?<![\w#])@(eq-[\w-]*\w)", prose)) == set(labels), "a formula nobody refers to needs no number"
    page = "\n".join(cell["source"] for cell in pages[path] if cell["cell_type"] == "markdown")
    assert "@eq-" not in page and "{#eq-" not in page
    assert re.findall(r'class="equation-number">\((\d+)\)', page) == [str(i + 1) for i in range(len(labels))]
    assert set(re.findall(r"\]\(#(eq-[\w-]+)\)", page)) == set(re.findall(r'class="equation" id="(eq-[\w-]+)"', page))


def test_every_idea_has_its_box(pages):
    "The words for newcomers are written once, in the glossary, short, and opened where a page needs them."
    from btc_hedge_rl.site import read_boxes
    boxes = read_boxes(GLOSSARY)
    needed = {"perpetual", "delta hedging", "band", "cvar", "hawkes", "qed", "avellaneda", "fills", "ppo", "pathwise", "bootstrap"}
    assert all(any(word in title.lower() for title, _ in boxes.values()) for word in needed)
    wordy = {title: len(words.split()) for title, words in boxes.values()}
    assert all(WORDS[0] <= n <= WORDS[1] for n in wordy.values()), wordy
    shown = "\n".join(cell["source"] for page in pages.values() for cell in page)
    assert [title for title, _ in boxes.values() if f"<summary>{title}</summary>" not in shown] == []
    assert "New here?" not in shown


SEARCH = """
const [fuse, index, ...words] = process.argv.slice(2), Fuse = require(fuse);
const entries = JSON.parse(require("fs").readFileSync(index)), keys = [["title", 2], ["section", 2], ["text", 1]];
const engine = new Fuse(entries, {keys: keys.map(([name, weight]) => ({name, weight})), ignoreLocation: true, threshold: .3, minMatchCharLength: 2});
console.log(JSON.stringify(words.map(word => (engine.search(word, {limit: 1})[0] || {item: {href: ""}}).item.href)));
"""


def test_the_search_finds_the_box_first(site):
    "The site's own engine, with the settings of its script, on its own index."
    from btc_hedge_rl.site import found_by
    node, engine = shutil.which("node"), next((site / "site_libs").rglob("fuse*.js"), None)
    if not (node and engine): pytest.skip("Node, or the search engine of smalldocs, is not here")
    script = "\n".join(path.read_text(encoding="utf-8") for path in (site / "site_libs").rglob("smalldocs*.js"))
    assert 'keys: [{ name: "title", weight: 2 }, { name: "section", weight: 2 }, { name: "text", weight: 1 }]' in script, "smalldocs searches otherwise now"
    asked = [(name, anchor) for anchor, names in found_by(GLOSSARY).items() for name in names]
    words = [name for name, _ in asked]
    found = json.loads(subprocess.run([node, "-e", SEARCH, "x", str(engine), str(site / "search.json"), *words], text=True, capture_output=True, check=True).stdout)
    assert len(asked) > 20
    assert [(name, href) for (name, anchor), href in zip(asked, found, strict=True) if href != f"guides/glossary.html#{anchor}"] == []


def test_sources_can_be_followed(pages):
    "Every source has an address and is cited somewhere, and every page cites."
    from btc_hedge_rl.site import read_references
    sources = read_references(SOURCES)
    assert [key for key, entry in sources.items() if not ("DOI" in entry or "URL" in entry or entry["type"] == "chapter")] == []
    assert all(re.fullmatch(r"10\.\d{4,9}/\S+", entry["DOI"]) for entry in sources.values() if "DOI" in entry)
    told = "\n".join("\n".join(cells(path, "markdown")) for path in (ROOT / "nbs").rglob("*.ipynb") if "checkpoints" not in path.as_posix())
    assert [key for key in sources if f"@{key}" not in told] == []
    bare = [path.stem for path, page in pages.items() if not any(c["source"].startswith("## References") for c in page)]
    assert bare == []


CLAIMS = r"\b(beats|outperforms?|wins?|loses|is (?:clearly )?(?:better|worse)) (?:than |against |to )?(?:the |every |any |all )?(?:best|rule|band|PPO|pathwise|delta|maker|agent)"


@pytest.mark.parametrize("path", RESEARCH, ids=name)
def test_prose_claims_no_result(path):
    "Who is better is computed: no typed sentence says it."
    prose = "\n\n".join(text for text in cells(path, "markdown") if not text.startswith(("**Question.**", "# ")))
    assert re.findall(CLAIMS, prose) == []


# sentences that turn

def walk_of(bars, seed=3):
    "Bars on the same clock whose closes are a Gaussian walk."
    from btc_hedge_rl.ground import normals
    price = 1e5 * np.exp(1e-3 * normals(seed, 0, 1, len(bars))[0].cumsum())
    return bars.assign(open=price, high=price, low=price, close=price)


def test_page_1_turns():
    from btc_hedge_rl.data import apart_from_walk, bootstrap_facts, facts_answer, sample_bars, walk_ranges
    def said(bars):
        facts = bootstrap_facts(bars, n=20).join(walk_ranges(bars, n=60))
        return facts_answer(facts), apart_from_walk(facts)
    bars = sample_bars().iloc[:30 * 288]
    (answer, facts), (walk_answer, walk_facts) = said(bars), said(walk_of(bars))
    assert "**no Gaussian walk**" in answer and "**hardly" in walk_answer
    outside, uncertain, inside = facts.split("\n\n")
    assert "excess kurtosis" in outside + uncertain and "excess kurtosis" not in inside
    assert "excess kurtosis" in walk_facts.split("\n\n")[2]


def test_page_2_turns():
    from btc_hedge_rl.worlds import model_answer
    scores = pd.DataFrame({"qed-hawkes": [.3, .4], "stochastic-vol": [.9, 1.]})
    jumps = SimpleNamespace(branching_ratio=.5)
    found, turned = model_answer(scores, jumps, .2, 1.), model_answer(1 - scores, jumps, .01, 3.)
    assert "**stochastic volatility** resembles" in found and "does not reject" in found and "**cannot be told**" in found
    assert "**calibrated market** resembles" in turned and "**rejects**" in turned and "can be told from none" in turned


def test_page_3_turns():
    from btc_hedge_rl.market import level_answer
    level = pd.DataFrame({"variance ratio": [1.2, 1.3], "low": [1.1, 1.1], "high": [1.3, 1.5]}, ["1 d", "7 d"])
    turned = 1 / level.rename(columns={"low": "high", "high": "low"})
    assert level_answer(level).count("**dear**") == 2 and level_answer(turned).count("**cheap**") == 2


def makers(sign):
    "Outcomes and attribution of two makers, of which both earn or both lose."
    rows = pd.MultiIndex.from_product([["simulated", "bars"], ["candle", "Poisson"], ["glft", "symmetric"]], names=["market", "fills", "maker"])
    outcomes = pd.DataFrame({"mean": sign, "low": sign - .1, "high": sign + .1}, rows, dtype=float)
    return outcomes, pd.DataFrame({"spread captured": 2., "adverse selection": sign - 2., "inventory": 0.}, rows)


def test_page_4_turns():
    from btc_hedge_rl.backtest import earning_sentence
    won, lost = (earning_sentence(*makers(sign), "symmetric", 14) for sign in (1., -1.))
    assert won.count("**every maker** earns in every market") == 2 and "it earns" in won and "no maker earns" not in won
    assert lost.count("**no maker earns** in any market") == 2 and "it loses" in lost


def hedged(shift):
    "A result in which PPO gains `shift` bp a path on the best rule, and the pathwise network 20."
    from btc_hedge_rl.backtest import METRICS, BacktestResult
    rule = 100 * np.random.default_rng(0).standard_normal((1, 400)) - 20
    samples = {"unhedged": 5 * rule, "best_rule": rule, "ppo": np.stack([rule[0] + shift] * 2), "pathwise": rule + 20}
    metrics = pd.DataFrame({m: {k: float(np.mean([f(x) for x in v])) for k, v in samples.items()} for m, f in METRICS.items()})
    return BacktestResult(metrics, None, samples, {}, "bp")


def test_page_5_turns():
    from btc_hedge_rl.backtest import gain_sentence
    from btc_hedge_rl.envs import CVaR
    won, lost = (gain_sentence("qed-hawkes", hedged(shift), CVaR()) for shift in (10., -10.))
    assert re.search(r"PPO [\d.]+ bp \(-", won) and re.search(r"PPO [\d.]+ bp \(\+", lost)


def test_page_6_turns():
    from btc_hedge_rl.backtest import tails_answer
    assert "**PPO** loses least" in tails_answer({"qed-hawkes": hedged(30.)})
    assert "**Pathwise network** loses least" in tails_answer({"qed-hawkes": hedged(-10.)})


def test_front_page_turns():
    "The published run with every comparison reversed: the headline, and the picture's caption claims nothing."
    from btc_hedge_rl.pipeline import headline
    metrics, manifest = (json.loads((ROOT / "nbs" / "results" / f"{n}.json").read_text(encoding="utf-8")) for n in ("metrics", "manifest"))
    turn = {"better": "worse", "worse": "better"}
    back = metrics | {"comparisons": [c | {"difference": -c["difference"], "low": -c["high"], "high": -c["low"],
                                           "verdict": turn.get(c["verdict"], c["verdict"])} for c in metrics["comparisons"]]}
    found, turned = headline(metrics, manifest), headline(back, manifest)
    words = lambda text: re.findall(r"\d% (better|worse)\*\*", text)
    assert words(found) and words(turned) == [turn[word] for word in words(found)]
    key = "task", "first", "second", "metric"
    ours = [c["verdict"] for c in metrics["comparisons"] if tuple(c[k] for k in key) == ("delta_hedging", "ppo", "best_rule", "risk_cost")]
    def beside(text): return int(re.search(r"same profits, it is (?:\*\*worse\*\* in (\d) of|worse in none)", text)[1] or 0)
    assert [beside(found), beside(turned)] == [ours.count("worse"), ours.count("better")] != [0, 0]


def certificate(network, agent):
    "A record in which the rule stands 1 bp above the optimum, the network and PPO as far as said."
    table = {name: {"gap": gap, "low": gap - .1, "high": gap + .1, "share": 1 - gap} for name, gap in (("pathwise", network), ("PPO, seed 0", agent))}
    rule = {"best_rule": {"gap": 1., "low": 1., "high": 1., "share": 0.}}
    return {"optimum": 13., "error": .01, "luck": 0., "luck_error": .1, "n_paths": 1000, "table": rule | table}


def test_the_certificate_turns():
    "Near the optimum or farther than the rule: the sentence of page 07 says which, of each learner."
    from btc_hedge_rl.agents import certificate_sentence
    from btc_hedge_rl.backtest import certificate_of
    def said(*gaps): return certificate_sentence(certificate_of(certificate(*gaps))).split("- PPO")
    found, turned, same = said(.3, 1.4), said(1.4, .3), said(1.05, .95)
    assert "**70%** of the way there" in found[0] and "**farther** than the rule" in found[1]
    assert "**farther** than the rule" in turned[0] and "**70%** of the way there" in turned[1]
    assert all("**not distinguishable** from the rule" in line for line in same)


def test_the_certificate_shown_is_the_one_kept():
    "The page reads the packaged record, whose rule is the best of its rules, and nobody in it is below the optimum."
    from btc_hedge_rl.backtest import reference_certificate
    record = reference_certificate()
    assert min(record["rules"].values()) == pytest.approx(record["optimum"] + record["table"]["best_rule"]["gap"], abs=1e-6)
    assert all(row["high"] > -record["error"] for row in record["table"].values())
    assert {"created", "source", "made_by"} <= set(record["provenance"])


def test_verdicts_are_grouped_as_they_turn():
    from btc_hedge_rl.backtest import Comparison, grouped_sentence
    found = [Comparison("ppo", "bs_delta", "cvar95", -9., -10., -8.), Comparison("ppo", "leland", "cvar95", 5., 4., 6.)]
    back = [replace(c, difference=-c.difference, low=-c.high, high=-c.low) for c in found]
    assert grouped_sentence(found).endswith("PPO is **better** than Black–Scholes delta; **worse** than Leland.")
    assert grouped_sentence(back).endswith("PPO is **better** than Leland; **worse** than Black–Scholes delta.")


def test_an_objective_without_a_metric_is_told_beside_it():
    from btc_hedge_rl.backtest import own_objective
    from btc_hedge_rl.envs import CVaR, Entropic
    better, worse = (own_objective({"qed-hawkes": hedged(shift)}, Entropic(), 200) for shift in (30., -30.))
    assert "trained for **entropic risk" in better and "better** than" in better and "worse** than" in worse
    assert own_objective({"qed-hawkes": hedged(30.)}, CVaR(), 200) == ""


def test_page_8_turns():
    from btc_hedge_rl.backtest import Comparison, walk_answer
    result = replace(hedged(10.), overlap=14, independent=60.)
    walk = SimpleNamespace(results={"calibrated": result})
    found = [Comparison("ppo", "best_rule", "std", -20., -30., -10.), Comparison("pathwise", "best_rule", "std", 5., -5., 15.)]
    turned = [replace(c, difference=-c.difference, low=-c.high, high=-c.low) for c in found]
    assert "PPO **better** than" in walk_answer(walk, {"calibrated": found})
    assert "PPO **worse** than" in walk_answer(walk, {"calibrated": turned})
    few = SimpleNamespace(results={"calibrated": replace(result, independent=3.)})
    assert "too few for a verdict" in walk_answer(few, {"calibrated": found})


def test_page_7_turns_with_its_run(smoke_run, tmp_path):
    "The verdict page itself, executed on a run in which PPO gains on every path, and on one in which it loses."
    from btc_hedge_rl.backtest import METRICS, load_result, save_result
    from btc_hedge_rl.pipeline import execute_notebook
    page, said = RESEARCH[6], {}
    for word, shift in (("better", 30.), ("worse", -30.)):
        run = tmp_path / word
        shutil.copytree(smoke_run[0] / OUT / "artifacts", run / "artifacts")
        for folder in sorted((run / "artifacts" / "backtest" / "markets").iterdir()):
            result = load_result(folder)
            rule, pnl, metrics = result.samples["best_rule"][0], result.pnl.copy(), result.metrics.copy()
            for strategy, gain in (("ppo", shift), ("pathwise", 60.)):
                for column in pnl:
                    if column.split("/")[0] == strategy: pnl[column] = rule + gain
                for metric in metrics: metrics.loc[strategy, metric] = METRICS[metric](rule + gain) if metric in METRICS else np.nan
            save_result(replace(result, pnl=pnl, metrics=metrics), folder)
        execute_notebook(page, run / page.name, {"run_folder": str(run), "n_boot": 200})
        executed = json.loads((run / page.name).read_text(encoding="utf-8"))["cells"]
        lead = next(c for c in executed if "#| lead: true" in "".join(c["source"]))
        said[word] = "".join(lead["outputs"][0]["data"]["text/markdown"])
    assert "better** than the best tuned rule" in said["better"] and "worse**" not in said["better"]
    assert "worse** than the best tuned rule" in said["worse"] and "better**" not in said["worse"]
