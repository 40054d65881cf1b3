#include "../core/best_of_k.hpp"

#include "buffer.hpp"
#include "parallel.hpp"
#include "simd.hpp"
#include "transpose4.hpp"

namespace robustperf::ROBUSTPERF_TARGET {
namespace {

// Up to this many classes, kLanes rows go side by side, one per lane; longer rows go one by one, along the lanes.
constexpr int64_t kNarrow = 40;
constexpr int kTops = 2;  // registers in flight
static_assert(kTops * kWidthOf<float> <= kNarrow, "a wide row fills them");

// The rows that a thread takes at a time.
constexpr int kBlock = 4 * kLanes;
constexpr int rows_at_a_time(int64_t classes) { return classes <= kNarrow ? kBlock : kLanes; }

// What the losses of a block need from its rows.
template <typename T>
struct RowSums {
  T top[kBlock], powers[kBlock], smoothing[kBlock], at_target[kBlock];
};

// Contiguous logits in the compute type: themselves, or widened into `scratch`.
template <typename T>
const T* widened(const T* logits, int64_t, T*) {
  return logits;
}

template <typename T, typename L>
const T* widened(const L* logits, int64_t count, T* scratch) {
  const int64_t vectorized = count / kWidthOf<T> * kWidthOf<T>;
  for (int64_t i = 0; i < vectorized; i += kWidthOf<T>) write(scratch + i, read(logits + i));
  for (int64_t i = vectorized; i < count; ++i) scratch[i] = widen(logits[i]);
  return scratch;
}

// columns[class][row] from rows[row][class], four by four; the rows from `count` to kLanes repeat the last one.
template <typename T>
void columns_of(const T* rows, int count, int64_t classes, T* columns) {
  const auto row = [&](int l) { return rows + min_of(l, count - 1) * classes; };
  if (classes < 4) {
    for (int l = 0; l < kLanes; ++l)
      for (int64_t j = 0; j < classes; ++j) columns[j * kLanes + l] = row(l)[j];
    return;
  }
  for (int l = 0; l < kLanes; l += 4) {
    const T* from[4] = {row(l), row(l + 1), row(l + 2), row(l + 3)};
    for (int64_t j = 0;; j = min_of(j + 4, classes - 4)) {  // the last step may repeat some columns
      Vector4<T> vectors[4];
      for (int i = 0; i < 4; ++i) load4(vectors[i], from[i] + j);
      transpose<T>(vectors);
      for (int i = 0; i < 4; ++i) store4(columns + (j + i) * kLanes + l, vectors[i]);
      if (j + 4 == classes) break;
    }
  }
}

template <typename T, typename L>
void widened_columns_of(const L* logits, int count, int64_t classes, T* columns) {
  T scratch[kNarrow * kLanes];
  columns_of(widened(logits, count * classes, scratch), count, classes, columns);
}

template <typename T, typename L>
void sum_narrow_rows(const L* logits, int count, int64_t classes, T smoothing_weight, RowSums<T>& rows) {
  using V = RegisterOf<T>;
  alignas(64) T columns[2][kNarrow * kLanes];
  widened_columns_of(logits, min_of(kLanes, count), classes, columns[0]);
  for (int first = 0, current = 0; first < count; first += kLanes, current ^= 1) {
    // The next rows first: a register cannot be read at once from numbers that were just written one by one.
    const int after = first + kLanes;
    if (after < count)
      widened_columns_of(logits + after * classes, min_of(kLanes, count - after), classes, columns[current ^ 1]);
    for (int lane = 0; lane < kLanes; lane += kWidthOf<T>) {
      const auto column = [&](int64_t j) { return read(columns[current] + j * kLanes + lane); };
      V top = column(0), powers{}, smoothing{};
      for (int64_t j = 1; j < classes; ++j) top = top_of(top, column(j));
      for (int64_t j = 0; j < classes; ++j) powers += power_term(column(j), top);
      if (smoothing_weight != T(0))
        for (int64_t j = 0; j < classes; ++j) smoothing += smoothing_term(column(j), top, smoothing_weight);
      write(rows.top + first + lane, top);
      write(rows.powers + first + lane, powers);
      write(rows.smoothing + first + lane, smoothing);
    }
  }
}

// The maximum does not depend on the order, so the end of a row that the registers do not divide is read twice.
template <typename T, typename L>
T maximum(const L* row, int64_t classes) {
  using V = RegisterOf<T>;
  constexpr int64_t kStep = kTops * kWidthOf<T>;
  V top[kTops];
  for (V& each : top) each = V{} - static_cast<T>(HUGE_VAL);
  for (int64_t i = 0;;) {
    for (int r = 0; r < kTops; ++r) top[r] = top_of(top[r], read(row + i + r * kWidthOf<T>));
    if (i + kStep == classes) break;
    i = min_of(i + kStep, classes - kStep);
  }
  return reduce_registers<T>(top, [](auto a, auto b) { return top_of(a, b); });
}

// The sum of term(z) along a row, in kLanes lanes; `neutral` is a z whose term is 0. Meanwhile it prefetches the row
// `ahead`.
template <typename T, typename L, typename Term>
T sum_along(const L* row, const L* ahead, int64_t classes, T neutral, Term&& term) {
  using V = RegisterOf<T>;
  V sum[kRegistersOf<T>] = {};
  const int64_t vectorized = classes / kLanes * kLanes;
  for (int64_t i = 0; i < vectorized; i += kLanes) {
    __builtin_prefetch(ahead + i);
    for (int r = 0; r < kRegistersOf<T>; ++r) sum[r] += term(read(row + i + r * kWidthOf<T>));
  }
  if (vectorized < classes) {  // the last kLanes, without those already added
    const T added = static_cast<T>(vectorized + kLanes - classes);
    for (int r = 0; r < kRegistersOf<T>; ++r) {
      const V z = read(row + classes - kLanes + r * kWidthOf<T>);
      sum[r] += term(lane_numbers<V>() + static_cast<T>(r * kWidthOf<T>) < V{} + added ? V{} + neutral : z);
    }
  }
  return reduce_registers<T>(sum, [](auto a, auto b) { return a + b; });
}

// `remaining`: the rows from here on, in this block and after it.
template <typename T, typename L>
void sum_wide_rows(const L* logits, int count, int64_t remaining, int64_t classes, T smoothing_weight,
                   RowSums<T>& rows) {
  using V = RegisterOf<T>;
  T next = maximum<T>(logits, classes);
  for (int l = 0; l < count; ++l) {
    const L* row = logits + l * classes;
    const L* ahead = l + 2 < remaining ? row + 2 * classes : row;
    const T top = next;
    // One row ahead: the last steps of a maximum wait for one another, and the powers are computed meanwhile.
    if (l + 1 < count) next = maximum<T>(row + classes, classes);
    const V tops = V{} + top;
    const T lowest = static_cast<T>(-HUGE_VAL);
    rows.top[l] = top;
    rows.powers[l] = sum_along(row, ahead, classes, lowest, [=](V z) { return power_term(z, tops); });
    if (smoothing_weight != T(0))
      rows.smoothing[l] =
          sum_along(row, row, classes, top, [=](V z) { return smoothing_term(z, tops, smoothing_weight); });
  }
}

// The losses of `count` rows, from row `first` of all draws' rows on.
template <typename T, typename L>
void losses_of_block(const BestOfKArgs<L>& args, int64_t first, int count, T* losses) {
  const L* logits = args.logits + first * args.classes;
  const T label_smoothing = static_cast<T>(args.label_smoothing),
          smoothing_weight = static_cast<T>(args.label_smoothing / args.classes);
  RowSums<T> rows;
  if (smoothing_weight == T(0)) memset(rows.smoothing, 0, sizeof rows.smoothing);
  if (args.classes <= kNarrow) {
    sum_narrow_rows(logits, count, args.classes, smoothing_weight, rows);
  } else {
    sum_wide_rows(logits, count, args.draws * args.rows - first, args.classes, smoothing_weight, rows);
  }
  for (int64_t l = 0, sample = first % args.rows; l < count; ++l, sample = sample + 1 == args.rows ? 0 : sample + 1) {
    const int64_t label = args.target[sample];
    const bool ignored = label == args.ignore_index;
    rows.at_target[l] = widen(logits[l * args.classes + (ignored ? 0 : label)]);
    if (ignored) {  // sums that give a loss of 0
      rows.powers[l] = T(1);
      rows.top[l] = rows.at_target[l] = rows.smoothing[l] = T(0);
    }
  }
#pragma omp simd
  for (int l = 0; l < count; ++l)
    losses[first + l] =
        cross_entropy(rows.powers[l], rows.top[l], rows.at_target[l], rows.smoothing[l], label_smoothing);
}

template <typename T, typename L>
void worst_of_each_sample(const BestOfKArgs<L>& args, const T* losses, int64_t begin, int64_t end) {
  T* worst = args.loss;
  int64_t* index = args.index;
  for (int64_t draw = 0; draw < args.draws; ++draw) {
    const T* loss = losses + draw * args.rows;
    const int64_t number = args.first + draw;
#pragma omp simd
    for (int64_t b = begin; b < end; ++b) {
      const bool take = worse(loss[b], worst[b]);
      worst[b] = take ? loss[b] : worst[b];
      index[b] = take ? number : index[b];
    }
  }
}

// Adds in the same order for a draw and for the worst so far, so that the chunks of draws make no difference.
template <typename T>
double total(const T* loss, int64_t rows) {
  Doubles sum[kRegisters] = {};
  const int64_t vectorized = rows / kLanes * kLanes;
  for (int64_t i = 0; i < vectorized; i += kLanes)
    for (int r = 0; r < kRegisters; ++r) sum[r] += load(loss + i + r * kWidth);
  double rest = 0.0;
  for (int64_t i = vectorized; i < rows; ++i) rest += loss[i];
  return sum_of_lanes(sum) + rest;
}

template <typename T, typename L>
void worst_of_batch(const BestOfKArgs<L>& args, const T* losses, int threads) {
  const Buffer<double> buffer(args.draws);
  double* totals = buffer.data();
  parallel_rows(args.draws, threads, [&](int64_t draw) { totals[draw] = total(losses + draw * args.rows, args.rows); });
  double worst = total(args.loss, args.rows);
  int64_t winner = -1;
  for (int64_t draw = 0; draw < args.draws; ++draw)
    if (worse(totals[draw], worst)) worst = totals[winner = draw];
  if (winner < 0) return;
  memcpy(args.loss, losses + winner * args.rows, args.rows * sizeof(T));
  for (int64_t b = 0; b < args.rows; ++b) args.index[b] = args.target[b] == args.ignore_index ? 0 : args.first + winner;
}

}  // namespace

template <typename L>
void best_of_k(const BestOfKArgs<L>& args, Target target) {
  using T = ComputeType<L>;
  const int64_t rows = args.draws * args.rows;
  const int step = rows_at_a_time(args.classes);
  const Buffer<T> losses(rows);
  parallel_rows((rows + step - 1) / step, target.threads, [&](int64_t block) {
    const int count = static_cast<int>(min_of<int64_t>(step, rows - block * step));
    losses_of_block(args, block * step, count, losses.data());
  });
  for (int64_t b = 0; b < args.rows; ++b) {
    const bool ignored = args.target[b] == args.ignore_index;
    if (ignored || args.first_chunk) {
      args.loss[b] = ignored ? T(0) : static_cast<T>(NAN);
      args.index[b] = 0;
    }
  }
  constexpr int64_t kColumns = 1 << 12;
  const int threads = args.rows > kColumns ? target.threads : 1;  // one comparison per row is not worth waking threads
  if (args.whole_batch) {
    worst_of_batch(args, losses.data(), threads);
    return;
  }
  parallel_rows((args.rows + kColumns - 1) / kColumns, threads, [&](int64_t part) {
    worst_of_each_sample(args, losses.data(), part * kColumns, min_of(args.rows, (part + 1) * kColumns));
  });
}

template void best_of_k(const BestOfKArgs<float>&, Target);
template void best_of_k(const BestOfKArgs<double>&, Target);
template void best_of_k(const BestOfKArgs<BFloat16>&, Target);
template void best_of_k(const BestOfKArgs<Float16>&, Target);

}  // namespace robustperf::ROBUSTPERF_TARGET
