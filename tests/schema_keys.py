"""Keys of a record that its schema does not name."""

from pydantic import BaseModel


def unnamed(record: object, path: str = "") -> list[str]:
    """Keys that stand in the record and not in the schema."""
    if isinstance(record, dict):
        return [key for name, value in record.items() for key in unnamed(value, f"{path}.{name}")]
    if not isinstance(record, BaseModel):
        return []
    found = [f"{path}.{name}" for name in record.model_extra or ()]
    for name in type(record).model_fields:
        found += unnamed(getattr(record, name), f"{path}.{name}")
    return found
