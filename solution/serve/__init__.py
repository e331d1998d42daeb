"""One page where a photo is dropped and nets classify it side by side. Nothing of it leaves the machine.

view  the nets, their predictions for a photo with milliseconds; facts and verdict; the page's HTML, CSS and script
web   the application, what it refuses, and its server
"""
