"""Tests that break real parts on purpose; they need a C compiler, Debian's etcd and Patroni, and minutes. `make torture` runs them."""
