"""Tell.

rows    rows to and from `rows.json` and `rows.csv`
tables  rows as a growing table, and two models side by side
spread  several seeds of one recipe: mean and spread
"""
