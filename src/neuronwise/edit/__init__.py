"""Edits: permanent changes of weights, as objects that can be applied, reverted, composed, saved and shared.

Importing it loads nothing heavy: ``EDITORS`` knows its names without torch. ``__init__.pyi`` lists the names.
"""

from neuronwise.registry.lazy import face

face(__name__)
