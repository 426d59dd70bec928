"""Students: which teacher layers they keep, and how they are built."""
