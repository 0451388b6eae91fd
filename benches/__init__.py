"""Benchmarks: the package against the machine's memory limits and against its peers."""
