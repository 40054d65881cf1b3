// The way back of a nuisance program. A team runs its image forth once more, keeping what comes into each stretch, and
// then goes through the stretches from the last to the first. Within one, each step's input is worked out again from
// the stretch's; a step that wanted to know the whole image gets a pass for the gradient in that before the steps ahead
// of it can go on. All sums are added up in the same order each time.
#include "stretch.hpp"

namespace robustperf::cuda {
namespace {

template <typename T>
struct Buffers {
  T *first, *second;  // gradients of whole images
  int64_t* fixed;     // an image in fixed point
  T* fields;          // [fogs of a stretch, pixels]
  __device__ T* other(const T* than) const { return than == first ? second : first; }
};

// The thread that adds sums to the gradient in delta, for its team.
__device__ inline bool is_first(const Team& team) { return team.slice == 0 && threadIdx.x == 0; }

// Sums over the pixels that a pass adds up side by side, in shared memory; where there are more, further passes do.
constexpr int kMostSums = 8;

// Sums over the pixels that the gradient in a step's delta takes.
__device__ inline int sums_of(const Step& step) { return has_image(step) ? 0 : step.transform == kBackground ? 3 : 1; }

// What the gradient in what a step wanted to know of the image adds to that of one of its values.
template <typename T, bool kRare>
__device__ T behind_whole(const Work<T, kRare>& work, int s, int64_t pixel, int channel) {
  const Step& step = work.plan.steps[s];
  const double* d_whole = work.shared.d_wholes[s];
  if (step.transform == kContrast)
    return static_cast<T>(d_whole[0] * grey_weight(channel, step.channels) / static_cast<double>(work.plane()));
  if (step.transform == kFog)
    return static_cast<double>(channel * work.plane() + pixel) == work.shared.places[s] ? static_cast<T>(d_whole[0])
                                                                                        : T(0);
  return pixel == 0 ? static_cast<T>(d_whole[channel]) : T(0);
}

// The way back through the nodes of fog's lattices: a warp adds up what the pixels around its node hand on.
template <typename T, bool kRare>
__device__ void nodes_backward(const Work<T, kRare>& work, const T* d_field, T* grad_nodes) {
  const int64_t height = work.args.height, width = work.args.width;
  const int lane = threadIdx.x % kWarp, warps = kPlanThreads / kWarp;
  for (int64_t n = work.team.slice * warps + threadIdx.x / kWarp; n < kFogNodes; n += work.team.slices * warps) {
    int octave = kOctaves - 1;
    while (fog_offset(octave) > n) --octave;
    const int cells = 2 << octave, row = static_cast<int>(n - fog_offset(octave)) / (cells + 1),
              column = static_cast<int>(n - fog_offset(octave)) % (cells + 1);
    // The pixels within a cell of the node, and one more on each side for the rounding of stations.
    const auto range = [&](int node, int64_t size, int64_t& first, int64_t& end) {
      first = larger<int64_t>(0, (node - 1) * (size - 1) / cells - 1);
      end = smaller<int64_t>(size, (node + 1) * (size - 1) / cells + 2);
    };
    int64_t top, bottom, left, right;
    range(row, height, top, bottom);
    range(column, width, left, right);
    const auto share_of_node = [](const Station<T>& at, int node) {
      return at.node == node ? T(1) - at.share : at.node == node - 1 ? at.share : T(0);
    };
    double sum = 0.0;
    for (int64_t y = top; y < bottom; ++y) {
      const double down = static_cast<double>(share_of_node(station_of<T>(y, cells, height), row));
      if (down == 0.0) continue;
      for (int64_t x = left + lane; x < right; x += kWarp) {
        const T g = static_cast<T>(fog_weight(octave)) * d_field[y * width + x];
        sum += down * static_cast<double>(share_of_node(station_of<T>(x, cells, width), column) * g);
      }
    }
    sum = join_lanes<kWarp>(sum, Add{});
    if (lane == 0) grad_nodes[n] += static_cast<T>(sum);
  }
}

// The steps behind the head of a stretch: `grad`, of their results, becomes that of their input in `to`. Returns its
// greatest size, infinite where it is not finite.
template <int kPixels, typename T, bool kRare>
__device__ double steps_backward(Work<T, kRare>& work, Stretch stretch, const T* in, const T* grad, T* to, T* fields,
                                 T* grad_delta) {
  const Step* steps = work.plan.steps;
  const Step& head = steps[stretch.first];
  const int first = stretch.first + (head.transform == kAffine ? 1 : 0);
  const Step& tail = steps[stretch.end - 1];
  const int depth_out = depth_of(channels_after(tail.transform, tail.channels));
  // Each thread's own; behind those of delta the three of what a step wanted to know.
  __shared__ double sums[kMostSums + 3][kPlanThreads];
  __shared__ double d_small[kMostSteps][3];  // the gradients in delta, by step
  double largest = 0.0;
  int end = stretch.end;  // from here on the steps' gradients in delta are known
  for (bool last = false; !last;) {
    // This pass finds those of steps stop ... end - 1. A step that wants to know the whole image ends it.
    int stop = end, count = 0;
    bool asks = false;
    while (stop > first && !asks && count + sums_of(steps[stop - 1]) <= kMostSums) {
      count += sums_of(steps[--stop]);
      asks = wants_whole(steps[stop]);
    }
    last = stop == first && !asks;
    for (int n = 0; n < kMostSums + 3; ++n) sums[n][threadIdx.x] = 0.0;
    work.template each_bundle<kPixels>(head.channels, [&](int64_t pixel, int channel) {
      Bundle<T, kPixels> g = read_bundle<T, kPixels>(grad, work.plane(), pixel, channel, depth_out);
      T* field = fields;
      int sum = 0;
      for (int s = stretch.end - 1; s >= stop; --s) {
        Bundle<T, kPixels> b = input_at<kPixels>(work, head, in, pixel, channel);
        run_steps(work, first, s, pixel, channel, b);
        Gradients<T> found{{}, {}, last ? grad_delta : nullptr, last ? field : nullptr};
        step_backward<kRare>(work.site(s, pixel, channel), b, g, found);
        if (steps[s].transform == kFog) field += work.plane();
        if (s >= end) {
          if (wants_whole(steps[s]))
            each_value(g, depth_of(steps[s].channels),
                       [&](T& grad, int c, int p) { grad += behind_whole(work, s, pixel + p, channel + c); });
          continue;
        }
        const int more = sums_of(steps[s]);
#pragma unroll
        for (int j = 0; j < 3; ++j) {
          if (j < more) sums[sum + j][threadIdx.x] += found.small[j];
          if (asks && s == stop) sums[kMostSums + j][threadIdx.x] += found.whole[j];
        }
        sum += more;
      }
      if (!last) return;
      each_value(g, depth_of(head.channels), [&](T x, int, int) {
        const double size = magnitude(static_cast<double>(x));
        largest = size <= largest ? largest : finite(size) ? size : HUGE_VAL;
      });
      write_bundle(to, work.plane(), pixel, channel, depth_of(head.channels), g);
    });
    for (int c = 0; asks && c < sums_of(steps[stop]); ++c) {
      const double sum = work.join(sums[kMostSums + c][threadIdx.x]);
      if (threadIdx.x == 0) work.shared.d_wholes[stop][c] = sum;
    }
    int n = 0;
    for (int s = end - 1; s >= stop; --s)
      for (int j = 0; j < sums_of(steps[s]); ++j) {
        const double sum = work.join(sums[n++][threadIdx.x]);
        if (threadIdx.x == 0) d_small[s][j] = sum;
      }
    __syncthreads();
    end = stop;
  }
  work.team.sync();
  T* field = fields;
  for (int s = stretch.end - 1; s >= first; --s) {
    const Step& step = steps[s];
    for (int j = 0; j < sums_of(step) && is_first(work.team); ++j)
      grad_delta[step.offset + j] += static_cast<T>(d_small[s][j]);
    if constexpr (kRare) {
      if (step.transform != kFog) continue;
      nodes_backward(work, field, grad_delta + step.offset + 1);
      field += work.plane();
    }
  }
  return work.join(largest, Larger{});
}

// The way back through a warp, from `grad`, whose greatest size is `largest`, to `to`. A pixel hands on to four others:
// added up in integers, the order makes no difference.
template <typename T, bool kRare>
__device__ void warp_backward_image(Work<T, kRare>& work, const Step& head, const T* in, const T* grad, double largest,
                                    int64_t* fixed, T* to, T* grad_delta) {
  const int64_t height = work.args.height, width = work.args.width, plane = work.plane();
  const bool sound = finite(largest), border = setting(head, 1) == kBorder;
  // As fine as the sum of as many as there are pixels allows.
  int exponent = 60;
  for (int64_t count = plane; count > 0; count /= 2) --exponent;
  exponent = largest > 0.0 && sound ? smaller(exponent - ::ilogb(largest), 1000) : 0;
  const double fine = ::ldexp(1.0, exponent);
  work.each_place(head.channels * plane, [&](int64_t i) { fixed[i] = 0; });
  work.team.sync();
  WarpGradient sums{};
  work.each_place(plane, [&](int64_t i) {
    const int64_t y = i / width, x = i % width;
    const Place<T> at = place_of<T>(work.shared.warp, border, y, x, height, width);
    T d_u = 0, d_v = 0;
    for (int c = 0; c < head.channels; ++c) {
      const T g = grad[c * plane + i];
      const Neighbours<T> near(in + c * plane, at, height, width);
      d_u += g * ((near.b - near.a) + at.down * ((near.s - near.p) - (near.b - near.a)));
      d_v += g * (near.lower(at.right) - near.upper(at.right));
      const T below = at.down * g, above = g - below;
      const auto add = [&](int64_t to_y, int64_t to_x, T share) {
        if (!sound || to_y < 0 || to_y >= height || to_x < 0 || to_x >= width) return;
        atomicAdd(reinterpret_cast<unsigned long long*>(fixed + c * plane + to_y * width + to_x),
                  static_cast<unsigned long long>(::llrint(static_cast<double>(share) * fine)));
      };
      add(at.y, at.x, above - at.right * above);
      add(at.y, at.x + 1, at.right * above);
      add(at.y + 1, at.x, below - at.right * below);
      add(at.y + 1, at.x + 1, at.right * below);
    }
    const double du = static_cast<double>(at.moves_x ? d_u : T(0)), dv = static_cast<double>(at.moves_y ? d_v : T(0));
    sums.u += du;
    sums.ux += du * static_cast<double>(x);
    sums.uy += du * static_cast<double>(y);
    sums.v += dv;
    sums.vx += dv * static_cast<double>(x);
    sums.vy += dv * static_cast<double>(y);
  });
  work.team.sync();
  work.each_place(head.channels * plane, [&](int64_t i) {
    to[i] = sound ? static_cast<T>(static_cast<double>(__ldcg(fixed + i)) / fine) : static_cast<T>(NAN);
  });
  sums.u = work.join(sums.u);
  sums.ux = work.join(sums.ux);
  sums.uy = work.join(sums.uy);
  sums.v = work.join(sums.v);
  sums.vx = work.join(sums.vx);
  sums.vy = work.join(sums.vy);
  if (!is_first(work.team)) return;
  __shared__ double d_delta[kAffineParameters];  // its places are chosen at run time: registers have none
  for (double& grad : d_delta) grad = 0.0;
  warp_backward(head, work.shared.parameters, work.shared.warp, sums, height, width, d_delta);
  for (int j = 0; j < head.dim; ++j) grad_delta[head.offset + j] += static_cast<T>(d_delta[j]);
}

// The transposed filter: what the results that a value went into hand back to it. `size` is above the radius.
template <typename T>
__device__ T filtered_back(const T* line, int64_t stride, int64_t i, int64_t size, const T* w, int radius) {
  // A value also stands for its mirror images, beyond either edge.
  const auto around = [&](int64_t place) {
    T sum = 0;
    for (int64_t from = larger<int64_t>(place - radius, 0); from <= smaller(place + radius, size - 1); ++from)
      sum += w[from < place ? place - from : from - place] * line[from * stride];
    return sum;
  };
  T sum = around(i);
  if (i > 0) sum += around(-i);
  if (i < size - 1) sum += around(2 * (size - 1) - i);
  return sum;
}

// The way back through a blur, from `grad` by `between` to `to`.
template <typename T, bool kRare>
__device__ void blur_backward(Work<T, kRare>& work, const Step& head, const T* in, const T* grad, T* between, T* to,
                              T* grad_delta) {
  const int64_t height = work.args.height, width = work.args.width, values = head.channels * work.plane();
  const Taps<T>& taps = work.shared.taps;
  double d_sigma = 0.0;
  work.each_place(values, [&](int64_t i) {
    const Spot at = spot_of(work, i);
    const T* column = grad + at.plane + at.x;
    const T by_weights = filtered_back(column, width, at.y, height, taps.weight, taps.radius);
    const T by_slopes = filtered_back(column, width, at.y, height, taps.slope, taps.radius);
    d_sigma += static_cast<double>(by_slopes * along_row(work, in, at, taps.weight) +
                                   by_weights * along_row(work, in, at, taps.slope));
    between[i] = by_weights;
  });
  d_sigma = work.join(d_sigma);
  if (is_first(work.team)) grad_delta[head.offset] += static_cast<T>(d_sigma);
  work.team.sync();
  work.each_place(values, [&](int64_t i) {
    const Spot at = spot_of(work, i);
    to[i] = filtered_back(between + at.plane + at.y * width, int64_t{1}, at.x, width, taps.weight, taps.radius);
  });
}

template <typename T, int kPixels, bool kRare>
__global__ void __launch_bounds__(kPlanThreads, 1)
    backward_kernel(const __grid_constant__ NuisanceArgs<T> args, const __grid_constant__ Plan plan,
                    const __grid_constant__ Grid grid) {
  __shared__ Shared<T> shared;
  const int64_t plane = args.height * args.width, rows = args.batch * args.draws;
  const int64_t stride = gridDim.x / grid.slices, begin = blockIdx.x / grid.slices;
  char* scratch = reinterpret_cast<char*>(args.scratch) + begin * grid.scratch.total;
  const auto image = [&](int64_t i) {
    return reinterpret_cast<T*>(scratch + grid.scratch.images + i * grid.scratch.image);
  };
  const Team team{static_cast<int>(blockIdx.x % grid.slices), grid.slices, grid.together,
                  reinterpret_cast<double*>(scratch + grid.scratch.exchange)};
  const Buffers<T> buffers{image(0), image(1), reinterpret_cast<int64_t*>(scratch + grid.scratch.fixed),
                           reinterpret_cast<T*>(scratch + grid.scratch.fields)};
  int turn = 0;
  for (int64_t item = begin; item < rows; item += stride) {
    const int64_t b = item / args.draws, row = item % args.draws * args.batch + b;
    Work<T, kRare> work{args, plan, args.delta + row * args.dim, team, shared, turn};
    T *grad_x = args.grad_x + row * args.channels * plane, *grad_delta = args.grad_delta + row * args.dim;
    work.each_place(args.dim, [&](int64_t j) { grad_delta[j] = 0; });
    // image(2 + s): what comes into stretch 1 + s; behind them the place for a blur's rows
    const auto input = [&](int s) -> const T* { return s == 0 ? args.x + b * args.channels * plane : image(1 + s); };
    for (int s = 0; s < plan.count; ++s) {
      run_stretch<kPixels, true>(work, plan.stretches[s], input(s), image(1 + plan.count),
                                 s + 1 < plan.count ? image(2 + s) : nullptr);
      team.sync();
    }
    const T* grad = args.grad + row * args.channels_out * plane;
    for (int s = plan.count - 1; s >= 0; --s) {
      const Step& head = plan.steps[plan.stretches[s].first];
      const bool warps = head.transform == kAffine, blurs = head.transform == kBlur;
      prepare(work, head);
      T* to = buffers.other(grad);
      if (blurs) {
        T* end = s == 0 ? grad_x : buffers.other(to);
        if constexpr (kRare) blur_backward(work, head, input(s), grad, to, end, grad_delta);
        to = end;
      } else {
        if (s == 0 && !warps) to = grad_x;
        const double largest =
            steps_backward<kPixels>(work, plan.stretches[s], input(s), grad, to, buffers.fields, grad_delta);
        if (warps) {
          T* end = s == 0 ? grad_x : buffers.other(to);
          warp_backward_image(work, head, input(s), to, largest, buffers.fixed, end, grad_delta);
          to = end;
        }
      }
      team.sync();
      grad = to;
    }
    turn = work.turn;
  }
}

}  // namespace

template <typename T>
NuisanceKernels<T> backward_kernels(const Plan& plan) {
  constexpr int kPixels = kBundle<T>;
  if (plan.rare) return {"nuisance_backward", true, backward_kernel<T, kPixels, true>, backward_kernel<T, 1, true>};
  return {"nuisance_backward", true, backward_kernel<T, kPixels, false>, backward_kernel<T, 1, false>};
}

template <typename T>
void nuisance_backward(const NuisanceArgs<T>& args, cudaStream_t stream) {
  if (args.batch * args.draws == 0) return;
  const Plan plan = plan_of(args.steps, args.count);
  const bool aligned = rows_of_16_bytes(args.height * args.width, args.x, args.grad, args.grad_x, args.scratch);
  run(args, plan, backward_kernels<T>(plan), aligned, stream);
}

template NuisanceKernels<float> backward_kernels<float>(const Plan&);
template NuisanceKernels<double> backward_kernels<double>(const Plan&);
template void nuisance_backward<float>(const NuisanceArgs<float>&, cudaStream_t);
template void nuisance_backward<double>(const NuisanceArgs<double>&, cudaStream_t);

}  // namespace robustperf::cuda
