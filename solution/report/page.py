"""One self-contained HTML page of a run: no network, no script; for a phone and a projector, in light and in dark."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.contracts import Row
from solution.evaluate.score import Scorer
from solution.report.plots import Point, Series, pareto, training_curves
from solution.report.sections import Block, Findings, Lookup, Section, command
from solution.report.style import css_variables
from solution.report.tables import (
    QUALITY,
    Table,
    ablation_table,
    compared,
    forms,
    is_of_checkpoint,
    main_quality,
    read_ablation,
    spread,
)
from solution.run_folder import ROLES, Run, flat
from solution.tasks import TASKS

if TYPE_CHECKING:
    from solution.report.diagnostics import Look


def page(runs: Sequence[Run], look: Look | None, lookup: Lookup) -> str:
    """The whole page of one run, or of the same recipe with several seeds.

    look    the compared models on the val split, of the first run; None leaves out what needs photos
    lookup  knows the recipes: their settings today, and what they show besides
    """
    from jinja2 import Environment

    first = runs[0]
    data = look.data if look else first.data()
    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    return made.render(
        title=f"{first.recipe} on {data}",
        subtitle=_subtitle(runs),
        facts=_facts(*(figures(runs, role) for role in ROLES)),
        sections=_sections(runs, look, lookup),
        css=css_variables() + CSS,
    ).lstrip()


def figures(runs: Sequence[Run], role: str) -> dict[str, Any]:
    """The figures of "before" or "after": the mean over runs of each that all have, quality on its own level."""
    rows = [run.row(role) for run in runs]
    tables = [{**flat(row), **row.quality} for row in rows]
    means: dict[str, Any] = {}
    for name in tables[0]:
        values = [value for table in tables if isinstance(value := table.get(name), int | float)]
        if len(values) == len(tables):
            field, _, rest = name.partition(".")
            form, _, figure = rest.rpartition(".")
            own = means
            for key in (field, form) if form else (field,) if rest else ():
                own = own.setdefault(key, {})
            own[figure or name] = statistics.mean(values)
    return means


def _subtitle(runs: Sequence[Run]) -> str:
    seeds = ", ".join(str(run.seed) for run in runs)
    word = "seed" if len(runs) == 1 else "mean of seeds"
    return f"{word.capitalize()} {seeds}; quality on the val split, which only judges; {runs[0].rows[0].hardware}"


def _facts(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, str]]:
    """The headline: change of cost in percent, quality and score from Before to After."""
    facts = []
    for name, label in (("macs", "MACs"), ("params", "parameters"), ("bytes", "bytes on disk")):
        change = after[name] / before[name] - 1
        facts.append({"name": label, "main": f"{change:+.1%}", "detail": f"{before[name]:,.0f} → {after[name]:,.0f}"})
    main = next((name for name in QUALITY if name in before and name in after), None)
    labels = ([(main, QUALITY[main])] if main else []) + [("score", "score, lower is better")]
    for name, label in labels:
        if name in before and name in after:
            detail = f"from {before[name]:.4f}, {after[name] - before[name]:+.4f}"
            facts.append({"name": label, "main": f"{after[name]:.4f}", "detail": detail})
    return facts


def _sections(runs: Sequence[Run], look: Look | None, lookup: Lookup) -> list[Section]:
    info = lookup(runs[0].recipe)
    own = info.findings({str(run.folder): run for run in runs})
    histories = runs[0].histories()
    switches = read_ablation(runs[0].folder / "ablation")
    # A search shows its files in a table and a drawing of its own.
    search = bool(own.tables) and not any(is_of_checkpoint(vars(row)) for row in _rows(runs))
    sections = [_compared(runs), *([] if search else [_steps(runs, own)])]
    if own.tables or own.drawings:
        shown = tuple(own.drawings.values())
        title = own.title or "Of this recipe"
        sections.append(Section(id="own", title=title, texts=own.texts, tables=own.tables, drawings=shown))
    if histories:
        sections.append(Section(id="training", title="Training", drawings=(training_curves(histories),), half=True))
    if not search and (quality := main_quality(_rows(runs))) is not None:
        sections.append(_cost_and_quality(runs, quality, own))
    if look is not None:
        from solution.report.diagnostics import diagnostics

        sections += diagnostics(look)
    if switches:
        sections.append(Section(id="ablation", title="Ablation", tables=(ablation_table(switches),)))
    return [*sections, _made(runs, info.defaults, look, own.commands)]


def _rows(runs: Sequence[Run]) -> list[Row]:
    return [row for run in runs for row in run.rows]


def _compared(runs: Sequence[Run]) -> Section:
    models = {role: figures(runs, role) for role in ROLES}
    before, after = runs[0].compared
    texts = [f"Before is the stage {before}, After the stage {after}."] if runs[0].compared != ROLES else []
    if len(runs) > 1:
        texts.append("Means over the seeds; the spread is in the next table.")
    guessing = [role.capitalize() for role in ROLES if any(_is_at_chance(run, role) for run in runs)]
    if guessing:
        texts.append(f"{' and '.join(guessing)}: at chance level, a guess does as well.")
    reasons = {(role, form): why for role in ROLES for run in runs for form, why in run.row(role).left_out.items()}
    texts += [f"{role.capitalize()} has no {form}: {why}" for (role, form), why in reasons.items()]
    shown = forms(models) if _only_compared(runs) else None
    tables = tuple(table for table in (compared(models), shown) if table)
    return Section(id="compared", title="Before and After", texts=tuple(texts), tables=tables)


def _only_compared(runs: Sequence[Run]) -> bool:
    """Whether files stand beside each other, Before and After: of one run that exported these alone. Else they stand
    step by step, with spreads; in any case once on the page."""
    return len(runs) == 1 and all(row.step in runs[0].compared for row in runs[0].rows if row.exported)


def _is_at_chance(run: Run, role: str) -> bool:
    quality = run.row(role).quality
    return any(task.at_chance(quality, run.counts.get("val", {})) for task in TASKS.values() if task.figure in quality)


def _steps(runs: Sequence[Run], own: Findings) -> Section:
    legend = own.legend().replace("`", "")
    tables = tuple(spread([run.rows for run in runs], files=not _only_compared(runs)))
    return Section(id="steps", title="Step by step", texts=(legend,) if legend else (), tables=tables)


def _cost_and_quality(runs: Sequence[Run], quality: str, own: Findings) -> Section:
    series = [*own.reference, *(_series(runs, role, quality) for role in ROLES)]
    others = [row for run in runs for row in run.rows if row.step not in run.compared and quality in row.quality]
    if others:
        points = tuple(Point(macs=row.macs, quality=row.quality[quality], name=row.step) for row in others)
        series.append(Series(name="other steps", points=points))
    scorer = Scorer() if any(row.score is not None for row in _rows(runs)) and quality == "f1" else None
    drawing = pareto(series, quality=QUALITY.get(quality, quality), scorer=scorer)
    return Section(id="front", title="Cost and quality", drawings=(drawing,), half=True)


def _series(runs: Sequence[Run], role: str, quality: str) -> Series:
    rows = [run.row(role) for run in runs]
    points = tuple(Point(macs=row.macs, quality=row.quality[quality]) for row in rows if quality in row.quality)
    return Series(name=role.capitalize(), points=points, look=role)


def _made(runs: Sequence[Run], defaults: Mapping[str, Any], look: Look | None, own: Sequence[str]) -> Section:
    first = runs[0]
    commands = "\n".join(own or (f"{command(run, defaults)} --out {_out(run.folder)}" for run in runs))
    blocks = [Block(title="Commands", text=commands)]
    blocks += [Block(title=f"Plan of {name}", text=text, folded=True) for name, text in first.plans().items()]
    if first.settings:
        settings = "\n".join(f"{key} = {value}" for key, value in first.settings.items())
        blocks.append(Block(title=f"All {len(first.settings)} settings", text=settings, folded=True))
    texts = () if look else ("Confusion, worst images and features need the photos: add --data PATH to the command.",)
    return Section(id="made", title="How it was made", texts=texts, tables=(_origins(runs),), blocks=tuple(blocks))


def _origins(runs: Sequence[Run]) -> Table:
    lines = []
    for run in runs:
        stated = (", ".join(dict.fromkeys(getattr(row, name) for row in run.rows)) for name in ("commit", "hardware"))
        lines.append((str(run.seed), f"{sum(row.seconds for row in run.rows) / 60:.1f}", *stated))
    return Table(headings=("seed", "minutes", "commit", "hardware"), rows=tuple(lines), caption="Seeds and hardware.")


def _out(folder: Path) -> str:
    """The folder as a shell takes it, from where the page was made."""
    import shlex

    near = folder.resolve().is_relative_to(Path.cwd())
    return shlex.quote(str(folder.resolve().relative_to(Path.cwd()) if near else folder))


CSS = """
*{box-sizing:border-box}
:root{color-scheme:light dark;--shade:#f4f6f8;--link:#004c7f}
@media (prefers-color-scheme:dark){:root{--shade:#1b222a;--link:#8fd0fb}}
html{font:clamp(16px,0.35vw + 14.5px,21px)/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
body{margin:0 auto;max-width:96rem;padding:1.25rem 1rem 4rem;background:var(--paper);color:var(--ink)}
h1{font-size:1.9rem;line-height:1.15;margin:0.2rem 0;overflow-wrap:anywhere}
h2{font-size:1.3rem;margin:2.6rem 0 0.6rem;border-bottom:2px solid var(--grid);padding-bottom:0.2rem}
h3{font-size:1rem;margin:1.2rem 0 0.3rem}
p,li{max-width:70ch} a{color:var(--link)} .faint,figcaption,caption{color:var(--faint)}
nav ul{display:flex;flex-wrap:wrap;gap:0.2rem 1.1rem;list-style:none;padding:0;margin:0.6rem 0}
nav a{display:inline-block;padding:0.3rem 0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:0.7rem;margin:1rem 0;padding:0}
.facts div{background:var(--shade);border-radius:0.5rem;padding:0.7rem 0.9rem}
.facts dt{color:var(--faint);font-size:0.9rem} .facts dd{margin:0}
.facts .main{font-size:1.6rem;font-weight:650;line-height:1.2}
.scroll{margin-top:0.8rem;overflow-x:auto;max-width:100%;width:fit-content}
.scroll:focus-visible,a:focus-visible,pre:focus-visible{outline:3px solid var(--link)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums} caption{text-align:left;padding:0 0 0.4rem}
th,td{padding:0.35rem 0.8rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--grid)}
th:first-child,td:first-child{text-align:left;padding-left:0.2rem} thead th{border-bottom:2px solid var(--faint)}
tbody th{font-weight:500}
.drawings{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.8rem;align-items:start}
section,figure{min-width:0} figure{margin:0} .drawings>figure{max-width:44rem}
figcaption{font-size:0.9rem;margin-top:0.4rem}
@media (min-width:64rem){main{display:grid;grid-template-columns:1fr 1fr;column-gap:2rem}.wide{grid-column:span 2}}
svg.drawing{display:block;width:100%;height:auto}
.photos{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:1rem 0.9rem}
.photos{padding:0;margin:0;list-style:none}
.photos img{display:block;width:100%;height:auto;border-radius:0.35rem} .photos figcaption{line-height:1.35}
.photos .name{overflow-wrap:anywhere;font-size:0.75rem}
pre{background:var(--shade);border-radius:0.5rem;padding:0.7rem 0.9rem;overflow-x:auto;font-size:0.86rem}
pre.wrap{white-space:pre-wrap;overflow-wrap:anywhere} summary{cursor:pointer;padding:0.4rem 0}
.hint{display:none}
@media (max-width:40rem){table{font-size:0.8rem} th,td{padding:0.35rem 0.4rem} thead th{white-space:normal}
.hint{display:block;margin:1rem 0 0;font-size:0.8rem}
.wide-table tr>:first-child{position:sticky;left:0;background:var(--paper)}
.wide-table{border-right:3px dotted var(--grid)}}
@media print{body{max-width:none} details{display:none}}
"""

PAGE = """\
{% macro grid(table) %}
{% if table.headings | length > 3 %}<p class="hint faint">Swipe sideways for all columns.</p>{% endif %}
<div class="scroll{{ ' wide-table' if table.headings | length > 3 }}" tabindex="0" role="region" \
aria-label="{{ table.caption }}">
<table><caption>{{ table.caption }}</caption>
<thead><tr>{% for cell in table.headings %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for cells in table.rows %}<tr><th scope="row">{{ cells[0] }}</th>\
{% for cell in cells[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% if table.note %}<p class="faint">{{ table.note }}</p>{% endif %}
{% endmacro %}
{% macro draw(drawing) %}
<figure>{{ drawing.svg | safe }}
{% if drawing.caption %}<figcaption>{{ drawing.caption }}</figcaption>{% endif %}</figure>
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ css | safe }}</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
<p class="faint">{{ subtitle }}</p>
<dl class="facts">
{% for fact in facts %}<div><dt>{{ fact.name }}</dt>
<dd class="main">{{ fact.main }}</dd><dd>{{ fact.detail }}</dd></div>
{% endfor %}</dl>
<nav aria-label="Sections"><ul>
{% for section in sections %}<li><a href="#{{ section.id }}">{{ section.title }}</a></li>
{% endfor %}</ul></nav>
</header>
<main>
{% for section in sections %}
<section class="{{ 'half' if section.half else 'wide' }}" id="{{ section.id }}" \
aria-labelledby="{{ section.id }}-title">
<h2 id="{{ section.id }}-title">{{ section.title }}</h2>
{% for text in section.texts %}<p>{{ text }}</p>{% endfor %}
{% for table in section.tables %}{{ grid(table) }}{% endfor %}
{% if section.drawings %}<div class="drawings">
{% for one in section.drawings %}{{ draw(one) }}{% endfor %}</div>{% endif %}
{% if section.photos %}<ul class="photos">
{% for photo in section.photos %}<li><figure>\
<img src="{{ photo.source }}" alt="{{ photo.alt }}" width="{{ photo.side }}" height="{{ photo.side }}">
<figcaption>{% for line in photo.lines %}{{ line }}<br>{% endfor %}\
<span class="name">{{ photo.name }}</span></figcaption></figure></li>
{% endfor %}</ul>{% endif %}
{% for block in section.blocks %}{% if block.folded %}<details><summary>{{ block.title }}</summary>\
<pre tabindex="0">{{ block.text }}</pre></details>{% else %}<h3>{{ block.title }}</h3>\
<pre class="wrap">{{ block.text }}</pre>{% endif %}
{% endfor %}
</section>
{% endfor %}
</main>
</body>
</html>
"""
