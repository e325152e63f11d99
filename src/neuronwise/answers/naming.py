"""The one answer to "does this text name that word?"; the rule is in ``data/naming.py``, which models read texts by."""

from neuronwise.data.naming import Mention, mentions, names, objects_named, swapped

__all__ = ["Mention", "mentions", "names", "objects_named", "swapped"]
