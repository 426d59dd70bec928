"""The shape of `glue.json`, and as a JSON schema: `docs/glue.schema.json`.

All scores are fractions and correlations, never percentages; the tables multiply by 100.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from distilbert_kd.glue.submission import SubmittedFile
from distilbert_kd.report.comparison import Summary
from distilbert_kd.report.resampling import Interval


__all__ = ["Cost", "Failure", "Gain", "GlueResults", "Mean", "TaskResult", "glue_schema"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gain(_Record):
    """Student minus control, with the same seed in both."""

    summary: Summary
    over_seeds: Interval | None = Field(description="95 %, Student's t over the seeds; null for one seed.")
    over_rows: Interval | None = Field(
        description="95 %, of the mean over the seeds if other rows had been scored: a paired bootstrap."
    )


class _Scored(_Record):
    values: dict[str, list[float]] = Field(description="Model to the number of each seed, in the order of `seeds`.")
    scores: dict[str, Summary] = Field(description="Model to mean and sample deviation over the seeds.")
    retention: float | None = Field(
        description="Mean of the student over mean of the teacher; null where that is not above zero."
    )
    gain: Gain | None = Field(description="Null without a control.")


class Cost(_Record):
    """One model of a task: its size and time."""

    num_parameters: int
    latency_ms: dict[str, float] = Field(description="Batch size to milliseconds per example, mean over the seeds.")


class TaskResult(_Scored):
    """One task."""

    task: str
    number: str = Field(description="The number that enters the mean, in words.")
    seeds: list[int]
    runs: list[str] = Field(description="Folders beside this file, in the order of the seeds.")
    rows: dict[str, int] = Field(description="Split to its number of rows.")
    is_subset: bool = Field(description="Whether rows of the official splits are missing.")
    notes: list[str]
    metrics: dict[str, dict[str, Summary]] = Field(description="Metric, with its split if there are two, to models.")
    costs: dict[str, Cost]
    timed_on: list[str] = Field(description="Devices and threads that the runs were timed on.")
    speed_up: dict[str, float] = Field(description="Batch size to teacher's over student's time, mean over the seeds.")


class Mean(_Scored):
    """Tasks with the same weight each."""

    name: str
    tasks: list[str]
    seeds: list[int] = Field(description="Those that every task has; the deviation is over them.")
    mean_of_retentions: float | None = Field(description="Mean over the tasks of their own retention.")


class Failure(_Record):
    """A run, or the prediction of its test rows, that came to no end."""

    task: str
    seed: int
    error: str


class GlueResults(_Record):
    """The numbers of a benchmark."""

    schema_version: Literal[1] = 1
    tasks: list[TaskResult]
    means: list[Mean]
    failures: list[Failure]
    submission: dict[str, SubmittedFile] = Field(description="File of the submission to where it is from.")


def glue_schema() -> dict[str, Any]:
    """The JSON schema of `glue.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **GlueResults.model_json_schema()}
