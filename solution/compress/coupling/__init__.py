"""Which channels of a net must be kept or cut together, and the cut that follows from a choice.

tracing     model + example -> a list of ATen calls, on shapes alone
recorder    notes the calls while a forward runs
shapes      tensors with shapes and no memory
ids         channel ids, ties between them, the axes they lie along
walk        sends ids through a pass, one rule per call
rules       what each call does to ids (rules_movement, rules_layers: its two larger parts)
derived     convolution weights that are computed before use
components  ties -> groups of positions that stay or go together
analysis    all of the above for a model, or for its skeleton at other sizes
attributes  sizes that plain layers keep beside their tensors
skeleton    a model at other sizes, without weights
sizes       how many channels of each kind stay (grouped layers keep equal groups)
fitting     sizes that the real forward accepts
wiring      which original channel lies where after the cut
planning    writes the plan down
plan        the plan, a plain value
cutting     slices tensors, sets attributes
adapters    attributes that particular model families keep beside their tensors
targets     a share, or one threshold over all layers -> numbers of channels
budget      the numbers that meet a budget
estimate    what other sizes would cost, by arithmetic
equality    proof of a cut: masked equals sliced
macs        multiply-accumulates of a pass, per layer
"""
