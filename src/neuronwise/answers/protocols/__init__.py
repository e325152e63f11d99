"""Published ways to ask a model freely and to judge what it says."""
