// y = clamp(gain * lrelu(x + b)) and its derivative, per element and per thread.
#pragma once

#include "common.h"

namespace rtil {

// Clamp below zero means none.
template <typename S> struct Act {
    S slope, gain, clamp;
};

template <typename S> RTIL_FN S act_value(S v, const Act<S>& a) {
    v = (v > S(0) ? v : v * a.slope) * a.gain;
    if (a.clamp >= S(0)) v = v < -a.clamp ? -a.clamp : (v > a.clamp ? a.clamp : v);  // NaN stays
    return v;
}

// dy/dx from y alone: gain > 0 and slope >= 0 make sign(y) = sign(x + b) wherever it matters.
template <typename S> RTIL_FN S act_slope(S y, const Act<S>& a) {
    if (a.clamp >= S(0) && !(y > -a.clamp && y < a.clamp)) return S(0);
    return y > S(0) ? a.gain : a.gain * a.slope;
}

// x, y, out hold n numbers in one memory order; the bias index of number i is (i / inner) % count.
// With y null, out = clamp(gain * lrelu(x + b)); else out = (x + b) * dy/dx(y), which is the
// gradient for b null and the gradient of the gradient for b = the second gradient of the bias.
template <typename T> struct BiasAct {
    const T *x, *b, *y;
    T* out;
    int64_t n, inner, count;
    Act<typename Wide<T>::type> act;
};

template <typename T> RTIL_FN T bias_act_one(const BiasAct<T>& p, T x, int64_t c, T y) {
    using S = typename Wide<T>::type;
    S v = widen(x);
    if (p.b) v += widen(p.b[c]);
    return narrow<T>(p.y ? v * act_slope<S>(widen(y), p.act) : act_value<S>(v, p.act));
}

// Where number i sits on the bias axis, and how to step to number i + 1 without a division.
template <typename Index> struct Place {
    Index rest, channel;
    template <typename T> RTIL_FN Place(Index i, const BiasAct<T>& p) : rest(0), channel(0) {
        if (p.b) {
            const Index row = i / Index(p.inner);
            rest = i - row * Index(p.inner);
            channel = row % Index(p.count);
        }
    }
    template <typename T> RTIL_FN void step(const BiasAct<T>& p) {
        if (++rest == Index(p.inner)) {
            rest = 0;
            if (++channel == Index(p.count)) channel = 0;
        }
    }
};

// Everything one of `threads` threads does: chunks of 16 bytes, grid-stride, scalar where a chunk
// is cut by the end or a pointer is not aligned.
template <typename T, typename Index>
RTIL_FN void bias_act_thread(const BiasAct<T>& p, int64_t thread, int64_t threads) {
    constexpr int size = Pack<T>::size;
    const bool wide = aligned16(p.x) && aligned16(p.out) && (!p.y || aligned16(p.y));
    for (int64_t i = thread * size; i < p.n; i += threads * size) {
        Place<Index> at(Index(i), p);
        if (wide && i + size <= p.n) {
            Pack<T> x = load16(p.x + i), y = x;
            if (p.y) y = load16(p.y + i);
            RTIL_UNROLL for (int k = 0; k < size; ++k, at.step(p))
                x.v[k] = bias_act_one(p, x.v[k], at.channel, y.v[k]);
            store16(p.out + i, x);
        } else {
            for (int64_t k = i; k < i + size && k < p.n; ++k, at.step(p))
                p.out[k] = bias_act_one(p, p.x[k], at.channel, p.y ? p.y[k] : p.x[k]);
        }
    }
}

}  // namespace rtil
