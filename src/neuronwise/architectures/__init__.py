"""What transformers lacks and what we ship: the built-in model, MiniGPT-4, mPLUG-Owl2, and their conversion."""
