"""The interactive guides in a real JupyterLab: open, run all, move a slider, and the picture changes without an error."""
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from conftest import ROOT
from test_site import CHROMIUM, DRIVER, open_browser, shape

STATE = """
const panel = window.jupyterapp.shell.currentWidget, kernel = panel?.sessionContext?.session?.kernel;
const find = s => [...document.querySelectorAll(s)];
return {name: panel?.context?.path ?? "", kernel: kernel?.status ?? "none",
        ran: find(".jp-CodeCell").map(c => c.querySelector(".jp-InputPrompt")?.textContent ?? ""),
        sliders: find(".jp-OutputArea .noUi-handle").length,
        pictures: find(".widget-subarea img, .jp-OutputArea-output .widget-output img, .lm-Widget.widget-output img, .jupyter-widgets-output-area img").map(i => i.src.length + i.src.slice(-4000)),
        errors: find('[data-mime-type*="stderr"], [data-mime-type*="error"]').map(e => e.textContent.slice(0, 400))};
"""


def wait(what, seconds, why):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found: return found
        time.sleep(.05)
    pytest.fail(f"{why} did not happen within {seconds} s")


def answers(url):
    try:
        return urlopen(url, timeout=2).status == 200
    except (URLError, OSError):
        return False


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "Address of a JupyterLab on loopback, over a copy of the guides."
    if not (CHROMIUM and DRIVER):
        if os.environ.get("CI"): pytest.fail("Chromium and chromedriver are needed to test the interactive guides")
        pytest.skip("Chromium or chromedriver is not installed: the interactive guides were not tried")
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "nbs" / "guides", folder / "nbs" / "guides", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(ROOT / "nbs" / "index.ipynb", folder / "nbs")
    as_in_makefile = re.search(r"^LAB\s*:= (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].replace("$(CURDIR)", str(ROOT)).split()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "RUNTIME")} | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    words = [f"--ServerApp.root_dir={folder / 'nbs'}", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.open_browser=False",
             "--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.allow_root=True", "--LabApp.expose_app_in_browser=True", *as_in_makefile]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *words], cwd=folder, env=os.environ | own | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}/"
        wait(lambda: answers(url + "api") or server.poll() is not None, 60, "the start of JupyterLab")
        assert server.poll() is None, (folder / "log").read_text()[-3000:]
        yield url
    finally:
        server.terminate()
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()


@pytest.fixture(scope="module")
def browser(lab, tmp_path_factory):
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    shape(driver, 1400, 1400, dark=False)
    yield driver
    driver.quit()


def test_start_page(lab, browser):
    "`make lab` opens on the front page, without a question about news."
    browser.get(lab)
    wait(lambda: browser.execute_script(STATE)["name"] == "index.ipynb" if browser.execute_script("return !!window.jupyterapp") else False, 60, "the front page")
    wait(lambda: browser.execute_script("return document.querySelectorAll('.jp-Notebook .jp-Cell').length > 2"), 60, "its cells")
    time.sleep(2)     # a question would come now
    assert browser.execute_script("return [...document.querySelectorAll('.jp-Dialog, .jp-toast-message, .Toastify__toast')].map(e => e.textContent)") == []


@pytest.mark.parametrize("notebook", ["03_market_knobs.ipynb", "04_strategy_knobs.ipynb"])
def test_sliders_redraw(lab, browser, notebook):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    browser.get(f"{lab}doc/tree/guides/{notebook}")
    look = lambda: browser.execute_script(STATE)
    wait(lambda: browser.execute_script("return !!window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"), 60, "a kernel")
    wait(lambda: look()["kernel"] == "idle", 60, "an idle kernel")
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    done = wait(lambda: (s := look())["errors"] or (s["kernel"] == "idle" and s["sliders"] >= 2 and not any("*" in p or p.strip() in ("", "[ ]:") for p in s["ran"]) and s), 90, "the end of all cells")
    assert not isinstance(done, list), done
    before = wait(lambda: look()["pictures"], 20, "the first picture")
    handle = browser.find_element(By.CSS_SELECTOR, ".jp-OutputArea .noUi-handle")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", handle)
    handle.send_keys(Keys.ARROW_RIGHT)
    wait(lambda: (now := look()["pictures"]) and now[0] != before[0], 15, "the redraw after a slider moved")
    assert look()["errors"] == []
