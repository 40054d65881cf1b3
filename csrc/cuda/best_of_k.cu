// The worst of k draws: a group of lanes takes a row of logits, a block takes some draws of some samples side by side.
//
// A row stays in registers between the maximum and the sum of powers, so that it is read once; rows too long for that
// are read again, from the cache. For one draw of the whole batch the losses are written to memory, and the block that
// ends last sums them: it does not matter which one that is.
#include "../core/best_of_k.hpp"

#include "launch.hpp"
#include "reduce.hpp"
#include "vector_access.hpp"

namespace robustperf::device {
namespace {

constexpr int kThreads = 256;  // per block, about
constexpr int kMaxSide = 16;   // draws side by side
constexpr int kMaxThreads = kMaxSide * kWarp;
constexpr int64_t kAlone =
    1024;  // losses of the whole batch that one block computes faster than several can synchronise

// Lanes per row, logits per load, loads at a time.
template <int kLanes_, int kVector_, int kLoads_>
struct RowLayout {
  static constexpr int kLanes = kLanes_, kVector = kVector_, kLoads = kLoads_;
  static constexpr int kMaxGroups = kMaxThreads / kLanes;
};

// Calls body(logit) for those of the loads that lie within the row.
template <typename W, typename L, typename Body>
__device__ void each_logit(const Vector<L, W::kVector> (&held)[W::kLoads], int64_t from, int64_t classes, Body&& body) {
#pragma unroll
  for (int p = 0; p < W::kLoads; ++p) {
    if (from + p * W::kLanes * W::kVector >= classes) break;
#pragma unroll
    for (int v = 0; v < W::kVector; ++v) body(widen(held[p][v]));
  }
}

// The cross-entropy of a row, for all lanes of its group; NaN for a label out of range.
template <typename W, typename T, typename L>
__device__ T loss_of(const L* row, int64_t classes, int64_t label, T label_smoothing, T smoothing_weight) {
  constexpr int kSpan = W::kLanes * W::kVector * W::kLoads;
  const int64_t begin = threadIdx.x % W::kLanes * W::kVector;
  const T at_target = label >= 0 && label < classes ? T(widen(row[label])) : static_cast<T>(NAN);
  Vector<L, W::kVector> held[W::kLoads];
  const auto load = [&](int64_t from) {
#pragma unroll
    for (int p = 0; p < W::kLoads; ++p) {
      const int64_t at = from + p * W::kLanes * W::kVector;
      if (at < classes) held[p] = read<W::kVector>(row + at);
    }
  };
  T top = static_cast<T>(-HUGE_VAL);
  for (int64_t from = 0; from < classes; from += kSpan) {
    load(begin + from);
    each_logit<W>(held, begin + from, classes, [&](T z) { top = top_of(top, z); });
  }
  top = warp_reduce<W::kLanes>(top, [](T a, T b) { return top_of(a, b); });
  T powers = 0, smoothing = 0;
  for (int64_t from = 0; from < classes; from += kSpan) {
    if (classes > kSpan) load(begin + from);
    each_logit<W>(held, begin + from, classes, [&](T z) { powers += power_term(z, top); });
    if (smoothing_weight != T(0))
      each_logit<W>(held, begin + from, classes, [&](T z) { smoothing += smoothing_term(z, top, smoothing_weight); });
  }
  powers = warp_reduce<W::kLanes>(powers, Sum{});
  smoothing = warp_reduce<W::kLanes>(smoothing, Sum{});
  return cross_entropy(powers, top, at_target, smoothing, label_smoothing);
}

// The worst loss before the first of these draws.
template <typename L>
__device__ ComputeType<L> worst_before(const BestOfKArgs<L>& args, int64_t b) {
  using T = ComputeType<L>;
  return args.target[b] == args.ignore_index ? T(0) : args.first_chunk ? static_cast<T>(NAN) : args.loss[b];
}

// The sum over the samples, by one warp, in the same order for a draw and for the worst so far, so that the chunks of
// draws make no difference.
template <typename At>
__device__ double total(int64_t rows, At&& at) {
  double sum = 0.0;
  for (int64_t b = threadIdx.x % kWarp; b < rows; b += kWarp) sum += static_cast<double>(at(b));
  return warp_reduce<kWarp>(sum, Sum{});
}

// By one block, when all losses are there: each warp takes a range of the draws.
template <typename L>
__device__ void worst_of_batch(const BestOfKArgs<L>& args) {
  using T = ComputeType<L>;
  __shared__ double worst[kMaxWarps];
  __shared__ int64_t draw_of[kMaxWarps];
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int64_t draws_per_part = blocks_for(args.draws, warps);
  double mine = warp == 0 ? total(args.rows, [&](int64_t b) { return worst_before(args, b); }) : NAN;
  int64_t winner = -1;
  for (int64_t draw = warp * draws_per_part; draw < args.draws && draw < (warp + 1) * draws_per_part; ++draw) {
    const T* losses = args.losses + draw * args.rows;
    const double sum = total(
        args.rows, [&](int64_t b) { return __ldcg(losses + b); });  // past the L1 cache, where other blocks wrote them
    if (worse(sum, mine)) mine = sum, winner = draw;
  }
  if (threadIdx.x % kWarp == 0) worst[warp] = mine, draw_of[warp] = winner;
  __syncthreads();
  mine = worst[0], winner = draw_of[0];
  for (int w = 1; w < warps; ++w)
    if (worse(worst[w], mine)) mine = worst[w], winner = draw_of[w];
  for (int64_t b = threadIdx.x; b < args.rows; b += blockDim.x) {
    const bool ignored = args.target[b] == args.ignore_index;
    if (winner >= 0) {
      args.loss[b] = __ldcg(args.losses + winner * args.rows + b);
      args.index[b] = ignored ? 0 : args.first + winner;
    } else if (ignored || args.first_chunk) {
      args.loss[b] = worst_before(args, b);
      args.index[b] = 0;
    }
  }
}

// `side` draws side by side of `samples` samples per block; `blocks` blocks.
template <typename W, typename L>
__global__ void __launch_bounds__(kMaxThreads)
    best_of_k_global(const __grid_constant__ BestOfKArgs<L> args, int side, int samples, int64_t blocks) {
  using T = ComputeType<L>;
  __shared__ T worst_of[W::kMaxGroups];
  __shared__ int64_t index_of[W::kMaxGroups];
  __shared__ bool last;
  const int group = threadIdx.x / W::kLanes, lane = threadIdx.x % W::kLanes, place = group / side, part = group % side;
  const int64_t draws_per_part = blocks_for(args.draws, side);
  const T smoothing = static_cast<T>(args.label_smoothing),
          smoothing_weight = static_cast<T>(args.label_smoothing / args.classes);
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t b = block * samples + place;
    const bool there = place < samples && b < args.rows;
    const int64_t label = there ? args.target[b] : args.ignore_index;
    const bool ignored = label == args.ignore_index;
    T worst = static_cast<T>(NAN);
    int64_t index = -1;
    for (int64_t draw = part * draws_per_part; draw < (part + 1) * draws_per_part; ++draw) {
      const bool has_draw = there && draw < args.draws;
      // a thread without a draw takes the first row, since the warp's other lanes wait for it
      const L* row = args.logits + (has_draw ? draw * args.rows + b : 0) * args.classes;
      const T found = loss_of<W>(row, args.classes, ignored ? 0 : label, smoothing, smoothing_weight),
              loss = ignored ? T(0) : found;
      if (!has_draw) continue;
      if (args.whole_batch) {
        if (lane == 0) args.losses[draw * args.rows + b] = loss;
      } else if (worse(loss, worst)) {
        worst = loss, index = draw;
      }
    }
    if (args.whole_batch) continue;
    if (lane == 0) worst_of[group] = worst, index_of[group] = index;
    __syncthreads();
    if (there && part == 0 && lane == 0) {
      worst = worst_before(args, b);
      index = args.first_chunk || ignored ? 0 : args.index[b];
      for (int g = group; g < group + side && !ignored; ++g)
        if (worse(worst_of[g], worst)) worst = worst_of[g], index = args.first + index_of[g];
      args.loss[b] = worst;
      args.index[b] = index;
    }
    __syncthreads();
  }
  if (!args.whole_batch) return;
  __threadfence();  // a block that sees the counter sees the losses
  __syncthreads();
  if (gridDim.x == 1) return worst_of_batch(args);
  if (threadIdx.x == 0) last = atomicAdd(args.blocks_done, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  worst_of_batch(args);
}

template <typename W, typename L>
void run(const BestOfKArgs<L>& args, cudaStream_t stream) {
  const int side = static_cast<int>(blocks_for(args.draws, blocks_for(args.draws, kMaxSide)));
  const bool alone = args.whole_batch && args.draws * args.rows <= kAlone;
  const int samples = max_of(1, (alone ? kMaxThreads : kThreads) / (W::kLanes * side));
  const int threads = (W::kLanes * side * samples + kWarp - 1) / kWarp * kWarp;
  const int64_t blocks = blocks_for(args.rows, samples);
  if (args.whole_batch && !alone)
    check(cudaMemsetAsync(args.blocks_done, 0, sizeof *args.blocks_done, stream), "best_of_k");
  launch("best_of_k", best_of_k_global<W, L>, alone ? 1 : blocks, threads, 1, stream, args, side, samples, blocks);
}

}  // namespace

template <typename L>
void best_of_k(const BestOfKArgs<L>& args, Target target) {
  constexpr int kVector = 16 / sizeof(L);
  if (args.rows == 0) return;
  const bool aligned = rows_of_16_bytes(args.classes, args.logits);
  if (args.classes <= 64)
    run<RowLayout<8, 1, 8>, L>(args, target.stream);
  else if (aligned)
    run<RowLayout<kWarp, kVector, 8>, L>(args, target.stream);
  else
    run<RowLayout<kWarp, 1, sizeof(L) == 8 ? 16 : 32>, L>(args, target.stream);
}

template void best_of_k(const BestOfKArgs<float>&, Target);
template void best_of_k(const BestOfKArgs<double>&, Target);
template void best_of_k(const BestOfKArgs<BFloat16>&, Target);
template void best_of_k(const BestOfKArgs<Float16>&, Target);

}  // namespace robustperf::device
