"""Tests, in the folders of the package; `tiny` makes what they share."""
