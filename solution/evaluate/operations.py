"""What each operation of PyTorch's dispatcher means to the audit. An operation in no table is refused, not guessed.

Additions, activations, comparisons and moving data are free, as in the competition's convention. A multiplication by
weights is work. A multiplication of any other kind (a gate, a Python number) becomes work once two such products
are added up, for then it is a multiply-accumulate.
"""

from __future__ import annotations


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


PRODUCTS = _names("mul div addcmul addcdiv lerp pow exp exp2 expm1 _prelu_kernel")
"""Element-wise operations that multiply."""

ADDED_PRODUCTS = _names("addcmul addcdiv lerp")
"""Those of them that add the product to their first operand."""

SUMS = _names("add sub rsub maximum minimum fmax fmin")
"""Element-wise operations that join two tensors without multiplying."""

REDUCTIONS = _names("""
    sum nansum mean cumsum logcumsumexp logsumexp amax amin aminmax max min median index_add index_reduce
    scatter_add scatter_reduce index_put col2im
""")
"""Operations that add up elements of one tensor: free, unless these are products."""

SQUARES = _names("var var_mean std std_mean linalg_vector_norm norm prod cumprod")
"""Reductions that multiply each element once themselves."""

NORMALIZATIONS = _names("""
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_no_update
    cudnn_batch_norm miopen_batch_norm
""")
"""Two multiplications an element when there are weights, as ptflops counts them."""

LAYER_NORMALIZATIONS = _names("native_layer_norm native_group_norm _fused_rms_norm")
"""One multiplication an element, as ptflops counts a LayerNorm."""

POOLINGS = _names("""
    avg_pool2d avg_pool3d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d
    max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d
""")
"""One for each input element, as ptflops counts them."""

RESAMPLINGS = _names("""
    upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa
    upsample_trilinear3d grid_sampler_2d grid_sampler_3d
""")
"""One for each output element, as ptflops counts nn.Upsample."""

_MOVING = """
    alias as_strided cat stack clone copy _to_copy detach expand flip roll rot90 index index_select gather
    select slice split split_with_sizes split_with_sizes_copy unbind unsqueeze squeeze view _unsafe_view
    _reshape_alias reshape permute transpose t repeat repeat_interleave lift lift_fresh pixel_shuffle
    pixel_unshuffle channel_shuffle native_channel_shuffle diagonal diagonal_copy unfold im2col masked_fill fill
    zero where select_scatter slice_scatter diagonal_scatter scatter index_copy index_fill tril triu embedding
    constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
    _upsample_nearest_exact2d sort topk argsort resize set contiguous
"""

_MAKING = """
    empty empty_strided zeros ones full arange linspace scalar_tensor eye rand randn randint empty_like
    zeros_like ones_like full_like rand_like randn_like new_empty new_empty_strided new_zeros new_ones new_full
    bernoulli uniform normal native_dropout
"""

_COMPARING = """
    eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not
    bitwise_xor __and__ __or__ isnan isinf isfinite any all argmax argmin sign sgn signbit floor ceil round
    trunc frac
"""

_ACTIVATING = """
    relu hardtanh hardswish hardsigmoid sigmoid tanh silu mish gelu leaky_relu elu celu selu softplus
    log_sigmoid_forward threshold softshrink hardshrink rrelu_with_noise glu _softmax _log_softmax clamp
    clamp_min clamp_max abs neg erf sin cos sqrt rsqrt reciprocal log log1p log2 nan_to_num
    fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams
"""

FREE = _names(f"{_MOVING} {_MAKING} {_COMPARING} {_ACTIVATING}")
"""Operations that multiply nothing, or that the convention leaves uncounted."""
