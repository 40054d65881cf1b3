"""The operations in CUDA (csrc/cuda)."""
