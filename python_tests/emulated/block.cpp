// Runs blocks of threads for cuda_runtime.h.
#include <dlfcn.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <climits>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

namespace emulated {
namespace {

constexpr unsigned kMostThreads = 1024, kMostCluster = 8;
constexpr size_t kStack = 256 << 10, kGuard = 4 << 10;
constexpr const char* kNames[] = {"", "__syncthreads", "barrier.cluster", "__syncwarp", "a shuffle", "__ballot_sync"};

cudaError_t lasting_error = cudaSuccess;

std::string setting(const char* name, const char* otherwise) {
  const char* value = getenv(name);
  return value == nullptr ? otherwise : value;
}

// The function and line at an address, from the debugging information, with the calls that were inlined there.
std::string name_of(const void* code) {
  Dl_info module{};
  if (dladdr(code, &module) == 0) return "?";
  char command[4096], text[4096] = "";
  snprintf(command, sizeof command, "addr2line -Cfipe '%s' %#tx", module.dli_fname,
           static_cast<const char*>(code) - static_cast<const char*>(module.dli_fbase));
  FILE* answer = popen(command, "r");
  if (answer == nullptr) return "?";
  text[fread(text, 1, sizeof text - 1, answer)] = 0;
  pclose(answer);
  std::string name = text;
  while (!name.empty() && name.back() == '\n') name.pop_back();
  return name;
}

// Logs the address of a launched function in its module, the first time.
void note(const void* function) {
  static std::set<const void*> noted;
  const std::string path = setting("EMULATED_LOG", "");
  Dl_info module{};
  if (path.empty() || !noted.insert(function).second || dladdr(function, &module) == 0) return;
  FILE* log = fopen(path.c_str(), "a");
  if (log == nullptr) return;
  fprintf(log, "%tx\n", static_cast<const char*>(function) - static_cast<const char*>(module.dli_fbase));
  fclose(log);
}

struct Thread {
  jmp_buf at;
  bool started, ended;
  Wait waits;         // kNothing: it can run
  const void* where;  // in the code
  unsigned lanes, source;
  uint64_t value, result;
};

// The blocks of a cluster, which wait for each other.
struct Cluster {
  const void* function;
  void (*call)(const void*);
  const void* body;
  unsigned size, arrived = 0, ended = 0, turn = 0;
  std::mutex mutex;
  std::condition_variable all_here;

  // Called when all threads of a block are at the barrier or have ended.
  void arrive(bool ends) {
    std::unique_lock<std::mutex> lock(mutex);
    ++(ends ? ended : arrived);
    if (arrived > 0 && ended > 0 && arrived + ended == size) {
      fprintf(stderr,
              "emulated CUDA: %s: not all blocks of a cluster came. Of %u\n  %u wait at barrier.cluster\n"
              "  %u have ended\n",
              name_of(function).c_str(), size, arrived, ended);
      abort();
    }
    if (ends) return;
    if (arrived == size) {
      arrived = 0, ++turn;
      all_here.notify_all();
    } else {
      all_here.wait(lock, [this, now = turn] { return turn != now; });
    }
  }
};

// Stacks for the threads of a block, with guard pages between them; blocks reuse them.
struct Stacks {
  static inline std::mutex mutex;
  static inline std::vector<char*> spare;
  char* first;

  Stacks() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!spare.empty()) {
      first = spare.back();
      spare.pop_back();
      return;
    }
    void* all = mmap(nullptr, kMostThreads * kStack, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    first = static_cast<char*>(all);
    bool failed = all == MAP_FAILED;
    for (unsigned t = 0; t < kMostThreads && !failed; ++t)
      failed = mprotect(first + t * kStack, kGuard, PROT_NONE) != 0;
    if (failed) throw std::runtime_error("emulated CUDA: no memory for the stacks of a block's threads");
  }
  ~Stacks() {
    const std::lock_guard<std::mutex> lock(mutex);
    spare.push_back(first);
  }
};

// The threads of a block: fibers, which run block after block of this thread of the operating system.
struct Block {
  std::vector<Thread> threads{kMostThreads};
  Stacks stacks;
  jmp_buf scheduler;
  Cluster* cluster = nullptr;

  void run(Cluster& its) {
    const bool reverse = setting("EMULATED_ORDER", "") == "reverse";
    const unsigned count = blockDim.x;
    cluster = &its;
    for (unsigned i = 0; i < count; ++i) threads[i].ended = false;
    for (;;) {
      bool ran = false;
      for (unsigned i = 0; i < count; ++i) {
        const unsigned t = reverse ? count - 1 - i : i;
        if (threads[t].ended || threads[t].waits != kNothing) continue;
        resume(t);
        ran = true;
      }
      if (ran) continue;
      unsigned at[kBallot + 1] = {};
      for (unsigned i = 0; i < count; ++i) ++at[threads[i].waits];
      if (at[kNothing] == count) break;
      if (at[kCluster] == count)
        cluster->arrive(false);
      else if (at[kBlock] != count)
        stuck();
      for (unsigned i = 0; i < count; ++i) threads[i].waits = kNothing;
    }
    cluster->arrive(true);
  }

  // No thread can run.
  [[noreturn]] void stuck() const {
    std::map<std::string, unsigned> counts;
    for (unsigned i = 0; i < blockDim.x; ++i) {
      const Thread& t = threads[i];
      const std::string at = std::string("wait at ") + kNames[t.waits] + " in ";
      ++counts[t.ended ? "have ended" : at + name_of(static_cast<const char*>(t.where) - 1)];
    }
    fprintf(stderr, "emulated CUDA: %s, block %u: not all threads came. Of %u\n", name_of(cluster->function).c_str(),
            blockIdx.x, blockDim.x);
    for (const auto& [where, number] : counts) fprintf(stderr, "  %u %s\n", number, where.c_str());
    abort();
  }

  [[gnu::noinline]] void resume(unsigned t) {
    threadIdx = {t, 0, 0};
    Thread& thread = threads[t];
    if (_setjmp(scheduler) != 0) return;
    if (thread.started) _longjmp(thread.at, 1);
    thread.started = true;
    start(stacks.first + t * kStack);
  }

  [[gnu::noinline]] void leave(Thread& me) {
    if (_setjmp(me.at) == 0) _longjmp(scheduler, 1);
  }

  // Once per fiber: ucontext's own switch makes a system call each time, setjmp none.
  void start(char* stack);
};

thread_local Block block;

void serve() {
  for (;;) {
    block.cluster->call(block.cluster->body);
    Thread& me = block.threads[threadIdx.x];
    me.ended = true;
    block.leave(me);
  }
}

void Block::start(char* stack) {
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStack;
  makecontext(&context, serve, 0);
  setcontext(&context);
}

}  // namespace

void fail(const char* what) {
  fprintf(stderr, "emulated CUDA: %s, block %u, thread %u: %s\n", name_of(block.cluster->function).c_str(), blockIdx.x,
          threadIdx.x, what);
  abort();
}

void ptx(const char* code) {
  if (strstr(code, "barrier.cluster.arrive") == nullptr) fail(code);
  wait(kCluster, __builtin_return_address(0));
}

void wait(Wait what, const void* where) {
  Thread& me = block.threads[threadIdx.x];
  me.waits = what, me.where = where;
  block.leave(me);
}

uint64_t meet(Wait what, unsigned lanes, uint64_t value, unsigned source, const void* where) {
  const unsigned lane = threadIdx.x % kWarp, there = blockDim.x - (threadIdx.x - lane);
  Thread *const warp = &block.threads[threadIdx.x - lane], &me = warp[lane];
  if ((lanes >> lane & 1) == 0) fail("a mask lacks the lane that calls");
  if ((lanes >> source & 1) == 0 && what == kShuffle) fail("a shuffle reads a lane that its mask lacks");
  me.waits = what, me.where = where, me.lanes = lanes, me.value = value, me.source = source;
  for (unsigned l = kWarp; l-- > 0;)
    if ((lanes >> l & 1) != 0 && (l >= there || warp[l].waits != what || warp[l].lanes != lanes)) {
      block.leave(me);
      return me.result;
    }
  // This is the last one.
  uint64_t votes = 0;
  for (unsigned l = 0; l < kWarp; ++l)
    if ((lanes >> l & 1) != 0) votes |= uint64_t{warp[l].value != 0} << l;
  for (unsigned l = 0; l < kWarp; ++l)
    if ((lanes >> l & 1) != 0) {
      warp[l].result = what == kShuffle ? warp[warp[l].source].value : votes;
      warp[l].waits = kNothing;
    }
  return me.result;
}

cudaError_t sticky() { return lasting_error; }

cudaError_t launch(const cudaLaunchConfig_t& config, const void* function, void (*call)(const void*),
                   const void* body) {
  const std::string trap = setting("EMULATED_TRAP", "");
  if (!trap.empty() && name_of(function).find(trap) != std::string::npos) lasting_error = cudaErrorIllegalInstruction;
  if (lasting_error != cudaSuccess) return lasting_error;
  note(function);
  const dim3 grid = config.gridDim, threads = config.blockDim;
  const unsigned size = config.numAttrs > 0 ? config.attrs->val.clusterDim.x : 1;
  int capability = 0;
  cudaDeviceGetAttribute(&capability, cudaDevAttrComputeCapabilityMajor, 0);
  if (grid.x < 1 || grid.x > INT_MAX || threads.x < 1 || threads.x > kMostThreads || size < 1 || size > kMostCluster ||
      grid.x % size != 0 || grid.y * grid.z * threads.y * threads.z != 1 || (size > 1 && capability < 9))
    return cudaErrorInvalidValue;
  for (unsigned first = 0; first < grid.x; first += size) {
    Cluster cluster{function, call, body, size, 0, 0, 0, {}, {}};
    const auto run = [&](unsigned place) {
      blockIdx = {first + place, 0, 0}, blockDim = {threads.x, 1, 1}, gridDim = {grid.x, 1, 1};
      block.run(cluster);
    };
    std::vector<std::thread> others;
    for (unsigned place = 1; place < size; ++place) others.emplace_back(run, place);
    run(0);
    for (std::thread& other : others) other.join();
  }
  return cudaSuccess;
}

}  // namespace emulated

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const std::string capability = emulated::setting("EMULATED_CAPABILITY", "9");
  return emulated::answer(value, attribute == cudaDevAttrMultiProcessorCount ? 2 : atoi(capability.c_str()));
}
