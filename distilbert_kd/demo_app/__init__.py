"""A page to try a student beside its teacher, on this machine or as a Space."""
