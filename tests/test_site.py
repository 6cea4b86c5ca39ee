"""The site in a real browser: every page, two widths, light and dark.

To look at it with your own eyes: `python tests/test_site.py --shots FOLDER [--site _docs] [PAGE …]` saves a picture of every page.
"""
import argparse
import functools
import json
import os
import re
import shutil
import subprocess
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from conftest import ROOT

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
SHAPES = {"wide": (1400, 1000), "phone": (390, 844)}
FLAGS = ("--headless=new --no-sandbox --disable-gpu --disable-software-rasterizer --in-process-gpu --disable-quic --no-first-run "
         "--disable-background-networking --disable-component-update --disable-sync --disable-extensions --hide-scrollbars "
         "--disable-dev-shm-usage --disable-site-isolation-trials --num-raster-threads=1").split()
PART = os.environ.get("SITE_PAGES", "*").split()     # for developing: patterns of the pages to look at

# A page that follows a new scheme does so within 50 ms, on a busy computer within seconds.
SETTLED = """
const settled = (scheme, tries = 2000) => !tries || [null, document.documentElement.classList.contains("quarto-dark")].includes(scheme)
  ? null : new Promise(r => setTimeout(r, 5)).then(() => settled(scheme, tries - 1));
"""
SETTLE = SETTLED + "Promise.resolve(settled(arguments[0])).then(arguments[1]);"

# Everything the tests ask of a page, in one round trip, once its colours are those of the scheme.
LOOK = SETTLED + r"""
const [scheme, done] = arguments, main = document.querySelector("main");
const scrolls = e => { for (; e && e !== main.parentElement; e = e.parentElement)
  if (/auto|scroll/.test(getComputedStyle(e).overflowX)) return true; return false; };
const shown = e => e.checkVisibility() && e.getClientRects().length;
const words = main.cloneNode(true);
words.querySelectorAll("pre, code, annotation").forEach(e => e.remove());
const rgb = c => { const [r, g, b, a = 1] = c.match(/[\d.]+/g).map(Number); return {r, g, b, a}; };
const luminance = ({r, g, b}) => [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
const over = (top, under) => ({a: 1, ...Object.fromEntries(["r", "g", "b"].map(k => [k, top[k] * top.a + under[k] * (1 - top.a)]))});
const grounds = new Map([[null, {r: 255, g: 255, b: 255, a: 1}]]);
const ground = e => { if (!grounds.has(e)) { const c = rgb(getComputedStyle(e).backgroundColor);
  grounds.set(e, c.a === 1 ? c : c.a ? over(c, ground(e.parentElement)) : ground(e.parentElement)); } return grounds.get(e); };
const contrast = e => { const b = ground(e), f = over(rgb(getComputedStyle(e).color), b), [x, y] = [luminance(f), luminance(b)].sort((p, q) => q - p);
  return (x + .05) / (y + .05); };
const texts = () => [...main.querySelectorAll("p, li, td, th, figcaption, h1, h2, h3, code, code span, pre, a, math")]
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && shown(e));
// What shows in the corners of a picture, where nothing is drawn: its own pixels, as the page filters and blends them
const corners = image => {
  const canvas = document.createElement("canvas"), style = getComputedStyle(image), {r, g, b} = ground(image), end = 39;
  canvas.width = canvas.height = end + 1;
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  pen.fillStyle = `rgb(${r} ${g} ${b})`;
  pen.fillRect(0, 0, end + 1, end + 1);
  pen.filter = style.filter;
  pen.globalCompositeOperation = style.mixBlendMode.replace("normal", "source-over");
  pen.drawImage(image, 0, 0, end + 1, end + 1);
  return [[0, 0], [end, 0], [0, end], [end, end]].map(([x, y]) => {
    const [r, g, b] = pen.getImageData(x, y, 1, 1).data;
    return luminance({r, g, b}); }).sort((p, q) => p - q); };
Promise.resolve(settled(scheme)).then(() => {
  const images = [...main.querySelectorAll("img")].filter(i => i.checkVisibility());     // a figure has one for each scheme
  images.forEach(i => i.loading = "eager");
  const seen = (i, loaded) => ({src: i.src, alt: i.alt, loaded, corners: loaded ? corners(i) : []});
  return Promise.all(images.map(i => i.decode().then(() => true, () => false).then(loaded => seen(i, loaded))));
}).then(images => done({
  overflow: document.scrollingElement.scrollWidth - document.documentElement.clientWidth,
  cut: [...main.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && shown(e) && !e.closest("math *") && !scrolls(e))
    .map(e => e.outerHTML.slice(0, 120)).slice(0, 5),
  images,
  formulas: main.querySelectorAll("math").length, rawTex: (words.innerText.match(/\$\$|\\\(|\\\[|\\[a-z]{3,}/g) || []),
  headings: [...main.querySelectorAll("h1, h2, h3, h4, h5, h6")].map(h => +h.tagName[1]),
  ids: [...document.querySelectorAll("[id]")].map(e => e.id), links: [...document.querySelectorAll("a[href]")].map(a => a.href),
  faint: [...new Set(texts().filter(e => contrast(e) < 4.5).map(e => `${contrast(e).toFixed(1)} ${e.outerHTML.slice(0, 100)}`))].slice(0, 5),
  dark: luminance(ground(document.body)) < .2, lang: document.documentElement.lang, title: document.title,
}));
"""


class Quiet(SimpleHTTPRequestHandler):
    "Serves a site as a host does: connections stay open, and what a page has in common with another is kept by the browser."
    protocol_version = "HTTP/1.1"
    also = {"/blank": ("text/html", b"<!doctype html><title>-</title><link rel=icon href=data:,>")}     # path → what is no file of the site

    def do_GET(self):
        if self.path not in self.also: return super().do_GET()
        kind, text = self.also[self.path]
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", len(text))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass

    def end_headers(self):
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()


def serve(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/"


def open_browser(profile, nice=0):
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER, popen_kw={"preexec_fn": functools.partial(os.nice, nice)}))
    driver.set_script_timeout(120)
    driver.set_page_load_timeout(120)
    driver.get("about:blank")
    driver.get_log("performance")  # forget what the browser's own start page loads
    return driver


def dress(driver, dark, media="screen"):
    "Ask for a scheme, at rest: a colour that still fades is no colour to judge."
    features = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def shape(driver, width, height, dark):
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
    dress(driver, dark)


def pages_of(site):
    names = sorted(page.relative_to(site).as_posix() for page in site.rglob("*.html"))
    return [name for name in names if any(fnmatch(name, pattern) for pattern in PART)]


def requested(driver):
    messages = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}


@pytest.fixture(scope="module")
def base(site):
    server, url = serve(site)
    yield url
    server.shutdown()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        if os.environ.get("CI"):
            pytest.fail("Chromium and chromedriver are needed to test the site")
        pytest.skip("Chromium or chromedriver is not installed: the site was built but not looked at")
    browser = open_browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    "The script of axe-core, installed by npm into a folder that goes away; or an empty one, and why."
    npm = shutil.which("npm")
    if not npm: return "", "npm is not installed"
    folder = tmp_path_factory.mktemp("axe")
    words = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), "axe-core@4"]
    try: done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired: return "", "axe-core could not be installed in two minutes"
    if done.returncode: return "", f"axe-core could not be installed: {done.stderr.strip()[-300:]}"
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8"), ""


# What the audit saw before is not audited again: links of a sidebar that another page has, too (the mark of this page stays), the
# empty links of line numbers but one a block, and words and lines of code in a colour and a place that it sees already (LOOK has
# measured every one of them).
UNSEEN = """
if (arguments[0]) for (const link of document.querySelectorAll("#quarto-sidebar .sidebar-menu-container a"))
  if (!link.classList.contains("active") && !link.hasAttribute("aria-current")) link.closest("li")?.querySelector(".active, [aria-current]") || link.remove();
const seen = new Set();
for (const pre of document.querySelectorAll("main pre")) {
  const place = [pre, pre.parentElement, pre.parentElement.parentElement].map(e => e.className).join();
  for (const link of [...pre.querySelectorAll("a[aria-hidden]:empty")].slice(1)) link.remove();
  for (const word of [...pre.querySelectorAll("span")].reverse()) {     // words, then the lines they stand in
    const key = [place, word.parentElement.className, word.className].join("|");
    if (seen.has(key) && !word.childElementCount) word.replaceWith(word.textContent); else seen.add(key);
  }
  pre.normalize();
}"""
# Rules of which every violation is a lesser one (the impact of a rule is that of its violations) are not run: nobody reads what they find.
ADD = """
const [source, done] = arguments, script = document.createElement("script");
script.onload = script.onerror = e => done(e.type);
script.src = source;
document.head.append(script);"""
AUDIT = """
const done = arguments[arguments.length - 1], grave = ["serious", "critical"];
const lesser = axe._audit.rules.filter(r => r.impact && !grave.includes(r.impact)).map(r => [r.id, {enabled: false}]);
axe.run(document, {rules: Object.fromEntries(lesser), ...arguments[0]}).then(r => done(r.violations.filter(v => grave.includes(v.impact))
  .map(v => `${v.impact}: ${v.help} (${v.nodes.length}, such as ${v.nodes[0].html.slice(0, 150)})`)), e => done([`axe failed: ${e}`]));"""


def audit(driver, dark):
    "Serious barriers that axe-core finds on the page; in the dark only colours can differ."
    options = {"resultTypes": ["violations"]} | ({"runOnly": ["color-contrast"]} if dark else {})
    return driver.execute_async_script(AUDIT, options)


def sidebar(page):
    "The sidebar of a page, without what differs from page to page of a folder: the way to the others, and the mark of this one."
    found = re.search(r'id="quarto-sidebar".*?</nav>', page.read_text(encoding="utf-8"), re.S)
    return re.sub(r' href="[^"]*"| active\b| aria-current="page"', "", found[0]) if found else ""


PRINTED = "return [...document.querySelectorAll('#quarto-header, #quarto-sidebar, #quarto-margin-sidebar')].filter(e => e.checkVisibility()).length"


def look_at_print(driver):
    "What is wrong with the page on A4: width beyond the paper, what is cut, navigation that is printed."
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False})
    dress(driver, dark=False, media="print")
    look, bars = driver.execute_async_script(LOOK, False), driver.execute_script(PRINTED)
    return [look["overflow"], look["cut"], bars] if look["overflow"] > 0 or look["cut"] or bars else []


def look(driver, dark):
    "What the browser sees and says now, and what it asked for since it was asked last."
    found = driver.execute_async_script(LOOK, dark)
    found["requests"] = requested(driver)
    found["console"] = [e["message"] for e in driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
    return found


SCHEMES = {"light": False, "dark": True}


def examine(driver, url, audited, bar_seen):
    """What the browser sees on one page, (shape, dark) → findings: it is opened in each scheme on a telephone, turned into a wide screen,
    printed, and audited in both schemes."""
    seen = {}
    requested(driver)     # forget what the page before still fetched while it was printed and audited
    for dark in SCHEMES.values():
        driver.get(urljoin(url, "/blank"))     # nobody looks at the page before in the shape of the next one
        for name in ("phone", "wide"):
            shape(driver, *SHAPES[name], dark)
            if name == "phone": driver.get(url)
            seen[name, dark] = look(driver, dark)
        if not dark: seen["wide", dark]["print"] = look_at_print(driver)
    if not audited: return seen
    driver.execute_script(UNSEEN, bar_seen)
    assert driver.execute_async_script(ADD, "/axe.js") == "load"     # by its address: the browser keeps what it compiled
    for dark in (True, False):
        dress(driver, dark)
        driver.execute_async_script(SETTLE, dark)
        seen["wide", dark]["barriers"] = audit(driver, dark)
    return seen


@pytest.fixture(scope="module")
def looks(site, base, driver, axe, tmp_path_factory):
    "What the browsers saw, (page, shape, dark) → findings. There are two, so that no processor waits, and both give way to other tests."
    sidebars, lock = set(), threading.Lock()
    Quiet.also["/axe.js"] = "text/javascript", axe[0].encode()
    def of_page(browsers, page):
        bar, browser = sidebar(site / page), browsers.pop()
        with lock: known = bar in sidebars or sidebars.add(bar)
        found = examine(browser, base + page, bool(axe[0]), bool(known))
        browsers.append(browser)
        return {(page, *how): seen for how, seen in found.items()}
    browsers = [open_browser(tmp_path_factory.mktemp("profile"), nice=5) for _ in range(2)]
    try:
        with ThreadPoolExecutor(2) as pool: found = list(pool.map(functools.partial(of_page, browsers), pages_of(site)))
    finally:
        for browser in browsers: browser.quit()
    return {key: seen for page in found for key, seen in page.items()}


def wrong(looks, what):
    """Pages with a finding, so that a failure names them all at once."""
    return {key: value for key, found in looks.items() if (value := what(found))}


def test_pages_are_there(site):
    from btc_hedge_rl.site import page_name
    notebooks = Path(__file__).parents[1] / "nbs"
    expected = {page_name(p.relative_to(notebooks).as_posix()).replace(".ipynb", ".html") for p in notebooks.rglob("*.ipynb")
                if not any(part.startswith((".", "_")) for part in p.relative_to(notebooks).parts)}
    assert expected and expected <= {page.relative_to(site).as_posix() for page in site.rglob("*.html")}


def test_nothing_leaves_the_machine(looks, base):
    assert not wrong(looks, lambda f: [u for u in f["requests"] if not u.startswith((base, "data:"))])


def test_console_is_silent(looks):
    assert not wrong(looks, lambda f: f["console"])


def test_no_page_scrolls_sideways(looks):
    assert not wrong(looks, lambda f: f["overflow"] > 0)
    assert not wrong(looks, lambda f: f["cut"])


def test_pictures_load_and_speak(looks):
    assert not wrong(looks, lambda f: [i for i in f["images"] if not i["loaded"] or len(i["alt"]) < 4])
    assert any(f["images"] for f in looks.values())


def test_pictures_lie_on_the_page(looks):
    "No figure is a white card in the dark, nor a dark one in the light: three of its corners have the luminance of the page."
    def strange(dark): return lambda f: [i["src"] for i in f["images"] if i["loaded"] and not (i["corners"][2] < .1 if dark else i["corners"][1] > .8)]
    for dark in SCHEMES.values(): assert not wrong({key: found for key, found in looks.items() if key[2] is dark}, strange(dark))


def test_formulas_are_typeset(looks):
    assert not wrong(looks, lambda f: f["rawTex"])
    assert any(f["formulas"] for f in looks.values())


def test_text_is_legible(looks):
    assert not wrong(looks, lambda f: f["faint"])
    assert not [key for key, f in looks.items() if f["dark"] != key[2]]


def test_headings_descend_in_steps(looks):
    def jumps(found):
        levels = found["headings"]
        return levels[:1] != [1] or levels.count(1) != 1 or [b for a, b in zip(levels, levels[1:]) if b > a + 1]
    assert not wrong(looks, jumps)
    assert not wrong(looks, lambda f: not f["lang"] or not f["title"])


def test_links_and_anchors_resolve(site, looks, base):
    pages = {base + page: found for (page, name, dark), found in looks.items() if name == "wide" and not dark}
    broken = []
    for page, found in pages.items():
        assert len(found["ids"]) == len(set(found["ids"])), page
        for link in found["links"]:
            target, anchor = urldefrag(urljoin(page, link))
            if not target.startswith(base):
                if ".example" in target:
                    broken.append((page, link))
                continue
            target += "index.html" if target.endswith("/") else ""
            there = target in pages or (site / unquote(target.removeprefix(base))).is_file()
            if not there or anchor and (target in pages or PART == ["*"]) and unquote(anchor) not in pages[target]["ids"]:
                broken.append((page, link))
    assert not broken


def fetched(site, looks, page, dark):
    "Files that a reader of a page fetches in one scheme, on a telephone or a wide screen: with every picture, however far down."
    requests = {urldefrag(url)[0] for name in SHAPES for url in looks[page, name, dark]["requests"]}
    files = {site / unquote(url.split("/", 3)[3]) for url in requests if url.startswith("http")}
    return {file / "index.html" if file.is_dir() else file for file in files if file.exists()}


def test_pages_are_light(site, looks):
    "At most 1.5 MB a page with its pictures, and 200 kB of scripts as a host sends them; a picture is fetched for one scheme only."
    heavy, scripts, twice = {}, {}, {}
    for page, dark in {(page, dark) for page, _, dark in looks}:
        files = fetched(site, looks, page, dark)
        assert site / page in files
        heavy[page, dark] = sum(file.stat().st_size for file in files)
        scripts[page, dark] = sum(len(zlib.compress(file.read_bytes())) for file in files if file.suffix == ".js")
        shown = {site / unquote(urldefrag(image["src"])[0].split("/", 3)[3]) for name in SHAPES for image in looks[page, name, dark]["images"]}
        twice[page, dark] = [file.name for file in files if file.parent.name == "figures" and file not in shown]
    print(*sorted(((weight, *key) for key, weight in heavy.items()), reverse=True)[:5], sep="\n")
    assert not {key: weight for key, weight in heavy.items() if weight > 1_500_000}
    assert not {key: weight for key, weight in scripts.items() if not 1_000 < weight <= 200_000}
    assert not {key: names for key, names in twice.items() if names}


@pytest.mark.parametrize("words", ["Whalley–Wilmott", "branching ratio"])
def test_search_finds(driver, base, words):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait
    shape(driver, *SHAPES["wide"], dark=False)
    driver.get(base)
    driver.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys(words)
    results = WebDriverWait(driver, 10).until(lambda d: d.find_elements(By.CSS_SELECTOR, "a.search-result"))
    found = [result for result in results if re.search(words, result.text, re.I)]
    assert found, [result.text for result in results]
    driver.get(found[0].get_attribute("href"))
    assert re.search(words, driver.find_element(By.TAG_NAME, "main").text, re.I)


def test_front_page_answers_in_one_screen(driver, base):
    "One figure, one table, two commands and four doors before anybody scrolls; and a name for those who pass it on."
    shape(driver, *SHAPES["wide"], dark=False)
    driver.get(base)
    ends = driver.execute_script("""return Object.fromEntries(["figure", ".table-box", "#run-it pre", "#four-doors ul"]
      .map(s => [s, document.querySelector("main " + s).getBoundingClientRect().bottom]))""")
    assert {what: bottom for what, bottom in ends.items() if bottom > SHAPES["wide"][1]} == {}
    head = driver.execute_script("""return ["meta[property='og:title']", "meta[property='og:description']", "link[rel=icon]"].map(s => {
      const e = document.querySelector(s); return e && (e.content || e.href); })""")
    assert all(head) and head[2].endswith("favicon.svg")


def test_nothing_of_the_source_shows(site):
    "No format, escape or command of TeX is left in the words of a figure or of a signature."
    import bs4
    found, signatures = [], 0
    for page in (site / name for name in pages_of(site)):
        text = page.read_text(encoding="utf-8")
        alts = re.findall(r'<img[^>]* alt="([^"]*)"', text)
        found += [(page.name, alt) for alt in alts if re.search(r"[{}\\]|%[-\d.]*[a-zA-Z]|:\.\d", alt)]
        if 'class="source-link"' not in text: continue
        for shown in bs4.BeautifulSoup(text[text.index("<main"):], "html.parser").select(".signature"):
            for formula in shown.select("annotation"): formula.decompose()
            for code in shown.select("code"): code.decompose()
            signatures += 1
            found += [(page.name, word) for word in re.findall(r"\\[a-zA-Z]+|[\x07-\x08\x0b-\x0c\x1b]", shown.get_text())]
    assert found == [] and (signatures or PART != ["*"])


def test_prepared_notebooks_are_complete():
    """What a renderer reads of the study and the guides, smalldocs or Quarto: valid notebooks, with every heading, figure, table and shown
    line of the source, in lists of lines."""
    import copy
    import nbformat
    from btc_hedge_rl.ground import read_json
    from btc_hedge_rl.site import make_page, read_boxes, read_references
    hosts = {"doc_host": "https://docs.example", "git_url": "https://git.example/us"}
    mimes = lambda nb: sorted(kind for cell in nb["cells"] for o in cell.get("outputs", []) for kind in o.get("data", {}) if kind.startswith("image/") or kind == "text/html")
    texts = lambda nb, kind: ["".join(cell["source"]) for cell in nb["cells"] if cell["cell_type"] == kind]
    pages = [*(ROOT / "nbs" / "research").glob("[0-9]*.ipynb"), *(ROOT / "nbs" / "guides").glob("[0-9]*.ipynb")]
    assert len(pages) > 15
    references, boxes = read_references(ROOT / "nbs" / "references.json"), read_boxes(ROOT / "nbs" / "guides" / "09_glossary.ipynb")
    for path in pages:
        nb = read_json(path)
        page = make_page(copy.deepcopy(nb), path.relative_to(ROOT / "nbs").as_posix(), hosts, ROOT / "btc_hedge_rl", references, boxes)
        for cell in page["cells"]:
            assert isinstance(cell["source"], list) and all(line.endswith("\n") for line in cell["source"][:-1]), path.name
        nbformat.validate(nbformat.from_dict(page))
        headings = lambda nb: [line for text in texts(nb, "markdown") for line in re.findall(r"^#+ .+$", text, re.M)]
        assert set(headings(nb)) <= set(headings(page)), path.name
        plain = lambda text: [line for line in text.splitlines() if not line.startswith("#|")]
        assert sorted(map(plain, texts(nb, "code"))) == sorted(map(plain, texts(page, "code"))), path.name      # details come later on a page
        assert mimes(nb) == mimes(page), path.name
        assert "widgets" not in page["metadata"] and "define(" not in json.dumps(page["cells"]), path.name      # scripts of widgets


def test_what_quarto_reads(tmp_path):
    "The settings that both renderers read lead to files that are there, and to pages; light and dark follow the reader and have a button."
    import yaml
    from btc_hedge_rl.site.building import _prepare
    work = tmp_path / "work"
    shutil.copytree(ROOT / "nbs" / "site", work / "nbs" / "site")
    for name in ("settings.ini", "_quarto.yml"): shutil.copy(ROOT / name, work)
    shown = "[source](https://git.example/blob/main/btc_hedge_rl/ground/units.py#L1)\n\n### half_life\n\n```python\nhalf_life(rate)\n```"
    told = {"cell_type": "code", "source": "show_doc(half_life)", "metadata": {}, "outputs": [{"data": {"text/markdown": shown}}]}
    for name, cells in {"index": [], "api/00_ground/01_units": [told]}.items():
        raw = {"cell_type": "raw", "metadata": {}, "source": f"---\ntitle: {name}\noutput-file: x.html\n---\n"}
        path = work / "_proc" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"cells": [raw, *cells], "metadata": {"widgets": {"state": {}}}, "nbformat": 4, "nbformat_minor": 5}))
    pages = _prepare(work, ROOT / "btc_hedge_rl")
    quarto = yaml.safe_load((pages / "_quarto.yml").read_text())
    html, website = quarto["format"]["html"], quarto["website"]
    assert html["respect-user-color-scheme"] is True and set(html["theme"]) == {"light", "dark"}      # two themes: a button for them
    assert all((pages / file).is_file() for file in (website["navbar"]["logo"], website["favicon"], html["css"], *quarto["project"]["resources"]))
    listed = re.findall(r"[\w/*]+\.ipynb", json.dumps(website["sidebar"]))
    assert "index.ipynb" in listed and all(list(pages.glob(name)) for name in listed)
    front, room = (json.loads((pages / name).read_text()) for name in ("index.ipynb", "api/ground/units.ipynb"))
    assert "page-layout: full" in "".join(front["cells"][0]["source"])      # else Quarto squeezes figure, table and commands into a column of text
    (signature,), = ([o["data"]["text/markdown"] for o in c["outputs"]] for c in room["cells"] if c["cell_type"] == "code")
    assert re.fullmatch(r"::: {\.signature}\n.*half_life.*\n:::", "".join(signature), re.S)      # its own box, without the renderer's wrapper
    assert "widgets" not in room["metadata"] and all(isinstance(c["source"], list) for c in (*front["cells"], *room["cells"]))


@pytest.mark.skipif(not shutil.which("quarto"), reason="Quarto is not installed: its pages were not rendered")
def test_quarto_renders_every_page(tmp_path, site):
    "The same pages as smalldocs, with the same headings."
    import bs4
    from btc_hedge_rl.site import build_docs
    other = build_docs(tmp_path / "docs", renderer="quarto")
    def headings(page):
        soup = bs4.BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        return [h.get_text(" ", strip=True) for h in soup.select("main :is(h1, h2, h3)")]
    assert {p: set(headings(site / p)) - set(headings(other / p)) for p in pages_of(site) if headings(site / p) and set(headings(site / p)) - set(headings(other / p))} == {}


def test_pages_of_the_study_name_their_run(site):
    pages = sorted((site / "research").glob("*.html"))
    assert len(pages) == len(list((ROOT / "nbs" / "research").glob("[0-9]*.ipynb"))) > 6
    assert [p.name for p in pages if "Executed by" not in p.read_text(encoding="utf-8")] == []


def test_downloads_open_as_notebooks(site):
    "What a page of the study gives to take home is a valid notebook of the same title, with the outputs the page shows."
    import bs4
    import nbformat
    pages = sorted((site / "research").glob("*.html"))
    for page in pages:
        soup = bs4.BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        link, = soup.select("p.download > a[download]")
        nb = nbformat.read(page.parent / link["href"], as_version=4)
        nbformat.validate(nb)
        assert nb.cells[0].source.splitlines()[0] == f"# {soup.h1.get_text(strip=True)}", page.name
        drawn = [o for c in nb.cells for o in c.get("outputs", []) if {"image/svg+xml", "image/png"} & o.get("data", {}).keys()]
        assert len(drawn) == len(soup.select("main a.picture")) > 0, page.name
    assert len(pages) > 6


def test_library_pages_show_every_public_name(site):
    "Definitions by their heading, constants by their code; a signature names its parameters."
    import bs4
    import importlib
    missing, vague = [], []
    for file in sorted((ROOT / "btc_hedge_rl").rglob("[a-z]*.py")):
        path = file.relative_to(ROOT / "btc_hedge_rl").with_suffix("")
        page = (site / "api" / path).with_suffix(".html")
        module, text = importlib.import_module(".".join(("btc_hedge_rl", *path.parts))), page.read_text(encoding="utf-8")
        soup = bs4.BeautifulSoup(text[text.index("<main"):text.index("</main>")], "html.parser")
        headings, code = {h.get_text(strip=True) for h in soup.select("main :is(h2, h3, h4)")}, "\n".join(c.get_text() for c in soup.select("main code"))
        missing += [f"{module.__name__}.{name}" for name in module.__all__ if name not in headings and not re.search(rf"^[\w, ]*\b{name}\b[\w, ]* = ", code, re.M)]
        vague += [f"{page.stem}: {s.select_one('h2, h3, h4').get_text()}" for s in soup.select(".signature") if re.search(r"\(\s*\*args, \*\*kwargs\s*\)", s.get_text())]
    assert (missing, vague) == ([], [])


def test_keyboard(driver, base):
    "The first tab leads past the navigation, the slash to the search, and boxes that scroll can be focused."
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    shape(driver, *SHAPES["wide"], dark=False)
    driver.get(base + "research/data_and_stylized_facts.html")
    ActionChains(driver).send_keys(Keys.TAB).perform()
    assert driver.execute_script("return document.activeElement.className") == "skip-link"
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    assert driver.current_url.endswith("#quarto-document-content")
    ActionChains(driver).send_keys("/").perform()
    assert driver.execute_script("return document.activeElement.type") == "search"
    assert driver.execute_script("return [...document.querySelectorAll('main pre, main .table-box, main .math.display')].every(e => e.tabIndex === 0)")


@pytest.mark.parametrize("name", SHAPES)
def test_pictures_turn_by_keyboard(driver, base, name):
    "Each knob, by an arrow key: another picture, said in words; nothing is wider than the page; without a script there is a still one."
    from selenium.webdriver.common.keys import Keys
    shape(driver, *SHAPES[name], dark=False)
    driver.get(base + "guides/turn.html")
    turned, told = 0, "return [arguments[0].querySelector('svg').innerHTML, arguments[0].querySelector('svg').getAttribute('aria-label')]"
    figures = driver.find_elements("css selector", "main figure.turn")
    for figure in figures:
        assert driver.execute_script("return arguments[0].querySelector('.still').hidden && !!arguments[0].querySelector('.still img').src", figure)
        for knob in figure.find_elements("css selector", "input"):
            before = driver.execute_script(told, figure)
            knob.send_keys(Keys.ARROW_RIGHT)
            after = driver.execute_script(told, figure)
            assert after[0] != before[0] and after[1] != before[1] and knob.get_attribute("aria-valuetext") in after[1]
            turned += 1
    assert len(figures) == 6 and turned == 12
    assert driver.execute_script("return document.scrollingElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("name", SHAPES)
def test_episodes_play(driver, base, name):
    "By keyboard alone: another hour, another path, play and pause; each said in words; nothing is wider than the page."
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
    shape(driver, *SHAPES[name], dark=False)
    driver.get(base + "guides/turn.html")
    box = driver.find_element("css selector", "main figure.play")
    path, time, button = (box.find_element("css selector", part) for part in ("select", "input", "button"))
    said = lambda: driver.execute_script("return arguments[0].querySelector('.turn-drawing svg').getAttribute('aria-label')", box)
    assert driver.execute_script("return arguments[0].querySelector('.still').hidden && arguments[0].querySelectorAll('polyline').length", box) == 14
    told = [said()]
    def other(act):
        act()
        WebDriverWait(driver, 10).until(lambda _: said() not in told)
        told.append(said())
    other(lambda: time.send_keys(Keys.ARROW_LEFT))
    assert time.get_attribute("aria-valuetext") in told[-1] and "worst path" in told[-1]
    other(lambda: path.send_keys(Keys.ARROW_DOWN))
    assert "median path" in told[-1]
    other(lambda: time.send_keys(Keys.HOME))
    for _ in range(2): other(lambda: button.text == "Pause" or button.send_keys(Keys.ENTER))     # plays on by itself
    assert button.text == "Pause"
    button.send_keys(Keys.SPACE)
    assert button.text == "Play"
    at = time.get_property("value")
    driver.execute_async_script("setTimeout(arguments[0], 900)")     # longer than a step
    assert time.get_property("value") == at and 0 < int(at) < int(time.get_attribute("max"))
    assert driver.execute_script("return document.scrollingElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("preferred", [False, True], ids=["from light", "from dark"])
def test_button_turns_the_lights_off_and_on(driver, base, preferred):
    "Without a reload, both ways, whatever the system prefers; and the next page remembers."
    from selenium.webdriver.common.by import By
    shape(driver, *SHAPES["wide"], preferred)
    driver.get(base)
    driver.execute_script("localStorage.clear()")
    driver.refresh()
    def page(dark):
        found = driver.execute_async_script(LOOK, dark)
        return found["dark"], found["faint"]
    assert page(preferred) == (preferred, [])
    for dark in (not preferred, preferred, not preferred):
        driver.find_element(By.CSS_SELECTOR, ".quarto-color-scheme-toggle").click()
        assert page(dark) == (dark, [])
    driver.get(base + "guides/symbols.html")
    assert page(not preferred) == (not preferred, [])
    driver.execute_script("localStorage.clear()")


def test_print(looks):
    "On A4 nothing is cut and the navigation is gone."
    printed = [key for key, found in looks.items() if "print" in found]
    assert len(printed) == len({page for page, *_ in looks})
    assert not wrong(looks, lambda f: f.get("print"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_serious_barrier(looks, axe, dark):
    "The accessibility audit of axe-core, on every page."
    script, why = axe
    if not script: (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{why}: the pages were not audited")
    audited = {key: found for key, found in looks.items() if key[2] is dark and "barriers" in found}
    assert len(audited) == len({page for page, *_ in looks})
    assert not wrong(audited, lambda f: f["barriers"])


def take_shots(site, folder, only):
    import tempfile
    folder.mkdir(parents=True, exist_ok=True)
    server, base = serve(site)
    with tempfile.TemporaryDirectory() as profile:
        browser = open_browser(profile)
        try:
            for page in only or pages_of(site):
                for name, (width, height) in SHAPES.items():
                    for dark in (False, True):
                        shape(browser, width, height, dark)
                        browser.get(base + page)
                        browser.execute_async_script(LOOK, dark)
                        tall = browser.execute_script("return document.documentElement.scrollHeight")
                        shape(browser, width, min(tall, 6000), dark)
                        shot = folder / f"{page.replace('/', '-').removesuffix('.html')}-{name}-{'dark' if dark else 'light'}.png"
                        browser.save_screenshot(str(shot))
        finally:
            browser.quit()
            server.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Save pictures of the site's pages.")
    parser.add_argument("--shots", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--site", type=Path, default=Path("_docs"), help="built site")
    parser.add_argument("pages", nargs="*", help="pages such as api/ground/units.html; all by default")
    arguments = parser.parse_args()
    take_shots(arguments.site, arguments.shots, arguments.pages)
