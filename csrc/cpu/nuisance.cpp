#include "kernels.hpp"
#include "parallel.hpp"
#include "segments.hpp"

namespace robustperf::ROBUSTPERF_ISA {
namespace {

template <typename T>
bool in_range(const T* x, int64_t count) {
  bool fine = true;
#pragma omp simd reduction(& : fine)
  for (int64_t i = 0; i < count; ++i) fine &= x[i] >= T(0) && x[i] <= T(1);
  return fine;
}

}  // namespace

template <typename T>
void Kernels::nuisance(const NuisanceArgs<T>& args, int threads) {
  const int64_t pixels = args.height * args.width, size_in = args.channels * pixels;
  int64_t warps = 0;
  for (int64_t s = 0; s < args.count; ++s) warps += args.steps[s].transform == kAffine;
  parallel_ranges(args.batch * args.draws, threads, [&](int64_t from, int64_t to) {
    const Scratch<T> scratch(args, thread_number());
    int64_t at_hand = -1;  // the sample that is checked, looked at and laid out
    Whole of_first{};
    for (int64_t item = from; item < to; ++item) {
      // The draws of a sample one after the other: it is read once.
      const int64_t b = item / args.draws, k = item % args.draws, row = k * args.batch + b;
      const T* x = args.x + b * size_in;
      const bool fresh = b != at_hand;
      if (fresh) {
        at_hand = b;
        if (!in_range(x, size_in)) args.outside[b] = true;
        if (wants_whole(args.steps[0])) of_first = look_at_image(args.steps[0], x, pixels);
      }
      const T* delta = args.delta + row * args.dim;
      if (args.delta == nullptr) {
        float* drawn = reinterpret_cast<float*>(scratch.delta);
        sample_program(args.steps, args.count, args.key, static_cast<uint64_t>(args.index[b]),
                       static_cast<uint32_t>(args.draw[k]), drawn);
        if (sizeof(T) > sizeof(float))  // in place, the last first
          for (int64_t j = args.dim; j-- > 0;) {
            const T wide = drawn[j];
            memcpy(scratch.delta + j, &wide, sizeof wide);
          }
        delta = scratch.delta;
      }
      T* out = args.out + row * args.channels_out * pixels;
      const T* image = x;
      Whole whole = of_first;
      for (int64_t first = 0, end; first < args.count; first = end, image = out) {
        end = segment_end(args, first);
        run_segment(args, first, end, image, delta, scratch, whole, out, first == 0 && warps == 1 && !fresh);
      }
    }
  });
}

template void Kernels::nuisance<float>(const NuisanceArgs<float>&, int);
template void Kernels::nuisance<double>(const NuisanceArgs<double>&, int);

void Kernels::nuisance_sample(const NuisanceSampleArgs& args, int threads) {
  parallel_rows(args.draws * args.samples, threads, [&](int64_t row) {
    sample_program(args.steps, args.count, args.key, static_cast<uint64_t>(args.index[row % args.samples]),
                   static_cast<uint32_t>(args.draw[row / args.samples]), args.delta + row * args.dim);
  });
}

}  // namespace robustperf::ROBUSTPERF_ISA
