"""Measuring edits, captions, neurons and how well methods locate.

Importing it loads nothing heavy; ``__init__.pyi`` lists the names.
"""

from neuronwise.registry.lazy import face

face(__name__)
