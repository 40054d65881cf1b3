#include "stretch.hpp"

namespace robustperf::cuda {
namespace {

constexpr int kSampleThreads = 128;
constexpr int kMostRows = kSampleThreads / kWarp;

// One of four words, chosen at run time: an array in registers has no such places.
__device__ inline uint32_t word_of(const Words& words, int64_t l) {
  const uint32_t low = l == 0 ? words.w[0] : words.w[1], high = l == 2 ? words.w[2] : words.w[3];
  return l < 2 ? low : high;
}

// The draws of a program's delta: `threads` threads a row, a warp or the block.
__global__ void __launch_bounds__(kSampleThreads)
    sample_kernel(const __grid_constant__ NuisanceSampleArgs args, const __grid_constant__ Plan plan, int threads) {
  __shared__ double squares[kMostRows][8];
  const uint64_t key = key_of(args);
  const uint32_t key_lo = static_cast<uint32_t>(key), key_hi = static_cast<uint32_t>(key >> 32);
  const int place = threadIdx.x / threads, thread = threadIdx.x % threads, at_once = kSampleThreads / threads;
  const int64_t rows = args.draws * args.samples;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * at_once; first < rows;
       first += static_cast<int64_t>(gridDim.x) * at_once) {
    const int64_t row = smaller(first + place, rows - 1);  // who has none goes along and writes nothing
    const uint64_t index = static_cast<uint64_t>(args.index[row % args.samples]);
    const uint32_t draw = static_cast<uint32_t>(args.draw[row / args.samples]);
    const auto words = [&](int64_t block) {
      return philox(draw_counter(static_cast<uint32_t>(block), draw, index), key_lo, key_hi);
    };
    for (int s = 0; s < args.count; ++s) {
      const Step& step = plan.steps[s];
      if (step.law == kShared) continue;
      float* delta = args.delta + row * args.dim + step.offset;
      const bool ball = step.law == kBall, mine = first + place < rows;
      for (int64_t block = step.word / 4 + thread; 4 * block < step.word + step.dim; block += threads) {
        const Words four = words(block);
        for (int l = 0; l < 4; ++l) {
          const int64_t j = 4 * block + l - step.word;
          if (mine && j >= 0 && j < step.dim) delta[j] = component_of(step, j, four.w[l]);
        }
      }
      if (!ball) continue;
      __syncthreads();
      if (thread < 8) {  // in the order of additions that all backends keep
        double sum = 0.0;
        for (int64_t j = thread; j < step.dim; j += 8) sum += static_cast<double>(delta[j]) * delta[j];
        squares[place][thread] = sum;
      }
      __syncthreads();
      double sum = 0.0;
      for (double square : squares[place]) sum += square;
      const int64_t last = step.word + step.dim;
      const float u = uniform_of(word_of(words(last / 4), last % 4));
      const double scale = ball_scale(step.numbers[kBounds], sum, u, step.dim);
      for (int64_t j = thread; mine && j < step.dim; j += threads) delta[j] = static_cast<float>(delta[j] * scale);
      __syncthreads();
    }
  }
}

template <typename T, int kPixels, bool kRare>
__global__ void __launch_bounds__(kPlanThreads, kRare ? 1 : 2)
    nuisance_kernel(const __grid_constant__ NuisanceArgs<T> args, const __grid_constant__ Plan plan,
                    const __grid_constant__ Grid grid) {
  __shared__ Shared<T> shared;
  const int64_t plane = args.height * args.width, rows = args.batch * args.draws;
  const int64_t stride = gridDim.x / grid.slices, first = blockIdx.x / grid.slices;
  char* scratch = reinterpret_cast<char*>(args.scratch) + first * grid.scratch.total;
  const Team team{static_cast<int>(blockIdx.x % grid.slices), grid.slices, grid.together,
                  reinterpret_cast<double*>(scratch + grid.scratch.exchange)};
  T* spare = reinterpret_cast<T*>(scratch + grid.scratch.images);
  int turn = 0;
  for (int64_t item = first; item < rows; item += stride) {
    // The draws of a sample one after the other: it is read from memory once.
    const int64_t b = item / args.draws, row = item % args.draws * args.batch + b;
    T* out = args.out + row * args.channels_out * plane;
    Work<T, kRare> work{args, plan, args.delta + row * args.dim, team, shared, turn};
    const T* in = args.x + b * args.channels * plane;
    int left = plan.count + plan.blurs;  // images to write; the last one is `out`
    const auto next = [&] { return --left % 2 == 0 ? out : spare; };
    for (int s = 0; s < plan.count; ++s) {
      T* between = plan.steps[plan.stretches[s].first].transform == kBlur ? next() : nullptr;
      T* to = next();
      run_stretch<kPixels, false>(work, plan.stretches[s], in, between, to);
      work.team.sync();
      in = to;
    }
    turn = work.turn;
  }
}

}  // namespace

template <typename T>
NuisanceKernels<T> forward_kernels(const Plan& plan) {
  constexpr int kPixels = kBundle<T>;
  if (plan.rare) return {"nuisance", false, nuisance_kernel<T, kPixels, true>, nuisance_kernel<T, 1, true>};
  return {"nuisance", false, nuisance_kernel<T, kPixels, false>, nuisance_kernel<T, 1, false>};
}

void nuisance_sample(const NuisanceSampleArgs& args, cudaStream_t stream) {
  const int64_t rows = args.draws * args.samples;
  if (rows == 0) return;
  const int threads = args.dim <= 4 * kWarp ? kWarp : kSampleThreads;
  launch("nuisance_sample", sample_kernel, blocks_for(rows, kSampleThreads / threads), kSampleThreads, 1, stream, args,
         plan_of(args.steps, args.count), threads);
}

template <typename T>
void nuisance(const NuisanceArgs<T>& args, cudaStream_t stream) {
  if (args.batch * args.draws == 0) return;
  const Plan plan = plan_of(args.steps, args.count);
  const bool aligned = rows_of_16_bytes(args.height * args.width, args.x, args.out, args.scratch);
  run(args, plan, forward_kernels<T>(plan), aligned, stream);
}

template NuisanceKernels<float> forward_kernels<float>(const Plan&);
template NuisanceKernels<double> forward_kernels<double>(const Plan&);
template void nuisance<float>(const NuisanceArgs<float>&, cudaStream_t);
template void nuisance<double>(const NuisanceArgs<double>&, cudaStream_t);

}  // namespace robustperf::cuda
