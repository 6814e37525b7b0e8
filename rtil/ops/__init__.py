"""Operators with one public function each; every network computes through them."""
