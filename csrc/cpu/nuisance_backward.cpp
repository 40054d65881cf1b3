#include "../core/nuisance_backward.hpp"

#include "buffer.hpp"
#include "parallel.hpp"
#include "segment.hpp"

namespace robustperf::ROBUSTPERF_TARGET {
namespace {

template <typename T>
void add_to(T* sum, const T* more, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) sum[i] += more[i];
}

// The backward pass of steps first ... end - 1: `grad`, of their output, becomes that of their input `image`.
template <typename T>
void segment_backward(const NuisanceArgs<T>& args, int64_t first, int64_t end, const T* image, const T* delta,
                      const Scratch<T>& scratch, const ImageStatistics& statistics, T* grad, T* grad_delta) {
  const int64_t pixels = args.height * args.width;
  const Step& head = args.steps[first];
  const auto add_to_delta = [&](const Step& step, const double* sums) {
    for (int64_t j = 0; j < step.dim; ++j) grad_delta[step.offset + j] += static_cast<T>(sums[j]);
  };
  if (head.transform == kBlur) {
    const auto taps = taps_of<T>(blur_radius(head), static_cast<double>(delta[head.offset]));
    grad_delta[head.offset] += static_cast<T>(
        blur_backward(image, taps, head.channels, args.height, args.width, grad, scratch.image, scratch.padded));
    return;
  }
  const bool warps = head.transform == kAffine, border = extends_border(head);
  const Padded size{args.height, args.width};
  Warp warp{};
  WarpParameters parameters{};
  WarpGradient warp_sums{};
  if (warps) {
    parameters = warp_parameters_of(head, delta + head.offset);
    warp = warp_of(parameters, args.height, args.width);
    pad_image(image, head.channels, size, scratch.padded);
    memset(scratch.padded_grad, 0, size.size(head.channels) * sizeof(T));
  }
  ImageStatistics d_statistics{};
  const int64_t tile_size = args.max_channels * kTile;
  // Gradients in delta, summed over the tiles. Only the first step of a segment can be fog, which has many components.
  double sums[kMaxSteps][3] = {}, fog_sums[1 + kFogNodes];
  if (head.transform == kFog) memset(fog_sums, 0, sizeof fog_sums);
  for (int64_t pixel = 0; pixel < pixels; pixel += kTile) {
    const int64_t n = min_of(kTile, pixels - pixel);
    const auto context = [&](int64_t s) {
      return StepContext<T>{args.steps[s], delta + args.steps[s].offset, statistics, pixel, args.height, args.width};
    };
    // Forward again, keeping each step's input, then backward.
    Planes<const T> inputs[kMaxSteps];
    inputs[0] = {image + pixel, pixels};
    for (int64_t s = first; s < end - 1; ++s) {
      const Planes<T> to{scratch.tiles + (s - first) * tile_size, kTile};
      if (s == first && warps)
        warp_tile(warp, border, scratch.padded, head.channels, size, pixel, n, to);
      else
        step_forward(context(s), inputs[s - first], to, n);
      inputs[s - first + 1] = {to.first, to.stride};
    }
    const Planes<T> tile_grad{grad + pixel, pixels};
    for (int64_t s = end; s-- > first + (warps ? 1 : 0);) {
      const Step& step = args.steps[s];
      Gradients<T> to{step.transform == kFog ? fog_sums : sums[s - first], grad_delta + step.offset, {}};
      step_backward(context(s), inputs[s - first], tile_grad, n, to);
      if (s == first)
        for (int c = 0; c < 3; ++c) d_statistics.value[c] += to.statistics.value[c];
    }
    if (warps)
      warp_tile_backward(warp, border, scratch.padded, head.channels, size, pixel, n,
                         {tile_grad.first, tile_grad.stride}, scratch.padded_grad, warp_sums);
  }
  for (int64_t s = first + (warps ? 1 : 0); s < end; ++s)
    if (!has_image_delta(args.steps[s].transform))
      add_to_delta(args.steps[s], args.steps[s].transform == kFog ? fog_sums : sums[s - first]);
  if (warps) {
    double d_delta[kAffineParameters] = {};
    warp_backward(head, parameters, warp, warp_sums, args.height, args.width, d_delta);
    add_to_delta(head, d_delta);
    unpad(scratch.padded_grad, head.channels, size, grad);
  } else if (head.transform == kContrast) {
    for (int c = 0; c < head.channels; ++c) {
      const T of_mean = static_cast<T>(d_statistics.value[0] * grey_weight(c, head.channels) / pixels);
#pragma omp simd
      for (int64_t i = 0; i < pixels; ++i) grad[c * pixels + i] += of_mean;
    }
  } else if (head.transform == kFog) {
    for (int64_t i = 0; i < head.channels * pixels; ++i)
      if (image[i] == static_cast<T>(statistics.value[0])) {
        grad[i] += static_cast<T>(d_statistics.value[0]);
        break;
      }
  } else if (needs_image_statistics(head)) {
    for (int c = 0; c < 3; ++c) grad[c * pixels] += static_cast<T>(d_statistics.value[c]);
  }
}

}  // namespace

template <typename T>
void nuisance_backward(const NuisanceBackwardArgs<T>& args, Target target) {
  const int64_t pixels = args.height * args.width, size_in = args.channels * pixels,
                size_out = args.channels_out * pixels, size_max = args.max_channels * pixels;
  const ScratchLayout layout(args, Pass::backward);
  const Buffer<T> memory(target.threads * layout.total);
  // One thread runs all draws of a sample: their gradients in x are added in order.
  parallel_ranges(args.batch, target.threads, [&](int64_t from, int64_t to) {
    const Scratch<T> scratch(layout, memory.data(), thread_number());
    for (int64_t b = from; b < to; ++b) {
      T* grad_x = args.grad_x + b * size_in;
      if (args.draws == 0) memset(grad_x, 0, size_in * sizeof(T));
      for (int64_t k = 0; k < args.draws; ++k) {
        const int64_t row = k * args.batch + b;
        const T *delta = args.delta + row * args.dim, *inputs[kMaxSteps];
        ImageStatistics statistics[kMaxSteps];  // by step
        int64_t firsts[kMaxSteps + 1], segments = 0;
        inputs[0] = args.x + b * size_in;
        if (needs_image_statistics(args.steps[0])) statistics[0] = statistics_of(args.steps[0], inputs[0], pixels);
        for (int64_t first = 0, end; first < args.count; first = end, ++segments) {
          end = segment_end(args, first);
          firsts[segments] = first;
          if (end == args.count) continue;
          T* out = scratch.inputs + segments * size_max;
          run_segment(args, first, end, inputs[segments], delta, scratch, statistics, out);
          inputs[segments + 1] = out;
        }
        firsts[segments] = args.count;
        memset(args.grad_delta + row * args.dim, 0, args.dim * sizeof(T));
        // The first draw's gradient is computed in place, if the intermediate images fit there.
        T* grad = k == 0 && size_in == size_max ? grad_x : scratch.grads;
        memcpy(grad, args.grad + row * size_out, size_out * sizeof(T));
        for (int64_t s = segments; s-- > 0;)
          segment_backward(args, firsts[s], firsts[s + 1], inputs[s], delta, scratch, statistics[firsts[s]], grad,
                           args.grad_delta + row * args.dim);
        if (grad == grad_x) continue;
        if (k == 0)
          memcpy(grad_x, grad, size_in * sizeof(T));
        else
          add_to(grad_x, grad, size_in);
      }
    }
  });
}

template void nuisance_backward(const NuisanceBackwardArgs<float>&, Target);
template void nuisance_backward(const NuisanceBackwardArgs<double>&, Target);

}  // namespace robustperf::ROBUSTPERF_TARGET
