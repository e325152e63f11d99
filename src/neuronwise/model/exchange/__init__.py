"""Sets of neurons in the names of other tools: one small file for each form, and the table of them.

``__init__.pyi`` lists the public names; the table loads no torch.
"""

from neuronwise.registry.lazy import face

face(__name__)
