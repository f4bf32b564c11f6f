"""Measures Livegate beside the floors and its peers; `load-tests/run` is the way in, README.md the manual."""
