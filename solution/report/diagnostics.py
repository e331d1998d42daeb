"""Looking inside: the page's sections that need photos. What each class gained, what is confused, what went wrong."""

from __future__ import annotations

import numpy as np

from solution.report.classes import class_f1, confusion, predictions
from solution.report.embedding import chosen, embed, embedding
from solution.report.predictions import Look, data_uri
from solution.report.sections import Photo, Section
from solution.report.style import Drawing

NUM_WORST = 24


def diagnostics(look: Look) -> list[Section]:
    """Class by class, features, worst images."""
    return [_classes(look), _features(look), _worst(look)]


def _classes(look: Look) -> Section:
    count = len(look.classes)
    judged = {role: seen.judged for role, seen in look.seen.items()}
    labels = np.bincount(look.pictures.labels, minlength=count) / len(look.pictures.labels)
    said = {role: np.bincount(one.predictions, minlength=count) / one.num_images for role, one in judged.items()}
    drawings = (
        class_f1({role: one.per_class_f1 for role, one in judged.items()}, look.classes),
        predictions({"labels": labels, **said}, look.classes),
        *(confusion(one.confusion, look.classes, role) for role, one in judged.items()),
    )
    text = f"Judged now on the {len(look.pictures.labels):,} images of the val split of {look.data}, as they are."
    return Section(id="classes", title="Class by class", texts=(text,), drawings=drawings)


def _features(look: Look) -> Section:
    places = chosen(look.pictures.labels)
    text = "What the classifier is given, laid flat by t-SNE: near images look alike to the model; axes mean nothing."
    drawings = tuple(_embedded(look, role, places) for role in look.seen)
    return Section(id="features", title="Features by class", texts=(text,), drawings=drawings)


def _embedded(look: Look, role: str, places: np.ndarray) -> Drawing:
    points = embed(look.seen[role].features[places])
    return embedding(points, look.pictures.labels[places], look.classes, role)


def _worst(look: Look) -> Section:
    role = list(look.seen)[-1]
    places = look.seen[role].worst(NUM_WORST)
    text = f"The photos whose label {role.capitalize()} thought least likely: unclear ones and wrong labels among them."
    photos = tuple(_photo(look, int(place)) for place in places)
    return Section(id="worst", title="Worst images", texts=(text,) if photos else ("No mistakes.",), photos=photos)


def _photo(look: Look, place: int) -> Photo:
    picture, label = look.pictures.images[place], look.classes[look.pictures.labels[place]]
    answers = []
    for role, seen in reversed(look.seen.items()):
        likeliest = int(seen.judged.predictions[place])
        answers.append(f"{role.capitalize()}: {look.classes[likeliest]}, {seen.probabilities[place, likeliest]:.0%}")
    alt = f"Photo labeled {label}. {'; '.join(answers)}."
    name = look.pictures.items[place].title
    return Photo(source=data_uri(picture), side=len(picture), alt=alt, lines=(f"Label: {label}", *answers), name=name)
