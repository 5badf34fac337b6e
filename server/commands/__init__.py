"""The commands of the client side, by what they are about."""
