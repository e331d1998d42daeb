"""Steps as they are written in the shell."""

import pytest

from solution.compress.channels.step import PruneChannels
from solution.compress.prune_layers import PruneLayers
from solution.compress.prune_weights import PruneWeights
from solution.contracts import InputError, Step
from solution.registry import STEPS, step_from


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("prune_channels ratio=0.5", PruneChannels(ratio=0.5)),
        ("prune_channels macs=4e6 ranking=global round_to=8", PruneChannels(macs="4e6", ranking="global", round_to=8)),
        ("""prune_channels ratio=0.5 limits="{'stem.*': 0.25}" """, PruneChannels(ratio=0.5, limits={"stem.*": 0.25})),
        ("prune_layers units=2,5,2", PruneLayers(units=(2, 5, 2))),
        ("prune_weights", PruneWeights()),
    ],
)
def test_a_step_and_its_settings_are_read(text, step):
    assert step_from(text) == step


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune_chanels ratio=0.5", r"no step 'prune_chanels' \(did you mean prune_channels\?\); there are: .*train"),
        ("", "no step ''.*there are: prune_channels"),
        ("prune_layers cuont=1", r"no field 'cuont' \(did you mean count\?\); it has: units, count, macs, ranking"),
        ("prune_layers 3", "takes FIELD=VALUE, got '3'; its fields are: units"),
        ("prune_layers count=many", r"prune_layers.count takes int \| None, got 'many'"),
        ("prune_layers count=0", "count must be at least 1, got 0"),
        ('prune_layers count="1', "cannot be read"),
    ],
)
def test_wrong_ones_are_explained(text, message):
    with pytest.raises(InputError, match=message):
        step_from(text)


def test_every_step_of_the_table_is_a_step():
    assert all(issubclass(step, Step) for step in STEPS.values())
