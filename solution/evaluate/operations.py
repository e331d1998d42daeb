"""What each operation of PyTorch's dispatcher is: a product with a count, or one of the kinds without.

Two readers share these tables: `macs_dispatched` adds up the products of a forward, and the audit charges each kind by
its own rule. An operation in no table has no count: the first names it, the second refuses the net.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Arguments = tuple[Any, ...]


def stored_elements(tensor: Tensor) -> int:
    """Elements that take part in a product: of a sparse tensor, those that it stores."""
    if tensor.layout == torch.sparse_coo:
        return tensor._values().numel()
    return tensor.values().numel() if tensor.layout in _COMPRESSED else tensor.numel()


_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def _convolution(arguments: Arguments, out: Tensor) -> int:
    images, weight, bias, transposed = *arguments[:3], arguments[6]
    positions = math.prod((images if transposed else out).shape[2:])
    return len(images) * weight.numel() * positions + (out.numel() if bias is not None else 0)


def _onednn_convolution(arguments: Arguments, out: Tensor) -> int:
    return _convolution((*arguments[:6], False), out)


def _deformable_convolution(arguments: Arguments, out: Tensor) -> int:
    """The products with the weights; sampling between pixels is resampling. A bias is always added, if only zeros."""
    return out.numel() * (arguments[1][0].numel() + 1)


def _product(arguments: Arguments, out: Tensor) -> int:
    """(..., M, K) @ (..., K, N). Of a sparse factor each stored element meets a whole row or column of the other."""
    left, right = arguments[:2]
    if left.layout == torch.strided and right.layout != torch.strided:
        return stored_elements(right) * left.shape[-2]
    return stored_elements(left) * right.shape[-1]


def _sparse_product(arguments: Arguments, out: Tensor) -> int:
    """Both factors are sparse: each stored element of the left meets the stored ones of a row of the right."""
    left, right = (factor.to_sparse_coo().coalesce().indices() for factor in arguments[:2])
    rows = torch.bincount(right[0], minlength=arguments[1].shape[0])
    return int(rows[left[1]].sum())


def _added_product(arguments: Arguments, out: Tensor) -> int:
    return _product(arguments[1:3], out) + out.numel()


def _into_rows(arguments: Arguments, out: Tensor) -> int:
    """Each element of the result is a dot product as long as the left factor's rows."""
    return stored_elements(out) * arguments[0].shape[-1]


def _sampled_product(arguments: Arguments, out: Tensor) -> int:
    return _into_rows(arguments[1:], out)


def _grouped_product(arguments: Arguments, out: Tensor) -> int:
    """Groups lie along the rows, the inner size or the columns; every row and column is in one group."""
    left, right = arguments[:2]
    return (left[0] if left.dim() > right.dim() else left).numel() * right.shape[-1]


def _attention(arguments: Arguments, out: Any) -> int:
    query, key, value = arguments[:3]  # (B, heads, L, E), (B, heads, S, E), (B, heads, S, V)
    return query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _bilinear(arguments: Arguments, out: Tensor) -> int:
    """(P, I) and (P, J) with weights (O, I, J): for every output I products of J, and one of I."""
    left, weight, right = arguments[:3]
    return len(left) * weight.shape[0] * weight.shape[1] * (right.shape[-1] + 1)


def _recurrent(arguments: Arguments, out: Any) -> int:
    """Every weight of every layer, once for each step of each sequence. A bias counts once, too."""
    return math.prod(arguments[0].shape[:-1]) * sum(weight.numel() for weight in arguments[1])


def _recurrent_layer(arguments: Arguments, out: Any) -> int:
    weights = arguments[1:5] if arguments[12] else arguments[1:3]
    return _recurrent((arguments[0], weights), out)


def _fourier(arguments: Arguments, out: Tensor) -> int:
    """2.5 N log2 N for N complex numbers, half for real ones (Frigo and Johnson, 2005, doi:10.1109/JPROC.2004.840301,
    whose 5 N log2 N are additions and multiplications).
    """
    image, dims = arguments[:2]
    real = out if image.is_complex() and not out.is_complex() else image
    length = math.prod(real.shape[dim] for dim in dims)
    each = 2.5 if image.is_complex() and out.is_complex() else 1.25
    return round(each * real.numel() * math.log2(length)) if length else 0


def _embedding_bag(arguments: Arguments, out: Any) -> int:
    """Rows of a table are added up; weights for each of them make products of that."""
    weighted = len(arguments) > 6 and arguments[6] is not None
    return arguments[1].numel() * arguments[0].shape[-1] if weighted else 0


def _quantized_layer(arguments: Arguments, out: Tensor) -> int:
    weight, bias = arguments[1].unpack()[:2]
    return out.numel() * (weight[0].numel() + (bias is not None))


CONTRACTIONS: dict[str, Callable[[Arguments, Any], int]] = {
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    **dict.fromkeys(("mm", "_int_mm", "_scaled_mm", "bmm"), _product),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "_sparse_addmm"), _added_product),
    "mkldnn_convolution": _onednn_convolution,
    "mv": lambda arguments, out: stored_elements(arguments[0]),
    "addmv": lambda arguments, out: stored_elements(arguments[1]) + out.numel(),
    "dot": lambda arguments, out: arguments[0].numel(),
    "vdot": lambda arguments, out: arguments[0].numel(),
    "addr": lambda arguments, out: out.numel(),
    "_grouped_mm": _grouped_product,
    "mkldnn_linear": _into_rows,
    "_weight_int8pack_mm": _into_rows,
    "_weight_int4pack_mm": _into_rows,
    "_weight_int4pack_mm_for_cpu": _into_rows,
    "_cdist_forward": _into_rows,
    "_euclidean_dist": _into_rows,
    "_sparse_sparse_matmul": _sparse_product,
    "sparse_sampled_addmm": _sampled_product,
    "_trilinear": _bilinear,
    "mkldnn_rnn_layer": _recurrent_layer,
    **dict.fromkeys(("_cudnn_rnn", "miopen_rnn"), _recurrent),
    **dict.fromkeys(("_fft_c2c", "_fft_r2c", "_fft_c2r"), _fourier),
    "_embedding_bag": _embedding_bag,
    "_embedding_bag_forward_only": _embedding_bag,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_scaled_dot_product_attention_math_for_mps": _attention,
    "torchvision::deform_conv2d": _deformable_convolution,
    **{f"quantized::{kind}{form}": _quantized_layer for kind in ("linear", "conv1d", "conv2d", "conv3d")
       for form in ("", "_relu", "_dynamic", "_relu_dynamic")},
}  # fmt: skip
"""Operation -> MACs of one call. A bias counts one per output element, as in ptflops' ``backend="aten"``.

What is not here counts as `torch.utils.flop_counter` has it, formulas that a user registered there included.
"""


def names_in(words: str) -> frozenset[str]:
    return frozenset(words.split())


PRODUCTS = names_in("mul div addcmul addcdiv lerp pow exp exp2 expm1 _prelu_kernel")
"""Element-wise operations that multiply."""

ADDED_PRODUCTS = names_in("addcmul addcdiv lerp")
"""Those of them that add the product to their first operand."""

SUMS = names_in("add sub rsub maximum minimum fmax fmin")
"""Element-wise operations that join two tensors without multiplying."""

REDUCTIONS = names_in("""
    sum nansum mean cumsum logcumsumexp logsumexp amax amin aminmax max min median index_add index_reduce
    scatter_add scatter_reduce index_put col2im
""")
"""Operations that add up elements of one tensor: free, unless these are products."""

SQUARES = names_in("var var_mean std std_mean linalg_vector_norm norm prod cumprod")
"""Reductions that multiply each element once themselves."""

NORMALIZATIONS = names_in("""
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_no_update
    cudnn_batch_norm miopen_batch_norm
""")
"""Two multiplications an element when there are weights, as ptflops counts them."""

LAYER_NORMALIZATIONS = names_in("native_layer_norm native_group_norm _fused_rms_norm")
"""One multiplication an element, as ptflops counts a LayerNorm."""

POOLINGS = names_in("""
    avg_pool2d avg_pool3d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d
    max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d
""")
"""One for each input element, as ptflops counts them."""

RESAMPLINGS = names_in("""
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

FREE = names_in(f"{_MOVING} {_MAKING} {_COMPARING} {_ACTIVATING}")
"""Operations that multiply nothing, or that the convention leaves uncounted."""


UNMULTIPLIED = names_in("""
    _local_scalar_dense equal nonzero masked_select unique _unique2 unique_dim unique_consecutive searchsorted bucketize
    bincount histc complex polar cummax cummin kthvalue mode nanmedian cartesian_prod unsafe_split
    unsafe_split_with_sizes _linalg_check_errors tril_indices triu_indices randperm multinomial exponential geometric
    max_unpool2d max_unpool3d fractional_max_pool2d fractional_max_pool3d adaptive_max_pool3d _to_sparse
    to_mkldnn mkldnn_reorder_conv2d_weight quantized::linear_prepack quantized::conv2d_prepack
    _to_sparse_csr _to_sparse_csc _to_sparse_bsr _to_dense _coalesce quantize_per_tensor quantize_per_channel dequantize
    torchvision::nms torchvision::roi_align torchvision::roi_pool torchvision::ps_roi_align torchvision::ps_roi_pool
""")
"""Besides what PyTorch itself tags as element-wise or as a reduction: operations that no audited net may run, and that
are no products of matrices either."""

KNOWN = frozenset().union(
    PRODUCTS, SUMS, REDUCTIONS, SQUARES, NORMALIZATIONS, LAYER_NORMALIZATIONS, POOLINGS, RESAMPLINGS, FREE, UNMULTIPLIED
)
_KNOWN_TAGS = {torch.Tag.pointwise, torch.Tag.reduction}


def operation_name(operation: Any) -> str:
    """`aten.mul_.Tensor` and `aten.mul.Scalar` are both "mul"; an operation from outside aten keeps its namespace.

    An overload that reduces (`aten.scatter.reduce`) is distinguished from its plain sisters. Control flow and flexible
    attention have no schema, and the name that PyTorch gives them.
    """
    if not isinstance(operation, OpOverload):
        return str(operation.name())
    name = operation._schema.name.removeprefix("aten::")
    name = name if name.endswith("__") else name.removesuffix("_")
    return f"{name}.reduce" if "reduce" in operation._overloadname else name


def macs_of(operation: Any, arguments: Arguments, named: Mapping[str, Any], result: Any) -> int | None:
    """Multiply-accumulates of one call of a product, None for any other operation."""
    counted = CONTRACTIONS.get(operation_name(operation))
    if counted is not None:
        return counted(arguments, result)
    formula = flop_registry.get(operation.overloadpacket if isinstance(operation, OpOverload) else operation)
    return None if formula is None else int(formula(*arguments, **named, out_val=result)) // 2


def decomposed(mode: TorchDispatchMode, operation: Any, arguments: Arguments, named: Mapping[str, Any]) -> Any:
    """The result by smaller operations, or NotImplemented. Inference mode alone hands over undivided ones."""
    if not torch.is_inference_mode_enabled() or not isinstance(operation, OpOverload):
        return NotImplemented
    with mode:
        return operation.decompose(*arguments, **named)


class Dispatched(TorchDispatchMode):
    """Adds up `macs` of the products that run inside the block, and names the operations that nobody can count."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.uncounted: dict[str, None] = {}

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Arguments = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        result = decomposed(self, operation, arguments, named)
        if result is not NotImplemented:
            return result
        result = operation(*arguments, **named)
        macs = macs_of(operation, arguments, named, result)
        if macs is not None:
            self.macs += macs
        elif not _is_known(operation) and any(isinstance(leaf, Tensor) for leaf in tree_leaves((arguments, named))):
            self.uncounted[operation_name(operation)] = None
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self.uncounted:
            warnings.warn(
                f"no count is known for {', '.join(sorted(self.uncounted))}: what they multiply is missing from the "
                "sum. Give them a formula by torch.utils.flop_counter.register_flop_formula",
                stacklevel=3,
            )


def _is_known(operation: Any) -> bool:
    """Whether it is known to be no product. Operations that only look at another tensor in a new shape are none."""
    if not isinstance(operation, OpOverload):
        return False
    plain = operation.namespace in ("aten", "prim", "prims") and bool(_KNOWN_TAGS & set(operation.tags))
    return plain or operation.is_view or operation_name(operation) in KNOWN
