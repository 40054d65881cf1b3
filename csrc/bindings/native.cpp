// robustperf._native: the ops on the CPU.
#include <pybind11/pybind11.h>

#include <array>
#include <string>
#include <vector>

#include "../core/philox.hpp"
#include "instruction_set.hpp"
#include "ops.hpp"

namespace robustperf {
namespace {

struct Cpu {
  static constexpr Device kDevice = Device::cpu;
  static constexpr const char* kWhere = "threads";
  using Key = uint64_t;

  template <typename Args>
  static void set_key(Args& args, Key key) {
    args.key = key;
  }

  template <typename Run>
  static void run(int64_t elements, int64_t threads, Run&& run) {
    const int count = threads_for(elements, threads);
    py::gil_scoped_release release;
    on_cpu(count, run);
  }
};

std::vector<uint32_t> philox_words(const std::array<uint32_t, 4>& counter, const std::array<uint32_t, 2>& key) {
  const host::Words words = host::philox({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  return {words.w, words.w + 4};
}

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (InstructionSet isa : supported_instruction_sets()) names.emplace_back(name_of(isa));
  return names;
}

}  // namespace
}  // namespace robustperf

PYBIND11_MODULE(_native, module) {
  using namespace robustperf;
  module.doc() = "The native CPU ops of robustperf; call them through robustperf.ops.";
  chosen_instruction_set();  // a wrong ROBUSTPERF_CPU is an error of the import, not of the first op
  def_ops<Cpu>(module);
  module.def("philox", &philox_words, "The four output words of Philox4x32-10.", py::arg("counter"), py::arg("key"));
  module.def("isa", [] { return name_of(chosen_instruction_set()); }, "The instruction set in use.");
  module.def("isas", &isa_names, "The instruction sets that this processor supports, the narrowest first.");
}
