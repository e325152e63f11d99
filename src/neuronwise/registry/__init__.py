"""Names that are known before what they stand for is imported, and what is handed over under them, checked."""

from neuronwise.registry.table import Registry

__all__ = ["Registry"]
