"""The metric module as a folder that `evaluate.load` accepts."""
