"""Hyperparameters, tried by short trials on training rows that are held out: `distilbert-kd tune`."""
