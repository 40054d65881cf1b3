#include "kernels.hpp"
#include "parallel.hpp"
#include "segments.hpp"

namespace robustperf::ROBUSTPERF_ISA {
namespace {

template <typename T>
void add_to(T* sum, const T* more, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) sum[i] += more[i];
}

// Steps first ... end - 1 backwards: `grad`, of their results, becomes that of their input `image`.
template <typename T>
void segment_backward(const NuisanceArgs<T>& args, int64_t first, int64_t end, const T* image, const T* delta,
                      const Scratch<T>& scratch, const Whole& whole, T* grad, T* grad_delta) {
  const int64_t pixels = args.height * args.width;
  const Step& head = args.steps[first];
  const auto hand_on = [&](const Step& step, const double* small) {
    for (int64_t j = 0; j < step.dim; ++j) grad_delta[step.offset + j] += static_cast<T>(small[j]);
  };
  if (head.transform == kBlur) {
    const auto taps = taps_of<T>(static_cast<int>(setting(head, 0)), static_cast<double>(delta[head.offset]));
    grad_delta[head.offset] += static_cast<T>(
        blur_backward(image, taps, head.channels, args.height, args.width, grad, scratch.image, scratch.padded));
    return;
  }
  const bool warps = head.transform == kAffine, border = setting(head, 1) == kBorder;
  const Padded size{args.height, args.width};
  Warp warp{};
  WarpParameters parameters{};
  WarpGradient sums{};
  if (warps) {
    parameters = parameters_of(head, delta + head.offset);
    warp = warp_of(parameters, args.height, args.width);
    lay_out(image, head.channels, size, scratch.padded);
    memset(scratch.padded_grad, 0, (head.channels + 3) / 4 * 4 * size.quads() * sizeof(T));
  }
  Whole d_whole{};
  const int64_t tile_size = args.channels_most * kTile;
  // Gradients in delta, summed over the tiles. Fog, with its many numbers, begins a segment.
  double few[kMostSteps][3] = {}, many[1 + kFogNodes];
  if (head.transform == kFog) memset(many, 0, sizeof many);
  for (int64_t pixel = 0; pixel < pixels; pixel += kTile) {
    const int64_t n = smaller(kTile, pixels - pixel);
    const auto site = [&](int64_t s) {
      return Site<T>{args.steps[s], delta + args.steps[s].offset, whole, pixel, args.height, args.width};
    };
    // Forth again, keeping each step's input, and back.
    Planes<const T> inputs[kMostSteps];
    inputs[0] = {image + pixel, pixels};
    for (int64_t s = first; s < end - 1; ++s) {
      const Planes<T> to{scratch.tiles + (s - first) * tile_size, kTile};
      if (s == first && warps)
        warp_tile(warp, border, scratch.padded, head.channels, size, pixel, n, to);
      else
        step_forward(site(s), inputs[s - first], to, n);
      inputs[s - first + 1] = {to.first, to.stride};
    }
    const Planes<T> at{grad + pixel, pixels};
    for (int64_t s = end; s-- > first + (warps ? 1 : 0);) {
      const Step& step = args.steps[s];
      Gradients<T> to{step.transform == kFog ? many : few[s - first], grad_delta + step.offset, {}};
      step_backward(site(s), inputs[s - first], at, n, to);
      if (s == first)
        for (int c = 0; c < 3; ++c) d_whole.value[c] += to.whole.value[c];
    }
    if (warps)
      warp_tile_backward(warp, border, scratch.padded, head.channels, size, pixel, n, {at.first, at.stride},
                         scratch.padded_grad, sums);
  }
  for (int64_t s = first + (warps ? 1 : 0); s < end; ++s)
    if (!has_image(args.steps[s])) hand_on(args.steps[s], args.steps[s].transform == kFog ? many : few[s - first]);
  if (warps) {
    double d_delta[kAffineParameters] = {};
    warp_backward(head, parameters, warp, sums, args.height, args.width, d_delta);
    hand_on(head, d_delta);
    take_in(scratch.padded_grad, head.channels, size, grad);
  } else if (head.transform == kContrast) {
    for (int c = 0; c < head.channels; ++c) {
      const T share = static_cast<T>(d_whole.value[0] * grey_weight(c, head.channels) / pixels);
#pragma omp simd
      for (int64_t i = 0; i < pixels; ++i) grad[c * pixels + i] += share;
    }
  } else if (head.transform == kFog) {
    for (int64_t i = 0; i < head.channels * pixels; ++i)
      if (image[i] == static_cast<T>(whole.value[0])) {
        grad[i] += static_cast<T>(d_whole.value[0]);
        break;
      }
  } else if (wants_whole(head)) {
    for (int c = 0; c < 3; ++c) grad[c * pixels] += static_cast<T>(d_whole.value[c]);
  }
}

}  // namespace

template <typename T>
void Kernels::nuisance_backward(const NuisanceArgs<T>& args, int threads) {
  const int64_t pixels = args.height * args.width, size_in = args.channels * pixels,
                size_out = args.channels_out * pixels, size_most = args.channels_most * pixels;
  // The draws of a sample in one thread: their gradients in x are added up in order.
  parallel_ranges(args.batch, threads, [&](int64_t from, int64_t to) {
    const Scratch<T> scratch(args, thread_number());
    for (int64_t b = from; b < to; ++b) {
      T* grad_x = args.grad_x + b * size_in;
      if (args.draws == 0) memset(grad_x, 0, size_in * sizeof(T));
      for (int64_t k = 0; k < args.draws; ++k) {
        const int64_t row = k * args.batch + b;
        const T *delta = args.delta + row * args.dim, *inputs[kMostSteps];
        Whole wholes[kMostSteps];  // by step
        int64_t firsts[kMostSteps + 1], segments = 0;
        inputs[0] = args.x + b * size_in;
        if (wants_whole(args.steps[0])) wholes[0] = look_at_image(args.steps[0], inputs[0], pixels);
        for (int64_t first = 0, end; first < args.count; first = end, ++segments) {
          end = segment_end(args, first);
          firsts[segments] = first;
          if (end == args.count) continue;
          T* out = scratch.inputs + segments * size_most;
          run_segment(args, first, end, inputs[segments], delta, scratch, wholes, out);
          inputs[segments + 1] = out;
        }
        firsts[segments] = args.count;
        memset(args.grad_delta + row * args.dim, 0, args.dim * sizeof(T));
        // The first draw's gradient is worked out where it belongs, if it has room there on the way.
        T* grad = k == 0 && size_in == size_most ? grad_x : scratch.grads;
        memcpy(grad, args.grad + row * size_out, size_out * sizeof(T));
        for (int64_t s = segments; s-- > 0;)
          segment_backward(args, firsts[s], firsts[s + 1], inputs[s], delta, scratch, wholes[firsts[s]], grad,
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

template void Kernels::nuisance_backward<float>(const NuisanceArgs<float>&, int);
template void Kernels::nuisance_backward<double>(const NuisanceArgs<double>&, int);

}  // namespace robustperf::ROBUSTPERF_ISA
