"""What is known to fail today. A net that gets better leaves this list, a net that gets worse fails its test."""

KNOWN: dict[str, str] = {}
"""Net -> the worst that comes of it at any ratio and ranking."""
