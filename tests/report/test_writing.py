"""The report is written from the folder alone, shows texts and never runs them, and says what it lacks."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from distilbert_kd.errors import StorageError
from distilbert_kd.report import pictures, writing
from distilbert_kd.report.writing import write_report
from distilbert_kd.run_folder import PLOTS, RunFolder
from tests.report.fake_runs import fake_run


EVIL = "<script>document.title='run'</script><img src=x onerror=alert(1)> \"quoted\" & $x_1$ | pipe"
SECTIONS = {"result", "training", "classes", "calibration", "soft-targets", "rows", "layers", "made"}


class _Page(HTMLParser):
    """Tags, ids, attributes and visible text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run whose every text is an attack: rows, class names, run name."""
    place = tmp_path_factory.mktemp("report") / "run"
    fake_run(place, texts=[EVIL] * 60, label_names=("<b>bad</b>", "$good_$"), name="<i>name</i>")
    return place


@pytest.fixture(scope="module")
def page(run) -> str:
    return write_report(run).read_text("utf-8")


def test_every_section_is_there(page):
    """An empty section, or one that a rename of a key dropped, is not missed until somebody needs it."""
    parsed = _Page(page)
    assert set(parsed.ids) >= SECTIONS | {f"figure-{name}" for name in PLOTS}
    assert len(parsed.ids) == len(set(parsed.ids)), "two figures with equal ids take each other's clip paths"
    assert "Not shown" not in parsed.text


def test_texts_are_shown_and_not_run(page):
    """A review with a script in it would run in the browser of everyone who opens the report."""
    parsed = _Page(page)
    assert EVIL in parsed.text and "<b>bad</b>" in parsed.text and "<i>name</i>" in parsed.text
    assert {"script", "img", "b", "i"} & set(parsed.tags) <= {"b"} and "<b>bad" not in page
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]


def test_the_page_asks_the_network_for_nothing(page):
    """A report that is read on a train, or about private texts, must not fetch a font or a script."""
    parsed = _Page(page)
    asked = [value for name, value in parsed.attributes if name in ("src", "href", "xlink:href") and value]
    assert all(value.startswith(("#", "data:,")) for value in asked), asked
    assert "default-src 'none'" in page and "@import" not in page and "url(http" not in page


def test_light_dark_phone_and_paper(page):
    """A white page at night, or one that prints black, sends the reader away."""
    for needed in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem", 'name="viewport"'):
        assert needed in page
    svg = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--student)" in svg and "#01020" not in svg and "#000000" not in svg


def test_figures_stand_beside_it(run, page):
    """The model card shows them by these names."""
    folder = RunFolder(run)
    assert sorted(path.name for path in folder.plots.iterdir()) == sorted(f"{name}.png" for name in PLOTS)
    for name in PLOTS:
        assert folder.plot(name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_numbers_and_markdown_say_the_same(run, page):
    """Three files that drift apart publish three results."""
    numbers = json.loads(RunFolder(run).report_numbers.read_text("utf-8"))
    text = RunFolder(run).report_text.read_text("utf-8")
    split = numbers["splits"]["validation"]
    low, high = (100 * split["scores"]["student"][end] for end in ("low", "high"))
    assert f"({low:.1f} to {high:.1f})" in text and f"({low:.1f} to {high:.1f})" in page
    gain = split["gain"]
    assert split["student_is"] == ("better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "unclear")
    assert f"interval {100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}" in text
    assert numbers["missing"] == [] and numbers["plots"] == [f"plots/{name}.png" for name in PLOTS]
    assert "&lt;b>bad" in text and "<b>bad" not in text


def test_written_twice_it_is_the_same(run, page, tmp_path):
    """A report that changes by itself can't be compared, and each push would send it anew."""
    assert write_report(run, tmp_path / "again").read_text("utf-8") == page
    first, again = (RunFolder(place).plot("calibration").read_bytes() for place in (run, tmp_path / "again"))
    assert first == again


def test_nothing_is_read_from_elsewhere(run, page, tmp_path):
    """A folder that was copied to a laptop, without its models, must give the same page."""
    moved = shutil.copytree(run, tmp_path / "moved", ignore=shutil.ignore_patterns("report.*", "plots"))
    assert write_report(moved).read_text("utf-8") == page


def test_an_older_run_says_what_is_missing(run, tmp_path):
    """Without scored rows there are no intervals; a report that breaks, or is silent, helps nobody."""
    ignored = shutil.ignore_patterns("scored", "history.json", "environment.json", "report.*", "plots")
    older = shutil.copytree(run, tmp_path / "older", ignore=ignored)
    parsed = _Page(write_report(older).read_text("utf-8"))
    assert "distilbert-kd evaluate" in parsed.text and "history.json" in parsed.text
    assert {"result", "layers", "made"} <= set(parsed.ids) and not {"classes", "rows"} & set(parsed.ids)
    assert json.loads(RunFolder(older).report_numbers.read_text("utf-8"))["splits"] == {}


def test_without_matplotlib(run, tmp_path, monkeypatch):
    """The figures are an extra; without it the words and numbers must still come."""
    for module in (writing, pictures):
        monkeypatch.setattr(module, "has_matplotlib", lambda: False)
    out = RunFolder(tmp_path / "out")
    out.plots.mkdir(parents=True)
    out.plot("scores").write_bytes(b"of an older report")
    parsed = _Page(write_report(run, out.root).read_text("utf-8"))
    assert "matplotlib is not installed" in parsed.text and "svg" not in parsed.tags
    assert {"result", "classes", "soft-targets", "rows"} <= set(parsed.ids)
    assert not out.plot("scores").exists()


def test_regression(tmp_path):
    """Numbers have no classes: no calibration, no soft targets, but distances and intervals."""
    run = fake_run(tmp_path / "run", metric="stsb", label_names=None, num_rows=40)
    parsed = _Page(write_report(run).read_text("utf-8"))
    assert {"result", "rows", "figure-student_against_teacher"} <= set(parsed.ids)
    assert not {"calibration", "soft-targets"} & set(parsed.ids)
    assert "Student minus control" in parsed.text and "McNemar" not in parsed.text


def test_many_classes_without_control(tmp_path):
    """Long names in another script and twenty classes must neither warn nor break the page; no control is said."""
    names = tuple(f"类别 {i} with a long name" for i in range(20))
    run = fake_run(tmp_path / "run", label_names=names, models=("teacher", "student"))
    parsed = _Page(write_report(run).read_text("utf-8"))
    assert "14 others" in parsed.text and "类别 3" in parsed.text
    assert "A control was not trained" in parsed.text


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 1}', '{"schema_version": 2}'])
def test_a_broken_record_is_named(tmp_path, content):
    """A traceback of a template says nothing about which file is broken."""
    (tmp_path / "results.json").write_text(content, "utf-8")
    with pytest.raises(StorageError, match=r"results\.json"):
        write_report(tmp_path)


def test_no_run_no_report(tmp_path):
    """A typing error in the path must not make a folder."""
    with pytest.raises(StorageError, match="no such folder"):
        write_report(tmp_path / "nonesuch")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_figures(monkeypatch):
    """The words alone, which take no seconds to draw."""
    monkeypatch.setattr(writing, "has_matplotlib", lambda: False)


def test_what_makes_the_scores_worthless_is_read_first(tmp_path, no_figures):
    """Below the tables, between versions and hardware, nobody saw that the teacher had guessed."""
    run = fake_run(tmp_path / "run")
    results = json.loads((run / "results.json").read_text("utf-8"))
    results["models"]["teacher"]["splits"]["validation"]["is_near_chance"] = True
    (run / "results.json").write_text(json.dumps(results), "utf-8")
    parsed = _Page(write_report(run).read_text("utf-8"))
    assert [each for each in parsed.ids if not each.startswith("figure")][:2] == ["warnings", "missing"]
    assert "The teacher is near chance on validation" in parsed.text.split("Result")[1]
    assert RunFolder(run).report_text.read_text("utf-8").split("\n\n")[1].startswith("> **Warning:** The teacher")
    (warning,) = json.loads(RunFolder(run).report_numbers.read_text("utf-8"))["warnings"]
    assert warning.startswith("The teacher is near chance")


def test_the_headline_is_of_the_test_rows(tmp_path, no_figures):
    """The teacher's epoch was chosen on validation, where its score flatters it; card and report name one split."""
    run = fake_run(tmp_path / "run")
    results = json.loads((run / "results.json").read_text("utf-8"))
    for model in results["models"].values():
        model["splits"]["test"] = {**model["splits"]["validation"], "score": 0.5}
    (run / "results.json").write_text(json.dumps(results), "utf-8")
    shutil.copy(run / "scored" / "validation.parquet", run / "scored" / "test.parquet")
    text = _Page(write_report(run).read_text("utf-8")).text
    assert "50.0accuracy x 100, test" in text and "By class, test" in text
    assert text.index("test, 60 rows") < text.index("validation, 60 rows")
    assert "chose the teacher's epoch" not in text
    history = json.loads((run / "history.json").read_text("utf-8"))
    history["teacher"] += history["teacher"][-1:]
    (run / "history.json").write_text(json.dumps(history), "utf-8")
    text = _Page(write_report(run).read_text("utf-8")).text
    assert text.count("chose the teacher's epoch") == 1 and "validation, 60 rows (it also chose" in text
    assert list(json.loads(RunFolder(run).report_numbers.read_text("utf-8"))["splits"]) == ["test", "validation"]


def test_the_gain_stands_nowhere_without_its_interval(run, page):
    """A gain without an interval is read as a fact, where these rows can't tell student and control apart."""
    text = RunFolder(run).report_text.read_text("utf-8")
    for said in (_Page(page).text, text):
        lines = re.findall(r"Student minus control on validation: [+-][\d.]+ points(.{20})", said)
        assert len(lines) == 2 and all(line.startswith(" (95 % interval ") for line in lines)


def test_what_a_word_means_stands_where_it_is_first_read(page):
    """A control is this project's own word: who doesn't know it can't read the table."""
    text = _Page(page).text
    assert text.index("validation, 60 rows") < text.index("trained on the labels alone") < text.index("really differ")
    assert "just one other" in text and "ln C = 0.69 nats" in text


def test_times_stand_in_the_report_with_their_spread(tmp_path, no_figures):
    """A point in a picture is no number that can be quoted, and one without a spread can't be judged."""
    run = fake_run(tmp_path / "run")
    results = json.loads((run / "results.json").read_text("utf-8"))
    results["models"]["student"] |= {"latency_quartiles_ms": {"1": [1.87, 2.24]}}
    results["models"]["student"] |= {"architecture": "DistilBertForSequenceClassification"}
    (run / "results.json").write_text(json.dumps(results), "utf-8")
    text = _Page(write_report(run).read_text("utf-8")).text
    assert "2.00 (1.87 to 2.24)" in text.split("Layers and speed")[-1]
    assert "The student is a DistilBERT" in text.split("Not shown")[0]


def test_a_run_that_was_cut_off_has_no_report_yet(tmp_path):
    """One command finishes it; "give a run's output_dir" sounds like a wrong path."""
    run = RunFolder(fake_run(tmp_path / "run"))
    run.results.unlink()
    run.progress.write_text("{}", "utf-8")
    with pytest.raises(StorageError, match=f"go on with it .*distilbert-kd run {run.recipe}"):
        write_report(run.root)


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium to open the page")
    return found


def test_a_browser_shows_it_without_an_error(browser, run, page, tmp_path):
    """What a parser accepts a browser may still refuse: styles against the policy, scripts, fetches."""
    probe = tmp_path / "report.html"
    probe.write_text(page, "utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=400,800", "--dump-dom"]
    done = subprocess.run([browser, *options, probe.as_uri()], capture_output=True, text=True, timeout=120)
    parsed = _Page(done.stdout)
    assert set(parsed.ids) >= SECTIONS, done.stderr[-2000:]
    assert "script" not in parsed.tags and "<title>run</title>" not in done.stdout
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
