"""One example of each thing that other packages can add to neuronwise; ``pyproject.toml`` names them."""
