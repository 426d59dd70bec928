"""The page with a real gradio: as its clients call it, and as a browser shows it."""

import gc
import json
import shutil
import socket
import urllib.request

import pytest
from typer.testing import CliRunner

from distilbert_kd import cli
from distilbert_kd.demo_app import local
from distilbert_kd.demo_app.page import answer_of, probabilities
from tests.demo_app.runs_to_try import SCRIPT, run_to_try


# gradio's: an option of pandas that is going, and event loops and sockets that it leaves to the collector
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no_silent_downcasting.*"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def invoke(monkeypatch):
    """Runs a command in this process, and leaves logging as it was for other tests."""
    monkeypatch.setattr(cli, "_configure_output", lambda quiet: False)
    return lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_without_gradio_it_says_what_to_install(invoke, monkeypatch, tmp_path):
    """A ModuleNotFoundError with a traceback tells a newcomer that the program is broken."""
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    done = invoke("demo", tmp_path / "nonesuch")
    assert done.exit_code == 4 and "nonesuch, got nothing" in done.stderr and "pip" not in done.stderr
    done = invoke("demo", run_to_try(tmp_path / "run"))
    assert done.exit_code == 2 and "pip install" in done.stderr and "demo-app" in done.stderr
    assert "Traceback" not in done.output


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A run, and the port at which its page is served."""
    pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[demo-app]'")
    run = run_to_try(tmp_path_factory.mktemp("served") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")  # the page sets it for the process: put back at the end
        served = local.start(local.page_of_run(run))
        yield run, served.server_port
        served.close()
        del served
        gc.collect()  # here, where its warnings are expected, and not in another test


def ask(port: int, temperature: float, text: str) -> list:
    """What the page's own endpoint answers: student, teacher, sentences."""
    url = f"http://127.0.0.1:{port}/gradio_api/call/ask"
    body = json.dumps({"data": [text, temperature]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        event = json.load(reply)["event_id"]
    with urllib.request.urlopen(f"{url}/{event}", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    assert lines[0] == "event: complete", lines
    return json.loads(lines[1].removeprefix("data: "))


@pytest.mark.parametrize("temperature", ["hot", 0, -1, 11, None, True])
def test_a_wrong_temperature_is_named(server, temperature, capfd):
    """A client was told "error: null", and the console filled with a traceback for somebody else's slip."""
    with pytest.raises(AssertionError) as told:
        ask(server[1], temperature, "a funny film")
    assert "event: error" in str(told.value)
    assert "Expected a temperature from 1 to 10, got " in str(told.value) and f"{temperature}" in str(told.value)
    assert "gradio.exceptions" not in "".join(capfd.readouterr())


def test_a_missing_argument_is_named(server):
    """Who writes the request by hand must learn what the endpoint takes."""
    url = f"http://127.0.0.1:{server[1]}/gradio_api/call/ask"
    request = urllib.request.Request(url, b'{"data": []}', {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        event = json.load(reply)["event_id"]
    with urllib.request.urlopen(f"{url}/{event}", timeout=30) as reply:
        assert "enough input values (needed: 2, got: 0)" in reply.read().decode()


def test_both_models_answer(server):
    """The page as its visitor gets it: two distributions, the same that the models give, flatter at a higher T."""
    run, port = server
    page = local.page_of_run(run)
    for temperature in (1, 5):
        student, teacher, sentences = ask(port, temperature, "a funny film")
        for said, classifier in ((student, page.student), (teacher, page.teacher)):
            logits = answer_of(classifier, ["a funny film"], 16).logits
            expected = dict(zip(page.labels, probabilities(logits, temperature).tolist(), strict=True))
            got = {each["label"]: each["confidence"] for each in said["confidences"]}
            assert got == pytest.approx(expected, abs=1e-5)
        assert "Forward pass: student " in sentences and f"At T = {temperature} " in sentences


def test_endpoint_takes_the_text_first(server, tmp_path):
    """Who calls the page by hand passes the text first; as a temperature it would be an error that names neither."""

    def parameters(port: int) -> list[tuple[str, bool]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/gradio_api/info", timeout=30) as reply:
            endpoints = json.load(reply)["named_endpoints"]
        assert endpoints.keys() == {"/ask"}
        return [(each["parameter_name"], each["parameter_has_default"]) for each in endpoints["/ask"]["parameters"]]

    assert parameters(server[1]) == [("text", False), ("temperature", True)]
    pair = local.start(local.page_of_run(run_to_try(tmp_path / "pair", text_pair="other")))
    assert parameters(pair.server_port) == [("first_text", False), ("second_text", False), ("temperature", True)]
    pair.close()


def test_nothing_is_asked_of_an_empty_text(server):
    """A probability of nothing looks like an answer."""
    assert ask(server[1], 1, "  ")[2] == "<p>Type a text.</p>"


def test_only_this_machine_is_listened_to(server):
    """On 0.0.0.0 everyone in the same cafe could read the rows."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server[1]), timeout=5).close()


def test_taken_port(server, invoke):
    """Without a message of its own the user reads gradio's traceback."""
    run, port = server
    done = invoke("demo", run, "--port", port)
    assert done.exit_code == 2 and "--port" in done.stderr and str(port) in done.stderr, done.output


@pytest.fixture(scope="module")
def browser():
    """A browser that is driven, as a visitor would."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium to open the page")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_a_browser_shows_it(server, browser):
    """Markup in a row or a text must be shown and not run; no other machine may be asked for a font or a script."""
    page = browser.new_page(viewport={"width": 400, "height": 900})
    asked, faults = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(f"http://127.0.0.1:{server[1]}")
    page.locator("td", has_text="<script>").first.click()
    page.get_by_text("Forward pass").wait_for()
    assert page.get_by_label("Text").input_value().startswith(SCRIPT)
    page.get_by_label("Text").fill("a funny film <script>")
    page.get_by_label("number input for Temperature").fill("4")
    page.get_by_text("At T = 4 ").wait_for()
    assert page.title() == "fake"
    assert page.locator("body").evaluate("body => body.scrollWidth") <= 400  # nothing sticks out on a phone
    assert faults == []
    assert [url for url in asked if not url.startswith((f"http://127.0.0.1:{server[1]}/", "data:", "blob:"))] == []
