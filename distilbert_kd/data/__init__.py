"""Rows in, token ids out: the GLUE tasks, own files, Hub data sets, and their checks.

Nothing is imported here, so that `distilbert_kd.data.tasks` stays free of heavy imports.
"""
