"""Published checkpoints that transformers cannot open, made into ordinary Hugging Face folders.

``CONVERTERS`` names them; a converter is one file with a function from the parts that a user downloaded to a ``Plan``.
"""

from neuronwise.registry.lazy import face

face(__name__)
