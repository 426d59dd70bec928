"""A comparison groups what differs by the seed alone, and nothing else."""

import json
import statistics

import pytest
import yaml

from distilbert_kd.errors import DataError, StorageError
from distilbert_kd.report import comparing
from distilbert_kd.report.comparing import write_comparison
from distilbert_kd.report.comparison import compare_runs, tables_of
from distilbert_kd.report.run_reading import read_run
from tests.report.fake_runs import fake_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of one setting and one run of another, the seeds out of order."""
    root = tmp_path_factory.mktemp("compare")
    made = [fake_run(root / f"seed{seed}", seed=seed) for seed in (3, 1, 2)]
    return [*made, fake_run(root / "hot", seed=1, name="hot<b>", distillation={"temperature": 8.0, "alpha": 0.5})]


def test_seeds_are_one_setting(runs):
    """Seeds as rows of their own invite picking the best; a spread over n instead of n - 1 is too small."""
    first, second = compare_runs([read_run(run) for run in runs])
    assert first.seeds == (1, 2, 3) and first.runs == ("seed1", "seed2", "seed3")
    scores = [
        json.loads((run / "results.json").read_text("utf-8"))["models"]["student"]["splits"]["validation"]["score"]
        for run in runs[:3]
    ]
    summary = first.scores["validation"]["student"]
    assert summary.mean == pytest.approx(statistics.fmean(scores))
    assert summary.deviation == pytest.approx(statistics.stdev(scores)) and summary.num_runs == 3
    assert second.scores["validation"]["student"].deviation is None


def test_a_run_twice_is_no_spread(runs, tmp_path):
    """Two runs of one seed look like a result that repeats to the digit."""
    again = fake_run(tmp_path / "again", seed=2)
    with pytest.raises(DataError, match="seed2 and again of one recipe and one seed, 2"):
        compare_runs([read_run(run) for run in (*runs, again)])


def test_the_gain_is_paired_by_seed(runs):
    """Student and control of a seed share rows and start: the spread of their difference is what counts."""
    first = compare_runs([read_run(run) for run in runs])[0]
    pairs = zip(first.values["validation"]["student"], first.values["validation"]["control"], strict=True)
    differences = [a - b for a, b in pairs]
    assert first.gains["validation"].deviation == pytest.approx(statistics.stdev(differences))


def test_a_setting_is_named_by_what_differs(runs):
    """Two rows called alike leave the reader guessing; a whole recipe as a name hides the one key that matters."""
    first, second = compare_runs([read_run(run) for run in runs])
    assert first.name == "fake: distillation.temperature=2.0"
    assert second.name == "hot<b>: distillation.temperature=8.0"


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (
            {"distillation": {"temperature": 2.0, "alpha": 0.5, "terms": {}}},
            {"distillation": {"temperature": 2.0, "alpha": 0.5, "terms": {"hidden_mse": 1.0}}},
            "terms.hidden_mse=",
        ),
        ({"teacher": {"finetune": {}}}, {"teacher": {"finetune": {"learning_rate": 1.0}}}, "finetune.learning_rate="),
        ({"student": {"num_layers": None}}, {"student": {"num_layers": 1.0}}, "student.num_layers="),
        ({"student": {}}, {"student": {"num_layers": 1.0}}, "student.num_layers="),
    ],
)
def test_what_a_run_does_not_set_is_told_in_words(tmp_path, ours, theirs, told):
    """`terms={}` beside `terms.hidden_mse=None` is Python, and reads as two differences where there is one."""
    runs = [fake_run(tmp_path / "one", **ours), fake_run(tmp_path / "other", **theirs)]
    names = [setting.name.removeprefix("fake: ") for setting in compare_runs([read_run(run) for run in runs])]
    assert names[0].endswith(f"{told}not set") and names[1].endswith(f"{told}1.0")
    assert [name.count("=") for name in names] == [1, 1]


def test_a_section_without_keys_is_told_from_one_that_is_missing(tmp_path):
    """`finetune: {}` trains the teacher; without it the teacher comes as it is."""
    runs = [
        fake_run(tmp_path / "one", teacher={"model": "m", "finetune": {}}),
        fake_run(tmp_path / "other", teacher={"model": "m"}),
    ]
    names = [setting.name for setting in compare_runs([read_run(run) for run in runs])]
    assert names == ["fake: teacher.finetune=all defaults", "fake: teacher.finetune=not set"]


def test_runs_of_own_data_stand_in_one_table_whatever_their_names(tmp_path):
    """A name of its own is how a second run gets a folder; rows that are the same must be compared."""
    for name, seed in (("first", 1), ("second", 2)):
        run = fake_run(tmp_path / name, seed=seed, name=name)
        record = json.loads((run / "results.json").read_text("utf-8"))
        (run / "results.json").write_text(json.dumps({**record, "task": name}), encoding="utf-8")
        recipe = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
        recipe["data"] = {"train": "a.jsonl", "validation": "b.jsonl"}
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    settings = compare_runs([read_run(tmp_path / name) for name in ("first", "second")])
    assert [setting.seeds for setting in settings] == [(1, 2)]
    assert [table.title for table in tables_of(settings)] == ["own data, validation"]


def test_a_run_of_pretraining_is_called_one(tmp_path):
    """A message of a wrong field sounds like a damaged file, and sends its reader looking for another copy."""
    (tmp_path / "results.json").write_text('{"kind": "pretraining"}', encoding="utf-8")
    with pytest.raises(StorageError, match="got one of pretraining"):
        read_run(tmp_path)


def test_where_a_run_was_pushed_is_no_setting(tmp_path):
    """Seeds need tags of their own, and would each become a setting without a spread."""
    for seed in (1, 2):
        run = fake_run(tmp_path / f"seed{seed}", seed=seed)
        recipe = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
        recipe["push"] = {"repo": "ada/tiny", "tag": f"seed{seed}"}
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (setting,) = compare_runs([read_run(tmp_path / f"seed{seed}") for seed in (1, 2)])
    assert setting.seeds == (1, 2)


def test_other_rows_are_no_comparison(tmp_path):
    """Scores on different rows in one column look like a difference between settings."""
    one, other = fake_run(tmp_path / "one"), fake_run(tmp_path / "other", seed=43)
    record = json.loads((other / "environment.json").read_text("utf-8"))
    record["data"]["sha256"]["validation"] = "1" * 64
    (other / "environment.json").write_text(json.dumps(record), "utf-8")
    settings = compare_runs([read_run(one), read_run(other)])
    assert len(settings) == 2
    assert [table.title for table in tables_of(settings)] == [
        "own data, validation (rows 00000000)",
        "own data, validation (rows 11111111)",
    ]


def test_files(runs, tmp_path):
    """Page, text, numbers and figure come together, and names are escaped."""
    page, text = write_comparison(runs, tmp_path / "out")
    assert sorted(path.name for path in page.parent.iterdir()) == [
        *("compare.html", "compare.json", "compare.md", "compare.png")
    ]
    html = page.read_text("utf-8")
    assert "hot&lt;b&gt;" in html and "hot<b>" not in html and "<svg" in html
    row = next(line for line in text.splitlines() if "temperature=2.0" in line)
    assert row.count("±") == 4 and "| 3 | 1, 2, 3 |" in row
    assert json.loads((tmp_path / "out" / "compare.json").read_text("utf-8"))[0]["seeds"] == [1, 2, 3]


def test_a_run_that_learnt_nothing_is_named_first(runs, tmp_path):
    """In a mean over seeds one student that gives every row the same class is a wide spread, and nothing else."""
    lost = fake_run(tmp_path / "lost", seed=4)
    results = json.loads((lost / "results.json").read_text("utf-8"))
    results["models"]["student"]["splits"]["validation"]["is_near_chance"] = True
    (lost / "results.json").write_text(json.dumps(results), "utf-8")
    page, text = write_comparison([*runs, lost], tmp_path / "out")
    assert text.split("\n\n")[1].startswith("> **Warning:** lost: The student is near chance on validation")
    html = page.read_text("utf-8")
    assert html.index("lost: The student is near chance") < html.index('id="scores"')


def test_a_folder_that_is_no_run_is_named(runs, tmp_path):
    """One wrong path among many must be told by name, before anything is written."""
    with pytest.raises(StorageError, match="nonesuch"):
        write_comparison([*runs, tmp_path / "nonesuch"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scored_rows_are_not_read(tmp_path):
    """Texts and logits of a hundred runs fill the memory, and one bad file would stop a table that needs none."""
    run = fake_run(tmp_path / "run")
    (run / "scored" / "validation.parquet").write_bytes(b"half a file")
    assert "own data, validation:" in write_comparison([run], tmp_path / "out")[1]


def test_without_matplotlib_no_older_figure_is_left(runs, tmp_path, monkeypatch):
    """The figure of another comparison beside this table is read as this one's."""
    monkeypatch.setattr(comparing, "has_matplotlib", lambda: False)
    (tmp_path / "compare.png").write_bytes(b"of other runs")
    assert "matplotlib is not installed" in write_comparison(runs, tmp_path)[1]
    assert not (tmp_path / "compare.png").exists()
