"""Generators in other projects' files: one module a layout, none of them runs code of a file."""
