"""One module for each operation and each job: its time beside what a user would write instead."""
