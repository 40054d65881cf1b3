"""One module for each operation and each job: its time compared with what a user would write instead."""
