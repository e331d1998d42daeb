"""The page's own text: HTML for Jinja, and CSS. Everything is inline; nothing is fetched."""

from __future__ import annotations

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
{% if table.headings | length > 4 %}<p class="hint faint">Swipe sideways for all columns.</p>{% endif %}
<div class="scroll{{ ' wide-table' if table.headings | length > 4 }}" tabindex="0" role="region" \
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
<figcaption>{% for said in photo.lines %}{{ said }}<br>{% endfor %}\
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
