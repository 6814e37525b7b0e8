// The tiled kernel's block as threads of the system with real barriers, for ThreadSanitizer: two of
// them that meet in shared memory or in the output without a barrier between are a report.
// Argument "nobarrier" leaves the barriers out, which must be reported.
#include <pthread.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "upfirdn2d_tile.h"

using namespace rtil;

constexpr int THREADS = 16;

struct Barrier {
    pthread_barrier_t* at;
    void operator()() const {
        if (at) pthread_barrier_wait(at);
    }
};

template <int UP, int DOWN, bool LAST> float run(bool barriers) {
    using Here = Tile<float, UP, DOWN, LAST>;
    const int batch = 2, channels = LAST ? 21 : 2, side = 37;
    const int out = (side * UP - 1) / DOWN + 1;
    const Axis axis{side, out, TAPS, UP, DOWN, UP == 2 ? 2 : 1, 0};
    std::vector<float> x(batch * channels * side * side, 1.0f), f(TAPS, 0.25f);
    std::vector<float> y(batch * channels * out * out);
    const int64_t plane = side * side;
    const Upfirdn<float> p{x.data(), f.data(), y.data(), batch, channels, 1, LAST, axis, axis,
                           channels * plane, LAST ? 1 : plane, LAST ? side * channels : side,
                           LAST ? channels : 1, 1.0f};
    auto tile = std::make_unique<Here>();
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, nullptr, THREADS);
    std::vector<std::thread> threads;
    // One block takes all tiles, so that its loop is run through as well.
    for (int t = 0; t < THREADS; ++t)
        threads.emplace_back([&, t] {
            tile_thread(*tile, p, Here::wide_load(p), Here::wide_store(p), 0, 1, t, THREADS,
                        Barrier{barriers ? &barrier : nullptr});
        });
    for (auto& thread : threads) thread.join();
    float total = 0;
    for (float v : y) total += v;
    return total;
}

int main(int count, char** arguments) {
    const bool barriers = count < 2 || std::strcmp(arguments[1], "nobarrier");
    std::printf("%g %g %g\n", run<1, 1, false>(barriers), run<2, 1, false>(barriers),
                run<1, 2, false>(barriers));
    std::printf("%g %g %g\n", run<1, 1, true>(barriers), run<2, 1, true>(barriers),
                run<1, 2, true>(barriers));
}
