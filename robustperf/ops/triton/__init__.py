"""The operations in Triton, for computers with a GPU and no CUDA module. The arithmetic is that of csrc/core."""
