"""The actors put together: configuration, wiring, serving, and the xdsi command."""
