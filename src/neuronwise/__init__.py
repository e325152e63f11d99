"""neuronwise: the neurons in which a transformer keeps a piece of knowledge.

Importing it loads neither torch nor transformers; ``__init__.pyi`` lists its names.
"""

from neuronwise.registry.lazy import face

face(__name__)
