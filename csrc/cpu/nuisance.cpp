#include <type_traits>

#include "kernels.hpp"
#include "parallel.hpp"
#include "segments.hpp"

namespace robustperf::ROBUSTPERF_ISA {
namespace {

// Whether all values are in [0, 1]: as unsigned integers, among which negative numbers and NaN are above 1. So is -0,
// which Python then finds to be all right.
template <typename T>
bool in_range(const T* x, int64_t count) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const Bits one = bits_as<Bits>(T(1));
  Bits wrong = 0;
#pragma omp simd reduction(| : wrong)
  for (int64_t i = 0; i < count; ++i) wrong |= bits_as<Bits>(x[i]) | (one - bits_as<Bits>(x[i]));
  return wrong >> (8 * sizeof(T) - 1) == 0;  // the sign of a difference below 0, or of the value itself
}

// Whether the program begins with one light step before the first look at the whole image: doing it twice is quicker
// than writing the image down in between.
template <typename T>
bool quickly_done_again(const NuisanceArgs<T>& args, int64_t end) {
  const Transform head = args.steps[0].transform;
  return end == 1 && (head == kBrightness || head == kContrast) && wants_whole(args.steps[1]);
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
    Whole of_first{}, wholes[kMostSteps];
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
      wholes[0] = of_first;
      int64_t first = 0, end = segment_end(args, 0);
      if (end < args.count && quickly_done_again(args, end)) {
        run_segment(args, 0, end, x, delta, scratch, wholes, static_cast<T*>(nullptr));
        end = segment_end(args, end);
      }
      for (const T* image = x; first < args.count; first = end, end = segment_end(args, end), image = out)
        run_segment(args, first, end, image, delta, scratch, wholes, out, first == 0 && warps == 1 && !fresh);
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
