// Index arithmetic of upfirdn2d along one axis, and the general kernel's per-element function.
#pragma once

#include "common.h"

namespace rtil {

// One axis: y[o] = sum_m w[m] * z[o * down - before + m], m = 0..taps-1, where z is x with up - 1
// zeros after each sample, z[i * up] = x[i], and zero elsewhere. w is f reversed (convolution) or
// f itself (flip, correlation).
struct Axis {
    int in, out, taps, up, down, before, flip;
};

// The samples i = first..last under the window of output o, and the window position m of the
// first; the next sample is `up` positions on. last < first when the window holds none.
struct Span {
    int first, last, m;
};

RTIL_FN Span span(const Axis& a, int o) {
    const int base = o * a.down - a.before;
    const int first = larger(0, ceil_div(base, a.up));
    const int last = smaller(a.in - 1, floor_div(base + a.taps - 1, a.up));
    return {first, last, first * a.up - base};
}

// Index into f of window position m.
RTIL_FN int tap(const Axis& a, int m) { return a.flip ? m : a.taps - 1 - m; }

// x is addressed by strides; out is dense, channels innermost or not. f is (taps,) for both axes
// or (y.taps, x.taps), of the wide type.
template <typename T> struct Upfirdn {
    const T* x;
    const typename Wide<T>::type* f;
    T* out;
    int batch, channels, separable, last;  // last: channels innermost in out
    Axis y, x_axis;
    int64_t stride_b, stride_c, stride_y, stride_x;
    typename Wide<T>::type gain;
};

// s: batch, channels, separable, last, flip; per axis (y, then x) in, out, taps, up, down, before;
// strides of x in numbers: batch, channel, row, column.
template <typename T>
inline Upfirdn<T> unpack(const void* x, const void* f, void* out, const int64_t* s, double gain) {
    using S = typename Wide<T>::type;
    const auto axis = [flip = int(s[4])](const int64_t* a) {
        return Axis{int(a[0]), int(a[1]), int(a[2]), int(a[3]), int(a[4]), int(a[5]), flip};
    };
    return {static_cast<const T*>(x), static_cast<const S*>(f), static_cast<T*>(out),
            int(s[0]), int(s[1]), int(s[2]), int(s[3]), axis(s + 5), axis(s + 11),
            s[17], s[18], s[19], s[20], S(gain)};
}

// Computes the output at position i of out's memory.
template <typename T, typename Index> RTIL_FN void upfirdn_one(const Upfirdn<T>& p, int64_t i) {
    using S = typename Wide<T>::type;
    Index rest = Index(i);
    int b, c, oy, ox;
    const auto next = [&rest](int size) {
        const Index q = rest / Index(size);
        const int r = int(rest - q * Index(size));
        rest = q;
        return r;
    };
    if (p.last) {
        c = next(p.channels), ox = next(p.x_axis.out), oy = next(p.y.out), b = int(rest);
    } else {
        ox = next(p.x_axis.out), oy = next(p.y.out), c = next(p.channels), b = int(rest);
    }
    const Span sy = span(p.y, oy), sx = span(p.x_axis, ox);
    const T* plane = p.x + b * p.stride_b + c * p.stride_c;
    S total = S(0);
    for (int iy = sy.first, my = sy.m; iy <= sy.last; ++iy, my += p.y.up) {
        const T* row = plane + iy * p.stride_y;
        const int ky = tap(p.y, my);
        const S* f = p.separable ? p.f : p.f + int64_t(ky) * p.x_axis.taps;
        S sum = S(0);
        for (int ix = sx.first, mx = sx.m; ix <= sx.last; ++ix, mx += p.x_axis.up)
            sum += f[tap(p.x_axis, mx)] * widen(row[ix * p.stride_x]);
        total += p.separable ? p.f[ky] * sum : sum;
    }
    p.out[i] = narrow<T>(total * p.gain);
}

template <typename T, typename Index>
RTIL_FN void upfirdn_thread(const Upfirdn<T>& p, int64_t thread, int64_t threads) {
    const int64_t n = int64_t(p.batch) * p.channels * p.y.out * p.x_axis.out;
    for (int64_t i = thread; i < n; i += threads) upfirdn_one<T, Index>(p, i);
}

}  // namespace rtil
