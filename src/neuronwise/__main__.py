"""``python -m neuronwise`` is the command line."""

from neuronwise.cli import main

main()
