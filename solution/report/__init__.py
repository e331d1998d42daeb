"""Report: rows as tables, drawings, one HTML page and `docs/results.md`.

Generic: what belongs to one reference system stands with its recipe in `solution.recipes`.
"""
