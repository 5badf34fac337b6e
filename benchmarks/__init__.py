"""Speed and memory of the running server, each beside its physical limit measured in the same run: `make bench`."""
