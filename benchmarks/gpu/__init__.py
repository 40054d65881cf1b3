"""`python -m benchmarks.gpu`: checks and measures the GPU backends. README.md in this folder says how."""
