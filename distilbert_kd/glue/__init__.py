"""The GLUE benchmark as a whole: all tasks and seeds by one command, its tables, and what the server takes."""
