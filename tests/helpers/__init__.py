"""What several test modules share: plain functions, no tests and no fixtures."""
