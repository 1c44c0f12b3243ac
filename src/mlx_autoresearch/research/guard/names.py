"""One table: what changed code may reach, by name. What is not listed is refused.

Listed are functions, classes and constants that neither open files, run text, reach another module nor change the
process. Left out on purpose, because it does not show: numpy's `r_`, `c_` and `bmat` (names looked up in a frame),
`typing.get_args` (leads to text that is evaluated), `functools.singledispatch` (evaluates annotations),
`dataclasses.fields` (names that are compiled), `enum.nonmember` (hides that an enumeration has no members),
`mx.as_strided` (memory out of bounds). `__getattr__` may not be defined: numpy takes addresses from such attributes.
"""

from __future__ import annotations

import builtins

_NN = """
ALiBi AvgPool1d AvgPool2d AvgPool3d BatchNorm Bilinear CELU Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d
ConvTranspose3d Dropout Dropout2d Dropout3d ELU Embedding GELU GLU GRU GroupNorm HardShrink HardTanh Hardswish
Identity InstanceNorm LSTM LayerNorm LeakyReLU Linear LogSigmoid LogSoftmax MaxPool1d MaxPool2d MaxPool3d Mish Module
MultiHeadAttention PReLU QuantizedEmbedding QuantizedLinear RMSNorm RNN ReLU ReLU2 ReLU6 RoPE SELU Sequential SiLU
Sigmoid SinusoidalPositionalEncoding Softmax Softmin Softplus Softshrink Softsign Step Tanh Transformer
TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer Upsample celu elu gelu
gelu_approx gelu_fast_approx glu hard_shrink hard_tanh hardswish leaky_relu log_sigmoid log_softmax mish prelu
quantize relu relu2 relu6 selu sigmoid silu softmax softmin softplus softshrink softsign step tanh
"""
_TREES = "tree_flatten tree_map tree_reduce tree_unflatten"

_LISTS = {
    "__future__": "annotations",
    "abc": "ABC abstractmethod",
    "collections": "ChainMap Counter OrderedDict defaultdict deque namedtuple",
    "collections.abc": """
        AsyncIterable AsyncIterator Awaitable Callable Collection Container Coroutine Generator Hashable ItemsView
        Iterable Iterator KeysView Mapping MappingView MutableMapping MutableSequence MutableSet Reversible Sequence
        Set Sized ValuesView
    """,
    "contextlib": "AbstractContextManager ContextDecorator ExitStack closing contextmanager nullcontext suppress",
    "dataclasses": "FrozenInstanceError InitVar KW_ONLY MISSING asdict astuple dataclass field is_dataclass replace",
    "enum": "Enum Flag IntEnum IntFlag StrEnum UNIQUE auto unique verify",
    "functools": """
        cache cached_property cmp_to_key lru_cache partial partialmethod reduce total_ordering wraps
    """,
    "itertools": """
        accumulate chain combinations combinations_with_replacement compress count cycle dropwhile filterfalse groupby
        islice pairwise permutations product repeat starmap takewhile tee zip_longest
    """,
    "math": """
        acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1
        fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma
        log log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc
        ulp
    """,
    "operator": """
        abs add and_ concat contains countOf delitem eq floordiv ge getitem gt iadd iand iconcat ifloordiv ilshift
        imatmul imod imul index indexOf inv invert ior ipow irshift is_ is_not isub itemgetter itruediv ixor le
        length_hint lshift lt matmul mod mul ne neg not_ or_ pos pow rshift setitem sub truediv truth xor
    """,
    "types": "MappingProxyType NoneType SimpleNamespace",
    "typing": """
        Annotated Any AnyStr Awaitable Callable ClassVar Collection Concatenate Container ContextManager Coroutine
        Counter DefaultDict Deque Dict Final FrozenSet Generator Generic Hashable ItemsView Iterable Iterator KeysView
        List Literal LiteralString Mapping MutableMapping MutableSequence MutableSet NamedTuple Never NewType NoReturn
        NotRequired Optional OrderedDict ParamSpec ParamSpecArgs ParamSpecKwargs Protocol Required Reversible Self
        Sequence Set Sized SupportsAbs SupportsFloat SupportsIndex SupportsInt SupportsRound TYPE_CHECKING Tuple Type
        TypeAlias TypeGuard TypeVar TypeVarTuple TypedDict Union Unpack ValuesView assert_never assert_type cast final
        overload runtime_checkable
    """,
    "mlx": "",
    "mlx.core": """
        ArrayAt ArrayLike Device DeviceType Dtype DtypeCategory Stream StreamContext abs acos acosh add addmm all
        allclose any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argpartition argsort
        array array_equal asarray asin asinh astype async_eval atan atan2 atanh atleast_1d atleast_2d atleast_3d
        bartlett bfloat16 bitwise_and bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor
        blackman block_masked_mm bool_ broadcast_arrays broadcast_shapes broadcast_to can_cast ceil checkpoint
        clear_cache clip compile complex64 complexfloating concat concatenate conj conjugate contiguous conv1d conv2d
        conv3d conv_general conv_transpose1d conv_transpose2d conv_transpose3d convolve cos cosh count_nonzero cpu
        cummax cummin cumprod cumsum cumulative_prod cumulative_sum custom_function default_device default_stream
        degrees depends dequantize device_count device_info diag diagonal diff divide divmod e einsum einsum_path
        empty empty_like equal erf erfinv euler_gamma eval exp expand_dims expm1 eye finfo flatten flip float16
        float32 float64 floating floor floor_divide from_dlpack from_fp8 full full_like gather_mm gather_qmm
        gather_qqmm generic get_active_memory get_cache_memory get_memory_limit get_peak_memory gpu grad greater
        greater_equal hadamard_transform hamming hanning identity iinfo imag inexact inf inner int16 int32 int64 int8
        integer is_available isclose isdtype isfinite isinf isnan isneginf isposinf issubdtype jvp kron left_shift
        less less_equal linspace log log10 log1p log2 logaddexp logcumsumexp logical_and logical_not logical_or
        logical_xor logsumexp matmul matrix_norm matrix_transpose max maximum mean median meshgrid min minimum minmax
        moveaxis multiply nan nan_to_num negative new_stream newaxis not_equal number ones ones_like outer pad
        partition permute_dims pi positive pow power prod put_along_axis qqmm quantize quantized_matmul radians real
        reciprocal remainder repeat reshape result_type right_shift roll round rsqrt searchsorted segmented_mm sigmoid
        sign signedinteger sin sinh slice slice_update softmax sort split sqrt square squeeze stack std stop_gradient
        stream subtract sum swapaxes synchronize take take_along_axis tan tanh tensordot tile to_fp8 topk trace
        transpose tri tril triu trunc uint16 uint32 uint64 uint8 unflatten unique unsignedinteger unstack
        value_and_grad var vecdot view vjp vmap where zeros zeros_like
    """,
    "mlx.core.cuda": "is_available",
    "mlx.core.fast": """
        cross_entropy cuda_kernel gated_delta_update layer_norm metal_kernel rms_norm rope
        scaled_dot_product_attention
    """,
    "mlx.core.fft": """
        fft fft2 fftfreq fftn fftshift ifft ifft2 ifftn ifftshift irfft irfft2 irfftn istft rfft rfft2 rfftfreq rfftn
        stft
    """,
    "mlx.core.linalg": """
        cholesky cholesky_inv cross det eig eigh eigvals eigvalsh inv lu lu_factor norm pinv qr slogdet solve
        solve_triangular svd tri_inv
    """,
    "mlx.core.metal": "device_info is_available",
    "mlx.core.random": """
        bernoulli categorical gumbel key laplace multivariate_normal normal permutation randint seed split state
        truncated_normal uniform
    """,
    "mlx.nn": _NN + "value_and_grad",
    "mlx.nn.init": """
        constant glorot_normal glorot_uniform he_normal he_uniform identity normal orthogonal sparse uniform
    """,
    "mlx.nn.layers": _NN,
    "mlx.nn.losses": """
        binary_cross_entropy cosine_similarity_loss cross_entropy gaussian_nll_loss hinge_loss huber_loss kl_div_loss
        l1_loss log_cosh_loss margin_ranking_loss mse_loss nll_loss smooth_l1_loss triplet_loss
    """,
    "mlx.nn.utils": "checkpoint value_and_grad",
    "mlx.optimizers": """
        AdaDelta Adafactor Adagrad Adam AdamW Adamax Lion MultiOptimizer Muon Optimizer RMSprop SGD clip_grad_norm
        cosine_decay exponential_decay join_schedules linear_schedule step_decay
    """,
    "mlx.utils": f"{_TREES} tree_map_with_path tree_merge",
    "numpy": """
        False_ True_ abs absolute acos acosh add all allclose amax amin angle any append apply_along_axis
        apply_over_axes arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argpartition argsort
        argwhere around array array2string array_equal array_equiv array_split asanyarray asarray ascontiguousarray
        asfortranarray asin asinh astype atan atan2 atanh atleast_1d atleast_2d atleast_3d average bartlett base_repr
        binary_repr bincount bitwise_and bitwise_count bitwise_invert bitwise_left_shift bitwise_not bitwise_or
        bitwise_right_shift bitwise_xor blackman block bool bool_ broadcast broadcast_arrays broadcast_shapes
        broadcast_to can_cast cbrt ceil choose clip column_stack common_type complex128 complex64 complexfloating
        compress concat concatenate conj conjugate convolve copy copysign copyto corrcoef correlate cos cosh
        count_nonzero cov cross cumprod cumsum deg2rad degrees delete diag diag_indices diag_indices_from diagflat
        diagonal diff digitize divide divmod dot double dsplit dstack dtype e ediff1d einsum einsum_path empty
        empty_like equal errstate euler_gamma exp exp2 expand_dims expm1 extract eye fabs fill_diagonal finfo
        flatnonzero flip fliplr flipud float16 float32 float64 float_power floating floor floor_divide fmax fmin fmod
        format_float_positional format_float_scientific frexp from_dlpack frombuffer fromfunction fromiter frompyfunc
        fromstring full full_like gcd generic geomspace gradient greater greater_equal half hamming hanning heaviside
        histogram histogram2d histogram_bin_edges histogramdd hsplit hstack hypot i0 identity iinfo imag index_exp
        indices inexact inf inner insert int16 int32 int64 int8 int_ intc integer interp intersect1d intp invert
        isclose iscomplex iscomplexobj isdtype isfinite isin isinf isnan isneginf isposinf isreal isrealobj isscalar
        issubdtype iterable ix_ kaiser kron lcm ldexp left_shift less less_equal lexsort linspace log log10 log1p log2
        logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logspace mask_indices matmul
        matrix_transpose max maximum may_share_memory mean median meshgrid mgrid min min_scalar_type minimum mod modf
        moveaxis multiply nan nan_to_num nanargmax nanargmin nancumprod nancumsum nanmax nanmean nanmedian nanmin
        nanpercentile nanprod nanquantile nanstd nansum nanvar ndarray ndenumerate ndim ndindex nditer negative
        newaxis nextafter nonzero not_equal number ogrid ones ones_like outer packbits pad partition percentile
        permute_dims pi piecewise place poly1d polyadd polyder polydiv polyfit polyint polymul polysub polyval
        positive pow power printoptions prod promote_types ptp put put_along_axis putmask quantile rad2deg radians
        ravel ravel_multi_index real real_if_close reciprocal remainder repeat require reshape resize result_type
        right_shift rint roll rollaxis roots rot90 round s_ searchsorted select setdiff1d setxor1d shape shares_memory
        sign signbit signedinteger sin sinc single sinh size sort spacing split sqrt square squeeze stack std subtract
        sum swapaxes take take_along_axis tan tanh tensordot tile trace transpose trapezoid tri tril tril_indices
        tril_indices_from trim_zeros triu triu_indices triu_indices_from true_divide trunc ufunc uint uint16 uint32
        uint64 uint8 union1d unique unique_counts unique_inverse unique_values unpackbits unravel_index
        unsignedinteger unwrap vander var vdot vecdot vectorize vsplit vstack where zeros zeros_like
    """,
    "numpy.fft": """
        fft fft2 fftfreq fftn fftshift hfft ifft ifft2 ifftn ifftshift ihfft irfft irfft2 irfftn rfft rfft2 rfftfreq
        rfftn
    """,
    "numpy.linalg": """
        LinAlgError cholesky cond cross det diagonal eig eigh eigvals eigvalsh inv lstsq matmul matrix_norm
        matrix_power matrix_rank matrix_transpose multi_dot norm outer pinv qr slogdet solve svd svdvals tensordot
        tensorinv tensorsolve trace vecdot vector_norm
    """,
    "numpy.random": """
        Generator MT19937 PCG64 PCG64DXSM Philox RandomState SFC64 SeedSequence beta binomial choice default_rng
        exponential gamma geometric gumbel laplace logistic lognormal multinomial multivariate_normal normal
        permutation poisson rand randint randn random seed shuffle standard_normal triangular uniform
    """,
    "numpy.typing": "ArrayLike DTypeLike NDArray",
}
MODULES = {module: frozenset(names.split()) for module, names in _LISTS.items()}

# The names under which a module may be had, in every file the same: an attribute so called may be a module.
BOUND = {name: name for name in MODULES if "." not in name and name not in ("__future__", "numpy", "types")}
BOUND |= {"np": "numpy", "npt": "numpy.typing", "mx": "mlx.core", "nn": "mlx.nn", "optim": "mlx.optimizers"}

TRUSTED = {  # what a recipe may take from code of this package that it cannot change
    "config.gpt": {"GPTConfig", "WindowPattern"},
    "config.recipe_section": {"read_settings"},
    "config.settings": {"OptimizerConfig", "RecipeConfig", "TrainConfig"},
    "errors": {"RunFailed", "UserError"},
    "kernels.launch": {"launch"},
    "kernels.operation": {
        "Implementation",
        "Language",
        "Operation",
        "UnfitKernel",
        "measuring",
        "random_like",
        "resolved",
    },
    "machine.device": {"cpu_compiler_available", "default_compute_dtype", "is_gpu", "kernel_backend"},
    "machine.resident": {"constant", "resident"},
    "simulator.arrays": {"dtype_name"},
    "simulator.signature": {"SMALL"},
}

_BUILTINS = """
    " abs aiter all anext any ascii bin bool bytearray bytes callable chr classmethod complex dict divmod enumerate
    filter float format frozenset getattr hasattr hash hex id int isinstance issubclass iter len list map max min
    next object oct ord pow print property range repr reversed round set setattr slice sorted staticmethod str sum
    super tuple type zip False True None Ellipsis NotImplemented
"""
_OF_SITE = {"copyright", "credits", "exit", "help", "license", "quit"}  # these are no builtins under `python -S`
_EXCEPTIONS = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException) and not name.startswith("_")
}
_REFUSED = {*dir(builtins), *_OF_SITE, "builtins", "importlib", "os", "subprocess", "sys"}
REFUSED_BUILTINS = {name for name in _REFUSED if not name.startswith("_")} - set(_BUILTINS.split()) - _EXCEPTIONS

_REFUSED_ATTRIBUTES = """
    ag_await ag_code ag_frame cr_await cr_code cr_frame cr_origin f_back f_builtins f_code f_globals f_locals gi_code
    gi_frame gi_yieldfrom mro obj tb_frame tb_next

    ForwardRef _evaluate attrgetter evaluate_forward_ref format_map get_type_hints methodcaller model_rebuild
    update_forward_refs

    _convert_ bltns builtins cffi ctypes ctypeslib f2py importlib os subprocess sys

    DataSource dump dumps export_function export_to_dot exporter fromfile fromregex genfromtxt import_function lib
    load_weights loadtxt memmap open open_memmap parse_file parse_raw save save_gguf save_safetensors save_weights
    savetxt savez savez_compressed start_capture tofile
"""
REFUSED_ATTRIBUTES = frozenset(_REFUSED_ATTRIBUTES.split())

_OPERATORS = """
    abs add and bool ceil contains delitem divmod enter eq exit float floor floordiv ge getitem gt hash iadd iand
    ifloordiv ilshift imatmul imod imul index int invert ior ipow irshift isub iter itruediv ixor le len length_hint
    lshift lt matmul missing mod mul ne neg next or pos pow radd rand rdivmod repr reversed rfloordiv rlshift rmatmul
    rmod rmul ror round rpow rrshift rshift rsub rtruediv rxor setitem str sub truediv trunc xor
"""
# Read, defined in a class, or bound as a name.
DUNDERS = {f"__{name}__" for name in [*_OPERATORS.split(), "call", "init", "init_subclass", "new", "post_init"]}
READ = DUNDERS | {"__all__", "__doc__", "__file__", "__name__", "__version__"}
_HOOKS = "class_getitem copy deepcopy delete format get set set_name setattr"
DEFINED = DUNDERS | {f"__{name}__" for name in _HOOKS.split()}
NAMES = DEFINED | {"__all__", "__debug__", "__doc__", "__file__", "__name__", "__slots__", "__version__"}


def is_dunder(name: str) -> bool:
    """Whether a name is one of Python's own."""
    return name.startswith("__") and name.endswith("__")


def reaches_out(attribute: str) -> bool:
    """Whether an attribute must not be read, of whatever object: one called like a module may be that module."""
    return attribute in REFUSED_ATTRIBUTES or attribute in BOUND or (is_dunder(attribute) and attribute not in READ)
