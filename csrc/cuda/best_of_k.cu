// The worst of k draws: a group of lanes takes a row of logits, a block some draws of some samples side by side.
//
// A row stays in registers between the look for its largest logit and the sum of powers, so that it is read once; rows
// too long for that are read again, from the cache. For one draw of the whole batch the losses are written down, and
// the block that ends last adds them up: which one that is makes no difference.
#include "../core/best_of_k.hpp"

#include "../core/half.hpp"
#include "pack.hpp"
#include "team.hpp"

namespace robustperf::cuda {
namespace {

using namespace robustperf::ROBUSTPERF_ISA;

constexpr int kThreads = 256;  // a block's, about
constexpr int kMostSide = 16;  // draws side by side
constexpr int kMostThreads = kMostSide * kWarp;
constexpr int64_t kAlone = 1024;  // losses of one draw for the batch that one block finds sooner than several agree

// Lanes a row, logits a load, loads at a time.
template <int kLanes_, int kVector_, int kLoads_>
struct Way {
  static constexpr int kLanes = kLanes_, kVector = kVector_, kLoads = kLoads_;
  static constexpr int kMostGroups = kMostThreads / kLanes;
};

// Calls body(logit) for those of the loads that lie within the row.
template <typename W, typename L, typename Body>
__device__ void each_logit(const Pack<L, W::kVector> (&held)[W::kLoads], int64_t from, int64_t classes, Body&& body) {
#pragma unroll
  for (int p = 0; p < W::kLoads; ++p) {
    if (from + p * W::kLanes * W::kVector >= classes) break;
#pragma unroll
    for (int v = 0; v < W::kVector; ++v) body(number(held[p][v]));
  }
}

// The cross-entropy of a row, for all lanes of its group; NaN for a label out of range.
template <typename W, typename T, typename L>
__device__ T loss_of(const L* row, int64_t classes, int64_t label, T label_smoothing, T share) {
  constexpr int kSpan = W::kLanes * W::kVector * W::kLoads;
  const int64_t begin = threadIdx.x % W::kLanes * W::kVector;
  const T at_target = label >= 0 && label < classes ? T(number(row[label])) : static_cast<T>(NAN);
  Pack<L, W::kVector> held[W::kLoads];
  const auto look = [&](int64_t from) {
#pragma unroll
    for (int p = 0; p < W::kLoads; ++p) {
      const int64_t at = from + p * W::kLanes * W::kVector;
      if (at < classes) held[p] = read<W::kVector>(row + at);
    }
  };
  T top = static_cast<T>(-HUGE_VAL);
  for (int64_t from = 0; from < classes; from += kSpan) {
    look(begin + from);
    each_logit<W>(held, begin + from, classes, [&](T z) { top = top_of(top, z); });
  }
  top = join_lanes<W::kLanes>(top, [](T a, T b) { return top_of(a, b); });
  T powers = 0, smoothing = 0;
  for (int64_t from = 0; from < classes; from += kSpan) {
    if (classes > kSpan) look(begin + from);
    each_logit<W>(held, begin + from, classes, [&](T z) { powers += power_term(z, top); });
    if (share != T(0))
      each_logit<W>(held, begin + from, classes, [&](T z) { smoothing += smoothing_term(z, top, share); });
  }
  powers = join_lanes<W::kLanes>(powers, Add{});
  smoothing = join_lanes<W::kLanes>(smoothing, Add{});
  return cross_entropy(powers, top, at_target, smoothing, label_smoothing);
}

// What is known before the first of these draws.
template <typename T>
__device__ T best_before(const BestOfKArgs<T>& args, int64_t b) {
  return args.target[b] == args.ignore_index ? T(0) : args.fresh ? static_cast<T>(NAN) : args.loss[b];
}

// The sum over the samples, by one warp: the same order of additions for a draw and for the best so far, whatever the
// chunks that draws come in.
template <typename At>
__device__ double total(int64_t rows, At&& at) {
  double sum = 0.0;
  for (int64_t b = threadIdx.x % kWarp; b < rows; b += kWarp) sum += static_cast<double>(at(b));
  return join_lanes<kWarp>(sum, Add{});
}

// By one block, when all losses are there: each warp looks at a stretch of the draws.
template <typename T>
__device__ void worst_of_the_batch(const BestOfKArgs<T>& args) {
  __shared__ double best[kMostWarps];
  __shared__ int64_t draw_of[kMostWarps];
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int64_t stretch = blocks_for(args.draws, warps);
  double mine = warp == 0 ? total(args.rows, [&](int64_t b) { return best_before(args, b); }) : NAN;
  int64_t winner = -1;
  for (int64_t draw = warp * stretch; draw < args.draws && draw < (warp + 1) * stretch; ++draw) {
    const T* losses = args.losses + draw * args.rows;
    const double sum = total(args.rows, [&](int64_t b) { return __ldcg(losses + b); });  // from where all blocks wrote
    if (worse(sum, mine)) mine = sum, winner = draw;
  }
  if (threadIdx.x % kWarp == 0) best[warp] = mine, draw_of[warp] = winner;
  __syncthreads();
  mine = best[0], winner = draw_of[0];
  for (int w = 1; w < warps; ++w)
    if (worse(best[w], mine)) mine = best[w], winner = draw_of[w];
  for (int64_t b = threadIdx.x; b < args.rows; b += blockDim.x) {
    const bool ignored = args.target[b] == args.ignore_index;
    if (winner >= 0) {
      args.loss[b] = __ldcg(args.losses + winner * args.rows + b);
      args.index[b] = ignored ? 0 : args.first + winner;
    } else if (ignored || args.fresh) {
      args.loss[b] = best_before(args, b);
      args.index[b] = 0;
    }
  }
}

// `side` draws side by side of `samples` samples a block; `blocks` of them.
template <typename W, typename T, typename L>
__global__ void __launch_bounds__(kMostThreads)
    best_of_k_kernel(const __grid_constant__ BestOfKArgs<T> args, int side, int samples, int64_t blocks) {
  __shared__ T best_of[W::kMostGroups];
  __shared__ int64_t index_of[W::kMostGroups];
  __shared__ bool last;
  const int group = threadIdx.x / W::kLanes, lane = threadIdx.x % W::kLanes, place = group / side, part = group % side;
  const int64_t stretch = blocks_for(args.draws, side);
  const T smoothing = static_cast<T>(args.label_smoothing), share = static_cast<T>(args.label_smoothing / args.classes);
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t b = block * samples + place;
    const bool there = place < samples && b < args.rows;
    const int64_t label = there ? args.target[b] : args.ignore_index;
    const bool ignored = label == args.ignore_index;
    T best = static_cast<T>(NAN);
    int64_t index = -1;
    for (int64_t draw = part * stretch; draw < (part + 1) * stretch; ++draw) {
      const bool looks = there && draw < args.draws;
      // who has nothing to look at goes along with the others of the warp, at the first row
      const L* row = static_cast<const L*>(args.logits) + (looks ? draw * args.rows + b : 0) * args.classes;
      const T found = loss_of<W>(row, args.classes, ignored ? 0 : label, smoothing, share),
              loss = ignored ? T(0) : found;
      if (!looks) continue;
      if (args.whole_batch) {
        if (lane == 0) args.losses[draw * args.rows + b] = loss;
      } else if (worse(loss, best)) {
        best = loss, index = draw;
      }
    }
    if (args.whole_batch) continue;
    if (lane == 0) best_of[group] = best, index_of[group] = index;
    __syncthreads();
    if (there && part == 0 && lane == 0) {
      best = best_before(args, b);
      index = args.fresh || ignored ? 0 : args.index[b];
      for (int g = group; g < group + side && !ignored; ++g)
        if (worse(best_of[g], best)) best = best_of[g], index = args.first + index_of[g];
      args.loss[b] = best;
      args.index[b] = index;
    }
    __syncthreads();
  }
  if (!args.whole_batch) return;
  __threadfence();  // the losses are seen by whoever sees the count
  __syncthreads();
  if (gridDim.x == 1) return worst_of_the_batch(args);
  if (threadIdx.x == 0) last = atomicAdd(args.done, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  worst_of_the_batch(args);
}

template <typename W, typename T, typename L>
void run(const BestOfKArgs<T>& args, cudaStream_t stream) {
  const int side = static_cast<int>(blocks_for(args.draws, blocks_for(args.draws, kMostSide)));
  const bool alone = args.whole_batch && args.draws * args.rows <= kAlone;
  const int samples = larger(1, (alone ? kMostThreads : kThreads) / (W::kLanes * side));
  const int threads = (W::kLanes * side * samples + kWarp - 1) / kWarp * kWarp;
  const int64_t blocks = blocks_for(args.rows, samples);
  if (args.whole_batch && !alone) check(cudaMemsetAsync(args.done, 0, sizeof *args.done, stream), "best_of_k");
  launch("best_of_k", best_of_k_kernel<W, T, L>, alone ? 1 : blocks, threads, 1, stream, args, side, samples, blocks);
}

}  // namespace

template <typename T, typename L>
void best_of_k(const BestOfKArgs<T>& args, cudaStream_t stream) {
  constexpr int kVector = 16 / sizeof(L);
  if (args.rows == 0) return;
  const bool aligned = rows_of_16_bytes(args.classes, static_cast<const L*>(args.logits));
  if (args.classes <= 64)
    run<Way<8, 1, 8>, T, L>(args, stream);
  else if (aligned)
    run<Way<kWarp, kVector, 8>, T, L>(args, stream);
  else
    run<Way<kWarp, 1, sizeof(L) == 8 ? 16 : 32>, T, L>(args, stream);
}

template void best_of_k<float, float>(const BestOfKArgs<float>&, cudaStream_t);
template void best_of_k<float, BFloat16>(const BestOfKArgs<float>&, cudaStream_t);
template void best_of_k<float, Float16>(const BestOfKArgs<float>&, cudaStream_t);
template void best_of_k<double, double>(const BestOfKArgs<double>&, cudaStream_t);

}  // namespace robustperf::cuda
