"""The index of a model's neurons: when each of them fires, over photos and texts, gathered in one pass.

``__init__.pyi`` lists the public names.
"""

from neuronwise.registry.lazy import face

face(__name__)
