"""The local viewer: a web application over the folders that our commands write, live where there is a model."""
