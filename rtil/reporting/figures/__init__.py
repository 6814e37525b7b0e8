"""Drawings of a report: no sorting of runs, no statistics, no HTML."""
