"""Tell.

rows        rows to and from `rows.json` and `rows.csv`
tables      a table as text, markdown or HTML; two models side by side
spread      several seeds of one recipe: mean and spread
ablation    one switch at a time against the same base
published   what the competition's teams published
run_folder  what a run left in its folder
style       the house style of all drawings
curves, front, classes, embedding     the drawings
grid        the same techniques on several nets: table, verdict, accuracy against epoch
detector    a detector in every form, published and measured; the curve of pruning
googlenet   structured against unstructured pruning, published and measured
tracking    rows in MLflow, for those who have it
speed       what `bench` measured, as table and drawing
looking     finished checkpoints judged once more, every answer kept
sections, inside, template, page      one self-contained HTML page
docs        `docs/results.md`, from committed rows
"""
