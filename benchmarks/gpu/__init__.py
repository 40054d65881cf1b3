"""What `benchmarks/gpu.py` runs on a machine with a GPU: README.md beside this file says how."""
