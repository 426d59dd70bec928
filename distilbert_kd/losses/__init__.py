"""Losses: pure functions of tensors, and the schedules of their weights."""
