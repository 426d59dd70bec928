"""Augmentation: altered copies of the training rows and unlabelled texts, made before anything is tokenised."""
