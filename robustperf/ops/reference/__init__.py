"""The operations in plain PyTorch: the definition that the other backends are held to."""
