#include <type_traits>

#include "kernels.hpp"
#include "parallel.hpp"
#include "segments.hpp"

namespace robustperf::ROBUSTPERF_ISA {
namespace {

template <typename T>
using BitsOf = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// Whether all values are in [0, 1]. First as unsigned integers, where 1 minus a number has the sign bit if that is
// above 1, NaN too, and a number below 0 has it itself; so has -0, which a second look lets pass.
template <typename T>
bool in_range(const T* x, int64_t count) {
  const BitsOf<T> one = bits_as<BitsOf<T>>(T(1));
  BitsOf<T> wrong = 0;
#pragma omp simd reduction(| : wrong)
  for (int64_t i = 0; i < count; ++i) wrong |= bits_as<BitsOf<T>>(x[i]) | (one - bits_as<BitsOf<T>>(x[i]));
  if (wrong >> (8 * sizeof(T) - 1) == 0) return true;
  for (int64_t i = 0; i < count; ++i)
    if (!(x[i] >= T(0) && x[i] <= T(1))) return false;
  return true;
}

// Whether no value is infinite or NaN: without their signs these are the greatest.
template <typename T>
bool all_finite(const T* delta, int64_t count) {
  constexpr int kSign = 8 * sizeof(T) - 1;
  constexpr BitsOf<T> kSize = (BitsOf<T>{1} << kSign) - 1;
  const BitsOf<T> greatest = bits_as<BitsOf<T>>(static_cast<T>(HUGE_VAL)) - 1;
  BitsOf<T> wrong = 0;
#pragma omp simd reduction(| : wrong)
  for (int64_t i = 0; i < count; ++i) wrong |= greatest - (bits_as<BitsOf<T>>(delta[i]) & kSize);
  return wrong >> kSign == 0;
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
    bool sound = true;
    Whole of_first{}, wholes[kMostSteps];
    for (int64_t item = from; item < to; ++item) {
      // The draws of a sample one after the other: it is read once.
      const int64_t b = item / args.draws, k = item % args.draws, row = k * args.batch + b;
      const T* x = args.x + b * size_in;
      const bool fresh = b != at_hand;
      if (fresh) {
        at_hand = b;
        sound = in_range(x, size_in);
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
      args.faults[row] = (sound ? 0 : kPixel) | (all_finite(delta, args.dim) ? 0 : kDelta);
      if (args.faults[row] != 0) continue;  // nothing below is made for that
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
