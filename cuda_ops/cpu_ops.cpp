// What StyleGAN2 and PGGAN do between their convolutions, for CPUs: one pass over memory each.
// Feature maps are float32 or bfloat16 (T) with channels innermost, (B, H, W, C), so that the inner
// loops run along channels and vectorise; all else, and every sum, is float32, and a bfloat16 is
// rounded once, when it is stored. Sums over pixels are taken in pieces of fixed size and added in
// order: the result depends neither on the number of threads nor on the rest of the batch.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

// The addresses of a kernel for float32 and for bfloat16 maps.
#define RTIL_EXPORT(name)                                                      \
    extern "C" __attribute__((visibility("default"))) void* const rtil_cpu_##name[2] = { \
        reinterpret_cast<void*>(name<float>), reinterpret_cast<void*>(name<Brief>)};

namespace {

constexpr int64_t PIECE = 256;       // pixels of a partial sum
constexpr int64_t WORTH = 1 << 14;   // numbers below which one thread is quicker than two

// A bfloat16: the upper half of a float32.
struct Brief {
    uint16_t bits;
};

inline float wide(float v) { return v; }
inline float wide(Brief v) {
    const uint32_t bits = uint32_t(v.bits) << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}

inline void store(float* to, float v) { *to = v; }
// Rounds to nearest, ties to even; NaN stays NaN.
inline void store(Brief* to, float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to->bits = uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

int64_t pieces(int64_t pixels) { return (pixels + PIECE - 1) / PIECE; }

// partial (B, pieces, C) to sum (B, C), or to (C,) over the batch as well.
void add_up(const float* partial, float* sum, int64_t batch, int64_t count, int64_t C, bool all) {
    std::fill(sum, sum + (all ? 1 : batch) * C, 0.0f);
    for (int64_t t = 0; t < batch * count; ++t) {
        float* to = sum + (all ? 0 : t / count) * C;
        for (int64_t c = 0; c < C; ++c) to[c] += partial[t * C + c];
    }
}

// sum_k w_k from_k[i] for i < size, up to four terms in one pass.
template <typename T> struct Sum {
    const T* from[4];
    float w[4];
    int held = 0;
    bool begun = false;

    void add(float weight, const T* term, float* to, int64_t size) {
        if (held == 4) flush(to, size);
        w[held] = weight, from[held++] = term;
    }
    void finish(float* to, int64_t size) {
        if (held || !begun) flush(to, size);
    }

  private:
    void flush(float* to, int64_t size) {
        const T *a = from[0], *b = from[1], *c = from[2], *d = from[3];
        if (!begun && held < 1) {
            std::fill(to, to + size, 0.0f);
        } else if (held == 4 && !begun) {
#pragma omp simd
            for (int64_t i = 0; i < size; ++i)
                to[i] = w[0] * wide(a[i]) + w[1] * wide(b[i]) + w[2] * wide(c[i]) +
                        w[3] * wide(d[i]);
        } else if (held == 2 && !begun) {
#pragma omp simd
            for (int64_t i = 0; i < size; ++i) to[i] = w[0] * wide(a[i]) + w[1] * wide(b[i]);
        } else {
            if (!begun) std::fill(to, to + size, 0.0f);
            for (int k = 0; k < held; ++k) {
#pragma omp simd
                for (int64_t i = 0; i < size; ++i) to[i] += w[k] * wide(from[k][i]);
            }
        }
        held = 0, begun = true;
    }
};

// y = gain * lrelu(x * d + strength * noise + b). d (B, C), noise (maps, H W) with maps 1 or B, and
// b (C,) may be null.
template <typename T>
void styled(const T* x, const float* d, const float* noise, int64_t maps, float strength,
            const float* b, float slope, float gain, T* y, int64_t batch, int64_t pixels,
            int64_t C) {
    const std::vector<float> ones(d ? 0 : C, 1.0f), zeros(b ? 0 : C, 0.0f);
#pragma omp parallel for schedule(static) if (batch * pixels * C > WORTH)
    for (int64_t p = 0; p < batch * pixels; ++p) {
        const int64_t image = p / pixels;
        const float n = noise ? strength * noise[maps == 1 ? p - image * pixels : p] : 0.0f;
        const float* scale = d ? d + image * C : ones.data();
        const float* shift = b ? b : zeros.data();
        const T* from = x + p * C;
        T* to = y + p * C;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) {
            const float v = wide(from[c]) * scale[c] + n + shift[c];
            store(to + c, (v > 0.0f ? v : v * slope) * gain);
        }
    }
}

// With g = dy * (gain where y > 0, gain * slope elsewhere; 1 for y null):
// dx = g * d, dd = sum over pixels of g * x, dn = sum over channels of g, db = sum over batch and
// pixels of g. Any output may be null, x where dd is, d where it is 1.
template <typename T>
void styled_grad(const T* dy, const T* y, const T* x, const float* d, float slope, float gain,
                 T* dx, float* dd, float* dn, float* db, int64_t batch, int64_t pixels,
                 int64_t C) {
    const int64_t count = pieces(pixels);
    const std::vector<float> ones(d ? 0 : C, 1.0f);
    std::vector<float> for_d(dd ? batch * count * C : 0), for_b(db ? batch * count * C : 0);
    const float low = gain * slope;
#pragma omp parallel for schedule(static) if (batch * pixels * C > WORTH)
    for (int64_t t = 0; t < batch * count; ++t) {
        const int64_t image = t / count, first = t % count * PIECE;
        const int64_t last = std::min(pixels, first + PIECE);
        const float* scale = d ? d + image * C : ones.data();
        float* sum_d = dd ? for_d.data() + t * C : nullptr;
        float* sum_b = db ? for_b.data() + t * C : nullptr;
        std::vector<float> g(C);
        for (int64_t p = image * pixels + first; p < image * pixels + last; ++p) {
            const T* from = dy + p * C;
            if (y) {
                const T* sign = y + p * C;
#pragma omp simd
                for (int64_t c = 0; c < C; ++c)
                    g[c] = wide(from[c]) * (wide(sign[c]) > 0.0f ? gain : low);
            } else {
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) g[c] = wide(from[c]);
            }
            if (dx) {
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) store(dx + p * C + c, g[c] * scale[c]);
            }
            if (dd) {
                const T* value = x + p * C;
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) sum_d[c] += g[c] * wide(value[c]);
            }
            if (db) {
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) sum_b[c] += g[c];
            }
            if (dn) {
                float total = 0.0f;
#pragma omp simd reduction(+ : total)
                for (int64_t c = 0; c < C; ++c) total += g[c];
                dn[p] = total;
            }
        }
    }
    if (dd) add_up(for_d.data(), dd, batch, count, C, false);
    if (db) add_up(for_b.data(), db, batch, count, C, true);
}

// s = A w + b and, with squares q (O, C), d = (sum_c s_c^2 q_oc + eps)^(-1/2); rows of w (B, D) lie
// `step` numbers apart. q and d may be null.
template <typename T>
void style(const T* w, int64_t step, const float* A, const float* b, const float* q, float eps,
           float* s, float* d, int64_t batch, int64_t D, int64_t C, int64_t O) {
    for (int64_t c = 0; c < C; ++c) {
        for (int64_t n = 0; n < batch; ++n) {
            float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < D; ++i) sum += A[c * D + i] * wide(w[n * step + i]);
            s[n * C + c] = sum + b[c];
        }
    }
    if (!q) return;
    std::vector<float> square(batch * C);
    for (int64_t i = 0; i < batch * C; ++i) square[i] = s[i] * s[i];
    for (int64_t o = 0; o < O; ++o) {
        for (int64_t n = 0; n < batch; ++n) {
            const float* of = square.data() + n * C;
            float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < C; ++c) sum += q[o * C + c] * of[c];
            d[n * O + o] = 1.0f / std::sqrt(sum + eps);
        }
    }
}

// dw = A^T (ds - s sum_o q_oc dd_o d_o^3), the gradient of `style`; q, d and dd may be null.
template <typename T>
void style_grad(const T* ds, const float* dd, const float* s, const float* d, const float* A,
                const float* q, float* dw, int64_t batch, int64_t D, int64_t C, int64_t O) {
    std::vector<float> total(batch * C);
    if (q) {
        for (int64_t o = 0; o < O; ++o) {
            for (int64_t n = 0; n < batch; ++n) {
                const float at = d[n * O + o], k = dd[n * O + o] * at * at * at;
                float* to = total.data() + n * C;
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) to[c] += k * q[o * C + c];
            }
        }
    }
    for (int64_t i = 0; i < batch * C; ++i) total[i] = wide(ds[i]) - s[i] * total[i];
    std::fill(dw, dw + batch * D, 0.0f);
    for (int64_t c = 0; c < C; ++c) {
        for (int64_t n = 0; n < batch; ++n) {
            const float k = total[n * C + c];
            float* to = dw + n * D;
#pragma omp simd
            for (int64_t i = 0; i < D; ++i) to[i] += k * A[c * D + i];
        }
    }
}

// y_o = sum_c W_oc s_c x_c + b_o + skip_o at every pixel; y and skip (B, H, W, O), skip may be null.
template <typename T>
void to_rgb(const T* x, const float* s, const float* W, const float* b, const float* skip,
            float* y, int64_t batch, int64_t pixels, int64_t C, int64_t O) {
#pragma omp parallel if (batch * pixels * C > WORTH)
    {
        std::vector<float> scaled(O * C);
        int64_t of = -1;
#pragma omp for schedule(static)
        for (int64_t p = 0; p < batch * pixels; ++p) {
            if (p / pixels != of) {
                of = p / pixels;
                for (int64_t i = 0; i < O * C; ++i) scaled[i] = W[i] * s[of * C + i % C];
            }
            const T* from = x + p * C;
            for (int64_t o = 0; o < O; ++o) {
                const float* row = scaled.data() + o * C;
                float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
                for (int64_t c = 0; c < C; ++c) sum += row[c] * wide(from[c]);
                y[p * O + o] = sum + b[o] + (skip ? skip[p * O + o] : 0.0f);
            }
        }
    }
}

// The gradients of `to_rgb`: with t_c = sum_o W_oc dy_o, dx = s t and ds = sum over pixels of x t.
template <typename T>
void to_rgb_grad(const T* x, const float* dy, const float* s, const float* W, T* dx, float* ds,
                 int64_t batch, int64_t pixels, int64_t C, int64_t O) {
    const int64_t count = pieces(pixels);
    std::vector<float> partial(batch * count * C);
#pragma omp parallel for schedule(static) if (batch * pixels * C > WORTH)
    for (int64_t t = 0; t < batch * count; ++t) {
        const int64_t image = t / count, first = t % count * PIECE;
        const int64_t last = std::min(pixels, first + PIECE);
        const float* scale = s + image * C;
        float* sum = partial.data() + t * C;
        std::vector<float> along(C);
        for (int64_t p = image * pixels + first; p < image * pixels + last; ++p) {
            const float* g = dy + p * O;
            for (int64_t o = 0; o < O; ++o) {
                const float* row = W + o * C;
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) along[c] = (o ? along[c] : 0.0f) + g[o] * row[c];
            }
            const T* from = x + p * C;
            T* to = dx + p * C;
#pragma omp simd
            for (int64_t c = 0; c < C; ++c) {
                sum[c] += wide(from[c]) * along[c];
                store(to + c, scale[c] * along[c]);
            }
        }
    }
    add_up(partial.data(), ds, batch, count, C, false);
}

// y = lrelu(x r), r = (mean over channels of x^2 + eps)^(-1/2), for each of `pixels` pixels.
template <typename T>
void norm_act(const T* x, float slope, float eps, T* y, int64_t pixels, int64_t C) {
#pragma omp parallel for schedule(static) if (pixels * C > WORTH)
    for (int64_t p = 0; p < pixels; ++p) {
        const T* from = x + p * C;
        T* to = y + p * C;
        float square = 0.0f;
#pragma omp simd reduction(+ : square)
        for (int64_t c = 0; c < C; ++c) square += wide(from[c]) * wide(from[c]);
        const float r = 1.0f / std::sqrt(square / C + eps);
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) {
            const float v = wide(from[c]) * r;
            store(to + c, v > 0.0f ? v : v * slope);
        }
    }
}

// With g = dy * lrelu'(x): dx = r g - x r^3 mean(g x).
template <typename T>
void norm_act_grad(const T* dy, const T* x, float slope, float eps, T* dx, int64_t pixels,
                   int64_t C) {
#pragma omp parallel for schedule(static) if (pixels * C > WORTH)
    for (int64_t p = 0; p < pixels; ++p) {
        const T *from = x + p * C, *grad = dy + p * C;
        T* to = dx + p * C;
        float square = 0.0f, along = 0.0f;
#pragma omp simd reduction(+ : square, along)
        for (int64_t c = 0; c < C; ++c) {
            const float v = wide(from[c]);
            square += v * v;
            along += wide(grad[c]) * (v > 0.0f ? 1.0f : slope) * v;
        }
        const float r = 1.0f / std::sqrt(square / C + eps), k = r * r * r * along / C;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) {
            const float v = wide(from[c]);
            store(to + c, r * wide(grad[c]) * (v > 0.0f ? 1.0f : slope) - k * v);
        }
    }
}

// The gradients of sum(v dx) in dy and x, with s = lrelu'(x), m = mean(g x), n = mean(v x):
//     s (r v - x r^3 n)   and   x (3 r^5 n m - r^3 mean(v g)) - r^3 (m v + n g).
template <typename T>
void norm_act_second(const T* dy, const T* x, const T* v, float slope, float eps, T* d_dy,
                     T* d_x, int64_t pixels, int64_t C) {
#pragma omp parallel for schedule(static) if (pixels * C > WORTH)
    for (int64_t p = 0; p < pixels; ++p) {
        const T *from = x + p * C, *grad = dy + p * C, *along = v + p * C;
        float square = 0.0f, m = 0.0f, n = 0.0f, both = 0.0f;
#pragma omp simd reduction(+ : square, m, n, both)
        for (int64_t c = 0; c < C; ++c) {
            const float at = wide(from[c]), to = wide(along[c]);
            const float g = wide(grad[c]) * (at > 0.0f ? 1.0f : slope);
            square += at * at;
            m += g * at;
            n += to * at;
            both += to * g;
        }
        const float r = 1.0f / std::sqrt(square / C + eps), cube = r * r * r;
        m /= C, n /= C, both /= C;
        const float on_x = 3.0f * cube * r * r * n * m - cube * both;
        T *to_dy = d_dy + p * C, *to_x = d_x + p * C;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) {
            const float at = wide(from[c]), to = wide(along[c]), s = at > 0.0f ? 1.0f : slope;
            store(to_dy + c, s * (r * to - at * cube * n));
            store(to_x + c, at * on_x - cube * (m * to + n * s * wide(grad[c])));
        }
    }
}

// upfirdn2d with the separable filter f (taps,), the same up and down on both axes (definition in
// upfirdn2d.h): a row of the output is a sum of rows, then of shifted pixels.
template <typename T>
void upfirdn2d(const T* x, const float* f, int64_t taps, int64_t flip, int64_t up, int64_t down,
               int64_t before_y, int64_t before_x, float gain, T* y, int64_t batch, int64_t rows,
               int64_t columns, int64_t rows_out, int64_t columns_out, int64_t C) {
    std::vector<float> w(f, f + taps);  // in the order of the window
    if (!flip) std::reverse(w.begin(), w.end());
    // The pixels that any window of a row covers, zeros outside the image; in whole samples.
    const int64_t left = std::max<int64_t>(0, (before_x + up - 1) / up);
    const int64_t reach = ((columns_out - 1) * down - before_x + taps - 1) / up + 1;
    const int64_t width = left + std::max(columns, reach);
    constexpr bool direct = std::is_same<T, float>::value;  // else a row is summed, then rounded
#pragma omp parallel if (batch * rows_out * columns_out * C > WORTH)
    {
        std::vector<float> line(width * C), sums(direct ? 0 : columns_out * C);
        float* inside = line.data() + left * C;
#pragma omp for schedule(static)
        for (int64_t t = 0; t < batch * rows_out; ++t) {
            const int64_t image = t / rows_out, base = t % rows_out * down - before_y;
            Sum<T> sum;
            for (int64_t m = 0; m < taps; ++m) {
                const int64_t at = base + m;
                if (at < 0 || at % up || at / up >= rows) continue;
                sum.add(w[m] * gain, x + (image * rows + at / up) * columns * C, inside, columns * C);
            }
            sum.finish(inside, columns * C);
            T* row = y + t * columns_out * C;
            float* to = sums.data();
            if constexpr (direct) to = row;
            if (up == 1 && down == 1) {
                // Every window starts one pixel on: the row is a sum of shifted rows.
                Sum<float> shifted;
                for (int64_t m = 0; m < taps; ++m)
                    shifted.add(w[m], inside + (m - before_x) * C, to, columns_out * C);
                shifted.finish(to, columns_out * C);
            } else {
                for (int64_t o = 0; o < columns_out; ++o) {
                    const int64_t start = o * down - before_x;
                    const int64_t skip = ((-start) % up + up) % up;  // window's start to first sample
                    Sum<float> pixel;
                    for (int64_t m = skip; m < taps; m += up)
                        pixel.add(w[m], inside + (start + m) / up * C, to + o * C, C);
                    pixel.finish(to + o * C, C);
                }
            }
            if constexpr (!direct) {
#pragma omp simd
                for (int64_t i = 0; i < columns_out * C; ++i) store(row + i, to[i]);
            }
        }
    }
}

}  // namespace

RTIL_EXPORT(styled)
RTIL_EXPORT(styled_grad)
RTIL_EXPORT(style)
RTIL_EXPORT(style_grad)
RTIL_EXPORT(to_rgb)
RTIL_EXPORT(to_rgb_grad)
RTIL_EXPORT(norm_act)
RTIL_EXPORT(norm_act_grad)
RTIL_EXPORT(norm_act_second)
RTIL_EXPORT(upfirdn2d)
