"""Standard and depthwise convolution.

Kernel entry (i, j) meets the pixel ``stride k - top + dilation i`` in output row k (columns likewise). What it
multiplies on the way forward, it multiplies on the way back: ``dx`` adds ``w[i, j] dy`` to that pixel, and
``dw[i, j]`` sums ``dy`` times that pixel.
"""

import numpy as np

from npnets.gradcheck.catalogue import KnownOp, mistake, register
from npnets.gradcheck.classic.windows import ONE_PIXEL_OFF, add_back, overwrite, shifted, windows
from npnets.shapes import geometry, resolve_padding, span

BOTH = "conv2d depthwise_conv2d"


def window_of(case):
    """Return the resolved geometry of a case."""
    settings = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation}
    return geometry(case.x.shape[1:3], case.w.shape[:2], **settings, name=case.op)


def handed_back(case, w=None):
    """Return ``w[i, j] dy``, what every kernel entry hands back: shape (K_h, K_w, N, H_out, W_out, C_in)."""
    subscripts = "ijmn,zkln->ijzklm" if case.op == "conv2d" else "ijm,zklm->ijzklm"
    return np.einsum(subscripts, case.w if w is None else w, case.dy)


def input_gradient(case, w=None, geo=None):
    """Return dx, for another kernel or geometry if they are given."""
    return add_back(handed_back(case, w), case.x.shape[1:3], window_of(case) if geo is None else geo)


def weight_gradient(case, geo=None):
    """Return dw, for another geometry if it is given."""
    met = windows(case.x, window_of(case) if geo is None else geo)
    return np.einsum("ijzklm,zkln->ijmn" if case.op == "conv2d" else "ijzklm,zklm->ijm", met, case.dy)


def bias_gradient(case):
    """Return db: a bias is added at every pixel of every image, so all of them are summed."""
    return None if case.b is None else case.dy.sum(axis=(0, 1, 2))


def right(case):
    """The right gradients of both convolutions."""
    return {"dx": input_gradient(case), "dw": weight_gradient(case), "db": bias_gradient(case)}


def both_gradients(case, geo):
    """Return dx and dw as another geometry gives them."""
    return {"dx": input_gradient(case, geo=geo), "dw": weight_gradient(case, geo)}


def symmetric_geometry(case):
    """Return the geometry with span // 2 pixels of padding on every side."""
    geo = window_of(case)
    return geo._replace(pads=tuple((span(k, d) // 2,) * 2 for k, d in zip(geo.kernel, geo.dilation)))


@mistake(
    BOTH,
    "kernel not flipped",
    "the kernel is not flipped for the input gradient",
    "Entry i meets pixel k + i at output k, so pixel p is met by entry i at output p - i: the order is reversed. "
    "Writing dx as a convolution of dy takes the kernel flipped along both spatial axes, w[::-1, ::-1].",
)
def kernel_not_flipped(case):
    """As a convolution of dy with w instead of w[::-1, ::-1]."""
    return {"dx": input_gradient(case, case.w[::-1, ::-1])}


@mistake(
    BOTH,
    "weight gradient flipped",
    "the weight gradient is flipped along its spatial axes",
    "The forward is a cross-correlation, so dw[i, j] belongs to the entry that met pixel (k + i, l + j). Only dx needs "
    "a flip.",
)
def weight_gradient_flipped(case):
    """dw in the orientation of a true convolution."""
    return {"dw": weight_gradient(case)[::-1, ::-1]}


@mistake(
    BOTH,
    "kernel height and width swapped",
    "the kernel's height and width are swapped",
    "w is (K_h, K_w, ...): the first index moves down, the second to the right. A kernel with K_h = K_w hides a swap "
    "from the shapes.",
)
def kernel_transposed(case):
    """The two spatial axes of the kernel taken for one another."""
    if case.w.shape[0] != case.w.shape[1]:
        return {}
    return {"dx": input_gradient(case, case.w.swapaxes(0, 1)), "dw": weight_gradient(case).swapaxes(0, 1)}


@mistake(
    "conv2d",
    "input and output channels swapped",
    "the kernel's input and output channels are swapped",
    "dx needs w[i, j].T: dy has C_out channels, dx has C_in. With C_in = C_out the shapes agree by luck.",
)
def channels_swapped(case):
    """dy @ w[i, j] instead of dy @ w[i, j].T, and dw the wrong way round."""
    if case.w.shape[2] != case.w.shape[3]:
        return {}
    return {"dx": input_gradient(case, case.w.swapaxes(2, 3)), "dw": weight_gradient(case).swapaxes(2, 3)}


@mistake(
    BOTH,
    "padding off by one",
    "the padding is off by one pixel",
    "Output k starts at pixel stride * k - top. Check the slice that cuts the padding off again: "
    "[top : top + H], [left : left + W].",
)
def padding_off_by_one(case):
    """One pixel more or less at the top, on the left, or both."""
    return [both_gradients(case, shifted(window_of(case), *step)) for step in ONE_PIXEL_OFF]


@mistake(
    BOTH,
    "padding ignored",
    "the padding is ignored at the top and on the left (for dx: the slice that cuts it off starts at 0)",
    "The window of output k starts at pixel stride * k - top; the image lies at [top : top + H], [left : left + W] of "
    "the padded gradient.",
)
def padding_ignored(case):
    """dx = padded[:, :H, :W], and dw with windows that start in the image."""
    return both_gradients(case, window_of(case)._replace(pads=((0, 0), (0, 0))))


@mistake(
    BOTH,
    "padding always K // 2",
    "the padding is taken as K // 2 on every side, whatever was set",
    "Use the padding that the forward used: put it, or the resolved geometry, into the cache.",
)
def always_symmetric(case):
    """span // 2 for any padding."""
    return both_gradients(case, symmetric_geometry(case))


@mistake(
    BOTH,
    "padding not cut off",
    "the gradient of the padded image is returned, padding included",
    "dx has the shape of x: cut the padding off, [top : top + H], [left : left + W].",
)
def padding_kept(case):
    """dx still as large as the padded image."""
    geo = window_of(case)
    if not any(map(any, geo.pads)):
        return {}
    padded = tuple(n + sum(pads) for n, pads in zip(case.x.shape[1:3], geo.pads))
    return {"dx": add_back(handed_back(case), padded, geo._replace(pads=((0, 0), (0, 0))))}


@mistake(
    BOTH,
    "SAME taken as symmetric",
    "SAME padding is taken as symmetric",
    "SAME of TensorFlow puts the odd pixel at the bottom and on the right: 224 pixels, kernel 3, stride 2 are padded "
    "by (0, 1), not (1, 1). Use npnets.shapes.same_padding.",
)
def same_as_symmetric(case):
    """span // 2 on every side instead of SAME."""
    return both_gradients(case, symmetric_geometry(case)) if case.padding == "same" else {}


@mistake(
    BOTH,
    "symmetric taken as SAME",
    "symmetric padding is taken as TensorFlow's SAME",
    "Symmetric padding puts span // 2 pixels on every side, whatever the stride.",
)
def symmetric_as_same(case):
    """The reverse of the mistake above."""
    geo = window_of(case)
    same = resolve_padding("same", case.x.shape[1:3], geo.kernel, geo.stride, geo.dilation)
    return both_gradients(case, geo._replace(pads=same)) if case.padding == "symmetric" else {}


@mistake(
    BOTH,
    "stride ignored",
    "the stride is ignored in the backward",
    "Output k belongs to the window that starts at stride * k - top, in the backward as in the forward.",
)
def stride_ignored(case):
    """The windows of the outputs lie next to one another."""
    return both_gradients(case, window_of(case)._replace(stride=(1, 1)))


@mistake(
    BOTH,
    "dilation ignored",
    "the dilation is ignored in the backward",
    "Kernel entry i meets the pixel dilation * i further on.",
)
def dilation_ignored(case):
    """The kernel's entries lie next to one another."""
    return both_gradients(case, window_of(case)._replace(dilation=(1, 1)))


@mistake(
    BOTH,
    "overlapping windows overwritten",
    "overlapping windows overwrite one another: dx[...] = where it should be +=",
    "A pixel that lies in several windows collects a gradient from each of them.",
)
def overwritten(case):
    """``=`` for ``+=``, in a loop over outputs or over kernel entries."""
    parts, size, geo = handed_back(case), case.x.shape[1:3], window_of(case)
    return [{"dx": overwrite(parts, size, geo, window_by_window=order)} for order in (True, False)]


@mistake(
    "depthwise_conv2d",
    "channels mixed",
    "the channels are summed, as in a standard convolution",
    "A depthwise convolution keeps the channels apart: channel m of dx and dw depends on channel m of dy alone. Look "
    "for an index missing from the output of an einsum, or a @ that should be *.",
)
def channels_mixed(case):
    """dx, or dw, sums over the channels of dy."""
    mixed = handed_back(case)
    mixed[...] = mixed.sum(axis=-1, keepdims=True)
    met = windows(case.x, window_of(case))
    dw = np.einsum("ijzklm,zkln->ijm", met, case.dy)
    return {"dx": add_back(mixed, case.x.shape[1:3], window_of(case)), "dw": dw}


@mistake(
    "depthwise_conv2d",
    "one kernel for all channels",
    "the kernel of the first channel is used for all channels",
    "w[i, j] is a vector, one weight for each channel.",
)
def first_kernel_for_all(case):
    """w[..., 0] instead of w."""
    return {"dx": input_gradient(case, np.broadcast_to(case.w[..., :1], case.w.shape))}


def _samples(*kernel_channels):
    def samples(rng):
        normal = rng.standard_normal
        rows = [  # image, kernel, channels of x and w, settings
            ((3, 8, 7), (3, 2), 0, {"padding": ((2, 1), (1, 0))}),
            ((2, 6, 7), (3, 3), 1, {"padding": "same"}),
            ((2, 8, 10), (3, 3), 0, {"padding": "same", "stride": 2}),
            ((2, 9, 12), (3, 4), 0, {"padding": 2, "stride": (2, 3), "dilation": (2, 1)}),
            ((2, 8, 10), (5, 3), 0, {"padding": "symmetric", "stride": 2}),
        ]
        cases = []
        for image, kernel, square, settings in rows:
            channels = kernel_channels[square]
            inputs = normal((*image, channels[0])), normal((*kernel, *channels)), normal(channels[-1])
            cases.append((inputs, settings))
        return cases

    return samples


SETTINGS = {"b": None, "stride": 1, "padding": "same", "dilation": 1}
for _name, _channels in (("conv2d", ((3, 4), (3, 3))), ("depthwise_conv2d", ((3,), (4,)))):
    register(KnownOp(_name, ("x", "w", "b"), ("dx", "dw", "db"), right, _samples(*_channels), SETTINGS))
