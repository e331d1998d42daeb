"""How a net is made smaller: each method a step in a file of its own.

    import solution as fw
    smaller = fw.PruneChannels(ratio=0.5)(model, x)

channels         fewer channels in every layer, by a share or down to a budget, at once or in stages (coupling)
prune_layers     whole blocks leave
prune_weights    single weights become zero
decompose        layers of low rank
cluster          weights shared by codebooks
quantize         weights and activations in 8 bits or fewer
fold_norms       batch norms go into the convolutions before them

Behind them: layers (which layers a step works on), parametrized (weights that are computed), residual (which blocks can
go), factors and ranks (of decompose), quantization/.
"""
