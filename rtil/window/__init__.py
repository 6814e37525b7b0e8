"""The window of `rtil.app`: inversions and samples in a browser, as the commands make them."""
