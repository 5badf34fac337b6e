"""Tests that break real parts on purpose; they need Debian's etcd and Patroni, and minutes. `make torture` runs them."""
