"""Reading neurons: the tokens they write, where in the image they fire, and what of the image a word depends on.

``__init__.pyi`` lists the public names; the tables load no torch.
"""

from neuronwise.registry.lazy import face

face(__name__)
