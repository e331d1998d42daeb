"""What is known to fail today. A net that gets better leaves this list, a net that gets worse fails its test."""

KNOWN: dict[str, str] = {
    "generative.equalized_by_shape": "refused",
    "restoration.ChannelTransformer": "refused",
    "weights.pixel_by_pixel": "refused",
}
"""Net -> the worst that comes of it at any ratio and ranking."""
