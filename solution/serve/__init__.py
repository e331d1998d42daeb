"""SHOW: one page where a photo is dropped and nets answer side by side. Nothing of it leaves the machine.

asking    nets and what they answer to a photo, with milliseconds, MACs and bytes
web       the page as an application: what it takes, what it refuses
telling   what it says: facts, answers, verdict
template  the page's own text: HTML, CSS, script
"""
