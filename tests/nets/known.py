"""What is known to fail today. A net that gets better leaves this list, a net that gets worse fails its test."""

KNOWN: dict[str, str] = {
    "students.FlattenToOne": "crash",
    "students.GapView": "refused",
    "students.Tutorial": "refused",
    "splits.grouped_gate": "wrong",
    "splits.half_pooled": "wrong",
    "splits.half_relu": "wrong",
    "splits.in_place_literal": "wrong",
    "splits.in_place_share": "wrong",
    "splits.literal_part": "wrong",
    "splits.rolled_part": "wrong",
    "splits.shuffle_by_group": "wrong",
    "splits.shuffle_by_number": "wrong",
    "splits.temporal_shift": "wrong",
    "splits.unbound": "wrong",
}
"""Net -> the worst that comes of it at any ratio and ranking."""
