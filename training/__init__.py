"""Training for homerank: the network of MODEL.md in PyTorch, a trainer and the exporter of what is served."""
