"""Facts and plain words: what is asked of a model, and what its words stand for."""
