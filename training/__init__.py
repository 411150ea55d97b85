"""Training for homerank: the network of MODEL.md in PyTorch, a trainer and the exporter of what is served."""


class DataError(Exception):
    """Data, a model or an answer that is not what it must be; says which, what was expected and what was found."""
