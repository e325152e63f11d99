"""A feed-forward block as an associative memory: keys go into W_down, values come out.

What ROME, MEMIT, PMET, AlphaEdit and the recipe by subject have in common: where keys are read, how a value is
searched, what the block holds already (the keys' second moments), and how a residual is spread over layers.
"""
