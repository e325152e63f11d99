"""Locating neurons: one small file for each scoring method, and the table of their names.

``__init__.pyi`` lists the public names; the table loads no torch.
"""

from neuronwise.registry.lazy import face

face(__name__)
