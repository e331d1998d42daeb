"""One page where a photo is dropped and nets classify it side by side. Nothing of it leaves the machine.

inference   the nets, and their predictions for a photo with milliseconds
view        what the page shows: facts, predictions, verdict; its HTML, CSS and script
web         the application, what it refuses, and its server
"""
