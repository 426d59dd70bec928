"""The shape of `results.json`, checked when it is read, and as a JSON schema: `docs/results.schema.json`.

A key that is not named here is let through, so that older and newer folders can be read; a test holds a real run
against the names.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


__all__ = ["Results", "results_schema"]

Share = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(ge=-1, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Quartiles = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class ScheduledNumber(_Record):
    """A number that moved over the training."""

    start: float
    end: float
    shape: str


class AddedRows(_Record):
    """What the training rows of student and control were made of."""

    gold: int = Field(ge=0, description="Rows of the data.")
    augmented: int = Field(ge=0, description="Altered copies of them.")
    transfer: int = Field(ge=0, description="Unlabelled texts of the transfer set, which the control doesn't get.")
    dropped: int = Field(ge=0, description="Copies and texts that were equal to another row.")


class Rows(_Record):
    """Where the rows came from."""

    source: str
    notes: list[str] = []
    rows: dict[str, Count] = Field(description="Split to its number of rows.")
    drawn_from: dict[str, Count] = Field(
        default={}, description="Split of which rows were drawn, to the number of rows that it has in all."
    )
    augmentation: AddedRows | None = Field(default=None, description="Missing where nothing was added.")


class CopiedLayers(_Record):
    """The student's start."""

    layers: list[int] = Field(description="The layer that each student layer copied, from 0.")
    init_from: str | None = Field(default=None, description="The model whose layers they are; null for the teacher.")


class Objective(_Record):
    """What the student was trained for."""

    temperature: float | ScheduledNumber
    alpha: float | ScheduledNumber
    alpha_augmented: float | None = Field(default=None, description="Of augmented rows, where there are any.")
    terms: dict[str, Any] = Field(default={}, description="Deeper terms: a weight, or {weight, layers, ...}.")


class Nearness(_Record):
    """How near a model is to the teacher; the first two for classes, the last two for numbers."""

    agreement: Share | None = Field(default=None, description="Share of rows with the same most likely class.")
    kl_nats: float | None = Field(default=None, description="Mean KL(teacher || student) at T = 1, in nats.")
    mean_squared_difference: float | None = None
    pearson: Score | None = None


class Split(_Record):
    """One model on one split."""

    score: Score = Field(description="The main number: a fraction or a correlation, never a percentage.")
    metrics: dict[str, float]
    num_rows: int = Field(ge=0, description="Rows with a label.")
    calibration_error: Share | None = None
    constant_score: Score | None = Field(
        default=None, description="What the best single answer, given for every row, would score."
    )
    is_near_chance: bool | None = Field(
        default=None, description="Whether the answers correlate with the labels no more than guessing might."
    )
    fidelity: Nearness | None = None


class Model(_Record):
    """One model of the run."""

    name: str
    num_layers: int
    num_parameters: int
    size_mb: float = Field(description="Weights, in 10^6 bytes.")
    architecture: str | None = Field(default=None, description="The class of transformers that it loads as.")
    latency_ms: dict[str, float] | None = Field(
        default=None,
        description="Batch size to milliseconds per example, forward pass only: the median of the rounds.",
    )
    latency_quartiles_ms: dict[str, Quartiles] | None = Field(
        default=None, description="Batch size to the first and third quartile of the rounds."
    )
    splits: dict[str, Split]


class Models(_Record):
    """The models of the run; without a control nobody knows what the teacher was worth."""

    teacher: Model
    student: Model
    control: Model | None = None


class LatencySetting(_Record):
    """Where the milliseconds were measured."""

    device: str
    num_threads: int
    num_rounds: dict[str, int] | None = Field(default=None, description="Batch size to the number of timed rounds.")


class Results(_Record):
    """The numbers of a finished run of distillation on a task."""

    schema_version: Literal[1]
    name: str
    task: str
    metric: str
    score_name: str
    data: Rows
    student: CopiedLayers
    distillation: Objective
    seed: int
    models: Models
    latency_setting: LatencySetting | None = None
    seconds: dict[str, Seconds | None] | None = Field(default=None, description="Stage to its time.")


def results_schema() -> dict[str, Any]:
    """The JSON schema of `results.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Results.model_json_schema()}
