// What StyleGAN2 and PGGAN do between their convolutions, for CPUs: one pass over memory each.
// Feature maps are float32 with channels innermost, (B, H, W, C), so that the inner loops run along
// channels and vectorise. Sums over pixels are taken in pieces of fixed size and added in order:
// the result depends neither on the number of threads nor on the rest of the batch.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#define RTIL_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int64_t PIECE = 256;       // pixels of a partial sum
constexpr int64_t WORTH = 1 << 14;   // numbers below which one thread is quicker than two

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
struct Sum {
    const float* from[4];
    float w[4];
    int held = 0;
    bool begun = false;

    void add(float weight, const float* term, float* to, int64_t size) {
        if (held == 4) flush(to, size);
        w[held] = weight, from[held++] = term;
    }
    void finish(float* to, int64_t size) {
        if (held || !begun) flush(to, size);
    }

  private:
    void flush(float* to, int64_t size) {
        const float *a = from[0], *b = from[1], *c = from[2], *d = from[3];
        if (!begun && held < 1) {
            std::fill(to, to + size, 0.0f);
        } else if (held == 4 && !begun) {
#pragma omp simd
            for (int64_t i = 0; i < size; ++i)
                to[i] = w[0] * a[i] + w[1] * b[i] + w[2] * c[i] + w[3] * d[i];
        } else if (held == 2 && !begun) {
#pragma omp simd
            for (int64_t i = 0; i < size; ++i) to[i] = w[0] * a[i] + w[1] * b[i];
        } else {
            if (!begun) std::fill(to, to + size, 0.0f);
            for (int k = 0; k < held; ++k) {
#pragma omp simd
                for (int64_t i = 0; i < size; ++i) to[i] += w[k] * from[k][i];
            }
        }
        held = 0, begun = true;
    }
};

}  // namespace

// y = gain * lrelu(x * d + strength * noise + b). d (B, C), noise (maps, H W) with maps 1 or B, and
// b (C,) may be null.
RTIL_EXPORT void rtil_cpu_styled(const float* x, const float* d, const float* noise, int64_t maps,
                                 float strength, const float* b, float slope, float gain, float* y,
                                 int64_t batch, int64_t pixels, int64_t C) {
    const std::vector<float> ones(d ? 0 : C, 1.0f), zeros(b ? 0 : C, 0.0f);
#pragma omp parallel for schedule(static) if (batch * pixels * C > WORTH)
    for (int64_t p = 0; p < batch * pixels; ++p) {
        const int64_t image = p / pixels;
        const float n = noise ? strength * noise[maps == 1 ? p - image * pixels : p] : 0.0f;
        const float* scale = d ? d + image * C : ones.data();
        const float* shift = b ? b : zeros.data();
        const float* from = x + p * C;
        float* to = y + p * C;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) {
            const float v = from[c] * scale[c] + n + shift[c];
            to[c] = (v > 0.0f ? v : v * slope) * gain;
        }
    }
}

// With g = dy * (gain where y > 0, gain * slope elsewhere; 1 for y null):
// dx = g * d, dd = sum over pixels of g * x, dn = sum over channels of g, db = sum over batch and
// pixels of g. Any output may be null, x where dd is, d where it is 1.
RTIL_EXPORT void rtil_cpu_styled_grad(const float* dy, const float* y, const float* x,
                                      const float* d, float slope, float gain, float* dx,
                                      float* dd, float* dn, float* db, int64_t batch,
                                      int64_t pixels, int64_t C) {
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
            const float* from = dy + p * C;
            if (y) {
                const float* sign = y + p * C;
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) g[c] = from[c] * (sign[c] > 0.0f ? gain : low);
            } else {
                std::copy(from, from + C, g.data());
            }
            if (dx) {
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) dx[p * C + c] = g[c] * scale[c];
            }
            if (dd) {
                const float* value = x + p * C;
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) sum_d[c] += g[c] * value[c];
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

// y = lrelu(x r), r = (mean over channels of x^2 + eps)^(-1/2), for each of `pixels` pixels.
RTIL_EXPORT void rtil_cpu_norm_act(const float* x, float slope, float eps, float* y,
                                   int64_t pixels, int64_t C) {
#pragma omp parallel for schedule(static) if (pixels * C > WORTH)
    for (int64_t p = 0; p < pixels; ++p) {
        const float* from = x + p * C;
        float* to = y + p * C;
        float square = 0.0f;
#pragma omp simd reduction(+ : square)
        for (int64_t c = 0; c < C; ++c) square += from[c] * from[c];
        const float r = 1.0f / std::sqrt(square / C + eps);
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) {
            const float v = from[c] * r;
            to[c] = v > 0.0f ? v : v * slope;
        }
    }
}

// With g = dy * lrelu'(x): dx = r g - x r^3 mean(g x).
RTIL_EXPORT void rtil_cpu_norm_act_grad(const float* dy, const float* x, float slope, float eps,
                                        float* dx, int64_t pixels, int64_t C) {
#pragma omp parallel for schedule(static) if (pixels * C > WORTH)
    for (int64_t p = 0; p < pixels; ++p) {
        const float *from = x + p * C, *grad = dy + p * C;
        float* to = dx + p * C;
        float square = 0.0f, along = 0.0f;
#pragma omp simd reduction(+ : square, along)
        for (int64_t c = 0; c < C; ++c) {
            square += from[c] * from[c];
            along += grad[c] * (from[c] > 0.0f ? 1.0f : slope) * from[c];
        }
        const float r = 1.0f / std::sqrt(square / C + eps), k = r * r * r * along / C;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c)
            to[c] = r * grad[c] * (from[c] > 0.0f ? 1.0f : slope) - k * from[c];
    }
}

// The gradients of sum(v dx) in dy and x, with s = lrelu'(x), m = mean(g x), n = mean(v x):
//     s (r v - x r^3 n)   and   x (3 r^5 n m - r^3 mean(v g)) - r^3 (m v + n g).
RTIL_EXPORT void rtil_cpu_norm_act_second(const float* dy, const float* x, const float* v,
                                          float slope, float eps, float* d_dy, float* d_x,
                                          int64_t pixels, int64_t C) {
#pragma omp parallel for schedule(static) if (pixels * C > WORTH)
    for (int64_t p = 0; p < pixels; ++p) {
        const float *from = x + p * C, *grad = dy + p * C, *along = v + p * C;
        float square = 0.0f, m = 0.0f, n = 0.0f, both = 0.0f;
#pragma omp simd reduction(+ : square, m, n, both)
        for (int64_t c = 0; c < C; ++c) {
            const float g = grad[c] * (from[c] > 0.0f ? 1.0f : slope);
            square += from[c] * from[c];
            m += g * from[c];
            n += along[c] * from[c];
            both += along[c] * g;
        }
        const float r = 1.0f / std::sqrt(square / C + eps), cube = r * r * r;
        m /= C, n /= C, both /= C;
        const float on_x = 3.0f * cube * r * r * n * m - cube * both;
        float *to_dy = d_dy + p * C, *to_x = d_x + p * C;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) {
            const float s = from[c] > 0.0f ? 1.0f : slope;
            to_dy[c] = s * (r * along[c] - from[c] * cube * n);
            to_x[c] = from[c] * on_x - cube * (m * along[c] + n * s * grad[c]);
        }
    }
}

// upfirdn2d with the separable filter f (taps,), the same up and down on both axes (definition in
// upfirdn2d.h): a row of the output is a sum of rows, then of shifted pixels.
RTIL_EXPORT void rtil_cpu_upfirdn2d(const float* x, const float* f, int64_t taps, int64_t flip,
                                    int64_t up, int64_t down, int64_t before_y,
                                    int64_t before_x, float gain, float* y, int64_t batch,
                                    int64_t rows, int64_t columns,
                                    int64_t rows_out, int64_t columns_out, int64_t C) {
    std::vector<float> w(f, f + taps);  // in the order of the window
    if (!flip) std::reverse(w.begin(), w.end());
    // The pixels that any window of a row covers, zeros outside the image; in whole samples.
    const int64_t left = std::max<int64_t>(0, (before_x + up - 1) / up);
    const int64_t reach = ((columns_out - 1) * down - before_x + taps - 1) / up + 1;
    const int64_t width = left + std::max(columns, reach);
#pragma omp parallel if (batch * rows_out * columns_out * C > WORTH)
    {
        std::vector<float> line(width * C);
        float* inside = line.data() + left * C;
#pragma omp for schedule(static)
        for (int64_t t = 0; t < batch * rows_out; ++t) {
            const int64_t image = t / rows_out, base = t % rows_out * down - before_y;
            Sum sum;
            for (int64_t m = 0; m < taps; ++m) {
                const int64_t at = base + m;
                if (at < 0 || at % up || at / up >= rows) continue;
                sum.add(w[m] * gain, x + (image * rows + at / up) * columns * C, inside, columns * C);
            }
            sum.finish(inside, columns * C);
            float* to = y + t * columns_out * C;
            if (up == 1 && down == 1) {
                // Every window starts one pixel on: the row is a sum of shifted rows.
                Sum shifted;
                for (int64_t m = 0; m < taps; ++m)
                    shifted.add(w[m], inside + (m - before_x) * C, to, columns_out * C);
                shifted.finish(to, columns_out * C);
                continue;
            }
            for (int64_t o = 0; o < columns_out; ++o, to += C) {
                const int64_t start = o * down - before_x;
                const int64_t skip = ((-start) % up + up) % up;  // window's start to first sample
                Sum pixel;
                for (int64_t m = skip; m < taps; m += up)
                    pixel.add(w[m], inside + (start + m) / up * C, to, C);
                pixel.finish(to, C);
            }
        }
    }
}
