// The backward pass of a nuisance program. A block group runs its image forward once more, keeping the input of each
// segment, and then goes through the segments from the last to the first. Within one, each step's input is recomputed
// from the segment's; a step that needs image statistics takes a pass for the gradient in them before the steps ahead
// of it. All sums are added in the same order each time.
#include "../core/nuisance_backward.hpp"

#include "segment.hpp"

namespace robustperf::device {
namespace {

template <typename T>
struct Buffers {
  T *first, *second;  // gradients of images
  int64_t* fixed;     // an image in fixed point
  T* fields;          // [fogs of a segment, pixels]
  __device__ T* other(const T* than) const { return than == first ? second : first; }
};

// The thread of a group that adds sums to the gradient in delta.
__device__ inline bool is_first(const BlockGroup& group) { return group.rank == 0 && threadIdx.x == 0; }

// The sums over the pixels that one pass computes, in shared memory. More of them take further passes.
constexpr int kMaxSums = 8;

// The sums over the pixels that the gradient in a step's delta needs.
__device__ inline int sums_of(const Step& step) {
  return has_image_delta(step.transform) ? 0 : step.transform == kBackground ? 3 : 1;
}

// What the gradient in a step's image statistics adds to the gradient of one value of its input.
template <typename T, bool kRegisterHeavy>
__device__ T through_statistics(const ImageTask<T, kRegisterHeavy>& task, int s, int64_t pixel, int channel) {
  const Step& step = task.plan.steps[s];
  const double* d_statistics = task.shared.d_statistics[s];
  if (step.transform == kContrast)
    return static_cast<T>(d_statistics[0] * grey_weight(channel, step.channels) / static_cast<double>(task.plane()));
  if (step.transform == kFog)
    return static_cast<double>(channel * task.plane() + pixel) == task.shared.argmax[s]
               ? static_cast<T>(d_statistics[0])
               : T(0);
  return pixel == 0 ? static_cast<T>(d_statistics[channel]) : T(0);
}

// The gradient of the nodes of fog's lattices: a warp sums over the pixels around its node.
template <typename T, bool kRegisterHeavy>
__device__ void nodes_backward(const ImageTask<T, kRegisterHeavy>& task, const T* d_field, T* grad_nodes) {
  const int64_t height = task.args.height, width = task.args.width;
  const int lane = threadIdx.x % kWarp, warps = kPlanThreads / kWarp;
  for (int64_t n = task.group.rank * warps + threadIdx.x / kWarp; n < kFogNodes; n += task.group.blocks * warps) {
    int octave = kOctaves - 1;
    while (fog_offset(octave) > n) --octave;
    const int cells = 2 << octave, row = static_cast<int>(n - fog_offset(octave)) / (cells + 1),
              column = static_cast<int>(n - fog_offset(octave)) % (cells + 1);
    // The pixels within a cell of the node, and one more on each side because positions are rounded.
    const auto range = [&](int node, int64_t size, int64_t& first, int64_t& end) {
      first = max_of<int64_t>(0, (node - 1) * (size - 1) / cells - 1);
      end = min_of<int64_t>(size, (node + 1) * (size - 1) / cells + 2);
    };
    int64_t top, bottom, left, right;
    range(row, height, top, bottom);
    range(column, width, left, right);
    const auto weight_of_node = [](const NodePosition<T>& at, int node) {
      return at.node == node ? T(1) - at.fraction : at.node == node - 1 ? at.fraction : T(0);
    };
    double sum = 0.0;
    for (int64_t y = top; y < bottom; ++y) {
      const double down = static_cast<double>(weight_of_node(node_position_of<T>(y, cells, height), row));
      if (down == 0.0) continue;
      for (int64_t x = left + lane; x < right; x += kWarp) {
        const T g = static_cast<T>(fog_weight(octave)) * d_field[y * width + x];
        sum += down * static_cast<double>(weight_of_node(node_position_of<T>(x, cells, width), column) * g);
      }
    }
    sum = warp_reduce<kWarp>(sum, Sum{});
    if (lane == 0) grad_nodes[n] += static_cast<T>(sum);
  }
}

// The steps of a segment after a warp: from `grad`, of their output, the gradient of their input in `to`. Returns its
// largest magnitude, infinite where it is not finite.
template <int kPixels, typename T, bool kRegisterHeavy>
__device__ double steps_backward(ImageTask<T, kRegisterHeavy>& task, Segment segment, const T* in, const T* grad, T* to,
                                 T* fields, T* grad_delta) {
  const Step* steps = task.plan.steps;
  const Step& head = steps[segment.first];
  const int first = segment.first + (head.transform == kAffine ? 1 : 0);
  const Step& tail = steps[segment.end - 1];
  const int depth_out = depth_of(channels_after(tail.transform, tail.channels));
  // By thread; after the sums for delta the three for a step's image statistics.
  __shared__ double sums[kMaxSums + 3][kPlanThreads];
  __shared__ double d_delta[kMaxSteps][3];  // the gradients in delta, by step
  double largest = 0.0;
  int end = segment.end;  // the gradients in delta of the steps from here on are known
  for (bool last = false; !last;) {
    // This pass computes those of steps stop ... end - 1. A step that needs image statistics ends it.
    int stop = end, count = 0;
    bool needs = false;
    while (stop > first && !needs && count + sums_of(steps[stop - 1]) <= kMaxSums) {
      count += sums_of(steps[--stop]);
      needs = needs_image_statistics(steps[stop]);
    }
    last = stop == first && !needs;
    for (int n = 0; n < kMaxSums + 3; ++n) sums[n][threadIdx.x] = 0.0;
    task.template each_tile<kPixels>(head.channels, [&](int64_t pixel, int channel) {
      Tile<T, kPixels> g = read_tile<T, kPixels>(grad, task.plane(), pixel, channel, depth_out);
      T* field = fields;
      int sum = 0;
      for (int s = segment.end - 1; s >= stop; --s) {
        Tile<T, kPixels> b = input_at<kPixels>(task, head, in, pixel, channel);
        run_steps(task, first, s, pixel, channel, b);
        Gradients<T> found{{}, {}, last ? grad_delta : nullptr, last ? field : nullptr};
        step_backward<kRegisterHeavy>(task.context(s, pixel, channel), b, g, found);
        if (steps[s].transform == kFog) field += task.plane();
        if (s >= end) {
          if (needs_image_statistics(steps[s]))
            each_value(g, depth_of(steps[s].channels),
                       [&](T& grad, int c, int p) { grad += through_statistics(task, s, pixel + p, channel + c); });
          continue;
        }
        const int more = sums_of(steps[s]);
#pragma unroll
        for (int j = 0; j < 3; ++j) {
          if (j < more) sums[sum + j][threadIdx.x] += found.delta[j];
          if (needs && s == stop) sums[kMaxSums + j][threadIdx.x] += found.statistics[j];
        }
        sum += more;
      }
      if (!last) return;
      each_value(g, depth_of(head.channels), [&](T x, int, int) {
        const double size = abs_of(static_cast<double>(x));
        largest = size <= largest ? largest : finite(size) ? size : HUGE_VAL;
      });
      write_tile(to, task.plane(), pixel, channel, depth_of(head.channels), g);
    });
    for (int c = 0; needs && c < sums_of(steps[stop]); ++c) {
      const double sum = task.reduce(sums[kMaxSums + c][threadIdx.x]);
      if (threadIdx.x == 0) task.shared.d_statistics[stop][c] = sum;
    }
    int n = 0;
    for (int s = end - 1; s >= stop; --s)
      for (int j = 0; j < sums_of(steps[s]); ++j) {
        const double sum = task.reduce(sums[n++][threadIdx.x]);
        if (threadIdx.x == 0) d_delta[s][j] = sum;
      }
    __syncthreads();
    end = stop;
  }
  task.group.sync();
  T* field = fields;
  for (int s = segment.end - 1; s >= first; --s) {
    const Step& step = steps[s];
    for (int j = 0; j < sums_of(step) && is_first(task.group); ++j)
      grad_delta[step.offset + j] += static_cast<T>(d_delta[s][j]);
    if constexpr (kRegisterHeavy) {
      if (step.transform != kFog) continue;
      nodes_backward(task, field, grad_delta + step.offset + 1);
      field += task.plane();
    }
  }
  return task.reduce(largest, Max{});
}

// The backward pass of a warp, from `grad`, whose largest magnitude is `largest`, to `to`. A pixel adds to four others:
// in integers the order of additions makes no difference.
template <typename T, bool kRegisterHeavy>
__device__ void warp_backward_image(ImageTask<T, kRegisterHeavy>& task, const Step& head, const T* in, const T* grad,
                                    double largest, int64_t* fixed, T* to, T* grad_delta) {
  const int64_t height = task.args.height, width = task.args.width, plane = task.plane();
  const bool valid = finite(largest), border = extends_border(head);
  // As fine as the sum over all pixels allows.
  int exponent = 60;
  for (int64_t count = plane; count > 0; count /= 2) --exponent;
  exponent = largest > 0.0 && valid ? min_of(exponent - ::ilogb(largest), 1000) : 0;
  const double fine = ::ldexp(1.0, exponent);
  task.each_item(head.channels * plane, [&](int64_t i) { fixed[i] = 0; });
  task.group.sync();
  WarpGradient sums{};
  task.each_item(plane, [&](int64_t i) {
    const int64_t y = i / width, x = i % width;
    const SourcePosition<T> at = source_position_of<T>(task.shared.warp, border, y, x, height, width);
    T d_u = 0, d_v = 0;
    for (int c = 0; c < head.channels; ++c) {
      const T g = grad[c * plane + i];
      const Neighbours<T> near(in + c * plane, at, height, width);
      d_u += g * ((near.b - near.a) + at.down * ((near.s - near.p) - (near.b - near.a)));
      d_v += g * (near.lower(at.right) - near.upper(at.right));
      const T below = at.down * g, above = g - below;
      const auto add = [&](int64_t to_y, int64_t to_x, T value) {
        if (!valid || to_y < 0 || to_y >= height || to_x < 0 || to_x >= width) return;
        atomicAdd(reinterpret_cast<unsigned long long*>(fixed + c * plane + to_y * width + to_x),
                  static_cast<unsigned long long>(::llrint(static_cast<double>(value) * fine)));
      };
      add(at.y, at.x, above - at.right * above);
      add(at.y, at.x + 1, at.right * above);
      add(at.y + 1, at.x, below - at.right * below);
      add(at.y + 1, at.x + 1, at.right * below);
    }
    const double du = static_cast<double>(at.unclamped_x ? d_u : T(0)),
                 dv = static_cast<double>(at.unclamped_y ? d_v : T(0));
    sums.u += du;
    sums.ux += du * static_cast<double>(x);
    sums.uy += du * static_cast<double>(y);
    sums.v += dv;
    sums.vx += dv * static_cast<double>(x);
    sums.vy += dv * static_cast<double>(y);
  });
  task.group.sync();
  task.each_item(head.channels * plane, [&](int64_t i) {
    to[i] = valid ? static_cast<T>(static_cast<double>(__ldcg(fixed + i)) / fine) : static_cast<T>(NAN);
  });
  sums.u = task.reduce(sums.u);
  sums.ux = task.reduce(sums.ux);
  sums.uy = task.reduce(sums.uy);
  sums.v = task.reduce(sums.v);
  sums.vx = task.reduce(sums.vx);
  sums.vy = task.reduce(sums.vy);
  if (!is_first(task.group)) return;
  __shared__ double d_delta[kAffineParameters];  // not in registers, which cannot be indexed at run time
  for (double& grad : d_delta) grad = 0.0;
  warp_backward(head, task.shared.parameters, task.shared.warp, sums, height, width, d_delta);
  for (int j = 0; j < head.dim; ++j) grad_delta[head.offset + j] += static_cast<T>(d_delta[j]);
}

// The transposed filter: the sum of the gradients of the outputs that a value contributes to. `size` exceeds the
// radius.
template <typename T>
__device__ T filtered_transposed(const T* line, int64_t stride, int64_t i, int64_t size, const T* w, int radius) {
  // A value also contributes as its mirror images beyond either edge.
  const auto around = [&](int64_t place) {
    T sum = 0;
    for (int64_t from = max_of<int64_t>(place - radius, 0); from <= min_of(place + radius, size - 1); ++from)
      sum += w[from < place ? place - from : from - place] * line[from * stride];
    return sum;
  };
  T sum = around(i);
  if (i > 0) sum += around(-i);
  if (i < size - 1) sum += around(2 * (size - 1) - i);
  return sum;
}

// The backward pass of a blur, from `grad` to `to`; `between` is scratch.
template <typename T, bool kRegisterHeavy>
__device__ void blur_backward(ImageTask<T, kRegisterHeavy>& task, const Step& head, const T* in, const T* grad,
                              T* between, T* to, T* grad_delta) {
  const int64_t height = task.args.height, width = task.args.width, values = head.channels * task.plane();
  const Taps<T>& taps = task.shared.taps;
  double d_sigma = 0.0;
  task.each_item(values, [&](int64_t i) {
    const Position at = position_of(task, i);
    const T* column = grad + at.plane + at.x;
    const T by_weights = filtered_transposed(column, width, at.y, height, taps.weight, taps.radius);
    const T by_slopes = filtered_transposed(column, width, at.y, height, taps.slope, taps.radius);
    d_sigma += static_cast<double>(by_slopes * along_row(task, in, at, taps.weight) +
                                   by_weights * along_row(task, in, at, taps.slope));
    between[i] = by_weights;
  });
  d_sigma = task.reduce(d_sigma);
  if (is_first(task.group)) grad_delta[head.offset] += static_cast<T>(d_sigma);
  task.group.sync();
  task.each_item(values, [&](int64_t i) {
    const Position at = position_of(task, i);
    to[i] = filtered_transposed(between + at.plane + at.y * width, int64_t{1}, at.x, width, taps.weight, taps.radius);
  });
}

template <typename T, int kPixels, bool kRegisterHeavy>
__global__ void __launch_bounds__(kPlanThreads, 1)
    nuisance_backward_global(const __grid_constant__ NuisanceBackwardArgs<T> args, const __grid_constant__ Plan plan,
                             const __grid_constant__ Grid grid) {
  __shared__ Shared<T> shared;
  const int64_t plane = args.height * args.width, rows = args.batch * args.draws;
  const int64_t stride = gridDim.x / grid.blocks, begin = blockIdx.x / grid.blocks;
  char* scratch = reinterpret_cast<char*>(args.scratch) + begin * grid.scratch.total;
  const auto image = [&](int64_t i) {
    return reinterpret_cast<T*>(scratch + grid.scratch.images + i * grid.scratch.image);
  };
  const BlockGroup group{static_cast<int>(blockIdx.x % grid.blocks), grid.blocks, grid.clustered,
                         reinterpret_cast<double*>(scratch + grid.scratch.exchange)};
  const Buffers<T> buffers{image(0), image(1), reinterpret_cast<int64_t*>(scratch + grid.scratch.fixed),
                           reinterpret_cast<T*>(scratch + grid.scratch.fields)};
  int parity = 0;
  for (int64_t item = begin; item < rows; item += stride) {
    const int64_t b = item / args.draws, row = item % args.draws * args.batch + b;
    ImageTask<T, kRegisterHeavy> task{args, plan, args.delta + row * args.dim, group, shared, parity};
    T *grad_x = args.grad_x + row * args.channels * plane, *grad_delta = args.grad_delta + row * args.dim;
    task.each_item(args.dim, [&](int64_t j) { grad_delta[j] = 0; });
    // image(2 + s): the input of segment 1 + s; after them the scratch of a blur
    const auto input = [&](int s) -> const T* { return s == 0 ? args.x + b * args.channels * plane : image(1 + s); };
    for (int s = 0; s < plan.count; ++s) {
      run_segment<kPixels, true>(task, plan.segments[s], input(s), image(1 + plan.count),
                                 s + 1 < plan.count ? image(2 + s) : nullptr);
      group.sync();
    }
    const T* grad = args.grad + row * args.channels_out * plane;
    for (int s = plan.count - 1; s >= 0; --s) {
      const Step& head = plan.steps[plan.segments[s].first];
      const bool warps = head.transform == kAffine, blurs = head.transform == kBlur;
      prepare(task, head);
      T* to = buffers.other(grad);
      if (blurs) {
        T* end = s == 0 ? grad_x : buffers.other(to);
        if constexpr (kRegisterHeavy) blur_backward(task, head, input(s), grad, to, end, grad_delta);
        to = end;
      } else {
        if (s == 0 && !warps) to = grad_x;
        const double largest =
            steps_backward<kPixels>(task, plan.segments[s], input(s), grad, to, buffers.fields, grad_delta);
        if (warps) {
          T* end = s == 0 ? grad_x : buffers.other(to);
          warp_backward_image(task, head, input(s), to, largest, buffers.fixed, end, grad_delta);
          to = end;
        }
      }
      group.sync();
      grad = to;
    }
    parity = task.parity;
  }
}

}  // namespace

template <typename T>
PlanFunctions<NuisanceBackwardArgs<T>> backward_functions(const Plan& plan) {
  constexpr int kPixels = kTilePixels<T>;
  if (plan.register_heavy)
    return {"nuisance_backward", true, nuisance_backward_global<T, kPixels, true>,
            nuisance_backward_global<T, 1, true>};
  return {"nuisance_backward", true, nuisance_backward_global<T, kPixels, false>,
          nuisance_backward_global<T, 1, false>};
}

template <typename T>
void nuisance_backward(const NuisanceBackwardArgs<T>& args, Target target) {
  if (args.batch * args.draws == 0) return;
  const Plan plan = plan_of(args.steps, args.count);
  const bool aligned = rows_of_16_bytes(args.height * args.width, args.x, args.grad, args.grad_x, args.scratch);
  run<T>(args, args, plan, backward_functions<T>(plan), aligned, target.stream);
}

template PlanFunctions<NuisanceBackwardArgs<float>> backward_functions<float>(const Plan&);
template PlanFunctions<NuisanceBackwardArgs<double>> backward_functions<double>(const Plan&);
template void nuisance_backward(const NuisanceBackwardArgs<float>&, Target);
template void nuisance_backward(const NuisanceBackwardArgs<double>&, Target);

}  // namespace robustperf::device
