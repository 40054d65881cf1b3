#include "../core/nuisance.hpp"

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include <type_traits>

#include "buffer.hpp"
#include "parallel.hpp"
#include "sample_delta.hpp"
#include "segment.hpp"
#include "transform_images.hpp"

namespace robustperf::ROBUSTPERF_TARGET {
namespace {

template <typename T>
using BitsOf = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// Whether all values are in [0, 1]. First as unsigned integers: for a number above 1, and for NaN, 1 minus it has the
// sign bit, and a number below 0 has it itself. So has -0, which the second loop accepts.
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

// Whether no value is infinite or NaN: without their signs these have the largest bits.
template <typename T>
bool all_finite(const T* delta, int64_t count) {
  constexpr int kSign = 8 * sizeof(T) - 1;
  constexpr BitsOf<T> kMagnitude = (BitsOf<T>{1} << kSign) - 1;
  const BitsOf<T> largest = bits_as<BitsOf<T>>(static_cast<T>(HUGE_VAL)) - 1;
  BitsOf<T> wrong = 0;
#pragma omp simd reduction(| : wrong)
  for (int64_t i = 0; i < count; ++i) wrong |= largest - (bits_as<BitsOf<T>>(delta[i]) & kMagnitude);
  return wrong >> kSign == 0;
}

// Whether the first segment is one cheap step before one that needs statistics: running it twice is faster than writing
// the image between the two.
template <typename T>
bool cheap_to_recompute(const NuisanceArgs<T>& args, int64_t end) {
  const Transform head = args.steps[0].transform;
  return end == 1 && (head == kBrightness || head == kContrast) && needs_image_statistics(args.steps[1]);
}

// Requests large pages for a large tensor before it is first written: new memory from the system costs a page fault for
// each page, which can take longer than the work.
template <typename T>
void request_large_pages([[maybe_unused]] T* data, [[maybe_unused]] int64_t count) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = 2 << 20;
  constexpr int64_t kReused = 32 << 20;  // malloc reuses smaller blocks, whose pages are there
  if (count * static_cast<int64_t>(sizeof(T)) < kReused) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage,
                  end = reinterpret_cast<uintptr_t>(data + count) / kPage * kPage;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Draws a delta into `delta`.
template <typename T>
void draw_delta(const NuisanceDrawArgs<T>& args, int64_t b, int64_t k, T* delta) {
  float* drawn = reinterpret_cast<float*>(delta);
  sample_delta(args.steps, args.count, args.key, static_cast<uint64_t>(args.index[b]),
               static_cast<uint32_t>(args.draw[k]), drawn);
  if (sizeof(T) > sizeof(float))  // widen in place, the last component first
    for (int64_t j = args.dim; j-- > 0;) {
      const T wide = drawn[j];
      memcpy(delta + j, &wide, sizeof wide);
    }
}

}  // namespace

template <typename T>
void transform_images(const NuisanceArgs<T>& args, const NuisanceDrawArgs<T>* drawn, int threads) {
  const int64_t pixels = args.height * args.width, size_in = args.channels * pixels;
  const ScratchLayout layout(args, drawn == nullptr ? Pass::forward : Pass::draw);
  const Buffer<T> memory(threads * layout.total);
  request_large_pages(args.out, args.draws * args.batch * args.channels_out * pixels);
  int64_t warps = 0;
  for (int64_t s = 0; s < args.count; ++s) warps += args.steps[s].transform == kAffine;
  parallel_ranges(args.batch * args.draws, threads, [&](int64_t from, int64_t to) {
    const Scratch<T> scratch(layout, memory.data(), thread_number());
    int64_t current = -1;  // the sample that is checked, padded, and whose statistics the first step has
    bool valid = true;
    int all_faults = 0;
    ImageStatistics of_first{}, statistics[kMaxSteps];
    for (int64_t item = from; item < to; ++item) {
      // The draws of a sample one after the other: its pixels are read once.
      const int64_t b = item / args.draws, k = item % args.draws, row = k * args.batch + b;
      const T* x = args.x + b * size_in;
      const bool new_sample = b != current;
      if (new_sample) {
        current = b;
        valid = in_range(x, size_in);
        if (needs_image_statistics(args.steps[0])) of_first = statistics_of(args.steps[0], x, pixels);
      }
      if (drawn != nullptr) draw_delta(*drawn, b, k, scratch.delta);
      const T* delta = drawn != nullptr ? scratch.delta : args.delta + row * args.dim;
      const int faults = (valid ? 0 : kPixel) | (all_finite(delta, args.dim) ? 0 : kDelta);
      all_faults |= faults;
      if (faults != 0) continue;  // the code below is not made for such numbers
      T* out = args.out + row * args.channels_out * pixels;
      statistics[0] = of_first;
      int64_t first = 0, end = segment_end(args, 0);
      if (end < args.count && cheap_to_recompute(args, end)) {
        run_segment(args, 0, end, x, delta, scratch, statistics, static_cast<T*>(nullptr));
        end = segment_end(args, end);
      }
      for (const T* image = x; first < args.count; first = end, end = segment_end(args, end), image = out)
        run_segment(args, first, end, image, delta, scratch, statistics, out, first == 0 && warps == 1 && !new_sample);
    }
    __atomic_fetch_or(args.faults, all_faults, __ATOMIC_RELAXED);
  });
}

template <typename T>
void nuisance(const NuisanceArgs<T>& args, Target target) {
  transform_images<T>(args, nullptr, target.threads);
}

template void transform_images(const NuisanceArgs<float>&, const NuisanceDrawArgs<float>*, int);
template void transform_images(const NuisanceArgs<double>&, const NuisanceDrawArgs<double>*, int);
template void nuisance(const NuisanceArgs<float>&, Target);
template void nuisance(const NuisanceArgs<double>&, Target);

}  // namespace robustperf::ROBUSTPERF_TARGET
