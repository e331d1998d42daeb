"""Channel pruning.

step           `PruneChannels`: score, decide how many stay, choose which, cut, prove
importance     what makes a channel matter
selection      which channels stay
reconstruct    layers fitted to their old outputs after a cut
gradual        `PruneGradually`: cut in stages, with training between
group_penalty  `GroupPenalty`: training that shrinks whole channels before a cut
sensitivity    what pruning each layer alone costs

How many stay, and what must stay together, is worked out in `solution.compress.coupling`.
"""
