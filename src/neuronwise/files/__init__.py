"""What is on disk: files and folders written whole or not at all, JSON, lines that only grow, versions."""

from neuronwise.files.cache import cache_folder, not_cached
from neuronwise.files.lines import Lines, line_of, read_lines
from neuronwise.files.reading import below, from_json, ordinary, read_bytes, read_form, read_json, read_object
from neuronwise.files.records import sha256, shareable, versions
from neuronwise.files.schemas import schemas
from neuronwise.files.writing import (
    PathLike,
    Raises,
    as_path,
    expanded,
    filling,
    held,
    make_folder,
    new_folders,
    require_free,
    whole_file,
    write_bytes,
    write_folder,
    write_json,
    write_text,
)

__all__ = [
    "Lines",
    "PathLike",
    "Raises",
    "as_path",
    "below",
    "cache_folder",
    "expanded",
    "filling",
    "from_json",
    "held",
    "line_of",
    "make_folder",
    "new_folders",
    "not_cached",
    "ordinary",
    "read_bytes",
    "read_form",
    "read_json",
    "read_lines",
    "read_object",
    "require_free",
    "schemas",
    "sha256",
    "shareable",
    "versions",
    "whole_file",
    "write_bytes",
    "write_folder",
    "write_json",
    "write_text",
]
