// Tiled upfirdn2d for 4 separable taps and up 2, down 2 or neither: the three phases of a block.
// A block copies the input under its output tile to shared memory, filters the columns into a
// second buffer, then the rows, and stores. Between phases all threads meet at a barrier; the host
// tests run the same phases thread by thread, and the same block in threads of the system.
#pragma once

#include "upfirdn2d.h"

namespace rtil {

constexpr int TAPS = 4;

// Inputs under a run of `outputs` outputs that starts at window phase 0.
RTIL_FN constexpr int inputs_under(int up, int down, int outputs) {
    return (TAPS - 1 + (outputs - 1) * down) / up + 1;
}

// Filters one run in registers: output j sums w[up * i + phase - j * down] * v[i]. Phase is the
// distance from the window's start to its first sample.
template <int UP, int DOWN, int RUN, int PHASE>
RTIL_FN void filter_run(const float* w, const float* v, float* y) {
    RTIL_UNROLL for (int j = 0; j < RUN; ++j) {
        y[j] = 0.0f;
        RTIL_UNROLL for (int i = 0; i < inputs_under(UP, DOWN, RUN); ++i) {
            const int m = UP * i + PHASE - j * DOWN;
            if (m >= 0 && m < TAPS) y[j] += w[m] * v[i];
        }
    }
}

// Where the window of output o starts: first sample at or after it, and the phase.
template <int UP> struct Start {
    int first, phase;
    RTIL_FN Start(const Axis& a, int o) {
        const int base = o * a.down - a.before;
        first = ceil_div(base, UP);
        phase = first * UP - base;
    }
};

// LAST: channels innermost, a tile holds CHANNELS of them; otherwise a tile is one channel.
template <typename T, int UP, int DOWN, bool LAST> struct Tile {
    static constexpr int size = Pack<T>::size;  // numbers in one access
    static constexpr int channels = LAST ? 16 : 1;
    static constexpr int height = LAST ? (UP == 2 ? 16 : 8) : (DOWN == 2 ? 16 : 32);
    static constexpr int width = LAST ? (DOWN == 2 ? 8 : 16) : 64;
    static constexpr int run = 4;  // rows a thread filters at once; even, so all runs share a phase
    static constexpr int rows = inputs_under(UP, DOWN, height);
    static constexpr int columns = inputs_under(UP, DOWN, width);
    // Without channels innermost the copy begins at a multiple of `size`, so that whole accesses
    // are inside or outside the image; `shift` columns before the first one needed.
    static constexpr int in_width = LAST ? columns * channels : round_up(columns + size - 1, size);
    static constexpr int mid_width = round_up(columns * channels, 4);

    alignas(16) float in[rows * in_width];
    alignas(16) float mid[height * mid_width];

    struct At {
        int b, c, oy, ox;
    };

    static RTIL_FN int64_t tiles(const Upfirdn<T>& p) {
        return int64_t(p.batch) * ceil_div(p.channels, channels) * ceil_div(p.y.out, height)
               * ceil_div(p.x_axis.out, width);
    }

    static RTIL_FN At at(const Upfirdn<T>& p, int64_t tile) {
        const int across = ceil_div(p.x_axis.out, width), down = ceil_div(p.y.out, height);
        const int chunks = ceil_div(p.channels, channels);
        const auto next = [&tile](int count) {
            const int64_t q = tile / count;
            const int r = int(tile - q * count);
            tile = q;
            return r;
        };
        At a;
        // Neighbours in memory go to neighbouring blocks.
        if (LAST) a.c = next(chunks) * channels;
        a.ox = next(across) * width, a.oy = next(down) * height;
        if (!LAST) a.c = next(chunks);
        a.b = int(tile);
        return a;
    }

    static RTIL_FN int origin(int first) { return LAST ? first : floor_div(first, size) * size; }

    // Phase 1: global to shared memory, zeros outside the image.
    RTIL_FN void load(const Upfirdn<T>& p, const At& a, int thread, int threads, bool wide) {
        const int iy0 = Start<UP>(p.y, a.oy).first;
        const int ix0 = origin(Start<UP>(p.x_axis, a.ox).first);
        const T* base = p.x + a.b * p.stride_b + a.c * p.stride_c;
        constexpr int units = in_width / size;
        for (int k = thread; k < rows * units; k += threads) {
            const int row = k / units, q = (k - row * units) * size;
            const int iy = iy0 + row, ix = ix0 + (LAST ? q / channels : q);
            const int c = LAST ? q % channels : 0;
            float* to = in + row * in_width + q;
            const bool inside = iy >= 0 && iy < p.y.in;
            const T* from = base + iy * p.stride_y + ix * p.stride_x + (LAST ? c : 0);
            const bool whole = wide && ix >= 0 && ix < p.x_axis.in && a.c + c < p.channels;
            if (inside && whole) {
                widen_to(load16(from), to);
            } else {
                for (int j = 0; j < size; ++j) {
                    const bool there = LAST ? ix >= 0 && ix < p.x_axis.in && a.c + c + j < p.channels
                                            : ix + j >= 0 && ix + j < p.x_axis.in;
                    to[j] = inside && there ? widen(from[LAST ? j : j * p.stride_x]) : 0.0f;
                }
            }
        }
    }

    // 16-byte stores: single ones would meet in the same banks, their lanes being `size` apart.
    static RTIL_FN void widen_to(const Pack<T>& from, float* to) {
        Pack<float> four;
        for (int j = 0; j < size; j += 4) {
            for (int l = 0; l < 4; ++l) four.v[l] = widen(from.v[j + l]);
            store16(to + j, four);
        }
    }

    // Phase 2: columns. A thread takes `run` rows at one place of the row.
    RTIL_FN void vertical(const Upfirdn<T>& p, const At& a, int thread, int threads) {
        const Start<UP> y(p.y, a.oy), x(p.x_axis, a.ox);
        const int shift = (x.first - origin(x.first)) * channels;
        constexpr int count = inputs_under(UP, DOWN, run), across = columns * channels;
        float w[TAPS], v[count], out[run];
        for (int m = 0; m < TAPS; ++m) w[m] = p.gain * p.f[tap(p.y, m)];
        for (int k = thread; k < height / run * across; k += threads) {
            const int block = k / across, q = k - block * across;
            const float* from = in + block * (run * DOWN / UP) * in_width + q + shift;
            for (int i = 0; i < count; ++i) v[i] = from[i * in_width];
            if (UP == 1 || y.phase == 0) filter_run<UP, DOWN, run, 0>(w, v, out);
            else filter_run<UP, DOWN, run, UP - 1>(w, v, out);
            for (int j = 0; j < run; ++j) mid[(block * run + j) * mid_width + q] = out[j];
        }
    }

    // Phase 3: rows, and one access of `size` numbers to global memory where they fit.
    RTIL_FN void horizontal(const Upfirdn<T>& p, const At& a, int thread, int threads, bool wide) {
        constexpr int along = LAST ? 4 : size;  // outputs along x a thread filters
        constexpr int deep = LAST ? size : 1;   // channels it does so for
        constexpr int lanes = LAST ? 4 : 1;     // of them at once
        constexpr int count = inputs_under(UP, DOWN, along);
        constexpr int chunks = channels / deep, units = width / along * chunks;
        const int phase = Start<UP>(p.x_axis, a.ox).phase;
        float w[TAPS], v[lanes][round_up(count, 4)], y[along], out[along * deep];
        for (int m = 0; m < TAPS; ++m) w[m] = p.f[tap(p.x_axis, m)];
        for (int k = thread; k < height * units; k += threads) {
            const int row = k / units, unit = k - row * units;
            const int tx = unit / chunks * along, c = unit % chunks * deep;
            const float* from = mid + row * mid_width + tx * DOWN / UP * channels + c;
            const int oy = a.oy + row;
            if (oy >= p.y.out) break;  // rows only grow
            RTIL_UNROLL for (int d = 0; d < deep; d += lanes) {
                read(from + d, v);
                RTIL_UNROLL for (int l = 0; l < lanes; ++l) {
                    if (UP == 1 || phase == 0) filter_run<UP, DOWN, along, 0>(w, v[l], y);
                    else filter_run<UP, DOWN, along, UP - 1>(w, v[l], y);
                    RTIL_UNROLL for (int j = 0; j < along; ++j) out[j * deep + d + l] = y[j];
                }
            }
            store(p, a, oy, a.ox + tx, a.c + c, out, wide);
        }
    }

    // Fills v[lane][column], by 16 bytes where the address allows it.
    template <int LANES, int COUNT>
    static RTIL_FN void read(const float* from, float (&v)[LANES][COUNT]) {
        if constexpr (LAST) {
            constexpr int count = inputs_under(UP, DOWN, 4);
            RTIL_UNROLL for (int i = 0; i < count; ++i) {
                const Pack<float> four = load16(from + i * channels);
                for (int l = 0; l < 4; ++l) v[l][i] = four.v[l];
            }
        } else if constexpr (size * DOWN / UP % 4 == 0) {
            RTIL_UNROLL for (int i = 0; i < COUNT; i += 4) {
                const Pack<float> four = load16(from + i);
                for (int l = 0; l < 4; ++l) v[0][i + l] = four.v[l];
            }
        } else {
            for (int i = 0; i < inputs_under(UP, DOWN, size); ++i) v[0][i] = from[i];
        }
    }

    static RTIL_FN void store(const Upfirdn<T>& p, const At& a, int oy, int ox, int c,
                              const float* v, bool wide) {
        constexpr int packs = LAST ? 4 : 1;
        RTIL_UNROLL for (int j = 0; j < packs; ++j, ++ox) {
            if (ox >= p.x_axis.out || c >= p.channels) return;
            const int64_t pixel = int64_t(oy) * p.x_axis.out + ox;
            const int64_t plane = int64_t(p.y.out) * p.x_axis.out;
            T* to = p.out + (LAST ? (a.b * plane + pixel) * p.channels + c
                                  : (int64_t(a.b) * p.channels + c) * plane + pixel);
            const int fit = LAST ? p.channels - c : p.x_axis.out - ox;
            Pack<T> pack;
            RTIL_UNROLL for (int s = 0; s < size; ++s) pack.v[s] = narrow<T>(v[j * size + s]);
            if (wide && fit >= size) {
                store16(to, pack);
            } else {
                RTIL_UNROLL for (int s = 0; s < size; ++s)
                    if (s < fit) to[s] = pack.v[s];
            }
        }
    }

    // Whether 16-byte loads (stores) are legal everywhere: aligned rows of whole accesses.
    static RTIL_FN bool wide_load(const Upfirdn<T>& p) {
        const bool dense = (LAST ? p.stride_c : p.stride_x) == 1;
        const int64_t odd = p.stride_b % size | p.stride_y % size
                            | (LAST ? p.stride_x : p.stride_c) % size;
        return dense && odd == 0 && (LAST ? p.channels : p.x_axis.in) % size == 0
               && aligned16(p.x);
    }
    static RTIL_FN bool wide_store(const Upfirdn<T>& p) {
        return (LAST ? p.channels : p.x_axis.out) % size == 0 && aligned16(p.out);
    }
};

// All that one thread of block `block` of `blocks` does; `sync` is the barrier of its block. None is
// needed after the rows: the next load writes `in`, which nobody reads past the second barrier.
template <typename Here, typename T, typename Sync>
RTIL_FN void tile_thread(Here& tile, const Upfirdn<T>& p, bool load, bool store, int64_t block,
                         int64_t blocks, int thread, int threads, Sync sync) {
    for (int64_t i = block, count = Here::tiles(p); i < count; i += blocks) {
        const auto at = Here::at(p, i);
        tile.load(p, at, thread, threads, load);
        sync();
        tile.vertical(p, at, thread, threads);
        sync();
        tile.horizontal(p, at, thread, threads, store);
    }
}

// Whether the tiled kernel computes this case; it wants channels or rows long enough to fill it.
template <typename T> RTIL_FN bool tiled(const Upfirdn<T>& p) {
    const Axis &y = p.y, &x = p.x_axis;
    const bool four = p.separable && y.taps == TAPS && x.taps == TAPS;
    const bool same = y.up == x.up && y.down == x.down;
    const bool known = (y.up == 1 && y.down == 1) || (y.up == 2 && y.down == 1)
                       || (y.up == 1 && y.down == 2);
    const bool large = p.last ? p.channels >= 8 && p.stride_c == 1 && y.out >= 8 && x.out >= 8
                              : y.out >= 16 && x.out >= 32;
    return four && same && known && large;
}

}  // namespace rtil
