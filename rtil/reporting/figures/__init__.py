"""Drawings of a report: no sorting of runs, no statistics, no HTML.

A module is a figure. To add one that any page shows, write a module whose `FIGURE` is a function
of (rows, path): it draws a PNG and returns its title, or None where there is nothing to draw.
Others are drawn where `rtil.reporting.page` or a document asks for them.
"""
