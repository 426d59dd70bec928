"""The report of a run, and the comparison of several: read from run folders alone."""
