"""Studies: many cases run to the end, resumable, each kept as soon as it is finished.

Importing it loads nothing heavy: ``KINDS`` knows its names without torch. ``__init__.pyi`` lists the names.
"""

from neuronwise.registry.lazy import face

face(__name__)
