"""Pixel data: transfer syntaxes and their codecs, frames, pictures."""
